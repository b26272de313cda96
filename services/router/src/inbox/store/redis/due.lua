-- What is due, and the oldest of what there is too much of. Answers {time, when the next is due or '', number of those that are
-- due, then token and record of each, and of each surplus one}.
-- KEYS: 1 what all names start with. ARGV: 2 how many at most, 3 how many that have ended may stay.
local call, base = redis.call, KEYS[1]
local now = time()
local due = call('ZRANGEBYSCORE', base .. 'due', '-inf', now, 'LIMIT', 0, ARGV[2])
local next = call('ZRANGEBYSCORE', base .. 'due', '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
if #due == tonumber(ARGV[2]) then
    next = {'', now}
end
local answer = {now, next[2] or '', tostring(#due)}
local function add(ids)
    for _, id in ipairs(ids) do
        local known = call('HMGET', base .. 'entry:' .. id, 'v', 'r')
        answer[#answer + 1] = known[1] or ''
        answer[#answer + 1] = known[2] or ''
    end
end
add(due)
for _, status in ipairs({'done', 'dead'}) do
    local surplus = math.min(call('ZCARD', base .. status) - tonumber(ARGV[3]), tonumber(ARGV[2]))
    if surplus > 0 then
        add(call('ZRANGE', base .. status, 0, surplus - 1))
    end
end
return answer
