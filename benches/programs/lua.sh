# lua: tables, strings, trees, coroutines, and the collector behind them.
# `lua.sh prepare SCALE` once, `lua.sh run SCALE` is measured.
set -euo pipefail

if [ "$1" = prepare ]; then
    cat >work.lua <<'LUA'
local scale = tonumber(arg[1])
local seed = 1
local function rnd(n) seed = (seed * 16807) % 2147483647; return seed % n end
local function upto(n) return math.floor(n * scale) end

local rows = {}
for i = 1, upto(200000) do
  local key = "k" .. rnd(3000)
  local row = rows[key] or {}
  row[#row + 1] = { id = i, name = string.rep("n", rnd(20)) }
  rows[key] = row
end
local keys = {}
for key in pairs(rows) do keys[#keys + 1] = key end
table.sort(keys)
local sum = 0
for _, key in ipairs(keys) do
  for _, row in ipairs(rows[key]) do sum = (sum * 31 + row.id + #row.name) % 1000000007 end
end
print("rows", #keys, sum)

local parts = {}
for i = 1, upto(100000) do parts[i] = tostring(rnd(1000000)) end
local text = table.concat(parts, " ")
local hits = 0
for word in text:gmatch("%d+7%d*") do hits = hits + #word end
print("text", #text, hits, #text:gsub("(%d)(%d+)", "%2%1"))

local function tree(depth) return depth == 0 and {} or { tree(depth - 1), tree(depth - 1) } end
local function size(t) return t[1] and 1 + size(t[1]) + size(t[2]) or 1 end
local total = 0
for _ = 1, upto(16) do total = total + size(tree(14)) end
print("trees", total)

local threads = {}
for i = 1, upto(2000) do
  threads[i] = coroutine.wrap(function() local t = {} for k = 1, 30 do t[k] = k; coroutine.yield(#t) end end)
end
local steps = 0
for _ = 1, 20 do for _, thread in ipairs(threads) do steps = steps + thread() end end
print("coroutines", steps)
LUA
    exit
fi
exec lua5.4 work.lua "$2"
