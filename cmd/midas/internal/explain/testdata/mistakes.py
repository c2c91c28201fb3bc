"""Writes mistakes.json: messages whose signature holds a known mistake (protocol.md 8).

Each signature is made here with Python's hmac and urllib, the way an implementation with
that mistake makes it; nothing of the Go code takes part. Run it in this folder.
"""
import base64, hashlib, hmac, json
from urllib.parse import quote, quote_plus, unquote_plus

KEY, OTHER = "Lf6AtMEB1QlE8BYS", "12345f9a47df4d1eaeb3bad9a7e54321"
ALNUM = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def enc(keep, lower=False, plus=False):
    def encode(s):
        out = ""
        for b in s.encode():
            c = chr(b)
            if c in ALNUM + keep and b < 128:
                out += c
            elif c == " " and plus:
                out += "+"
            else:
                out += ("%%%02x" if lower else "%%%02X") % b
        return out
    return encode


E, C, RAW = enc("-_."), enc("!*()"), lambda s: s


def hmac_sha1(key, base):
    return hmac.new(key, base, hashlib.sha1).digest()


def in_base64(digest):
    return base64.b64encode(digest).decode()


def sign(params, path, key=KEY + "&", method="GET", value=RAW, whole=E, path_enc=None, order=sorted, tail="", end="", digest=hmac_sha1, write=in_base64):
    joined = "&".join(f"{k}={value(params[k])}" for k in order(params)) + tail
    base = method + "&" + (path_enc or whole)(path) + "&" + whole(joined) + end
    return write(digest(key.encode(), base.encode("utf-8", "surrogateescape")))


def url(site, path, params, sig, sig_enc=E, value=E):
    return site + path + "?" + "&".join(f"{k}={value(v)}" for k, v in params.items()) + "&sig=" + sig_enc(sig)


# The documented callback (Tencent, mobile item direct-purchase) and an order as YSDK wants it.
CALLBACK = dict(
    amt="320", appid="1101255891", appmeta="customkey*qdqb*qq", billno="-APPDJSX18246-20140401-1206311492", clientver="android",
    openid="F11669C63D76BAB0BC2F6CC869B19E53", payamt_coins="0", payitem="G1*20*2", providetype="5", pubacct_payamt_coins="",
    token="5056117C0597793C38C4F1D29F884C5E25887", ts="1396325191", version="v3", zoneid="1")
REQUEST = dict(
    openid="F11669C63D76BAB0BC2F6CC869B19E53", openkey="3968DD5F3F14427EF103A05E00AB59B4", appid="1101255891", ts="1396522813",
    pf="qq_m_qq-2001-android-2011-xxxx", pfkey="5971dce2d3035669e49a1496d590f1ba", zoneid="1", payitem="50005*4*1",
    goodsmeta="道具*测试描述信息", goodsurl="", app_metadata="order 7~1", format="json", appmode="1")
NOTIFY, ORDER = "/pay/mt.php", "/v3/r/mpay/buy_goods_m"
HOST, YSDK = "http://203.0.113.9", "https://ysdk.qq.com"
cases = []


def callback(name, want, sig=None, path=NOTIFY, keys=(KEY,), extra={}, url_path=None, text=None, **how):
    params = {**CALLBACK, **extra}
    how.setdefault("value", C)
    sig = sig or sign(params, how.pop("signed", NOTIFY), **how)
    cases.append(dict(name=name, keys=list(keys), path=path, input=text or url(HOST, url_path or NOTIFY, params, sig), want=want))


def request(name, want, sig=None, keys=(KEY,), extra={}, sig_enc=E, in_url=E, text=None, site=YSDK, **how):
    params = {**REQUEST, **extra}
    sig = sig or sign(params, how.pop("signed", ORDER), **how)
    cases.append(dict(name=name, keys=list(keys), path="", input=text or url(site, "/mpay/buy_goods_m", params, sig, sig_enc, in_url), want=want))


