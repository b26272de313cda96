#!lua
-- Keeps payloads of a run that are not there. Answers 1, or -1 when the partition is no longer the caller's.
-- KEYS: 1 lease, 2 payloads of the run. ARGV: 1 fence or '', then each payload as field, text.
local lease = redis.call('HMGET', KEYS[1], 'epoch', 'owner')
if ARGV[1] ~= '' and (lease[1] or '') .. ' ' .. (lease[2] or '') ~= ARGV[1] then
    return -1
end
for i = 2, #ARGV, 2 do
    redis.call('HSETNX', KEYS[2], ARGV[i], ARGV[i + 1])
end
return 1
