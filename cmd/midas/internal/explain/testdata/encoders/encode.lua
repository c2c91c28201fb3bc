-- Reads lines FUNCTION TAB HEX; writes HEX. The functions are the gsub lines that are handed around.
local function percent(c) return string.format("%%%02X", string.byte(c)) end
local functions = {
  ["gsub('[^%w ]')"] = function(s) return (s:gsub("([^%w ])", percent):gsub(" ", "+")) end,
  ["gsub('[^%w%.%- ]')"] = function(s) return (s:gsub("([^%w%.%- ])", percent):gsub(" ", "+")) end,
  ["gsub('[^%w %-%_%.%~]')"] = function(s) return (s:gsub("([^%w %-%_%.%~])", percent):gsub(" ", "+")) end,
  ["gsub('([&=+%c])')"] = function(s) return (s:gsub("([&=+%c])", percent):gsub(" ", "+")) end,
}
for line in io.lines() do
  local name, hex = line:match("^(.-)\t(.*)$")
  local text = hex:gsub("%x%x", function(h) return string.char(tonumber(h, 16)) end)
  print((functions[name](text):gsub(".", function(c) return string.format("%02x", string.byte(c)) end)))
end
