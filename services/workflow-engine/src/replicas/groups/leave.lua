#!lua flags=allow-oom
-- Takes a run out of a group, unless it was retried and has joined anew.
-- KEYS: the group. ARGV: run, retries.
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then
    return redis.call('HDEL', KEYS[1], ARGV[1])
end
return 0