def drop(d, *names):
    return {k: v for k, v in d.items() if k not in names}


# Right ones.
callback("a right callback", [])
request("a right request", [])
request("a right request to MSDK", [], site="http://msdktest.qq.com", signed="/mpay/buy_goods_m")
callback("a right callback with every kind of byte", [], extra={"appmeta": "a b;c~d*e%+é'!()*qdqb*qq", "xbazinga": ""})

# The key.
callback("key without the ampersand, callback", ["key-without-ampersand"], key=KEY)
request("key without the ampersand, request", ["key-without-ampersand"], key=KEY)
request("key with a doubled ampersand", ["key-with-two-ampersands"], key=KEY + "&&")
request("key with its line end", ["key-with-blank"], key=KEY + "\n&")
callback("the other environment's key", ["other-key"], keys=(OTHER, KEY))
request("the other environment's key, request", ["other-key"], keys=(OTHER, KEY))
request("the PHP SDK's mapping of the key", ["key-mapped"], keys=("a-b_c",), key="a+b/c&")

# The path and the method.
callback("the order's path (met most often)", ["order-path"], signed=ORDER)
callback("the older order's path", ["order-path-msdk"], signed="/mpay/buy_goods_m")
callback("a trailing slash more", ["trailing-slash"], signed=NOTIFY + "/")
callback("a trailing slash less", ["trailing-slash"], path="/pay/notify/", url_path="/pay/notify/", signed="/pay/notify")
callback("a prefix stripped by a proxy", ["prefix-stripped"], path="/api/pay/notify", url_path="/api/pay/notify", signed="/pay/notify")
callback("-path is not the registered one", ["url-path"], path="/notify", url_path="/api/pay/notify", signed="/api/pay/notify")
request("the MSDK path on YSDK", ["msdk-path"], signed="/mpay/buy_goods_m")
request("the YSDK path on MSDK", ["ysdk-path"], signed=ORDER, site="http://msdktest.qq.com")
request("the whole URL signed", ["whole-url"], signed="https://ysdk.qq.com/mpay/buy_goods_m")
callback("POST, callback", ["method-post"], method="POST")
request("POST, request", ["method-post"], method="POST")
request("GET where a POST was recorded", ["method-get"], text='203.0.113.7 - - [04/Apr/2014:10:00:00 +0000] "POST '
        + url("", "/mpay/pay_m", REQUEST, sign(REQUEST, "/v3/r/mpay/pay_m")) + ' HTTP/1.1" 200 20')
request("the method in small letters", ["method-lower-case"], method="get")

# Which parameters.
callback("empty values dropped", ["empty-dropped"], sig=sign(drop(CALLBACK, "pubacct_payamt_coins"), NOTIFY, value=C))
request("empty values dropped, request", ["empty-dropped"], sig=sign(drop(REQUEST, "goodsurl"), ORDER))
callback("a fixed list of parameters", ["fixed-names"], extra={"ebazinga": "1", "zcanary": "2"}, sig=sign(CALLBACK, NOTIFY, value=C))
callback("one parameter lost", ["left-out"], sig=sign(drop(CALLBACK, "clientver"), NOTIFY, value=C))
request("a parameter lost, request", ["left-out"], sig=sign(drop(REQUEST, "appmode"), ORDER))
request("not sorted", ["not-sorted"], order=list)

# The encoding.
callback("values not pre-encoded", ["values-not-pre-encoded"], value=RAW)
callback("values encoded with the requests' rule", ["values-pre-encoded-like-a-request"], value=E)
callback("only - _ . replaced", ["three-replaced"], extra={"appmeta": "a;b/c*qdqb*qq"},
         value=lambda s: s.replace("-", "%2D").replace("_", "%5F").replace(".", "%2E"))
