#!lua flags=no-writes
-- How far the store is: {} if there is none, else {format, incarnation, revision, token of the last change, expired, lease time,
-- lag, then lease and deadline of each that was renewed since}.
-- KEYS: 1 state, 2 deadlines. ARGV: 1 deadline after which leases are answered, or '', 2 most of them, 3 most by which lease time
-- moves.
local state = redis.call('HMGET', KEYS[1], 'format', 'incarnation', 'revision', 'last', 'expired', 'lag', 'tick')
if not state[2] then
    return {}
end
local time = redis.call('TIME')
local wall = time[1] * 1000 + math.floor(time[2] / 1000)
local tick = tonumber(state[7])
local now = tick + math.max(0, math.min(wall - state[6] - tick, ARGV[3]))
local found = { state[1], state[2], state[3], state[4], state[5], string.format('%.0f', now), string.format('%.0f', wall - now) }
if ARGV[1] ~= '' then
    local heard = redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[2])
    for i = 1, #heard do
        found[#found + 1] = heard[i]
    end
end
return found
