"""The scripts with which the Redis store changes jobs. Each runs as one step, so two gateways never change one job.

All keys have the prefix in KEYS[1], whose hash tag puts them into one slot of a cluster:

job:ID (hash: record, state, client, lease, upload, data, attempts, delivery), all and client:CLIENT (ids by time of
creation), unfinished (ids by the end of their lease), webhooks (ids of ended jobs by the time of the next attempt),
data:NAME (chunks of an upload or result), sizes (bytes by name), total (their sum), expiry (names by time of expiry),
results (names of results by age), key:HASH (fingerprint and job of an Idempotency-Key).
"""

from __future__ import annotations

from gateway.storage.redis import LuaScript

_COMMON = """
local p = KEYS[1]
local time = redis.call('time')
local now = time[1] + time[2] / 1e6
local function drop(name)
  if not name or name == '' then return end
  redis.call('del', p .. 'data:' .. name)
  local size = redis.call('hget', p .. 'sizes', name)
  if size then
    redis.call('hdel', p .. 'sizes', name)
    redis.call('decrby', p .. 'total', size)
  end
  redis.call('zrem', p .. 'expiry', name)
  redis.call('zrem', p .. 'results', name)
end
local function forget(id)
  local job = p .. 'job:' .. id
  local found = redis.call('hmget', job, 'upload', 'data', 'client')
  drop(found[1])
  drop(found[2])
  redis.call('del', job)
  redis.call('zrem', p .. 'all', id)
  redis.call('zrem', p .. 'unfinished', id)
  redis.call('zrem', p .. 'webhooks', id)
  if found[3] then redis.call('zrem', p .. 'client:' .. found[3], id) end
end
local function purge(max_age_s)
  for _, name in ipairs(redis.call('zrangebyscore', p .. 'expiry', '-inf', now, 'limit', 0, 100)) do drop(name) end
  local old = now - max_age_s
  for _, id in ipairs(redis.call('zrangebyscore', p .. 'all', '-inf', old, 'limit', 0, 100)) do forget(id) end
end
local function make_space(set, max_count)
  local surplus = redis.call('zcard', set) + 1 - max_count
  if surplus <= 0 then return true end
  for _, id in ipairs(redis.call('zrange', set, 0, -1)) do
    if surplus <= 0 then break end
    if not redis.call('zscore', p .. 'unfinished', id) then
      forget(id)
      redis.call('zrem', set, id)
      surplus = surplus - 1
    end
  end
  return surplus <= 0
end
local function holds(id, lease)
  return redis.call('hget', p .. 'job:' .. id, 'lease') == lease
end
"""

# Arguments: name, bytes, seconds until it expires, maximum of all bytes, "1" for a result. Results are dropped for
# other results and for uploads; uploads are never dropped for others.
RESERVE = LuaScript(
    _COMMON
    + """
local size, limit = tonumber(ARGV[2]), tonumber(ARGV[4])
for _, name in ipairs(redis.call('zrangebyscore', p .. 'expiry', '-inf', now)) do drop(name) end
if size > limit then return 0 end
while tonumber(redis.call('get', p .. 'total') or '0') + size > limit do
  local oldest = redis.call('zrange', p .. 'results', 0, 0)[1]
  if not oldest then return 0 end
  drop(oldest)
end
redis.call('hset', p .. 'sizes', ARGV[1], size)
redis.call('incrby', p .. 'total', size)
redis.call('zadd', p .. 'expiry', now + tonumber(ARGV[3]), ARGV[1])
if ARGV[5] == '1' then redis.call('zadd', p .. 'results', now, ARGV[1]) end
return 1
"""
)

# Argument: name. Returns whether it was known.
DROP = LuaScript(_COMMON + "local known = redis.call('hexists', p .. 'sizes', ARGV[1]) drop(ARGV[1]) return known")

# Arguments: id, record, client, lease, seconds of the lease, name of the upload, maximum age, maximum count, maximum
# count of the client.
ADD = LuaScript(
    _COMMON
    + """
purge(tonumber(ARGV[7]))
local own = p .. 'client:' .. ARGV[3]
if not make_space(own, tonumber(ARGV[9])) or not make_space(p .. 'all', tonumber(ARGV[8])) then return 0 end
local job, id = p .. 'job:' .. ARGV[1], ARGV[1]
redis.call('hset', job, 'record', ARGV[2], 'state', 'queued', 'client', ARGV[3], 'lease', ARGV[4], 'upload', ARGV[6])
redis.call('hset', job, 'attempts', 1)
redis.call('expire', job, math.ceil(ARGV[7]) + 3600)
redis.call('zadd', p .. 'all', now, id)
redis.call('zadd', own, now, id)
redis.call('expire', own, math.ceil(ARGV[7]) + 3600)
redis.call('zadd', p .. 'unfinished', now + tonumber(ARGV[5]), id)
return 1
"""
)

