-- What every script that writes begins with: names, lease time, and what all of them do.
-- KEYS: as in keys.rs, and 12, where there is one, the answer that was given to this token before.
-- ARGV: 1 token, 2 incarnation of a store that is made, 3 most changes in the feed, 4 milliseconds for which the silent are kept,
--   5 most of them; the script's own begin with 6.
local call = redis.call
local STATE, ENTRIES, PROFILES, LEASES, DEADLINES, AGENTS, NODES, NODE_OF, OFFLINE, OFFLINE_ORDER, FEED = unpack(KEYS, 1, 11)
local ANSWERED, TOKEN = KEYS[12], ARGV[1]

-- Most by which lease time moves from one call to the next, in milliseconds: what is beyond is a time in which no registry reached
-- this Redis, and so no agent could renew. It does not count. Nor does a clock that is set.
local LONGEST = 2000
-- Most leases that are ended, and silent ones forgotten, in one call.
local MOST = 1000
-- Most bytes of profiles that come into the feed before it is cut to the last changes.
local MOST_BYTES = 67108864
local LAST_CHANGES = 1000

-- Numbers of scripts are exact to 2^53: enough for microseconds.
local function text(number)
    return string.format('%.0f', number)
end

local time = call('TIME')
local micros = time[1] * 1000000 + time[2]
local wall = math.floor(micros / 1000)
local state = call('HMGET', STATE, 'incarnation', 'last', 'lag', 'tick')
local incarnation, last, lag, tick = state[1], state[2], tonumber(state[3]), tonumber(state[4])
if not incarnation then
    -- Nothing, or nothing whole: Redis was emptied. Revisions begin with the time, so that they grow beyond those of before.
    incarnation, last, lag, tick = ARGV[2], TOKEN, 0, wall
    call('DEL', unpack(KEYS, 1, 11))
    call('HSET', STATE, 'format', '1', 'incarnation', incarnation, 'revision', text(micros), 'last', last, 'expired', '0')
end
local now = tick + math.max(0, math.min(wall - lag - tick, LONGEST))
call('HSET', STATE, 'tick', text(now), 'lag', text(wall - now))

local function revision()
    return call('HGET', STATE, 'revision')
end

-- Adds a change to the feed, with the token of the change before it: by it a reader knows that it reads the same history.
local function publish(...)
    local made = text(call('HINCRBY', STATE, 'revision', 1))
    call('XADD', FEED, 'MAXLEN', '~', ARGV[3], made .. '-0', 't', TOKEN, 'b', last, ...)
    if last ~= TOKEN then
        last = TOKEN
        call('HSET', STATE, 'last', TOKEN)
    end
    return made
end

-- An entry: lease, epoch, 1 if a drain was asked for, registered at, heard at (microseconds), status, report.
local function read(id)
    local entry = call('HGET', ENTRIES, id)
    if not entry then
        return nil
    end
    local lease, epoch, drain, registered, heard, status, report =
        string.match(entry, '^(%S+) (%d+) ([01]) (%d+) (%d+) (%d)(.*)$')
    return { lease = lease, epoch = epoch, drain = drain, registered = registered, heard = heard, status = status, report = report }
end

local function write(id, entry)
    call('HSET', ENTRIES, id, string.format('%s %s %s %s %s %s', entry.lease, entry.epoch, entry.drain, entry.registered,
        entry.heard, entry.status) .. entry.report)
end

-- What a status means for an instance that an operator drains: active (1) and busy (2) are draining (3).
local function in_effect(status, drain)
    if drain == '1' and (status == '1' or status == '2') then
        return '3'
    end
    return status
end

-- Takes an instance out of everything but its profile.
local function take(id, lease)
    call('HDEL', ENTRIES, id)
    call('HDEL', LEASES, lease)
    call('ZREM', DEADLINES, lease)
    call('ZREM', AGENTS, id)
    local node = call('HGET', NODE_OF, id)
    if node then
        call('HDEL', NODE_OF, id)
        if call('HINCRBY', NODES, node, -1) <= 0 then
            call('HDEL', NODES, node)
        end
    end
end

local function forget(ids)
    for _, id in ipairs(ids) do
        call('HDEL', OFFLINE, id)
        call('HDEL', PROFILES, id)
        call('ZREM', OFFLINE_ORDER, id)
    end
end

-- Ends the leases that are due, and forgets who has been silent for long enough.
local due = call('ZRANGEBYSCORE', DEADLINES, '-inf', text(now), 'WITHSCORES', 'LIMIT', 0, MOST)
for i = 1, #due, 2 do
    local lease, deadline = due[i], due[i + 1]
    local id = call('HGET', LEASES, lease)
    local entry = id and call('HGET', ENTRIES, id)
    if entry then
        take(id, lease)
        call('HSET', OFFLINE, id, deadline .. ' ' .. entry)
        call('ZADD', OFFLINE_ORDER, deadline, id)
        call('HINCRBY', STATE, 'expired', 1)
        publish('k', 'x', 'i', id, 'd', deadline)
    else
        call('ZREM', DEADLINES, lease)
    end
end
forget(call('ZRANGEBYSCORE', OFFLINE_ORDER, '-inf', text(now - ARGV[4]), 'LIMIT', 0, MOST))
local too_many = call('ZCARD', OFFLINE_ORDER) - ARGV[5]
if too_many > 0 then
    forget(call('ZRANGE', OFFLINE_ORDER, 0, math.min(too_many, MOST) - 1))
end
