#!lua flags=allow-oom
-- Gives a lease back, so that others need not wait for its end.
-- KEYS: 1 the leases. ARGV: 1 what all keys start with, 2 the instance.
local call, base, me = redis.call, ARGV[1], ARGV[2]
if call('SCARD', base .. 'held:' .. me) == 0 then
    call('ZREM', KEYS[1], me)
    call('DEL', base .. 'wishes:' .. me)
elseif call('ZSCORE', KEYS[1], me) then
    call('ZADD', KEYS[1], 0, me)
end
return 1
