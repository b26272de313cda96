#!lua flags=no-writes
-- What has happened to a task since an event: {number of its last event, state, then number, text of each event}; nothing where
-- the task is not known.
-- KEYS: 1 the leases. ARGV: 1 what all keys start with, 2 task, 3 number of the last event that is known, 4 most events.
local known = redis.call('HMGET', ARGV[1] .. 'task:' .. ARGV[2], 'number', 'state')
if not known[1] then
    return {}
end
local answer = {known[1], known[2]}
if known[1] ~= ARGV[3] then
    local feed = ARGV[1] .. 'feed:' .. ARGV[2]
    for _, event in ipairs(redis.call('XRANGE', feed, '(' .. ARGV[3] .. '-0', '+', 'COUNT', ARGV[4])) do
        answer[#answer + 1] = string.match(event[1], '^%d+')
        answer[#answer + 1] = event[2][2]
    end
end
return answer
