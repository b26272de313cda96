-- Writes entries, each only if it is still as its writer knows it, and everything that follows from them.
--
-- Answers for each entry: 1 when it is done, also when it was done before under this token; 0 when somebody else has written;
-- -1, -2 and -3 when its target, the inbox, or the room for messages is full.
--
-- KEYS: 1 what all names start with.
-- ARGV: 1 token, 2 most of one target, 3 most of all, 4 most bytes, 5 number of entries; then for each 1 id, 2 token that it
--   was written under or '' where there is none, 3 record or '' to remove it, 4 sequence, 5 target, 6 push|pull, 7 order where it
--   was in its target's queue or '', 8 where it is now or '', 9 when it is due or '', 10 former status or '', 11 status or '',
--   12 bytes more, 13 =|+|- for the message to stay, come or go, 14 message, 15 =|+ for the answer, 16 answer.
local call, base, token = redis.call, KEYS[1], ARGV[1]
local WIDTH = 16
local answers = {}

local function is_open(status)
    return status == 'pending' or status == 'delivering'
end

-- What keeps an entry out that was not open before; 1 where nothing does.
local function room(target, bytes)
    if tonumber(call('ZSCORE', base .. 'open', target) or '0') >= tonumber(ARGV[2]) then
        return -1
    end
    if call('ZCARD', base .. 'pending') + call('ZCARD', base .. 'delivering') >= tonumber(ARGV[3]) then
        return -2
    end
    if bytes > 0 and tonumber(call('HGET', base .. 'totals', 'bytes') or '0') + bytes > tonumber(ARGV[4]) then
        return -3
    end
    return 1
end

local function write(at)
    local id, expected, record, sequence, target = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
    local key = base .. 'entry:' .. id
    local known = call('HGET', key, 'v') or ''
    if known == token then
        return 1
    end
    if record == '' and known == '' then
        return 1
    end
    if known ~= expected then
        return 0
    end
    local former, status, bytes = ARGV[at + 9], ARGV[at + 10], tonumber(ARGV[at + 11])
    if is_open(status) and not is_open(former) then
        local answer = room(target, bytes)
        if answer ~= 1 then
            return answer
        end
    end

    local queue = base .. 'ready:' .. ARGV[at + 5] .. ':' .. target
    local place = string.format('%016x', tonumber(sequence)) .. id
    if ARGV[at + 6] ~= '' then
        call('ZREM', queue, place)
    end
    if ARGV[at + 7] ~= '' then
        call('ZADD', queue, ARGV[at + 7], place)
    end
    if ARGV[at + 6] ~= '' or ARGV[at + 7] ~= '' then
        local first = call('ZRANGE', queue, 0, 0, 'WITHSCORES')
        if first[2] then
            call('ZADD', base .. 'heads:' .. ARGV[at + 5], first[2], target)
        else
            call('ZREM', base .. 'heads:' .. ARGV[at + 5], target)
        end
    end
    if former ~= status then
        if former ~= '' then
            call('ZREM', base .. former, id)
        end
        if status ~= '' then
            call('ZADD', base .. status, sequence, id)
        end
    end
    local more = (is_open(status) and 1 or 0) - (is_open(former) and 1 or 0)
    if more ~= 0 and tonumber(call('ZINCRBY', base .. 'open', more, target)) <= 0 then
        call('ZREM', base .. 'open', target)
    end
    if bytes ~= 0 then
        call('HINCRBY', base .. 'totals', 'bytes', ARGV[at + 11])
    end
    if record == '' then
        call('ZREM', base .. 'due', id)
        call('ZREM', base .. 'all', id)
        call('DEL', key)
        return 1
    end
    call('ZADD', base .. 'due', ARGV[at + 8], id)
    call('ZADD', base .. 'all', sequence, id)
    call('HSET', key, 'v', token, 'r', record)
    if ARGV[at + 12] == '+' then
        call('HSET', key, 'b', ARGV[at + 13])
    elseif ARGV[at + 12] == '-' then
        call('HDEL', key, 'b')
    end
    if ARGV[at + 14] == '+' then
        call('HSET', key, 'a', ARGV[at + 15])
    end
    return 1
end

for number = 1, tonumber(ARGV[5]) do
    answers[number] = write(6 + (number - 1) * WIDTH)
end
return answers
