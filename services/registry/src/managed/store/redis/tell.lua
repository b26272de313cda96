#!lua
-- The keeper says what it has found: 'told'; 'lost' where it is the keeper no longer; 'gone' where the agent is kept no longer.
-- KEYS: entries, found, lease. ARGV: the keeper's fence, field, what was found.
local lease = redis.call('HMGET', KEYS[3], 'epoch', 'owner')
if (lease[1] or '') .. ' ' .. (lease[2] or '') ~= ARGV[1] then
    return 'lost'
end
if redis.call('HEXISTS', KEYS[1], ARGV[2]) == 0 then
    return 'gone'
end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
return 'told'
