#!lua flags=allow-oom
-- Says that an instance lives. Answers {{'alive'}, tasks that it holds, instances whose leases have ended}, or {{'lost'}} where
-- others have taken over all that it had. A lease that has run out, and that nobody has taken over, is still its own. A full
-- Redis allows it too: else everybody would be taken for dead.
-- KEYS: 1 the leases. ARGV: 1 what all keys start with, 2 the instance, 3 milliseconds, 4 1 to begin.
local call = redis.call
if ARGV[4] ~= '1' and not call('ZSCORE', KEYS[1], ARGV[2]) then
    return {{'lost'}}
end
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[3]), ARGV[2])
local ended = call('ZRANGE', KEYS[1], '-inf', string.format('%.0f', now), 'BYSCORE', 'LIMIT', 0, 16)
return {{'alive'}, call('SMEMBERS', ARGV[1] .. 'held:' .. ARGV[2]), ended}
