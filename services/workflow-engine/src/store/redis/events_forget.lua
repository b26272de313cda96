-- Forgets events that were added before a time, the oldest first; how many.
-- ARGV: the time, the most.
local count = forget_oldest(tonumber(ARGV[2]), function(fields)
    return fields.r < ARGV[1]
end)
return count
