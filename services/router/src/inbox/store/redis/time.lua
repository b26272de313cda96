-- The store's time in milliseconds, as text. ARGV: 1 what is added to it, for tests.
local function time()
    local clock = redis.call('TIME')
    return string.format('%.0f', tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000) + tonumber(ARGV[1]))
end
