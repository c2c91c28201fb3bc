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


def sha(key, base):
    return hmac.new(key.encode(), base.encode(), hashlib.sha1)


def sign(params, path, key=KEY + "&", method="GET", value=RAW, whole=E, path_enc=None, order=sorted):
    joined = "&".join(f"{k}={value(params[k])}" for k in order(params))
    base = method + "&" + (path_enc or whole)(path) + "&" + whole(joined)
    return base64.b64encode(sha(key, base).digest()).decode()


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
