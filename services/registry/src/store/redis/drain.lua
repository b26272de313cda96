-- Takes an agent's instances, or one of them, out of the choice. Answers incarnation, revision, how many live and how many of
-- them drain now; the same for the same token.
-- ARGV: 6 milliseconds for which the answer is kept, 7 first id that may be the agent's, 8 the one behind the last, 9 id or ''.
local answered = call('GET', ANSWERED)
if answered then
    return { string.match(answered, '^(%S+) (%d+) (%d+) (%d+)$') }
end
local ids, draining = call('ZRANGEBYLEX', AGENTS, '[' .. ARGV[7], '(' .. ARGV[8]), 0
for _, id in ipairs(ids) do
    if ARGV[9] == '' or ARGV[9] == id then
        local entry = read(id)
        draining, entry.drain = draining + 1, '1'
        local status = in_effect(entry.status, '1')
        if status ~= entry.status then
            entry.status = status
            publish('k', 'r', 'i', id, 'h', entry.heard, 's', status, 'r', entry.report)
        end
        write(id, entry)
    end
end
local answer = { incarnation, revision(), text(#ids), text(draining) }
call('SET', ANSWERED, table.concat(answer, ' '), 'PX', ARGV[6])
return answer
