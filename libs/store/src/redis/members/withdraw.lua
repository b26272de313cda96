#!lua flags=allow-oom
-- Says that a member goes.
-- KEYS: the members. ARGV: name.
return redis.call('HDEL', KEYS[1], ARGV[1])
