#!lua
-- Adds a document to the catalogue: 1 when it is there, 0 when somebody else's is.
-- KEYS: 1 order, 2 what is known of each, 3 texts, 4 tokens. ARGV: 1 place, 2 token, 3 what is known, 4 text.
if redis.call('HGET', KEYS[4], ARGV[1]) == ARGV[2] then
    return 1
end
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 1 then
    return 0
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
redis.call('HSET', KEYS[3], ARGV[1], ARGV[4])
redis.call('HSET', KEYS[4], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[1], 0, ARGV[1])
return 1
