#!lua flags=no-writes
-- Events from a position on: no more than a number of them and, beyond the first, of bytes. Answers {where to go on, position,
-- time, text, …}.
-- KEYS: 1 the log, 2 positions by type, 3 the end of the log. ARGV: 1 the first position, 2 the number, 3 the bytes, then the
--   types that are wanted; none: all.
local call = redis.call
local from, limit, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local last = tonumber(call('HGET', KEYS[3], 'last') or '0')
local found, bytes, count = {''}, 0, 0
local function text(number)
    return string.format('%.0f', number)
end
if last < from then
    return {text(from)}
end
found[1] = text(last + 1)
-- False when there is no more room.
local function take(entry)
    local fields = {}
    for i = 1, #entry[2], 2 do
        fields[entry[2][i]] = entry[2][i + 1]
    end
    local position = string.match(entry[1], '^%d+')
    bytes = bytes + #fields.e
    if count >= limit or (count > 0 and bytes > most) then
        return false
    end
    count = count + 1
    for _, part in ipairs({position, fields.r, fields.e}) do
        found[#found + 1] = part
    end
    -- Where a full page goes on; the end of the log if nothing is left.
    if count >= limit then
        found[1] = text(tonumber(position) + 1)
    end
    return true
end
local function full_before(position)
    found[1] = text(position)
    return found
end
if #ARGV == 3 then
    local first = text(from)
    while count < limit do
        local some = call('XRANGE', KEYS[1], first, '+', 'COUNT', math.min(32, limit - count))
        if #some == 0 then
            break
        end
        for _, entry in ipairs(some) do
            local position = tonumber(string.match(entry[1], '^%d+'))
            if not take(entry) then
                return full_before(position)
            end
            first = text(position + 1)
        end
    end
    return found
end
local positions, seen = {}, {}
for i = 4, #ARGV do
    local start = '[' .. ARGV[i] .. '\0' .. string.format('%016x', from)
    local some = call('ZRANGEBYLEX', KEYS[2], start, '(' .. ARGV[i] .. '\1', 'LIMIT', 0, limit)
    for _, member in ipairs(some) do
        local position = tonumber(string.sub(member, -16), 16)
        if not seen[position] then
            seen[position] = true
            positions[#positions + 1] = position
        end
    end
end
table.sort(positions)
for i, position in ipairs(positions) do
    if i > limit then
        break
    end
    local entry = call('XRANGE', KEYS[1], text(position), text(position))[1]
    if entry and not take(entry) then
        return full_before(position)
    end
    if i == limit then
        found[1] = text(position + 1)
    end
end
return found
