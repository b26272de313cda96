#!lua flags=no-writes
-- Who has a lease: {owner, address, epoch, remaining milliseconds}; the owner is empty where nobody has.
-- KEYS: the lease.
local lease = redis.call('HMGET', KEYS[1], 'owner', 'address', 'epoch', 'until')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local left = math.max(0, tonumber(lease[4] or '0') - now)
return {lease[1] or '', lease[2] or '', lease[3] or '0', string.format('%.0f', left)}
