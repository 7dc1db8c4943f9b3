-- Heartbeats for wrk: every token in turn, and with each turn a new title. Arguments: the file of tokens, one a line.
-- DELAY in the environment is the mean pause of a connection in milliseconds; without it each sends at once again.
local threads = 0
function setup(thread)
  thread:set("offset", threads)
  threads = threads + 1
end
function init(args)
  tokens, sent = {}, offset
  for line in io.lines(args[1]) do tokens[#tokens + 1] = line end
end
function request()
  local token, title = tokens[sent % #tokens + 1], math.floor(sent / #tokens) + 1
  sent = sent + 2
  local head = { ["Authorization"] = "Bearer " .. token, ["Content-Type"] = "application/json" }
  local body = string.format('{"movie_id":%d,"position_seconds":1234.5,"duration_seconds":7200}', title)
  return wrk.format("POST", "/api/v1/stream/progress", head, body)
end
local pause = tonumber(os.getenv("DELAY")) or 0
if pause > 0 then
  function delay() return math.random(0, 2 * pause) end
end
function done(summary, latency)
  local ms = function(share) return latency:percentile(share) / 1000 end
  io.write(string.format("requests=%d failed=%d p50_ms=%.2f p99_ms=%.2f p999_ms=%.2f max_ms=%.2f\n", summary.requests,
    summary.errors.status + summary.errors.connect + summary.errors.timeout, ms(50), ms(99), ms(99.9), latency.max / 1000))
end
