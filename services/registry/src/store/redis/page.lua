#!lua flags=no-writes
-- Some of a hash: the cursor for the next, then id, value and profile of each.
-- KEYS: 1 the hash, 2 profiles. ARGV: 1 cursor, 2 about how many.
local page = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
local found = { page[1] }
for i = 1, #page[2], 2 do
    local id = page[2][i]
    found[#found + 1] = id
    found[#found + 1] = page[2][i + 1]
    found[#found + 1] = redis.call('HGET', KEYS[2], id) or ''
end
return found