request("values encoded before signing", ["values-pre-encoded"], value=E)
request("values encoded by the callbacks' rule", ["values-pre-encoded-like-a-callback"], value=C)
request("lower-case hex", ["lower-case-hex"], whole=enc("-_.", lower=True))
callback("lower-case hex in the values", ["lower-case-hex"], value=enc("!*()", lower=True))
callback("lower-case hex everywhere", ["lower-case-hex"], value=enc("!*()", lower=True), whole=enc("-_.", lower=True))
request("+ for space", ["plus-for-space"], whole=enc("-_.", plus=True))
callback("+ for space, callback", ["plus-for-space"], extra={"appmeta": "a b*qdqb*qq"}, value=enc("!*()", plus=True))
request("* left alone", ["star-left"], whole=enc("-_.*"))
callback("* left alone, callback", ["star-left"], whole=enc("-_.*"))
request("~ left alone", ["tilde-left"], whole=enc("-_.~"))
callback("~ left alone in the values", ["tilde-left"], extra={"appmeta": "a~b*qdqb*qq"}, value=enc("!*()~"))
request("encodeURIComponent", ["encodeURIComponent"], extra={"goodsmeta": "it's*(new)!"}, whole=lambda s: quote(s, safe="-_.!~*'()"))
request("Python's quote, which leaves the slash", ["slash-left"], extra={"app_metadata": "a/b"}, whole=lambda s: quote(s).replace("~", "%7E"))
request("nothing encoded", ["nothing-encoded"], whole=RAW)
request("the path not encoded", ["path-not-encoded"], path_enc=RAW)
request("Go's url.QueryEscape: one mistake", ["query-escape"], whole=lambda s: quote_plus(s, safe="~"))
callback("no ampersand and the order's path: two together", ["key-without-ampersand", "order-path"], key=KEY, signed=ORDER)
callback("the other key and a trailing slash", ["other-key", "trailing-slash"], keys=(OTHER, KEY), signed=NOTIFY + "/")

# What public code gets wrong besides: each alone, with a mistake in the key, and with one in the path.
def each_byte(encode_char, keep):
    """Encodes as a rule says that takes a string of characters instead of bytes."""
    return lambda s: "".join(c if c in ALNUM + keep else encode_char(c) for c in s)


def utf16(c):
    units = c.encode("utf-16-be")
    return "".join("%%%X" % int.from_bytes(units[i:i + 2], "big") for i in range(0, len(units), 2)) if ord(c) > 127 else "%%%02X" % ord(c)


def java_sdk(c):
    return "%3F%3F" if ord(c) > 0xFFFF else "%%%02X" % c.encode()[-1]


def cpp_sdk(c):
    return "%FF" * len(c.encode()) if ord(c) > 127 else "%%%02X" % ord(c)


def bytes_as_text(b):
    return b.decode("utf-8", "surrogateescape")


def enc_bytes(keep):
    return lambda s: "".join(chr(b) if chr(b) in ALNUM + keep and b < 128 else "%%%02X" % b for b in s.encode("utf-8", "surrogateescape"))


def map_values(change):
    return lambda params: {k: change(v) for k, v in params.items()}