# Arguments: id, lease, record, seconds of the lease.
RENEW = LuaScript(
    _COMMON
    + """
if not holds(ARGV[1], ARGV[2]) then return 0 end
redis.call('hset', p .. 'job:' .. ARGV[1], 'record', ARGV[3])
redis.call('zadd', p .. 'unfinished', now + tonumber(ARGV[4]), ARGV[1])
return 1
"""
)

# Arguments: id, lease ("*" for any), record, state, name of the result, "1" if it has a webhook.
FINISH = LuaScript(
    _COMMON
    + """
local id, job = ARGV[1], p .. 'job:' .. ARGV[1]
if not redis.call('zscore', p .. 'unfinished', id) then return 0 end
if ARGV[2] ~= '*' and not holds(id, ARGV[2]) then return 0 end
drop(redis.call('hget', job, 'upload'))
redis.call('hset', job, 'record', ARGV[3], 'state', ARGV[4], 'data', ARGV[5], 'upload', '')
redis.call('hdel', job, 'lease')
redis.call('zrem', p .. 'unfinished', id)
if ARGV[6] == '1' then redis.call('zadd', p .. 'webhooks', now, id) end
return 1
"""
)

# Arguments: id, lease.
RELEASE = LuaScript(
    _COMMON
    + """
if not holds(ARGV[1], ARGV[2]) then return 0 end
redis.call('hset', p .. 'job:' .. ARGV[1], 'lease', '')
redis.call('zadd', p .. 'unfinished', now, ARGV[1])
return 1
"""
)

# Arguments: lease, seconds of the lease, maximum age. Returns record, number of the attempt and name of the upload.
TAKE = LuaScript(
    _COMMON
    + """
purge(tonumber(ARGV[3]))
for _, id in ipairs(redis.call('zrangebyscore', p .. 'unfinished', '-inf', now, 'limit', 0, 100)) do
  local job = p .. 'job:' .. id
  if redis.call('exists', job) == 0 then
    redis.call('zrem', p .. 'unfinished', id)
  else
    redis.call('hset', job, 'lease', ARGV[1])
    local attempts = redis.call('hincrby', job, 'attempts', 1)
    redis.call('zadd', p .. 'unfinished', now + tonumber(ARGV[2]), id)
    return {redis.call('hget', job, 'record'), attempts, redis.call('hget', job, 'upload')}
  end
end
return false
"""
)

# Argument: seconds of the lease. Returns record, number of attempts at the job, and how the delivery stands.
TAKE_DELIVERY = LuaScript(
    _COMMON
    + """
for _, id in ipairs(redis.call('zrangebyscore', p .. 'webhooks', '-inf', now, 'limit', 0, 100)) do
  local found = redis.call('hmget', p .. 'job:' .. id, 'record', 'attempts', 'delivery')
  if found[1] then
    redis.call('zadd', p .. 'webhooks', now + tonumber(ARGV[1]), id)
    return found
  end
  redis.call('zrem', p .. 'webhooks', id)
end
return false
"""
)

# Arguments: id, how the delivery stands, seconds until the next attempt (negative: there is none). A delivery that has
# ended, by a gateway that took it over, stays as it is.
NOTE_DELIVERY = LuaScript(
    _COMMON
    + """
local job = p .. 'job:' .. ARGV[1]
if redis.call('exists', job) == 0 or not redis.call('zscore', p .. 'webhooks', ARGV[1]) then return 0 end
redis.call('hset', job, 'delivery', ARGV[2])
if tonumber(ARGV[3]) < 0 then
  redis.call('zrem', p .. 'webhooks', ARGV[1])
else
  redis.call('zadd', p .. 'webhooks', now + tonumber(ARGV[3]), ARGV[1])
end
return 1
"""
)

FORGET = LuaScript(_COMMON + "forget(ARGV[1]) return 1")

# Arguments: hash of client and key, "fingerprint job", seconds. Returns what the key has.
CLAIM_KEY = LuaScript(
    _COMMON
    + """
local key = p .. 'key:' .. ARGV[1]
if redis.call('set', key, ARGV[2], 'NX', 'EX', math.ceil(ARGV[3])) then return ARGV[2] end
return redis.call('get', key)
"""
)

# Argument: hash of client and key.
RELEASE_KEY = LuaScript(_COMMON + "redis.call('del', p .. 'key:' .. ARGV[1]) return 1")
