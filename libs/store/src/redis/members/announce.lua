#!lua flags=allow-oom
-- Says that a member lives, and answers all who do, as name, address, name, address and so on. Those whose time has run out are
-- forgotten. A full Redis allows it too: whoever makes room in a store has to know whose it is.
-- KEYS: the members. ARGV: name, address, time to live in milliseconds.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', now + ARGV[3]) .. ' ' .. ARGV[2])
local known = redis.call('HGETALL', KEYS[1])
local alive = {}
for i = 1, #known, 2 do
    local ends, address = string.match(known[i + 1], '^(%d+) (.*)$')
    if ends and tonumber(ends) > now then
        alive[#alive + 1] = known[i]
        alive[#alive + 1] = address
    else
        redis.call('HDEL', KEYS[1], known[i])
    end
end
return alive
