-- Keeps an agent, unless it is kept already; whether it was not. ARGV: an id for the store where it has none, field, what was
-- asked for.
if redis.call('HSETNX', KEYS[1], ARGV[2], ARGV[3]) == 0 then
    return 0
end
changed(ARGV[1])
return 1