CHINESE = {"appmeta": "道具é😀*qdqb*qq"}
HASHES = {
    "sha1-of-key-and-text": dict(digest=lambda key, base: hashlib.sha1(key + base).digest()),
    "hmac-sha256": dict(digest=lambda key, base: hmac.new(key, base, hashlib.sha256).digest()),
    "sig-base64-of-hex": dict(write=lambda d: base64.b64encode(d.hex().encode()).decode()),
    "sig-in-hex": dict(write=lambda d: d.hex()),
    "sig-line-end": dict(write=lambda d: base64.encodebytes(d).decode()),
    "trailing-ampersand": dict(tail="&"),
}
CALLBACKS = HASHES | {
    "hyphen-replaced": dict(value=lambda s: s.replace("-", "%2D"), extra={"appmeta": "a;b/c_d.e*qdqb*qq"}),
    "utf16-codes": dict(value=each_byte(utf16, "!*()"), extra=CHINESE),
    "last-byte-only": dict(value=each_byte(java_sdk, "!*()"), extra=CHINESE),
    "ff-for-each-byte": dict(value=each_byte(cpp_sdk, "!*()"), extra=CHINESE),
    "gbk": dict(change=map_values(lambda v: bytes_as_text(v.encode("gbk"))), value=enc_bytes("!*()"), whole=E, extra={"appmeta": "道具，测试*qdqb*qq"}),
    "mojibake": dict(change=map_values(lambda v: v.encode().decode("latin-1")), extra=CHINESE),
    "question-marks": dict(change=map_values(lambda v: bytes_as_text(v.encode("latin-1", "replace"))), value=enc_bytes("!*()"), extra=CHINESE),
    "other-call": dict(signed="/v3/r/mpay/present_m"),
    "fixed-names": dict(change=lambda p: {k: p[k] for k in p if k in OLD_CALLBACK}, extra={"appmeta": "x*qdqb*qq", "channel_id": "00000000-android", "cftid": "1"}),
    "nothing-encoded": dict(value=RAW, whole=RAW),
    "whole-not-encoded": dict(whole=RAW),
    "path-without-slash": dict(signed="pay/mt.php"),
    "path-in-other-case": dict(signed="/Pay/Mt.php"),
    "sorted-as-numbers": dict(order=lambda p: sorted(p, key=lambda n: (not n.isdigit(), int(n) if n.isdigit() else 0, n)), extra={"9": "a", "10": "b"}),
}
REQUESTS = HASHES | {
    "utf16-codes": dict(whole=each_byte(utf16, "-_."), extra={"goodsmeta": "道具😀*é"}),
    "last-byte-only": dict(whole=each_byte(java_sdk, "-_.")),
    "ff-for-each-byte": dict(whole=each_byte(cpp_sdk, "-_.")),
    "gbk": dict(change=map_values(lambda v: bytes_as_text(v.encode("gbk"))), whole=enc_bytes("-_.")),
    "mojibake": dict(change=map_values(lambda v: v.encode().decode("latin-1"))),
    "question-marks": dict(change=map_values(lambda v: bytes_as_text(v.encode("latin-1", "replace"))), whole=enc_bytes("-_.")),
    "other-call": dict(signed="/v3/r/mpay/present_m"),
    "fixed-names": dict(change=lambda p: {k: p[k] for k in p if k in OLD_REQUEST}),
    "key-among-parameters": dict(change=lambda p: {**p, "appkey": KEY}),
    "signed-not-sent": dict(change=lambda p: {**p, "userip": "null"}),
    "word-for-nothing": dict(change=map_values(lambda v: v or "null")),
    "path-without-slash": dict(signed="v3/r/mpay/buy_goods_m"),
    "path-in-other-case": dict(signed="/V3/R/Mpay/Buy_goods_m"),
    "parameters-not-encoded": dict(whole=RAW, path_enc=E),
}
OLD_CALLBACK = "openid appid ts payitem token billno version zoneid providetype amt payamt_coins pubacct_payamt_coins".split()
OLD_REQUEST = "openid openkey pay_token appid ts pf pfkey zoneid payitem goodsmeta goodsurl".split()
SECOND = {
    "callback": {"": {}, "key-without-ampersand": dict(key=KEY), "key-with-bom": dict(key="\ufeff" + KEY + "&"), "key-with-blank": dict(key=KEY + "&\n"),
                 "order-path": dict(signed=ORDER), "trailing-slash": dict(signed=NOTIFY + "/")},
    "request": {"": {}, "key-without-ampersand": dict(key=KEY), "key-with-two-ampersands": dict(key=KEY + "&&"), "key-with-blank": dict(key=KEY + "\n&"),
                "msdk-path": dict(signed="/mpay/buy_goods_m"), "trailing-slash": dict(signed=ORDER + "/")},
}
for kind, make, base, mistakes, path in [("callback", callback, CALLBACK, CALLBACKS, NOTIFY), ("request", request, REQUEST, REQUESTS, ORDER)]:
    for first, how in mistakes.items():
        for second, also in SECOND[kind].items():
            if "signed" in how and "signed" in also:
                continue  # one path takes the place of the other
            both = {"value": C if kind == "callback" else RAW, "signed": path, **how, **also}
            extra, change = both.pop("extra", {}), both.pop("change", lambda p: p)
            make(f"{kind}: {first}" + (f" and {second}" if second else ""), [first] + [second] * bool(second), extra=extra, sig=sign(change({**base, **extra}), both.pop("signed"), **both))
