#!lua flags=allow-oom
-- Writes over what is kept of an ended run, and forgets its output and its states; nothing is appended to its journal from then
-- on. Answers 1 when it is done, 0 when the run is not there or its journal is not as long, -1 when the partition is no longer
-- the caller's. Done twice it is the same. Allowed in a full Redis, since it takes away.
-- KEYS: 1 lease, 2 run, 3 journal, 4 approvals of the run.
-- ARGV: 1 fence or '', 2 length, 3 summary, 4 record or '', 5 first entry, then two lists, each after its length: entries;
--   approvals as number, place, text.
local call, run = redis.call, KEYS[2]
local lease = call('HMGET', KEYS[1], 'epoch', 'owner')
if ARGV[1] ~= '' and (lease[1] or '') .. ' ' .. (lease[2] or '') ~= ARGV[1] then
    return -1
end
local head = call('HGET', run, 'head')
if head ~= ARGV[2] and head ~= ARGV[2] .. ' erased' then
    return 0
end
call('HSET', run, 'head', ARGV[2] .. ' erased', 'token', '', 'summary', ARGV[3])
call('HDEL', run, 'output', 'latest', 'base')
if ARGV[4] ~= '' then
    call('HSET', run, 'record', ARGV[4])
end
local first = tonumber(ARGV[5]) - tonumber(call('HGET', run, 'first') or '0')
local entries = tonumber(ARGV[6])
for i = 1, entries do
    call('LSET', KEYS[3], first + i - 1, ARGV[6 + i])
end
local at = 7 + entries
for _ = 1, tonumber(ARGV[at]) do
    call('HSET', KEYS[4], ARGV[at + 1], ARGV[at + 2] .. '\n' .. ARGV[at + 3])
    at = at + 3
end
return 1
