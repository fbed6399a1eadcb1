-- KEYS: of whom. ARGV, three for each key: how many may pass, in how many microseconds, 1 to remember each by its own time.
-- The answer, for each key up to the first that refuses: 1 if it admits, how many more may pass, in how many microseconds the next part comes back.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local answer = {}

local function by_times(key, max, window)
  local last = tonumber(redis.call('LINDEX', key, -1) or 0) or 0
  local at = math.max(now, last)
  local oldest = tonumber(redis.call('LINDEX', key, 0) or at) or at
  while oldest <= at - window do
    redis.call('LPOP', key)
    oldest = tonumber(redis.call('LINDEX', key, 0) or at) or at
  end
  local count = redis.call('LLEN', key)
  local admits = count < max
  if admits then
    redis.call('RPUSH', key, string.format('%.0f', at))
    redis.call('PEXPIRE', key, math.ceil(window / 1000) + 1)
    count = count + 1
  elseif count > max then
    -- The quota was larger before: so many more have to leave.
    oldest = tonumber(redis.call('LINDEX', key, count - max))
  end
  return admits, count, oldest + window - now
end

-- Fields: t, the total; o and n, the oldest and the newest granule; and the count of each granule by its number.
local function by_counts(key, max, window)
  local granule = math.max(math.floor(window / 128), 1)
  local known = redis.call('HMGET', key, 't', 'o', 'n')
  local total, oldest, newest = tonumber(known[1] or 0), tonumber(known[2] or 0), tonumber(known[3] or 0)
  local at = math.max(now, newest * granule)
  local number = math.floor(at / granule)
  local before = oldest
  local counted = total > 0 and tonumber(redis.call('HGET', key, oldest) or 0) or 0
  while total > 0 and (counted == 0 or (oldest + 1) * granule <= at - window) do
    redis.call('HDEL', key, oldest)
    total, oldest = total - counted, oldest + 1
    counted = total > 0 and tonumber(redis.call('HGET', key, oldest) or 0) or 0
  end
  local admits = total < max
  if admits then
    if total == 0 then oldest = number end
    total = total + 1
    redis.call('HINCRBY', key, number, 1)
    redis.call('PEXPIRE', key, math.ceil((window + granule) / 1000) + 1)
  end
  if admits or oldest ~= before then
    redis.call('HSET', key, 't', total, 'o', oldest, 'n', number)
  end
  local frees, more = oldest, admits and 0 or total - max
  while frees < newest and more >= counted do
    more, frees = more - counted, frees + 1
    counted = tonumber(redis.call('HGET', key, frees) or 0) or 0
  end
  return admits, total, (frees + 1) * granule + window - now
end

for i, key in ipairs(KEYS) do
  local max, window = tonumber(ARGV[3 * i - 2]), tonumber(ARGV[3 * i - 1])
  local count_it = ARGV[3 * i] == '1' and by_times or by_counts
  local admits, count, back = count_it(key, max, window)
  answer[i] = { admits and 1 or 0, math.max(max - count, 0), math.max(math.ceil(back), 0) }
  if not admits then break end
end
return answer
