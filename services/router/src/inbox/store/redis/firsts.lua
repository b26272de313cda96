-- The first entries of some targets together. Answers {time, then token, record and message of each}.
-- KEYS: 1 what all names start with. ARGV: 2 push|pull, 3 how many, then the targets.
local call, places = redis.call, {}
for number = 4, #ARGV do
    local queue = KEYS[1] .. 'ready:' .. ARGV[2] .. ':' .. ARGV[number]
    local found = call('ZRANGE', queue, 0, tonumber(ARGV[3]) - 1, 'WITHSCORES')
    for index = 1, #found, 2 do
        places[#places + 1] = {order = tonumber(found[index + 1]), place = found[index]}
    end
end
table.sort(places, function(one, other)
    if one.order ~= other.order then
        return one.order < other.order
    end
    return one.place < other.place
end)
local answer = {time()}
for index = 1, math.min(#places, tonumber(ARGV[3])) do
    local id = string.sub(places[index].place, 17)
    local known = call('HMGET', KEYS[1] .. 'entry:' .. id, 'v', 'r', 'b')
    if known[1] then
        answer[#answer + 1] = known[1]
        answer[#answer + 1] = known[2]
        answer[#answer + 1] = known[3] or ''
    end
end
return answer
