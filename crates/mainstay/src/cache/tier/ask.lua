-- KEYS: an answer, and who makes it. ARGV: how far it must reach, how long it must still be good for in ms, a name for who asks, for how many ms that
-- name stands. The answer: 1, the bytes and for how many ms they are good; 2 if somebody else makes it; 0 if it is for the asker to make it.
local there = redis.call('GET', KEYS[1])
if there and string.sub(there, 1, 16) >= ARGV[1] then
  local left = redis.call('PTTL', KEYS[1])
  if left > tonumber(ARGV[2]) then
    return {1, there, left}
  end
end
if redis.call('SET', KEYS[2], ARGV[3], 'NX', 'PX', ARGV[4]) then
  return {0, false, 0}
end
return {2, false, 0}
