"""Writes ../encoders.json: messages signed with the URL encoders of many languages in place of the
right encoding (protocol.md 2 and 5), each encoded by the language itself.

Run it in this folder. It wants php-cli, ruby, lua5.4, mono-mcs, mono-runtime and
libmono-system-web4.0-cil of Debian, node, a JDK from 17, go, python3, and a python2 (PYTHON2).
"""
import base64, hashlib, hmac, json, os, shutil, subprocess, tempfile

build = tempfile.mkdtemp()
subprocess.run(["javac", "-d", build, "Encode.java"], check=True)
subprocess.run(["mcs", "-r:System.Web.dll", "-out:" + build + "/encode.exe", "encode.cs"], check=True)
subprocess.run(["go", "build", "-o", build + "/encode", "encode.go"], check=True)
PYTHON2 = os.environ.get("PYTHON2", "python2")


def version(*command):
    run = subprocess.run(command, capture_output=True, text=True)
    return (run.stdout or run.stderr).splitlines()[0].strip()


# The language, its program, and its functions with the mistake that each is; True: it takes pairs.
LANGUAGES = [
    ("PHP", ["php", "encode.php"], version("php", "-r", "echo 'PHP ' . PHP_VERSION;"),
     {"urlencode": ("plus-for-space", False), "rawurlencode": ("tilde-left", False), "http_build_query": ("plus-for-space", True)}),
    ("Java", ["java", "-cp", build, "Encode"], version("java", "--version"), {"URLEncoder": ("form-encoder", False)}),
    ("C#", ["mono", build + "/encode.exe"], version("mono", "--version"),
     {"HttpUtility.UrlEncode": ("HttpUtility.UrlEncode", False), "WebUtility.UrlEncode": ("WebUtility.UrlEncode", False), "Uri.EscapeDataString": ("tilde-left", False)}),
    ("JavaScript", ["node", "encode.js"], "node " + version("node", "--version"),
     {"encodeURI": ("encodeURI", False), "encodeURIComponent": ("encodeURIComponent", False), "escape": ("escape", False),
      "querystring.stringify": ("encodeURIComponent", True), "URLSearchParams": ("form-encoder", True)}),
    ("Python 2", [PYTHON2, "encode2.py"], version(PYTHON2, "--version"),
     {"quote": ("slash-left", False), "quote_plus": ("plus-for-space", False), "urlencode": ("plus-for-space", True)}),
    ("Python 3", ["python3", "encode3.py"], version("python3", "--version"),
     {"quote": ("quote", False), "quote(safe='')": ("tilde-left", False), "quote_plus": ("query-escape", False), "urlencode": ("query-escape", True)}),
    ("Go", [build + "/encode"], version("go", "version"),
     {"QueryEscape": ("query-escape", False), "PathEscape": ("path-escape", False), "Values.Encode": ("query-escape", True)}),
    ("Ruby", ["ruby", "encode.rb"], version("ruby", "--version"),
     {"CGI.escape": ("query-escape", False), "URI.encode_www_form": ("form-encoder", True)}),
    ("Lua", ["lua5.4", "encode.lua"], version("lua5.4", "-v"),
     {"gsub('[^%w ]')": ("lua-gsub", False), "gsub('[^%w%.%- ]')": ("lua-gsub", False), "gsub('[^%w %-%_%.%~]')": ("query-escape", False), "gsub('([&=+%c])')": ("lua-gsub", False)}),
]

ALNUM = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def percent(keep):
    return lambda s: "".join(chr(b) if b in ALNUM + keep else "%%%02X" % b for b in s.encode())


E, C = percent(b"-_."), percent(b"!*()")
KEY = "Lf6AtMEB1QlE8BYS"
NOTIFY, ORDER = "/pay/mt.php", "/v3/r/mpay/buy_goods_m"
# Every character of ASCII that can be printed, and some outside it.
EVERY = "".join(map(chr, range(32, 127))) + "é道😀"
CALLBACK = dict(amt="320", appid="1101255891", appmeta="a b*qdqb*qq", billno="-APPDJSX18246-20140401-1206311492", clientver="android",
                openid="F11669C63D76BAB0BC2F6CC869B19E53", payamt_coins="0", payitem="G1*20*2", providetype="5", pubacct_payamt_coins="",
                token="5056117C0597793C38C4F1D29F884C5E25887", ts="1396325191", version="v3", zoneid="1")
REQUEST = dict(openid="F11669C63D76BAB0BC2F6CC869B19E53", openkey="3968DD5F3F14427EF103A05E00AB59B4", appid="1101255891", ts="1396522813",
               pf="qq_m_qq-2001-android-2011-xxxx", pfkey="5971dce2d3035669e49a1496d590f1ba", zoneid="1", payitem="50005*4*1",
               goodsmeta="道具*a b", goodsurl="https://cdn.example/a.png?v=1", app_metadata="order 7~1", format="json", appmode="1")


def joined(pairs):
    return "&".join(f"{name}={value}" for name, value in pairs)


def sign(base):
    return base64.b64encode(hmac.new((KEY + "&").encode(), base.encode(), hashlib.sha1).digest()).decode()


out = {"about": "made by encoders/encoders.py", "outputs": [], "cases": []}
for language, program, versioned, functions in LANGUAGES:
    def call(function, texts):
        lines = "".join(f"{function}\t{text}\n" for text in texts)
        run = subprocess.run(program, input=lines.encode(), capture_output=True, check=True)
        return [bytes.fromhex(line.decode()).decode() for line in run.stdout.splitlines()]

    for function, (mistake, of_pairs) in functions.items():
        def one(texts):
            return call(function, [text.encode().hex() for text in texts])

        def query(pairs):
            return call(function, ["&".join(name.encode().hex() + "=" + value.encode().hex() for name, value in pairs)])[0]

        out["outputs"].append(dict(language=language, version=versioned, function=function, input=EVERY,
                                   output=query([("a", EVERY)]) if of_pairs else one([EVERY])[0]))
        for kind, params, path, site, every in [("callback", CALLBACK, NOTIFY, "http://203.0.113.9", "appmeta"), ("request", REQUEST, ORDER, "https://ysdk.qq.com", "app_metadata")]:
            for telling in [True, False]:  # with every character in a value, or as such messages mostly are
                sent = {**params, every: EVERY} if telling else params
                pairs = sorted(sent.items())
                values = [(name, C(value)) for name, value in pairs] if kind == "callback" else pairs
                if of_pairs:
                    bases = {"values": "GET&" + E(path) + "&" + E(query(pairs))}
                else:
                    p, whole, text = *one([path, joined(values)]), one([value or " " for _, value in pairs])
                    text = [t if value else "" for t, (_, value) in zip(text, pairs)]
                    inner = joined([(name, t) for (name, _), t in zip(pairs, text)])
                    bases = {"whole": "GET&" + p + "&" + whole, "values": "GET&" + E(path) + "&" + E(inner), "both": "GET&" + p + "&" + one([inner])[0]}
                for place, base in bases.items():
                    out["cases"].append(dict(
                        language=language, function=function, kind=kind, place=place, telling=telling, want=mistake, path=path,
                        input=site + (path if kind == "callback" else "/mpay/buy_goods_m") + "?" + joined((name, E(value)) for name, value in sent.items()) + "&sig=" + E(sign(base)), base_string=base))

shutil.rmtree(build)
with open("../encoders.json", "w", encoding="utf-8") as f:
    json.dump(out, f, ensure_ascii=False, indent=1)
    f.write("\n")
