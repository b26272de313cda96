#!lua
-- Keeps an answer in place of the one before.
-- KEYS: 1 answers, 2 ends. ARGV: 1 key, 2 end, 3 text.
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ARGV[3])
redis.call('ZADD', KEYS[2], 0, ARGV[2] .. ARGV[1])
return 1
