-- Ends a lease; one that is gone already is none. Answers incarnation and revision.
-- ARGV: 6 lease.
local lease = ARGV[6]
local id = call('HGET', LEASES, lease)
if id then
    take(id, lease)
    call('HDEL', PROFILES, id)
    publish('k', 'g', 'i', id)
end
return { incarnation, revision() }
