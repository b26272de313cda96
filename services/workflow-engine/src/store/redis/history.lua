#!lua flags=no-writes
-- Entries of a journal from one on: no more than a number of them and, beyond the first, of bytes. What is answered begins with
-- how many entries were forgotten before those that are there.
-- KEYS: the run, the journal. ARGV: the first, the number, the bytes.
local from, limit, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local forgotten = redis.call('HGET', KEYS[1], 'first') or '0'
local found, bytes = { forgotten }, 0
from = from - tonumber(forgotten)
if from < 0 then
    return found
end
while #found <= limit do
    local first = from + #found - 1
    local part = redis.call('LRANGE', KEYS[2], first, first + math.min(32, limit - #found + 1) - 1)
    if #part == 0 then
        break
    end
    for _, entry in ipairs(part) do
        bytes = bytes + #entry
        if #found > 1 and bytes > most then
            return found
        end
        found[#found + 1] = entry
    end
end
return found
