#!lua
-- Asks the instance that works on a task for something: 1, 0 where that instance has gone, -1 where it has been asked for as much
-- as may be. The same wish twice is one.
-- KEYS: 1 the leases. ARGV: 1 what all keys start with, 2 the instance, 3 the wish, 4 what belongs to it, 5 most wishes,
--   6 milliseconds after which all are forgotten.
local call, wishes = redis.call, ARGV[1] .. 'wishes:' .. ARGV[2]
if not call('ZSCORE', KEYS[1], ARGV[2]) then
    return 0
end
if call('HLEN', wishes) >= tonumber(ARGV[5]) and call('HEXISTS', wishes, ARGV[3]) == 0 then
    return -1
end
call('HSET', wishes, ARGV[3], ARGV[4])
call('PEXPIRE', wishes, ARGV[6])
return 1
