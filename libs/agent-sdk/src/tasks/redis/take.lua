-- Takes over what an instance held whose lease has ended, some tasks at a time. The first of the answer is {'alive'} where the
-- lease has not ended, {'lost'} where that of who asks has gone, or {'taken', how many are left}; then {id, contents …} of each
-- task. What is asked twice takes more; who asks finds what it has been given in its own list.
-- KEYS: 1 the leases. ARGV: 1 what all keys start with, 2 who asks, 3 whose tasks, 4 most tasks.
local call, base, me, other = redis.call, ARGV[1], ARGV[2], ARGV[3]
if not call('ZSCORE', KEYS[1], me) then
    return {{'lost'}}
end
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ends = call('ZSCORE', KEYS[1], other)
if ends and tonumber(ends) > now then
    return {{'alive'}}
end
local held, mine = base .. 'held:' .. other, base .. 'held:' .. me
local tasks = {}
for _, id in ipairs(call('SRANDMEMBER', held, ARGV[4])) do
    call('SREM', held, id)
    local key = base .. 'task:' .. id
    if call('HGET', key, 'owner') == other then
        call('HINCRBY', key, 'version', 1)
        call('HSET', key, 'writer', me, 'draft', '0', 'owner', me, 'busy', '1')
        call('SADD', mine, id)
        call('ZREM', base .. 'resting', id)
        local task = contents(base, id)
        table.insert(task, 1, id)
        tasks[#tasks + 1] = task
    end
end
local left = call('SCARD', held)
if left == 0 then
    call('ZREM', KEYS[1], other)
    call('DEL', base .. 'wishes:' .. other)
end
local answer = {{'taken', tostring(left)}}
for _, task in ipairs(tasks) do
    answer[#answer + 1] = task
end
return answer
