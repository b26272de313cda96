-- Takes a task that nobody works on, for who is about to change it. Answers {'mine', contents …}, also when it was taken before;
-- {'unknown'}; {'held'} where another works on it; {'lost'} where the lease of who asks has gone.
-- KEYS: 1 the leases. ARGV: 1 what all keys start with, 2 who asks, 3 task.
local call, base, me, id = redis.call, ARGV[1], ARGV[2], ARGV[3]
if not call('ZSCORE', KEYS[1], me) then
    return {'lost'}
end
local key = base .. 'task:' .. id
local known = call('HMGET', key, 'version', 'owner', 'busy')
if not known[1] then
    return {'unknown'}
end
if known[3] == '1' and known[2] ~= me then
    return {'held'}
end
if known[3] ~= '1' then
    if known[2] ~= '' then
        call('SREM', base .. 'held:' .. known[2], id)
    end
    call('HINCRBY', key, 'version', 1)
    call('HSET', key, 'writer', me, 'draft', '0', 'owner', me, 'busy', '1')
    call('SADD', base .. 'held:' .. me, id)
    call('ZREM', base .. 'resting', id)
end
local answer = {'mine'}
for _, part in ipairs(contents(base, id)) do
    answer[#answer + 1] = part
end
return answer
