#!lua flags=no-writes
-- All that are kept: {id, number of the last change, what was asked for, what was found or nothing, and so on}; nothing where
-- the caller knows that change.
-- KEYS: entries, found, state. ARGV: id and number that the caller knows.
local state = redis.call('HMGET', KEYS[3], 'id', 'n')
local id, number = state[1] or '', state[2] or '0'
if id == ARGV[1] and number == ARGV[2] then
    return {}
end
local answer = {id, number}
local entries = redis.call('HGETALL', KEYS[1])
for at = 1, #entries, 2 do
    answer[#answer + 1] = entries[at + 1]
    answer[#answer + 1] = redis.call('HGET', KEYS[2], entries[at]) or ''
end
return answer
