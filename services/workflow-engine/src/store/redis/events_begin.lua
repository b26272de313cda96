#!lua flags=allow-oom
-- Makes the log, if it is not there. Who takes it over when all of its events are lost knows by this that there were some.
-- KEYS: the end of the log.
if redis.call('EXISTS', KEYS[1]) == 0 then
    redis.call('HSET', KEYS[1], 'server', server())
end
return 1
