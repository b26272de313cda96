-- Forgets the oldest events while `is_due` says so of one, at most `limit`; how many, and their bytes.
-- KEYS: 1 the log, 2 positions by name, 3 positions by type, 4 the end of the log.
local function forget_oldest(limit, is_due)
    local count, bytes = 0, 0
    while count < limit do
        local some = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', math.min(64, limit - count))
        if #some == 0 then
            break
        end
        for _, entry in ipairs(some) do
            local fields = {}
            for i = 1, #entry[2], 2 do
                fields[entry[2][i]] = entry[2][i + 1]
            end
            if not is_due(fields) then
                limit = 0
                break
            end
            local position = string.match(entry[1], '^%d+')
            redis.call('XDEL', KEYS[1], entry[1])
            if redis.call('HGET', KEYS[2], fields.n) == position then
                redis.call('HDEL', KEYS[2], fields.n)
            end
            redis.call('ZREM', KEYS[3], fields.k .. '\0' .. string.format('%016x', tonumber(position)))
            count = count + 1
            bytes = bytes + #fields.e
        end
    end
    if count > 0 then
        redis.call('HINCRBY', KEYS[4], 'count', -count)
        redis.call('HINCRBY', KEYS[4], 'bytes', -bytes)
    end
    return count, bytes
end
