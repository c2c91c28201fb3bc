# Python 2. Reads lines FUNCTION TAB HEX, or FUNCTION TAB HEX=HEX&HEX=HEX for a function of pairs; writes HEX.
import sys, urllib
for line in sys.stdin:
    name, text = line.rstrip("\n").split("\t")
    if name == "urlencode":
        out = urllib.urlencode([tuple(part.decode("hex") for part in pair.split("=")) for pair in text.split("&")])
    else:
        out = getattr(urllib, name)(text.decode("hex"))
    print out.encode("hex")
