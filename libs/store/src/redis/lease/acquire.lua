#!lua flags=allow-oom
-- Takes a lease that is free, has run out, or is the owner's own. Answers {1, epoch, server}, or {0, owner, address, epoch,
-- remaining milliseconds} of who has it. A full Redis allows it too: whoever makes room in a store needs its leases.
-- KEYS: the lease. ARGV: owner, address, time to live in milliseconds.
local lease = redis.call('HMGET', KEYS[1], 'owner', 'address', 'epoch', 'until')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ends = tonumber(lease[4] or '0')
if lease[1] and lease[1] ~= '' and lease[1] ~= ARGV[1] and ends > now then
    return {0, lease[1], lease[2], lease[3], string.format('%.0f', ends - now)}
end
-- A counter of Redis, because numbers of scripts are not exact at 64 bits.
local epoch = redis.call('HINCRBY', KEYS[1], 'epoch', 1)
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'address', ARGV[2], 'until', string.format('%.0f', now + ARGV[3]))
return {1, redis.call('HGET', KEYS[1], 'epoch'), server()}
