-- Ends the leases that are due, as every script does. Answers incarnation, revision, lease time, and in how many milliseconds the
-- next is due, or ''.
local next = call('ZRANGE', DEADLINES, 0, 0, 'WITHSCORES')[2]
return { incarnation, revision(), text(now), next and text(math.max(0, next - now)) or '' }
