# Python 3. Reads lines FUNCTION TAB HEX, or FUNCTION TAB HEX=HEX&HEX=HEX for a function of pairs; writes HEX.
import sys
from urllib import parse
for line in sys.stdin:
    name, text = line.rstrip("\n").split("\t")
    if name == "urlencode":
        out = parse.urlencode([tuple(bytes.fromhex(part).decode() for part in pair.split("=")) for pair in text.split("&")])
    elif name == "quote(safe='')":
        out = parse.quote(bytes.fromhex(text).decode(), safe="")
    else:
        out = getattr(parse, name)(bytes.fromhex(text).decode())
    print(out.encode().hex())
