#!lua flags=allow-oom
-- Prolongs a lease: the server that has it, or nothing if somebody else has taken it since. One that has run out and that nobody took is still its
-- owner's: the epoch says so.
-- KEYS: the lease. ARGV: owner, epoch, time to live in milliseconds.
local lease = redis.call('HMGET', KEYS[1], 'owner', 'epoch')
if lease[1] ~= ARGV[1] or lease[2] ~= ARGV[2] then
    return false
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], 'until', string.format('%.0f', now + ARGV[3]))
return server()
