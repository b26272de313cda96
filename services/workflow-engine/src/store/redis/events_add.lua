-- Adds events that are not there, all in one step. Answers {1, position, 1 if it was there before, …}; or {0} when the oldest
-- have been forgotten and there is still not enough room: to be called again.
-- ARGV: 1 token, 2 most events, 3 most bytes, 4 how many to forget at once, 5 number of events, then name, type, time and text
--   of each. No name comes twice.
local call, at = redis.call, 6
local known, fresh, added = {}, 0, 0
for i = 1, tonumber(ARGV[5]) do
    local first = at + (i - 1) * 4
    known[i] = call('HGET', KEYS[2], ARGV[first])
    if not known[i] then
        fresh, added = fresh + 1, added + #ARGV[first + 3]
    end
end
local tail = call('HMGET', KEYS[4], 'count', 'bytes', 'last', 'server')
local count, bytes = tonumber(tail[1] or '0'), tonumber(tail[2] or '0')
local function fits()
    return count + fresh <= tonumber(ARGV[2]) and bytes + added <= tonumber(ARGV[3])
end
if fresh > 0 and not fits() then
    local gone, freed = forget_oldest(tonumber(ARGV[4]), function() return true end)
    count, bytes = count - gone, bytes - freed
    if gone > 0 and not fits() then
        return {0}
    end
end
if fresh > 0 then
    local here = server()
    if tail[4] ~= here then
        -- It may lack events whose positions are known elsewhere, and be it all of them.
        if tail[3] or tail[4] then
            call('HINCRBY', KEYS[4], 'last', 1048576)
        end
        call('HSET', KEYS[4], 'server', here)
    end
end
local answer = {1}
for i = 1, tonumber(ARGV[5]) do
    local first = at + (i - 1) * 4
    local position, before = known[i], 1
    if position then
        -- A call that is repeated finds its own.
        local entry = call('XRANGE', KEYS[1], position, position)[1]
        for field = 1, entry and #entry[2] or 0, 2 do
            if entry[2][field] == 't' and entry[2][field + 1] == ARGV[1] then
                before = 0
            end
        end
    else
        call('HINCRBY', KEYS[4], 'last', 1)
        position, before = call('HGET', KEYS[4], 'last'), 0
        call('XADD', KEYS[1], position .. '-0', 'n', ARGV[first], 'k', ARGV[first + 1], 'r', ARGV[first + 2],
            'e', ARGV[first + 3], 't', ARGV[1])
        call('HSET', KEYS[2], ARGV[first], position)
        call('ZADD', KEYS[3], 0, ARGV[first + 1] .. '\0' .. string.format('%016x', tonumber(position)))
    end
    answer[#answer + 1] = position
    answer[#answer + 1] = before
end
if fresh > 0 then
    call('HINCRBY', KEYS[4], 'count', fresh)
    call('HINCRBY', KEYS[4], 'bytes', added)
end
return answer
