-- Redis has forgotten changes that a reader knows (it failed over, or was set back): begins another incarnation behind them, so
-- that nobody takes the history from here on for the one that he knows. Nothing if somebody else has done it.
-- ARGV: 6 the incarnation that was found, 7 the revision that is known, 8 the token of that change.
local found, known = tonumber(revision()), tonumber(ARGV[7])
if incarnation == ARGV[6] and (found < known or (found == known and last ~= ARGV[8])) then
    call('DEL', FEED)
    call('HSET', STATE, 'incarnation', ARGV[2], 'revision', text(known + 1), 'last', TOKEN, 'bytes', '0')
end
return 1
