#!lua
-- Lets a run join a group in which there is room, or in which it is: 1, else 0. How often the run was retried is kept with it.
-- KEYS: the group. ARGV: run, retries, how many may be in it.
local call = redis.call
if call('HEXISTS', KEYS[1], ARGV[1]) == 0 and call('HLEN', KEYS[1]) >= tonumber(ARGV[3]) then
    return 0
end
call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
