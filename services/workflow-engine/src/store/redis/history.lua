#!lua flags=no-writes
-- Entries of a journal from one on: no more than a number of them and, beyond the first, of bytes.
-- KEYS: the journal. ARGV: the first, the number, the bytes.
local from, limit, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local found, bytes = {}, 0
while #found < limit do
    local first = from + #found
    local part = redis.call('LRANGE', KEYS[1], first, first + math.min(32, limit - #found) - 1)
    if #part == 0 then
        break
    end
    for _, entry in ipairs(part) do
        bytes = bytes + #entry
        if #found > 0 and bytes > most then
            return found
        end
        found[#found + 1] = entry
    end
end
return found
