-- Keeps an agent. ARGV: an id for the store where it has none, field, what was asked for, what was found or nothing.
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
if ARGV[4] ~= '' then
    redis.call('HSET', KEYS[2], ARGV[2], ARGV[4])
end
changed(ARGV[1])
return 1
