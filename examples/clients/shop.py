"""A backend in Python, with nothing but Python. See README.md.     PORT=8080 python3 shop.py"""
import base64, hmac, json, os, re, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote_plus
from urllib.request import Request, urlopen

APP_ID, APP_KEY, NOTIFY, ITEMS = "1450000000", b"midastest-demo-key", "/pay/notify", "sword*60*1;potion*0.5*3"
orders, paid, lock = {}, set(), threading.Lock()  # yours are in a database

def E(s, encoding="utf-8"):  # protocol 2: for a request
    return quote(s, safe="", encoding=encoding).replace("~", "%7E")

def C(s):  # protocol 5: for a callback's values, whose bytes are latin-1 here
    s = re.sub("[-_.]", lambda m: "%%%02X" % ord(m[0]), E(s, "latin-1"))
    return re.sub("%(21|2A|28|29)", lambda m: chr(int(m[1], 16)), s)

def sig(path, params, encode=lambda value: value):
    pairs = "&".join(name + "=" + encode(params[name]) for name in sorted(params))
    return base64.b64encode(hmac.digest(APP_KEY + b"&", f"GET&{E(path)}&{E(pairs)}".encode(), "sha1")).decode()

def buy(openid, note):  # the app asks for an order
    params = {
        "openid": openid, "openkey": "from-the-login", "pf": "qq_m_qq-2001-android-2011-xxxx", "pfkey": "from-the-login",
        "appid": APP_ID, "ts": str(int(time.time())), "zoneid": "1", "payitem": ITEMS, "appmode": "1",
        "goodsmeta": "屠龙刀*一把好刀", "goodsurl": "", "app_metadata": note, "format": "json",
    }
    params["sig"] = sig("/v3/r/mpay/buy_goods_m", params)  # not the path of the URL
    url = os.environ.get("MIDAS", "https://ysdktest.qq.com") + "/mpay/buy_goods_m?" + "&".join(f"{k}={E(v)}" for k, v in params.items())
    cookies = "session_id=openid; session_type=kp_actoken; org_loc=%2Fv3%2Fr%2Fmpay%2Fbuy_goods_m"  # a QQ login
    order = json.load(urlopen(Request(url, headers={"Cookie": cookies}), timeout=5))
    if int(order["ret"]) == 0:
        orders[order["token"]] = (openid, "1", ITEMS)  # before the app has it
    return json.dumps(order)  # token and url_params, for the app

def notify(query):  # Midas says that the player paid
    got = {}
    for pair in filter(None, query.split("&")):  # parse_qs drops empty values
        name, _, value = pair.partition("=")
        name = unquote_plus(name, "latin-1")
        if name in got or not re.fullmatch("[A-Za-z0-9_.-]+", name):
            return 4, "bad_parameter"
        got[name] = unquote_plus(value, "latin-1")
    received = got.pop("sig", "").replace(" ", "+")
    got.pop("cee_extend", None)
    if not hmac.compare_digest(sig(NOTIFY, got, C).encode(), received.encode()):
        return 4, "bad_parameter:sig"
    if got.get("token") not in orders:  # signed, and still it may not be there
        return 3, "token_not_found"
    if orders[got["token"]] != (got.get("openid"), got.get("zoneid"), got.get("payitem")):
        return 4, "bad_parameter:payitem"  # amt may be less: discounts
    with lock:
        payment = got["openid"], got.get("billno")
        if payment not in paid:  # once for each payment
            paid.add(payment)
            print("granted", got["payitem"], "to", got["openid"], flush=True)
    return 0, "OK"

class Shop(BaseHTTPRequestHandler):
    def do_GET(self):
        path, _, query = self.path.partition("?")
        if path == "/buy":
            asked = parse_qs(query)
            body = buy(asked["openid"][0], asked.get("note", [""])[0])
        elif path == NOTIFY:
            body = '{"ret":%d,"msg":"%s"}' % notify(query)  # these bytes, no line end
        else:
            return self.send_error(404)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):  # the access log would hold the sig
        pass

ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8080"))), Shop).serve_forever()
