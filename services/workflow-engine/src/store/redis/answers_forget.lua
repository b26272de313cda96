#!lua flags=allow-oom
-- Forgets answers whose end has come, and of more than are to be kept those that end first; how many.
-- KEYS: 1 answers, 2 ends. ARGV: 1 now, 2 the most to keep, 3 the most to forget.
local surplus = redis.call('ZCARD', KEYS[2]) - tonumber(ARGV[2])
local forgotten = 0
for _, member in ipairs(redis.call('ZRANGEBYLEX', KEYS[2], '-', '+', 'LIMIT', 0, tonumber(ARGV[3]))) do
    local ends, key = string.sub(member, 1, 16), string.sub(member, 17)
    if ends > ARGV[1] and surplus <= 0 then
        break
    end
    surplus = surplus - 1
    -- One that was replaced stands on.
    local answer = redis.call('HGET', KEYS[1], key)
    if answer and string.sub(answer, 1, 16) <= ends then
        redis.call('HDEL', KEYS[1], key)
    end
    redis.call('ZREM', KEYS[2], member)
    forgotten = forgotten + 1
end
return forgotten
