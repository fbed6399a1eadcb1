-- May this client try a password of this account? By the server's clock, in one step.
-- KEYS: where the account is known; tries from one such address; tries of all strangers; tries of this stranger; tries of this client at all accounts; when this
-- stranger was told to come back.
-- ARGV: the client; the name of this try; the window and how long an address stays known; then four times how many tries are free and the longest pause,
-- for the keys from the second on. All times in microseconds.
-- The answer: how long to wait (0: the try is admitted and counts), 1 if the account is known here, and how long ago this stranger was told (-1: he was not).
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local client, try, window, known_for = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

local function wait(of)
  local key, free, longest = KEYS[of], tonumber(ARGV[2 * of + 1]), tonumber(ARGV[2 * of + 2])
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now - window)
  -- A clock that was set back: tries of the future are forgotten, as a failover forgets the last ones.
  redis.call('ZREMRANGEBYSCORE', key, '(' .. string.format('%.0f', now + 1000000), '+inf')
  local before = redis.call('ZCARD', key)
  if before < free or before == 0 then return 0 end
  local last = tonumber(redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')[2])
  -- Beyond 2^30 seconds every pause is the longest.
  local pause = math.min(1000000 * 2 ^ math.min(before - free, 30), longest)
  return math.max(last + pause - now, 0)
end

local known_since = tonumber(redis.call('HGET', KEYS[1], client) or 0)
local known = known_since + known_for > now
local counted = known and { 2 } or { 3, 4, 5 }
local longest = 0
for _, of in ipairs(counted) do
  longest = math.max(longest, wait(of))
end
local told = not known and tonumber(redis.call('GET', KEYS[6]) or '')
if longest == 0 then
  -- Who waited has waited for one try.
  if told then redis.call('DEL', KEYS[6]) end
  for _, of in ipairs(counted) do
    redis.call('ZADD', KEYS[of], string.format('%.0f', now), try)
    redis.call('PEXPIRE', KEYS[of], math.ceil(window / 1000))
  end
end
return { math.ceil(longest), known and 1 or 0, told and math.max(now - told, 0) or -1 }
