-- What wrk is to send, and how it tells what it measured: wrk --script load.lua URL -- KIND
-- KIND is get, close (a connection for each request), browser, json or upload.

local VARIANTS = 1000

local BROWSER = {
  ["Connection"] = "keep-alive",
  ["sec-ch-ua"] = '"Chromium";v="130", "Google Chrome";v="130", "Not?A_Brand";v="99"',
  ["sec-ch-ua-mobile"] = "?0",
  ["sec-ch-ua-platform"] = '"Linux"',
  ["Upgrade-Insecure-Requests"] = "1",
  ["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    .. "Chrome/130.0.0.0 Safari/537.36",
  ["Accept"] = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
  ["Sec-Fetch-Site"] = "same-origin",
  ["Sec-Fetch-Mode"] = "navigate",
  ["Sec-Fetch-Dest"] = "document",
  ["Accept-Encoding"] = "gzip, deflate, br, zstd",
  ["Accept-Language"] = "en-GB,en-US;q=0.9,en;q=0.8",
}

local function browser()
  -- Made beforehand: formatting each request would make wrk what is measured.
  local requests = {}
  for number = 1, VARIANTS do
    local headers = {}
    for name, value in pairs(BROWSER) do headers[name] = value end
    headers["Host"] = wrk.headers["Host"]
    headers["Referer"] = string.format("http://www.example.org/articles/%d", number - 1)
    headers["Cookie"] = string.format("session=1f0c6a2e9d%08x; theme=dark; consent=2024-01-31", number * 7919)
    headers["If-None-Match"] = string.format('W/"%08x"', number * 104729)
    local path = string.format("%s?page=%d&sort=newest", wrk.path, number)
    requests[number] = wrk.format("GET", path, headers)
  end
  local turn = 0
  request = function()
    turn = turn % VARIANTS + 1
    return requests[turn]
  end
end

function init(args)
  local kind = args[1]
  if kind == "browser" then
    browser()
  elseif kind == "close" then
    wrk.headers["Connection"] = "close"
  elseif kind == "json" then
    wrk.method = "POST"
    wrk.headers["Content-Type"] = "application/json"
    wrk.body = '{"name": "' .. string.rep("x", 1024 - 12) .. '"}'
  elseif kind == "upload" then
    wrk.method = "POST"
    wrk.headers["Content-Type"] = "application/octet-stream"
    wrk.body = string.rep("x", 10000000)
  end
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "microseconds": %d, "bytes": %d, "p50": %d, "p99": %d, '
      .. '"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}\n',
    summary.requests, summary.duration, summary.bytes, latency:percentile(50), latency:percentile(99),
    errors.connect, errors.read, errors.write, errors.status, errors.timeout
  ))
end
