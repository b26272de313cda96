#!lua flags=allow-oom
-- Gives a lease back: 1, or 0 if it was somebody else's. The epoch stays, so that it only grows; and nobody writes under it
-- any more, because the next owner raises it.
-- KEYS: the lease. ARGV: owner, epoch.
local lease = redis.call('HMGET', KEYS[1], 'owner', 'epoch')
if lease[1] ~= ARGV[1] or lease[2] ~= ARGV[2] then
    return 0
end
redis.call('HSET', KEYS[1], 'owner', '', 'until', '0')
return 1
