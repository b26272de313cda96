-- Adds an instance, or replaces the one with the same id, whose lease ends silently; a drain that was asked for stays.
-- Answers {'granted', incarnation, epoch, time in microseconds, status}, the same for the same token; or {'full'}, {'node'}.
-- ARGV: 6 milliseconds for which the answer is kept, 7 id, 8 lease, 9 time to live in milliseconds, 10 most of a node, 11 most,
--   12 node or '', 13 status, 14 report, 15 profile.
local answered = call('GET', ANSWERED)
if answered then
    return { 'granted', string.match(answered, '^(%S+) (%d+) (%d+) (%d)$') }
end
local ID, LEASE, NODE, PROFILE = ARGV[7], ARGV[8], ARGV[12], ARGV[15]
local before = read(ID)
if not before and call('HLEN', ENTRIES) >= tonumber(ARGV[11]) then
    return { 'full' }
end
local former = before and call('HGET', NODE_OF, ID)
if NODE ~= '' and NODE ~= former and tonumber(call('HGET', NODES, NODE) or '0') >= tonumber(ARGV[10]) then
    return { 'node' }
end
local drain = '0'
if before then
    drain = before.drain
    take(ID, before.lease)
end
call('HDEL', OFFLINE, ID)
call('ZREM', OFFLINE_ORDER, ID)

local at, status = text(micros), in_effect(ARGV[13], drain)
local epoch = publish('k', 'u', 'i', ID, 'l', LEASE, 'h', at, 's', status, 'r', ARGV[14], 'c', PROFILE)
if call('HINCRBY', STATE, 'bytes', #PROFILE) > MOST_BYTES then
    call('XTRIM', FEED, 'MAXLEN', LAST_CHANGES)
    call('HSET', STATE, 'bytes', '0')
end
write(ID, { lease = LEASE, epoch = epoch, drain = drain, registered = at, heard = at, status = status, report = ARGV[14] })
call('HSET', PROFILES, ID, PROFILE)
call('HSET', LEASES, LEASE, ID)
call('ZADD', DEADLINES, text(now + ARGV[9]), LEASE)
call('ZADD', AGENTS, 0, ID)
if NODE ~= '' then
    call('HSET', NODE_OF, ID, NODE)
    call('HINCRBY', NODES, NODE, 1)
end
call('SET', ANSWERED, table.concat({ incarnation, epoch, at, status }, ' '), 'PX', ARGV[6])
return { 'granted', incarnation, epoch, at, status }
