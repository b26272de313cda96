-- KEYS: 1 the leases. ARGV: 1 what all keys start with, 2 task.
return contents(ARGV[1], ARGV[2])
