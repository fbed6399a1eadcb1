-- KEYS: an answer, and who makes it. ARGV: how far it reaches, the bytes, for how many ms they are good, the name of who made it.
-- One that reaches further stays.
if redis.call('GETRANGE', KEYS[1], 0, 15) <= ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
if redis.call('GET', KEYS[2]) == ARGV[4] then
  redis.call('DEL', KEYS[2])
end
return 1
