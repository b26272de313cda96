-- What there is of a task: version, number of its last event, who works on it or '', record, then the events that are not in the
-- record, oldest first; nothing where it is not known.
local function contents(base, id)
    local known = redis.call('HMGET', base .. 'task:' .. id, 'version', 'number', 'owner', 'busy', 'record', 'at')
    if not known[1] then
        return {}
    end
    local worker = known[4] == '1' and known[3] or ''
    local answer = {known[1], known[2], worker, known[5]}
    for _, event in ipairs(redis.call('XRANGE', base .. 'feed:' .. id, '(' .. known[6] .. '-0', '+')) do
        answer[#answer + 1] = event[2][2]
    end
    return answer
end
