#!lua flags=allow-oom
-- Removes a schedule of this revision: 1, or 0 when it has another or is not there.
-- KEYS: 1 order, 2 schedules, 3 revisions, 4 tokens, 5 what tells a call that is repeated that it was done.
-- ARGV: 1 place, 2 revision, 3 for how many milliseconds that is told.
if redis.call('EXISTS', KEYS[5]) == 1 then
    return 1
end
if redis.call('HGET', KEYS[3], ARGV[1]) ~= ARGV[2] then
    return 0
end
for i = 2, 4 do
    redis.call('HDEL', KEYS[i], ARGV[1])
end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('SET', KEYS[5], '1', 'PX', ARGV[3])
return 1
