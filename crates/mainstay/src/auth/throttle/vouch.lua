-- The account is known at this address from now on, and a try was none. KEYS: as in admit.lua. ARGV: the client; the name of the try, or nothing; how long an
-- address stays known, in microseconds, or 0 if it does not become known; how many are kept; 1 if it is known nowhere else anymore; how long ago the client was
-- told to come back, in microseconds, or -1 if it was not; and how long that counts.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local client, try, known_for, kept = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
for of = 2, 5 do
  if try ~= '' then redis.call('ZREM', KEYS[of], try) end
end
if ARGV[5] == '1' then redis.call('DEL', KEYS[1]) end
if known_for > 0 then
  redis.call('HSET', KEYS[1], client, string.format('%.0f', now))
  redis.call('PEXPIRE', KEYS[1], math.ceil(known_for / 1000))
  while redis.call('HLEN', KEYS[1]) > kept do
    local all, oldest = redis.call('HGETALL', KEYS[1]), 1
    for at = 1, #all, 2 do
      if tonumber(all[at + 1]) < tonumber(all[oldest + 1]) then oldest = at end
    end
    redis.call('HDEL', KEYS[1], all[oldest])
  end
end
local told = tonumber(ARGV[6])
if told >= 0 then redis.call('SET', KEYS[6], string.format('%.0f', now - told), 'PX', math.ceil(tonumber(ARGV[7]) / 1000)) end
return 0
