-- Renews leases and takes their reports. A report that says what is known already is no change.
-- Answers incarnation and revision, then for each lease 'EPOCH DRAIN', or '' if it has ended or was replaced.
-- ARGV: 6 time to live in milliseconds, then lease, status and report of each.
local answers = {}
for i = 7, #ARGV, 3 do
    local lease, answer = ARGV[i], ''
    local id = call('HGET', LEASES, lease)
    local deadline = id and call('ZSCORE', DEADLINES, lease)
    if deadline and tonumber(deadline) > now then
        local entry = read(id)
        local status = in_effect(ARGV[i + 1], entry.drain)
        entry.heard = text(micros)
        if status ~= entry.status or ARGV[i + 2] ~= entry.report then
            entry.status, entry.report = status, ARGV[i + 2]
            publish('k', 'r', 'i', id, 'h', entry.heard, 's', status, 'r', entry.report)
        end
        write(id, entry)
        call('ZADD', DEADLINES, text(now + ARGV[6]), lease)
        answer = entry.epoch .. ' ' .. entry.drain
    end
    answers[#answers + 1] = answer
end
return { incarnation, revision(), unpack(answers) }
