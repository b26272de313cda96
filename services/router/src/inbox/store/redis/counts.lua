-- Answers {time, how many are pending, delivering, done and dead, record of the oldest that is pending or '', then target and
-- size of the largest queues}. KEYS: 1 what all names start with. ARGV: 2 how many targets.
local call, base = redis.call, KEYS[1]
local answer = {time()}
for _, status in ipairs({'pending', 'delivering', 'done', 'dead'}) do
    answer[#answer + 1] = tostring(call('ZCARD', base .. status))
end
local oldest = call('ZRANGE', base .. 'pending', 0, 0)[1]
answer[#answer + 1] = oldest and call('HGET', base .. 'entry:' .. oldest, 'r') or ''
for _, part in ipairs(call('ZREVRANGE', base .. 'open', 0, tonumber(ARGV[2]) - 1, 'WITHSCORES')) do
    answer[#answer + 1] = part
end
return answer
