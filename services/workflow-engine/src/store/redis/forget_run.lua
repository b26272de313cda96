#!lua flags=allow-oom
-- Forgets some of an ended run. Answers 1 if there is more of it, 0 when nothing is left, -1 when the partition is no longer
-- the caller's, -2 when the run has not ended. The place by end goes last: until then a crash only means that the rest is
-- forgotten later. Allowed in a full Redis, since it makes room.
--
-- KEYS: 1 lease, 2 run, 3 journal, 4 created, 5 ended, 6 approvals of the run, 7 open approvals, 8 all approvals,
--   9 payloads.
-- ARGV: 1 fence or '', 2 how many entries and approvals at once.
local call, run, portion = redis.call, KEYS[2], tonumber(ARGV[2])
local lease = call('HMGET', KEYS[1], 'epoch', 'owner')
if ARGV[1] ~= '' and (lease[1] or '') .. ' ' .. (lease[2] or '') ~= ARGV[1] then
    return -1
end
local known = call('HMGET', run, 'head', 'created', 'ended')
if not known[1] then
    return 0
end
if not known[3] or known[3] == '' then
    return -2
end
-- Nobody takes the journal further from here on.
if known[1] ~= 'forgotten' then
    call('HSET', run, 'head', 'forgotten', 'token', '')
end
if call('LLEN', KEYS[3]) > portion then
    call('LTRIM', KEYS[3], 0, -portion - 1)
    return 1
end
call('UNLINK', KEYS[3], KEYS[9])
if call('EXISTS', KEYS[6]) == 1 then
    local some = call('HSCAN', KEYS[6], 0, 'COUNT', portion)[2]
    for i = 1, #some, 2 do
        local place = string.match(some[i + 1], '^([^\n]*)\n')
        if place then
            call('ZREM', KEYS[7], place)
            call('ZREM', KEYS[8], place)
        end
        call('HDEL', KEYS[6], some[i])
    end
    return 1
end
call('ZREM', KEYS[4], known[2])
call('UNLINK', run)
call('ZREM', KEYS[5], known[3])
return 0