for second, key in {"key-with-bom": "\ufeff" + KEY + "&", "key-with-blank": KEY + "&\r\n"}.items():
    callback(f"callback: {second}", [second], key=key)
    callback(f"callback: {second} and order-path", [second, "order-path"], key=key, signed=ORDER)
    request(f"request: {second}", [second], key=key)
    request(f"request: {second} and msdk-path", [second, "msdk-path"], key=key, signed="/mpay/buy_goods_m")
callback("the key in the text's end", ["key-among-parameters"], tail="&key=" + KEY)
callback("SHA-1 of the text and the key", ["sha1-of-key-and-text"], digest=lambda key, base: hashlib.sha1(base + key).digest())
callback("HMAC-MD5 in hex", ["hmac-md5", "sig-in-hex"], digest=lambda key, base: hmac.new(key, base, hashlib.md5).digest(), write=lambda d: d.hex())
callback("plain SHA-1 in hex for the order's path: three", ["sha1-of-key-and-text", "order-path", "sig-in-hex"], signed=ORDER, digest=lambda key, base: hashlib.sha1(key + base).digest(), write=lambda d: d.hex())
callback("the bytes of the sig", ["sig-not-base64"], sig=sign(CALLBACK, NOTIFY, value=C, write=lambda d: bytes_as_text(d)),
         text=url(HOST, NOTIFY, CALLBACK, sign(CALLBACK, NOTIFY, value=C, write=bytes_as_text), sig_enc=enc_bytes("-_.")))
callback("no padding", ["sig-without-padding"], sig=sign(CALLBACK, NOTIFY, value=C).rstrip("="))
callback("REQUEST_URI", ["path-with-query"], signed=url("", NOTIFY, CALLBACK, "").removesuffix("&sig="))
callback("REQUEST_URI and the key", ["path-with-query", "key-without-ampersand"], signed=url("", NOTIFY, CALLBACK, "").removesuffix("&sig="), key=KEY)
request("base string with an & at its end", ["trailing-ampersand"], end="&")
callback("GBK in the URL, signed in UTF-8", ["gbk"], extra={"appmeta": "道具*qdqb*qq"}, sig=sign({**CALLBACK, "appmeta": "道具*qdqb*qq"}, NOTIFY, value=C),
         text=url(HOST, NOTIFY, {**CALLBACK, "appmeta": bytes_as_text("道具*qdqb*qq".encode("gbk"))}, sign({**CALLBACK, "appmeta": "道具*qdqb*qq"}, NOTIFY, value=C), value=enc_bytes("-_.")))
callback("capitals sorted as small letters", ["sorted-without-case"], extra={"Zone": "1"}, order=lambda p: sorted(p, key=str.lower))
request("C#'s UrlEncode: one mistake", ["HttpUtility.UrlEncode"], extra={"app_metadata": "a b/(c)*~"}, whole=enc("-_.!*()", lower=True, plus=True))
request("Python 3's urlencode as the joined string", ["query-escape"], extra={"app_metadata": "a b~c"}, value=lambda s: quote_plus(s, safe="~"))
request("Go's QueryEscape with the empty ones dropped", ["query-escape", "empty-dropped"], sig=sign(drop(REQUEST, "goodsurl"), ORDER, whole=lambda s: quote_plus(s, safe="~")))

