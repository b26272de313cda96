#!lua
-- Keeps how far a workflow that events start has read the log. Who has read less far is late, and is not heard: 0.
-- KEYS: the starters. ARGV: name, next position, state.
local known = redis.call('HGET', KEYS[1], ARGV[1])
if known then
    local next = string.match(known, '"next":(%d+)')
    if next and tonumber(next) > tonumber(ARGV[2]) then
        return 0
    end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
