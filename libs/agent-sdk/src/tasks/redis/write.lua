#!lua
-- Writes one task under the lease of who works on it, or forgets it.
--
-- Answers 1 when it is done, also when it or a later draft was done before; 0 when the task is another instance's; -1 when there
-- is no room for a new task; -2 when the lease of who writes has been taken over.
--
-- KEYS: 1 the leases.
-- ARGV: 1 what all keys start with, 2 who writes, 3 task, 4 version before or 'forget', 5 number of the draft, 6 number of its last
--   event, 7 oldest event to be kept, 8 state, 9 place in lists, 10 context, 11 work|owe|rest, 12 most tasks, 13 most bytes,
--   14 milliseconds that a task is kept after its last change, 15 milliseconds that events are kept then, 16 whose it is or '',
--   17 1 if a record follows, 18 the record, then events as number, text.
local call, base, writer, id = redis.call, ARGV[1], ARGV[2], ARGV[3]
local key, feed = base .. 'task:' .. id, base .. 'feed:' .. id

-- Every list that a task can be asked for in: those of all, and those of its caller.
local function lists(context, state, caller)
    local starts, all = {base}, {}
    if caller and caller ~= '' then
        starts[2] = base .. 'by:' .. caller .. ':'
    end
    for _, start in ipairs(starts) do
        for _, name in ipairs({'order', 'state:' .. state, 'context:' .. context, 'both:' .. state .. ':' .. context}) do
            all[#all + 1] = start .. name
        end
    end
    return all
end

local function unlist(place, context, state, caller)
    for _, list in ipairs(lists(context, state, caller)) do
        call('ZREM', list, place)
    end
end

local function forget(task)
    local own = base .. 'task:' .. task
    local known = call('HMGET', own, 'place', 'context', 'state', 'size', 'owner', 'caller')
    if known[1] then
        unlist(known[1], known[2], known[3], known[6])
        call('DECRBY', base .. 'bytes', known[4])
        if known[5] ~= '' then
            call('SREM', base .. 'held:' .. known[5], task)
        end
    end
    call('DEL', own, base .. 'feed:' .. task)
    call('ZREM', base .. 'resting', task)
end

if ARGV[4] == 'forget' then
    if call('HGET', key, 'writer') == writer then
        forget(id)
    end
    return 1
end

local known = call('HMGET', key, 'version', 'writer', 'place', 'context', 'state', 'size', 'owner', 'draft', 'number', 'caller')
local is_mine = known[1] and known[2] == writer
if is_mine and tonumber(known[8] or '0') >= tonumber(ARGV[5]) then
    return 1
end
if not call('ZSCORE', KEYS[1], writer) then
    return -2
end
-- What has the version of afterwards already is an earlier draft whose answer did not arrive.
local after = string.format('%.0f', tonumber(ARGV[4]) + 1)
local is_next = is_mine and (known[1] == ARGV[4] or known[1] == after)
if not (is_next or ARGV[4] == '0' and not known[1]) then
    return 0
end
-- The first event that the store does not have.
local from = 19
local has = tonumber(known[9] or '0')
while from < #ARGV and tonumber(ARGV[from]) <= has do
    from = from + 2
end

local size = #ARGV[18]
if ARGV[17] ~= '1' then
    size = tonumber(known[6])
    for i = from + 1, #ARGV, 2 do
        size = size + #ARGV[i]
    end
end
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if not known[1] then
    local expired = call('ZRANGE', base .. 'resting', '-inf', string.format('%.0f', now - ARGV[14]), 'BYSCORE', 'LIMIT', 0, 64)
    for _, task in ipairs(expired) do
        forget(task)
    end
    local function fits()
        local bytes = tonumber(call('GET', base .. 'bytes') or '0')
        return call('ZCARD', base .. 'order') < tonumber(ARGV[12]) and bytes + size <= tonumber(ARGV[13])
    end
    for _ = 1, 256 do
        if fits() then
            break
        end
        local oldest = call('ZRANGE', base .. 'resting', 0, 0)
        if not oldest[1] then
            break
        end
        forget(oldest[1])
    end
    if not fits() then
        return -1
    end
end

for i = from, #ARGV, 2 do
    call('XADD', feed, ARGV[i] .. '-0', 'e', ARGV[i + 1])
end
if tonumber(ARGV[7]) > 1 then
    call('XTRIM', feed, 'MINID', ARGV[7] .. '-0')
end
if known[3] and (known[3] ~= ARGV[9] or known[4] ~= ARGV[10] or known[5] ~= ARGV[8]) then
    unlist(known[3], known[4], known[5], known[10])
end
for _, list in ipairs(lists(ARGV[10], ARGV[8], ARGV[16])) do
    call('ZADD', list, 0, ARGV[9])
end
call('INCRBY', base .. 'bytes', string.format('%.0f', size - tonumber(known[6] or '0')))
if ARGV[17] == '1' then
    call('HSET', key, 'record', ARGV[18], 'at', ARGV[6])
end
local owner, busy = writer, '0'
if ARGV[11] == 'rest' then
    owner = ''
elseif ARGV[11] == 'work' then
    busy = '1'
end
call('HSET', key, 'version', after, 'draft', ARGV[5], 'writer', writer, 'number', ARGV[6], 'state', ARGV[8], 'place', ARGV[9],
    'context', ARGV[10], 'size', string.format('%.0f', size), 'owner', owner, 'busy', busy,
    'caller', ARGV[16])
if owner == '' then
    call('SREM', base .. 'held:' .. writer, id)
else
    call('SADD', base .. 'held:' .. writer, id)
end
if busy == '1' then
    call('ZREM', base .. 'resting', id)
    call('PERSIST', feed)
else
    call('ZADD', base .. 'resting', string.format('%.0f', now), id)
    call('PEXPIRE', feed, ARGV[15])
end
return 1