# Parameters that were added on the way, where Midas sends a callback.
ADDED = {"u8ChannelID": "12", "s": "/pay/notify", "trace": "1"}
for n in (1, 2, 3):
    for start in range(3 if n < 3 else 1):
        extra = dict((list(ADDED.items()) * 2)[start:start + n])
        callback(f"{', '.join(extra)} added", ["added-on-the-way"], extra=extra, sig=sign(CALLBACK, NOTIFY, value=C))
        callback(f"{', '.join(extra)} added beside what Midas sends", ["added-on-the-way"], extra={**extra, "ebazinga": "1", "newname": "x", "other": "y", "more": "z"},
                 sig=sign({**CALLBACK, "ebazinga": "1", "newname": "x", "other": "y", "more": "z"}, NOTIFY, value=C))
callback("one added, and the other environment's key", ["other-key", "added-on-the-way"], keys=(OTHER, KEY), extra={"trace": ""}, sig=sign(CALLBACK, NOTIFY, value=C))
callback("one added, and the path's slash", ["added-on-the-way", "trailing-slash"], extra={"trace": "1"}, sig=sign(CALLBACK, NOTIFY + "/", value=C))
callback("five added", ["added-on-the-way"], extra={f"x{i}": "1" for i in range(5)}, sig=sign(CALLBACK, NOTIFY, value=C))
callback("two that Midas sends left out", ["left-out"], sig=sign(drop(CALLBACK, "clientver", "zoneid"), NOTIFY, value=C))
callback("two that an old page does not have", ["fixed-names"], sig=sign(drop(CALLBACK, "clientver", "appmeta"), NOTIFY, value=C))
request("three left out", ["left-out"], sig=sign(drop(REQUEST, "appmode", "format", "zoneid"), ORDER))

# The URL.
plus = next(REQUEST | {"ts": str(n)} for n in range(1396522813, 1396523000) if "+" in sign(REQUEST | {"ts": str(n)}, ORDER))
request("sig encoded twice, or not decoded", ["sig-not-decoded"], extra={"ts": plus["ts"]}, sig_enc=lambda s: E(E(s)))
request("sig not encoded in the URL", ["sig-decoded-twice"], extra={"ts": plus["ts"]}, sig_enc=RAW)
request("sig decoded twice", ["sig-decoded-twice"], extra={"ts": plus["ts"]}, sig_enc=lambda s: E(unquote_plus(s)))
request("sig in the URL-safe alphabet", ["sig-base64url"], extra={"ts": plus["ts"]}, sig_enc=lambda s: E(s.replace("+", "-").replace("/", "_")))
request("sig in hex", ["sig-in-hex"], sig_enc=lambda s: base64.b64decode(s).hex())
request("the URL encoded twice", ["url-encoded-twice"], sig_enc=lambda s: E(E(s)), in_url=lambda s: E(E(s)))
request("a bare + in the URL that means +", ["plus-not-encoded"], extra={"app_metadata": "a+b"}, in_url=enc("-_.+"))
callback("values signed as they stand in the URL", ["values-not-decoded"], extra={"appmeta": "道具*qdqb*qq"},
         sig=sign({k: E(v) for k, v in {**CALLBACK, "appmeta": "道具*qdqb*qq"}.items()}, NOTIFY, value=C))
callback("a parser that drops ;", ["standard-parser"], sig=sign(drop(CALLBACK, "payitem"), NOTIFY, value=C),
         text=HOST + NOTIFY + "?" + "&".join(f"{k}={v}" for k, v in {**CALLBACK, "payitem": "G1*20*2;G2*5*1"}.items())
         + "&sig=" + E(sign(drop(CALLBACK, "payitem"), NOTIFY, value=C)))

# Nothing fits.
callback("forged", None, key="somebody else's&")
request("a parameter changed after signing", None, extra={"payitem": "50005*1*1"}, sig=sign(REQUEST, ORDER))
callback("three mistakes at once", None, key=KEY, signed=ORDER, method="POST")

with open("mistakes.json", "w", encoding="utf-8") as f:
    json.dump(cases, f, ensure_ascii=False, indent=1)
    f.write("\n")
