-- An entry as it is. Answers {time, token or '', record or ''}. KEYS: 1 what all names start with. ARGV: 2 id.
local known = redis.call('HMGET', KEYS[1] .. 'entry:' .. ARGV[2], 'v', 'r')
return {time(), known[1] or '', known[2] or ''}
