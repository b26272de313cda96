#!lua
-- One atomic step of a run: its beginning, an append, or the end's end.
--
-- Answers 1 when it is done, also when it was done before under this token; 0 when somebody else has written; -1 when the
-- partition is no longer the caller's.
--
-- KEYS: 1 lease, 2 run, 3 journal, 4 created, 5 unfinished, 6 ended, 7 approvals of the run, 8 open approvals, 9 all approvals,
--   10 outbox, 11 spent, 12 spent in order, 13 total of the namespace, 14 payloads of the run.
-- ARGV: 1 fence or '', 2 token, 3 create|append|reopen, 4 length before, 5 length after, 6 place by creation, 7 summary,
--   8 record or '', 9 output or '', 10 former place by end or '', 11 place by end or '', 12 place of what was spent or '',
--   13 tokens, 14 cost, 15 day, 16 state or '', 17 1 if it is the base too, then four lists, each after its length: entries; approvals as number, place, 1 if open, text;
--   events as name, type, time, text; payloads as field, text.
local call, run = redis.call, KEYS[2]
local known = call('HMGET', run, 'token', 'head')
if known[1] == ARGV[2] then
    return 1
end
local lease = call('HMGET', KEYS[1], 'epoch', 'owner')
if ARGV[1] ~= '' and (lease[1] or '') .. ' ' .. (lease[2] or '') ~= ARGV[1] then
    return -1
end
local expected = ARGV[4]
if ARGV[3] == 'create' then
    expected = false
end
if known[2] ~= expected then
    return 0
end

local at = 18
local function list(width, take)
    local count = tonumber(ARGV[at])
    at = at + 1
    for _ = 1, count do
        take(at)
        at = at + width
    end
end

list(1, function(i)
    call('RPUSH', KEYS[3], ARGV[i])
end)
call('HSET', run, 'head', ARGV[5], 'token', ARGV[2], 'summary', ARGV[7])
if ARGV[8] ~= '' then
    call('HSET', run, 'record', ARGV[8])
end
if ARGV[9] ~= '' then
    call('HSET', run, 'output', ARGV[9])
end
if ARGV[16] ~= '' then
    call('HSET', run, 'latest', ARGV[16])
    if ARGV[17] == '1' then
        call('HSET', run, 'base', ARGV[16])
    end
end
if ARGV[3] == 'create' then
    call('HSET', run, 'created', ARGV[6], 'ended', '')
    call('ZADD', KEYS[4], 0, ARGV[6])
    call('ZADD', KEYS[5], 0, ARGV[6])
elseif ARGV[3] == 'reopen' then
    call('HSET', run, 'ended', '')
    call('ZREM', KEYS[6], ARGV[10])
    call('ZADD', KEYS[5], 0, ARGV[6])
end
if ARGV[11] ~= '' then
    call('HSET', run, 'ended', ARGV[11])
    call('ZREM', KEYS[5], ARGV[6])
    call('ZADD', KEYS[6], 0, ARGV[11])
end
if ARGV[12] ~= '' then
    -- The total follows each run's own figure. Counted by Redis: numbers of scripts are not exact at 64 bits.
    -- One that grows out of all bounds must not leave half of a step behind, therefore pcall.
    local function count(field, former, now)
        if former ~= '0' then
            redis.pcall('HINCRBY', KEYS[13], ARGV[15] .. field, '-' .. former)
        end
        redis.pcall('HINCRBY', KEYS[13], ARGV[15] .. field, now)
    end
    local former = call('HGET', KEYS[11], ARGV[12]) or '0 0'
    local tokens, cost = string.match(former, '^(%d+) (%d+)$')
    count(' tokens', tokens or '0', ARGV[13])
    count(' cost', cost or '0', ARGV[14])
    call('HSET', KEYS[11], ARGV[12], ARGV[13] .. ' ' .. ARGV[14])
    call('ZADD', KEYS[12], 0, ARGV[12])
end
list(4, function(i)
    call('HSET', KEYS[7], ARGV[i], ARGV[i + 1] .. '\n' .. ARGV[i + 3])
    call('ZADD', KEYS[9], 0, ARGV[i + 1])
    if ARGV[i + 2] == '1' then
        call('ZADD', KEYS[8], 0, ARGV[i + 1])
    else
        call('ZREM', KEYS[8], ARGV[i + 1])
    end
end)
list(4, function(i)
    call('XADD', KEYS[10], '*', 'n', ARGV[i], 'k', ARGV[i + 1], 'r', ARGV[i + 2], 'e', ARGV[i + 3])
end)
list(2, function(i)
    call('HSETNX', KEYS[14], ARGV[i], ARGV[i + 1])
end)
return 1
