-- KEYS: entries, found, state.
-- What is kept has changed: replicas look at it again.
local function changed(id)
    redis.call('HSETNX', KEYS[3], 'id', id)
    redis.call('HINCRBY', KEYS[3], 'n', 1)
end
