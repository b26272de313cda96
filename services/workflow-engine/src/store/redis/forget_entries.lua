#!lua flags=allow-oom
-- Forgets entries of a journal before one, no more than a number of them. Answers how many, or -1 when the partition is no longer
-- the caller's. Allowed in a full Redis, since it makes room.
-- KEYS: lease, run, journal. ARGV: fence or '', the entry, the number.
local call = redis.call
local lease = call('HMGET', KEYS[1], 'epoch', 'owner')
if ARGV[1] ~= '' and (lease[1] or '') .. ' ' .. (lease[2] or '') ~= ARGV[1] then
    return -1
end
local forgotten = tonumber(call('HGET', KEYS[2], 'first') or '0')
local count = math.min(tonumber(ARGV[2]) - forgotten, tonumber(ARGV[3]), call('LLEN', KEYS[3]))
if count <= 0 then
    return 0
end
call('LTRIM', KEYS[3], count, -1)
call('HINCRBY', KEYS[2], 'first', count)
return count
