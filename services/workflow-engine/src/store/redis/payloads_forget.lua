#!lua flags=allow-oom
-- Forgets payloads of a run. Answers 1, or -1 when the partition is no longer the caller's. Allowed in a full Redis, since it
-- makes room.
-- KEYS: 1 lease, 2 payloads of the run. ARGV: 1 fence or '', then the fields.
local lease = redis.call('HMGET', KEYS[1], 'epoch', 'owner')
if ARGV[1] ~= '' and (lease[1] or '') .. ' ' .. (lease[2] or '') ~= ARGV[1] then
    return -1
end
for i = 2, #ARGV do
    redis.call('HDEL', KEYS[2], ARGV[i])
end
return 1
