-- An entry as it is, or else the sequence for a new one. Answers {time, token or '', record or '', sequence or ''}.
-- KEYS: 1 what all names start with. ARGV: 2 id.
local known = redis.call('HMGET', KEYS[1] .. 'entry:' .. ARGV[2], 'v', 'r')
if known[1] then
    return {time(), known[1], known[2], ''}
end
return {time(), '', '', tostring(redis.call('INCR', KEYS[1] .. 'sequence'))}
