-- Entries of a list after a sequence. Answers their records.
-- KEYS: 1 what all names start with. ARGV: 1 list, 2 sequence, 3 how many.
local answer = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1] .. ARGV[1], '(' .. ARGV[2], '+inf', 'LIMIT', 0, ARGV[3])) do
    answer[#answer + 1] = redis.call('HGET', KEYS[1] .. 'entry:' .. id, 'r') or ''
end
return answer
