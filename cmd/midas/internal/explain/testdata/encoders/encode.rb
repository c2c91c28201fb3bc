# Reads lines FUNCTION TAB HEX, or FUNCTION TAB HEX=HEX&HEX=HEX for a function of pairs; writes HEX.
require "cgi"
require "uri"
text = ->(hex) { [hex].pack("H*").force_encoding("UTF-8") }
STDIN.each_line(chomp: true) do |line|
  function, input = line.split("\t", 2)
  out = if function == "CGI.escape" then CGI.escape(text.(input))
        else URI.encode_www_form(input.split("&").map { |pair| pair.split("=", 2).map(&text) }) end
  puts out.unpack1("H*")
end
