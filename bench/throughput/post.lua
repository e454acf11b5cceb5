-- A load of POSTs by turns with each credential: wrk ... URL -- BODY_FILE KEYS_FILE "Name: value" ...
-- KEYS_FILE has one credential a line, "-" is none. The last line printed is the figures, by name.

local FORMATTED_MAX = 64 -- large bodies are kept once for each of so many credentials

local requests, turn = {}, 0

local function lines_of(path)
  if path == "-" then return { "" } end
  local found = {}
  for line in io.lines(path) do found[#found + 1] = line end
  return found
end

function init(args)
  local file = assert(io.open(args[1], "rb"))
  local body = file:read("*a")
  file:close()
  local keys = lines_of(args[2])
  local last = #body > 10000 and math.min(#keys, FORMATTED_MAX) or #keys
  for number = 1, last do
    local headers = { ["Content-Type"] = "application/json" }
    if keys[number] ~= "" then headers["Authorization"] = "Bearer " .. keys[number] end
    for place = 3, #args do
      local name, value = args[place]:match("^([^:]+): (.*)$")
      headers[name] = value
    end
    requests[number] = wrk.format("POST", wrk.path, headers, body)
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    "figures requests=%d duration_us=%d p50_us=%d p99_us=%d status=%d connect=%d read=%d write=%d timeout=%d\n",
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect, errors.read, errors.write, errors.timeout))
end
