#!lua flags=no-writes
-- A page of a list, newest first: {how many there are on all pages, the places of the page}.
-- KEYS: 1 the leases. ARGV: 1 the list, 2 the last place of the page before or '', 3 the oldest place or '', 4 most places.
local from, to = '+', '-'
if ARGV[2] ~= '' then
    from = '(' .. ARGV[2]
end
if ARGV[3] ~= '' then
    to = '[' .. ARGV[3]
end
local page = redis.call('ZRANGE', ARGV[1], from, to, 'BYLEX', 'REV', 'LIMIT', 0, ARGV[4])
return {redis.call('ZLEXCOUNT', ARGV[1], to, '+'), page}
