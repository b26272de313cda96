-- Keeps an agent no longer. ARGV: an id for the store where it has none, field.
redis.call('HDEL', KEYS[2], ARGV[2])
if redis.call('HDEL', KEYS[1], ARGV[2]) == 1 then
    changed(ARGV[1])
end
return 1
