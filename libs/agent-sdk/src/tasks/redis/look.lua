#!lua flags=no-writes
-- What others wish of an instance: wish, what belongs to it, and so on.
-- KEYS: 1 the leases. ARGV: 1 what all keys start with, 2 the instance.
return redis.call('HGETALL', ARGV[1] .. 'wishes:' .. ARGV[2])
