#!lua flags=allow-oom
-- Forgets what runs of one namespace used on days before one; how many figures.
-- KEYS: 1 spent, 2 spent in order, 3 total of the namespace. ARGV: the places to forget, each after its day.
local forgotten = 0
local function subtract(field, figure)
    if figure and figure ~= '0' and redis.call('HINCRBY', KEYS[3], field, '-' .. figure) == 0 then
        redis.call('HDEL', KEYS[3], field)
    end
end
for i = 1, #ARGV, 2 do
    local day, place = ARGV[i], ARGV[i + 1]
    local former = redis.call('HGET', KEYS[1], place)
    if former then
        local tokens, cost = string.match(former, '^(%d+) (%d+)$')
        subtract(day .. ' tokens', tokens)
        subtract(day .. ' cost', cost)
        redis.call('HDEL', KEYS[1], place)
    end
    forgotten = forgotten + redis.call('ZREM', KEYS[2], place)
end
return forgotten
