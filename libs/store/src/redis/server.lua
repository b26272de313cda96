-- Which server answers, and which life of it: the name of what it replicates, which is another one after each failover and each start.
-- Empty where it must not be read.
local function server()
    local said = redis.pcall('INFO', 'replication')
    return type(said) == 'string' and string.match(said, 'master_replid:(%x+)') or ''
end
