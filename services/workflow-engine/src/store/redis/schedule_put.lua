#!lua
-- Writes a schedule whose revision before is the expected one, '' for none: 1, or 0 when it is not.
-- KEYS: 1 order, 2 schedules, 3 revisions, 4 tokens. ARGV: 1 place, 2 token, 3 revision before or '', 4 revision, 5 text.
if redis.call('HGET', KEYS[4], ARGV[1]) == ARGV[2] then
    return 1
end
if (redis.call('HGET', KEYS[3], ARGV[1]) or '') ~= ARGV[3] then
    return 0
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[5])
redis.call('HSET', KEYS[3], ARGV[1], ARGV[4])
redis.call('HSET', KEYS[4], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[1], 0, ARGV[1])
return 1
