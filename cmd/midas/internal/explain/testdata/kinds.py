"""Writes kinds.json: what stands behind the cases of field.json, one message or several for each kind. All
is signed and encrypted here, with Python's hmac and hashlib and the package cryptography. Run it in this folder.
"""
import base64, hashlib, hmac, html, json, struct, urllib.parse
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

PAY, APP, SESSION, TOKEN = "kindsPayKey0001", "kindsAppKey0001", "4f2a9c+8/77Q1dVbZ0pQeA==", "kindsToken"
AES, APP_ID = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG", "wx00aa11bb22cc33dd"
GAME, PROGRAM = "requestMidasPaymentGameItem", "requestVirtualPayment"
EVENT = "minigame_game_pay_goods_deliver_notify"
cases = []


def case(name, signature, want, text, body="", **more):
    """want: names of mistakes, [] for verified, or words such as "missing"."""
    cases.append(dict(name=name, text=text, body=body, signature=signature, want=want, keys=[APP], session_keys=[SESSION], tokens=[TOKEN], **more))


def mac(key, text, h=hashlib.sha256, cut=False):
    sum = hmac.new(key if isinstance(key, bytes) else key.encode(), text if isinstance(text, bytes) else text.encode(), h).digest()
    return (sum.split(b"\0")[0] if cut else sum).hex()


def dumps(v):
    return json.dumps(v, ensure_ascii=False, separators=(",", ":"))


ORDER = {"mode": "goods", "offerId": "1450500001", "buyQuantity": 1, "env": 0, "currencyType": "CNY", "platform": "android", "zoneId": "1",
         "productId": "gem60", "goodsPrice": 600, "outTradeNo": "K20261129a", "attach": 'a "b" <c> & 50%'}
DATA = dumps(ORDER)
PROGRAM_DATA = dumps({k: v for k, v in ORDER.items() if k not in ("mode", "platform", "zoneId")})


def order(name, want, pay_sig=None, data=DATA, what=GAME, signature="paySig", wrap=lambda o: o, **more):
    o = dict(signData=data, paySig=mac(APP, what + "&" + data) if pay_sig is None else pay_sig, signature=mac(SESSION, data))
    members = {k: more.pop(k) for k in ("mode",) if k in more}
    case(name, signature, want, json.dumps(wrap({**o, **members}), ensure_ascii=False), **more)


# The product of a message.
order("a mini program's mode beside signData", [], data=PROGRAM_DATA, what=PROGRAM, mode="short_series_goods")
order("tokens of a mini program", [], data=PROGRAM_DATA, what=PROGRAM, mode="short_series_coin")
order("a mini program's mode inside", [], data=dumps({**ORDER, "mode": "short_series_goods"}), what=PROGRAM)
order("inside and beside", [], data=dumps({**ORDER, "mode": "short_series_goods"}), what=PROGRAM, mode="short_series_goods")
order("a mini game's mode inside, a mini program's beside, signed for the game", [], mode="short_series_goods")
order("the same, signed for the program", [], what=PROGRAM, mode="short_series_goods")
order("coins of a mini game", [], data=dumps({**ORDER, "mode": "coins"}))
order("a mini game's order with the other method", ["other-prefix"], what=PROGRAM)
order("a mini program's order with the other method", ["other-prefix"], data=PROGRAM_DATA, mode="short_series_goods")

# Envelopes and spellings.
order("a list", [], wrap=lambda o: [1, {"order": o}])
order("JSON in a string", [], wrap=lambda o: {"level": "info", "msg": json.dumps({"data": o})})
order("as a payload", [], wrap=lambda o: {"event": "order", "payload": json.dumps(o), "encrypt": "no"})
order("with capitals", [], wrap=lambda o: {"SignData": o["signData"], "PaySig": o["paySig"], "Signature": o["signature"]})
order("sign_data_str", [], wrap=lambda o: {"sign_data_str": o["signData"], "pay_sig": o["paySig"], "signature": o["signature"]})

# Missing.
order("paySig is empty", "missing", pay_sig="")
order("no signature", "missing", signature="signature", wrap=lambda o: {k: v for k, v in o.items() if k != "signature"})

# What belongs to one prefix done to another; one encoding too many or too few.
order("the path of a call before", ["other-prefix"], pay_sig=mac(APP, "/xpay/query_order&" + DATA))
order("a trailing slash", ["trailing-slash"], pay_sig=mac(APP, GAME + "/&" + DATA))
order("wx.", ["prefix-with-wx"], pay_sig=mac(APP, "wx." + GAME + "&" + DATA))
order("a slash", ["method-with-slash"], pay_sig=mac(APP, "/" + GAME + "&" + DATA))
order("stringified before signing", ["json-string-signed"], pay_sig=mac(APP, GAME + "&" + dumps(DATA)))
order("stringified before signing, with \\u", ["json-string-signed"], pay_sig=mac(APP, PROGRAM + "&" + json.dumps(dumps({"a": "道"}))), data=dumps({"a": "道"}), refused="offerId is missing")
order("stringified before sending", ["json-string-sent"], pay_sig=mac(APP, GAME + "&" + DATA), data=dumps(DATA))
order("percent-encoded before signing", ["percent-encoding-signed"], pay_sig=mac(APP, GAME + "&" + urllib.parse.quote(DATA, safe="")))
order("percent-encoded as a form before signing", ["percent-encoding-signed"], pay_sig=mac(APP, GAME + "&" + urllib.parse.quote_plus(DATA)))
order("percent-encoded after signing", ["percent-encoding-sent"], pay_sig=mac(APP, GAME + "&" + DATA), data=urllib.parse.quote_plus(DATA))
order("entities signed", ["html-signed"], pay_sig=mac(APP, GAME + "&" + html.escape(DATA, quote=False).replace('"', "&quot;")))
order("entities sent", ["html-sent"], pay_sig=mac(APP, GAME + "&" + DATA), data=html.escape(DATA), mode="")
order("trimmed", ["text-trimmed"], pay_sig=mac(APP, GAME + "&" + DATA), data=DATA + " ")

# Digests.
TEXT = GAME + "&" + DATA
order("MD5 of text and key", ["md5-of-key-and-text", "sig-upper-case"], pay_sig=hashlib.md5((TEXT + APP).encode()).hexdigest().upper())
order("MD5 of key and text", ["md5-of-key-and-text"], pay_sig=hashlib.md5((APP + TEXT).encode()).hexdigest())
order("SHA-256 of text and key", ["sha256-of-text-and-key"], pay_sig=hashlib.sha256((TEXT + APP).encode()).hexdigest())
order("SHA-1 of key and text", ["sha1-of-key-and-text"], pay_sig=hashlib.sha1((APP + TEXT).encode()).hexdigest())
order("HMAC-SHA512", ["hmac-sha512"], pay_sig=mac(APP, TEXT, hashlib.sha512))
order("HMAC-MD5", ["hmac-md5"], pay_sig=mac(APP, TEXT, hashlib.md5))
order("key and text swapped", ["hmac-swapped"], pay_sig=mac(TEXT, APP))
PAIRS = "&".join(f"{k}={v}" for k, v in sorted(ORDER.items()) if v != "") + "&key=" + APP
order("as WeChat Pay v2", ["wechat-pay", "sig-upper-case"], pay_sig=hashlib.md5(PAIRS.encode()).hexdigest().upper())
order("as WeChat Pay v2 with HMAC-SHA256", ["wechat-pay", "sig-upper-case"], pay_sig=mac(APP, PAIRS).upper())
for n in range(1000):  # about one in eight has a zero byte
    data = dumps({**ORDER, "attach": str(n)})
    if len(mac(APP, GAME + "&" + data, cut=True)) < 62:
        order("cut at a zero byte", ["hmac-cut-at-zero"], data=data, pay_sig=mac(APP, GAME + "&" + data, cut=True))
        break

# Calls.
BODY = '{"openid":"oKIND","offer_id":"1450500001","ts":1668136271,"zone_id":"1","env":0,"user_ip":"198.51.100.7"}'
URI = "/wxa/game/getbalance"
FORM = "openid=oKIND&offer_id=1450500001&ts=1668136271&zone_id=1&env=0&user_ip=198.51.100.7"


def call(name, signature, want, uri=URI, body=BODY, pay_sig=None, user=None, query="access_token=T&sig_method=hmac_sha256", before="https://api.weixin.qq.com", after="", **more):
    pay = mac(APP, uri + "&" + body) if pay_sig is None else pay_sig
    signature_ = mac(SESSION, body) if user is None else user
    case(name, signature, want, f"{before}{uri}?{query}" + (f"&pay_sig={pay}" if pay != "-" else "") + (f"&signature={signature_}" if signature_ != "-" else "") + after, body, **more)


call("a right call", "pay_sig", [])
call("method and URL", "pay_sig", [], before="POST https://api.weixin.qq.com")
call("a line of a log", "signature", [], before='203.0.113.9 - - [29/Nov/2026:03:40:00 +0000] "POST ', after=' HTTP/1.1" 200 35 "-" "Go"')
call("without pay_sig", "pay_sig", "missing", pay_sig="-")
call("an empty pay_sig", "pay_sig", "missing", pay_sig="")
call("without signature", "signature", "missing", user="-")
call("a call of xpay that needs one", "signature", "missing", uri="/xpay/query_user_balance", user="-", query="access_token=T")
call("without access_token", "pay_sig", [], query="sig_method=hmac_sha256", refused="access_token is missing")
call("without sig_method", "pay_sig", [], query="access_token=T", refused="sig_method=hmac_sha256 is missing")
call("with GET", "pay_sig", [], before="GET https://api.weixin.qq.com", refused="this call was made with GET")
call("the form itself signed", "pay_sig", [], body=FORM, refused="the body is not JSON")
call("JSON signed, a form sent", "pay_sig", ["form-sent"], body=FORM, pay_sig=mac(APP, URI + "&" + BODY), refused="the body is not JSON")
call("JSON with blanks signed, a form sent", "signature", ["form-sent"], body=FORM, user=mac(SESSION, json.dumps(json.loads(BODY))), refused="the body is not JSON")
call("JSON of strings signed, a form sent", "pay_sig", ["form-sent"], body=FORM, pay_sig=mac(APP, URI + "&" + dumps({k: str(v) for k, v in json.loads(BODY).items()})), refused="the body is not JSON")
call("a form signed, JSON sent", "pay_sig", ["form-signed"], pay_sig=mac(APP, URI + "&" + FORM))
call("a sorted form signed, JSON sent", "pay_sig", ["form-signed"], pay_sig=mac(APP, URI + "&" + "&".join(sorted(FORM.split("&")))))
call("the key lost its plus", "signature", ["key-plus-lost"], user=mac(SESSION.replace("+", " "), BODY))
call("other case", "pay_sig", ["prefix-in-other-case"], uri="/wxa/game/getBalance", pay_sig=mac(APP, "/wxa/game/getbalance&" + BODY))
call("no body", "pay_sig", "unchecked", body="", pay_sig=mac(APP, URI + "&" + BODY))
HEX = "00112233445566778899aabbccddeeff"
case("a key that is hex", "paySig", ["key-hex-decoded"], json.dumps(dict(signData=DATA, paySig=mac(bytes.fromhex(HEX), TEXT), signature=mac(SESSION, DATA))))
cases[-1]["keys"] = [HEX]
case("a login is checked with GET", "signature", [], "GET https://api.weixin.qq.com/wxa/checksession?access_token=T&openid=o&sig_method=hmac_sha256&signature=" + mac(SESSION, ""))

# Pushes.
TS, NONCE = "1782439766", "486452656"


def sha1(*parts, order=sorted, join="", h=hashlib.sha1):
    return h(join.join(order(parts)).encode()).hexdigest()


def encrypt(message, app_id=APP_ID, key=AES, padding=None):
    raw = base64.b64decode(key + "=")
    frame = b"0123456789abcdef" + struct.pack(">I", len(message.encode())) + message.encode() + app_id.encode()
    n = padding or 32 - len(frame) % 32
    frame += bytes([n]) * n
    c = Cipher(algorithms.AES(raw), modes.CBC(raw[:16])).encryptor()
    return base64.b64encode(c.update(frame) + c.finalize()).decode()


def inner(attach="t", sig=None):
    payload = dumps({"OpenId": "oKIND", "Env": 0, "OutTradeNo": "K1", "GoodsInfo": {"ProductId": "p", "Quantity": 1, "Attach": attach}})
    return dumps(dict(ToUserName="gh_1", CreateTime=1782439766, MsgType="event", Event=EVENT, MiniGame=dict(Payload=payload, PayEventSig=mac(APP, EVENT + "&" + payload) if sig is None else sig, IsMock=False)))


def push(name, signature, want, sealed=None, body=None, msg=None, aes=AES, plain=None, **more):
    sealed = encrypt(inner()) if sealed is None else sealed
    body = dumps(dict(ToUserName="gh_1", Encrypt=sealed)) if body is None else body
    url = f"/push?signature={plain or sha1(TOKEN, TS, NONCE)}&timestamp={TS}&nonce={NONCE}&encrypt_type=aes&msg_signature={msg or sha1(TOKEN, TS, NONCE, sealed)}"
    case(name, signature, want, url, body, aes_keys=[aes] if aes else [], app_id=APP_ID, **more)


push("opened", "Encrypt", [])
push("PayEventSig inside", "PayEventSig", [])
push("a forged PayEventSig inside", "PayEventSig", "unknown", sealed=encrypt(inner(sig=mac("another", "x"))))
push("no PayEventSig inside", "PayEventSig", "missing", sealed=encrypt(inner(sig="")))
push("with an ampersand after the key", "PayEventSig", ["key-with-ampersand"], sealed=encrypt(inner(sig=mac(APP + "&", EVENT + "&" + json.loads(inner())["MiniGame"]["Payload"]))))
push("42 characters", "Encrypt", ["aes-key-length"], aes=AES[:42])
push("44 characters", "Encrypt", ["aes-key-length"], aes=AES + "=")
push("a key with a blank", "Encrypt", ["aes-key-not-base64"], aes=AES[:20] + " " + AES[21:])
push("another key", "Encrypt", ["other-aes-key"], aes=AES[::-1])
push("another account", "Encrypt", ["other-app-id"], sealed=encrypt(inner(), app_id="wxffffffffffffffff"))
push("cut", "Encrypt", ["encrypt-cut"], sealed=encrypt(inner())[:-8])
push("not base64", "Encrypt", ["encrypt-not-base64"], sealed=encrypt(inner())[:-3] + "!!!")
for n in range(100):
    sealed = encrypt(inner(str(n)))
    if "+" in sealed:
        push("lost pluses", "Encrypt", ["encrypt-plus-lost"], sealed=sealed.replace("+", " "), msg=sha1(TOKEN, TS, NONCE, sealed))
        push("lost pluses in msg_signature", "msg_signature", ["encrypt-plus-lost"], sealed=sealed.replace("+", " "), msg=sha1(TOKEN, TS, NONCE, sealed))
        break
SEALED = encrypt(inner())
push("blanks around Encrypt", "msg_signature", [], body=f"<xml><Encrypt>\n {SEALED} \n</Encrypt></xml>", msg=sha1(TOKEN, TS, NONCE, SEALED))
push("blanks around Encrypt, opened", "Encrypt", [], body=f"<xml><Encrypt>\n {SEALED} \n</Encrypt></xml>", msg=sha1(TOKEN, TS, NONCE, SEALED))
push("blanks around Encrypt signed", "msg_signature", ["blanks-around-encrypt"], body=f"<xml><Encrypt>\n {SEALED} \n</Encrypt></xml>", msg=sha1(TOKEN, TS, NONCE, f"\n {SEALED} \n"))
push("joined with commas", "signature", ["joined-with-comma"], plain=sha1(TOKEN, TS, NONCE, join=","))
push("MD5", "signature", ["md5"], plain=sha1(TOKEN, TS, NONCE, h=hashlib.md5))
push("SHA-256", "signature", ["sha256"], plain=sha1(TOKEN, TS, NONCE, h=hashlib.sha256))
push("no Encrypt in the body", "msg_signature", "unchecked", body="{}", aes=None)
case("a log line with the signature last", "signature", [], f'"POST /push?timestamp={TS}&nonce={NONCE}&signature={sha1(TOKEN, TS, NONCE)} HTTP/1.1" 403')
case("a log in JSON", "signature", [], json.dumps({"level": "info", "request": f"POST /push?timestamp={TS}&nonce={NONCE}&signature={sha1(TOKEN, TS, NONCE)} HTTP/1.1", "status": 403}))
case("a log in JSON with \\u0026", "signature", [], json.dumps({"uri": f"/push?timestamp={TS}&nonce={NONCE}&signature={sha1(TOKEN, TS, NONCE)}"}).replace("&", "\\u0026"))

def super_app(name, want, sig=None, url=""):
    payload = dumps({"OpenId": "oKIND", "Env": 0, "OutTradeNo": "S1", "GoodsInfo": {"ProductId": "p", "Quantity": 1}})
    push = json.dumps(dict(EventType="event", Event=EVENT, PayModel="1", Payload=payload, PayEventSig=mac(APP, EVENT + "&" + payload) if sig is None else sig))
    case(name, "PayEventSig", want, url or push, push if url else "")


super_app("a super app's push", [])
super_app("a super app's push, with its URL", [], url=f"/push?signature={sha1(TOKEN, TS, NONCE)}&timestamp={TS}&nonce={NONCE}")
super_app("a forged one", "unknown", sig=mac("another", "x"))
super_app("a forged one, with its URL", "unknown", sig=mac("another", "x"), url=f"/push?signature={sha1(TOKEN, TS, NONCE)}&timestamp={TS}&nonce={NONCE}")
super_app("one without PayEventSig", "missing", sig="")

# What vouches for a push's body.
PAYLOAD = json.loads(inner())["MiniGame"]["Payload"]
MINI_GAME = dict(Payload=PAYLOAD, PayEventSig=mac(APP, EVENT + "&" + PAYLOAD))
PAID = (EVENT, "minigame_h5_goods_deliver_notify", "minigame_deliver_h5_pay_products", "minigame_coin_deliver_completed", "minigame_recharge_center_coin_deliver_completed",
        "minigame_pay_refund_succ_notify")
PLAIN = f"/push?signature={sha1(TOKEN, TS, NONCE)}&timestamp={TS}&nonce={NONCE}"


def plain(name, signature, want, body, url=PLAIN, **more):
    body = body if isinstance(body, str) else dumps(body)
    case(name, signature, want, url or body, body if url else "", **more)


plain("in plaintext, with a right PayEventSig", "PayEventSig", [], dict(Event=EVENT, MiniGame=MINI_GAME), ok=True)
for event in PAID:
    plain(f"{event} without a payload", "PayEventSig", "missing", dict(Event=event, MiniGame={}), ok=False)
    plain(f"{event}, flat", "PayEventSig", "missing", dict(Event=event, OpenId="oKIND", OutTradeNo="K1", Env=0), ok=False)
    push(f"{event} without a payload, encrypted", "PayEventSig", "missing", sealed=encrypt(dumps(dict(Event=event, MiniGame={}))), ok=False)
plain("without a payload, in XML", "PayEventSig", "missing", f"<xml><Event>{EVENT}</Event><MiniGame></MiniGame></xml>", ok=False)
plain("without a payload, and without its URL", "PayEventSig", "missing", dict(Event=EVENT, MiniGame={}), url="", ok=False)
plain("a payload without PayEventSig", "PayEventSig", "missing", dict(Event=EVENT, MiniGame=dict(Payload=PAYLOAD)), ok=False)
push("a gift, encrypted", "msg_signature", [], sealed=encrypt(dumps(dict(Event="minigame_deliver_goods", MiniGame=dict(OrderId="G1")))), ok=True)
plain("a gift in plaintext", "signature", [], dict(Event="minigame_deliver_goods", MiniGame=dict(OrderId="G1")), refused="a push of this kind must come encrypted", ok=False)
plain("Encrypt without msg_signature", "msg_signature", "missing", dict(ToUserName="gh_1", Encrypt=SEALED), aes_keys=[AES], app_id=APP_ID, ok=False, never="plaintext mode")
plain("Encrypt without msg_signature, in XML", "msg_signature", "missing", f"<xml><Encrypt>{SEALED}</Encrypt></xml>", ok=False, never="plaintext mode")
plain("compatible mode, read in plaintext", "PayEventSig", [], dict(Event=EVENT, MiniGame=MINI_GAME, Encrypt="forged"), ok=True)
push("compatible mode, read encrypted", "PayEventSig", [], body=dumps(dict(Event=EVENT, MiniGame={}, Encrypt=SEALED)), sealed=SEALED, ok=True)
plain("compatible mode, a forged body", "PayEventSig", "missing", dict(Event=EVENT, MiniGame={}, Encrypt=SEALED), aes_keys=[AES], app_id=APP_ID, ok=False)
plain("Encrypt without its URL", "Encrypt", [], dict(ToUserName="gh_1", Encrypt=SEALED), url="", aes_keys=[AES], app_id=APP_ID, ok=False, says="DECRYPTED")
plain("Encrypt without its URL: msg_signature", "msg_signature", "unchecked", dict(ToUserName="gh_1", Encrypt=SEALED), url="", aes_keys=[AES], app_id=APP_ID, ok=False)
XPAY = dict(ToUserName="gh_1", MsgType="event", Event="xpay_goods_deliver_notify", OpenId="oKIND", OutTradeNo="K1", Env=0)
plain("a mini program's push in plaintext", "signature", [], XPAY, refused="a push of this kind must come encrypted", ok=False, never="is what vouches")
plain("a mini program's push in plaintext, in XML", "signature", [], "<xml><Event>xpay_refund_notify</Event></xml>", refused="a push of this kind must come encrypted", ok=False)
plain("a mini program's push without its URL", "msg_signature", "unchecked", XPAY, url="", ok=False)
push("a mini program's push, encrypted", "msg_signature", [], sealed=encrypt(dumps(XPAY)), ok=True)
push("no EncodingAESKey", "PayEventSig", "unchecked", aes=None, ok=False)
push("no EncodingAESKey: msg_signature", "msg_signature", [], aes=None, ok=False)
for name, url in (("nonce", f"/push?signature={sha1(TOKEN, TS, NONCE)}&timestamp={TS}"), ("timestamp", f"/push?signature={sha1(TOKEN, TS, NONCE)}&nonce={NONCE}")):
    case(f"a push's URL without {name}", "signature", "unchecked", url, refused=f'parameter "{name}": missing', ok=False)
    case(f"a push's URL without {name}: msg_signature", "msg_signature", "unchecked", url.replace("signature", "msg_signature"), dumps(dict(Encrypt=SEALED)), refused=f'parameter "{name}": missing', ok=False)

# What is cut.
for n in (8, 20, 32, 40, 63):
    order(f"cut to {n} characters", ["sig-cut"], pay_sig=mac(APP, TEXT)[:n], never="forgery", says=f"{n} of its 64 characters")
    call(f"cut to {n} characters, of a call", "signature", ["sig-cut"], user=mac(SESSION, BODY)[:n], never="forgery")
order("7 characters that could be anything", "unknown", pay_sig=mac(APP, TEXT)[:7])
push("signature cut to 32 characters", "signature", ["sig-cut"], plain=sha1(TOKEN, TS, NONCE)[:32], never="MD5")
push("PayEventSig cut to 32 characters", "PayEventSig", ["sig-cut"], sealed=encrypt(inner(sig=mac(APP, EVENT + "&" + PAYLOAD)[:32])), never="MD5")

# What is required, and what it is.
REFUND = dict(openid="oKIND", env=0, order_id="O1", refund_order_id="R1", left_fee=100, refund_fee=100, biz_meta="", refund_reason="3", req_from="3")
XURL = dict(query="access_token=T", user="-")
call("all of refund_order", "pay_sig", [], uri="/xpay/refund_order", body=dumps(REFUND), ok=True, **XURL)
call("two of nine", "pay_sig", [], uri="/xpay/refund_order", body=dumps({k: REFUND[k] for k in ("openid", "env")}), refused="refund_order_id is missing", ok=False, **XURL)
for member in REFUND:
    call(f"refund_order without {member}", "pay_sig", [], uri="/xpay/refund_order", body=dumps({k: v for k, v in REFUND.items() if k != member}),
         refused=("order_id / wx_order_id" if member == "order_id" else member) + " is missing", ok=False, **XURL)
for member in ("offerId", "buyQuantity", "currencyType", "goodsPrice", "outTradeNo", "productId"):
    order(f"an order without {member}", [], data=dumps({k: v for k, v in ORDER.items() if k != member}), refused=member + " is missing", ok=False)
order("a mini program's order without productId", [], data=dumps({k: v for k, v in json.loads(PROGRAM_DATA).items() if k != "productId"}), what=PROGRAM, mode="short_series_goods", refused="productId is missing", ok=False)
order("tokens have no productId", [], data=dumps({k: v for k, v in json.loads(PROGRAM_DATA).items() if k not in ("productId", "goodsPrice")}), what=PROGRAM, mode="short_series_coin", ok=True)
order("a mini game's coins have no productId", [], data=dumps({k: v for k, v in {**ORDER, "mode": "coins"}.items() if k not in ("productId", "attach")}), ok=True)
call("user_ip, which WeChat's own sample lacks", "pay_sig", [], body=BODY.replace(',"user_ip":"198.51.100.7"', ""), ok=True, says="user_ip is missing")
DOWNLOAD = dict(begin_ds=20260131, end_ds=20260201, order_type=2, pay_channel=1, is_provided=False, env=0)
for provided in (False, True):
    call(f"is_provided is {provided}", "pay_sig", [], uri="/xpay/start_download_order", body=dumps({**DOWNLOAD, "is_provided": provided}), ok=True, never="must be", **XURL)
call("is_provided is a number", "pay_sig", [], uri="/xpay/start_download_order", body=dumps({**DOWNLOAD, "is_provided": 1}), says='"is_provided" must be true or false', **XURL)
call("is_provided, signed as JSON and sent as a form", "pay_sig", ["form-sent"], uri="/xpay/start_download_order", body=urllib.parse.urlencode({**DOWNLOAD, "is_provided": "false"}),
     pay_sig=mac(APP, "/xpay/start_download_order&" + dumps(DOWNLOAD)), refused="the body is not JSON", **XURL)
call("what Apple settles", "pay_sig", [], uri="/xpay/download_ios_settlement_bill", body=dumps(dict(start_month="202601", end_month="202601")), ok=True, never="not a parameter", **XURL)
call("what Apple settles, its month as a number", "pay_sig", [], uri="/xpay/download_ios_settlement_bill", body=dumps(dict(start_month=202601, end_month="202601")), says='"start_month" must be a string', **XURL)

# The older Midas.
CALLBACK = dict(openid="KIND1", appid="1450000001", ts="1796613284", payitem="sword*60*1", token="KINDTOKEN", billno="-B1", version="v3", zoneid="1", providetype="5",
                amt="600", payamt_coins="0", pubacct_payamt_coins="", appmeta="a b*wechat*wechat", clientver="android")


def enc(s, keep):
    return "".join(chr(b) if chr(b).isascii() and (chr(b).isalnum() or chr(b) in keep) else "%%%02X" % b for b in s.encode())


def base(path, params):
    return "GET&" + enc(path, "-_.") + "&" + enc("&".join(f"{k}={enc(v, '!*()')}" for k, v in sorted(params.items())), "-_.")


def older(name, want, sig, params=CALLBACK, text=None, **more):
    b64 = base64.b64encode(sig).decode()
    query = "&".join(f"{k}={enc(v, '')}" for k, v in {**params, "sig": b64}.items())
    case(name, "sig", want, (text or (lambda query, params: query))(query, {**params, "sig": b64}), path="/pay/notify", **more)
    cases[-1]["keys"] = [PAY]


RIGHT = base("/pay/notify", CALLBACK)
sum = lambda text, key=PAY + "&", h=hashlib.sha1: hmac.new(key.encode(), text.encode(), h).digest()
older("a right callback", [], sum(RIGHT))
older("its parameters as JSON", [], sum(RIGHT), text=lambda q, p: json.dumps(p))
older("its parameters in an envelope, some as numbers", [], sum(RIGHT), text=lambda q, p: json.dumps({"time": "x", "get": {**p, "ts": int(p["ts"]), "amt": int(p["amt"])}}))
older("its URL in a log in JSON", [], sum(RIGHT), text=lambda q, p: json.dumps({"uri": "/pay/notify?" + q}).replace("&", "\\u0026"))
older("the GIN log", [], sum(RIGHT), text=lambda q, p: f'[GIN] 2026/11/29 - 10:00:00 | 200 |  1.2ms |  203.0.113.9 | GET      "/pay/notify?{q}"')
older("a POST", [], sum(RIGHT), text=lambda q, p: "POST /pay/notify?" + q, refused="parameter method: POST, want GET", ok=False)
older("a POST, wrongly signed", ["order-path"], sum(base("/v3/r/mpay/buy_goods_m", CALLBACK)), text=lambda q, p: "POST /pay/notify?" + q, refused="parameter method: POST, want GET", ok=False)
older("a GET", [], sum(RIGHT), text=lambda q, p: "GET /pay/notify?" + q, ok=True)
older("cut to 15 bytes", ["sig-cut"], sum(RIGHT)[:15], never="forgery")
older("JSON, wrongly signed", ["order-path"], sum(base("/v3/r/mpay/buy_goods_m", CALLBACK)), text=lambda q, p: json.dumps(p))
older("key and text swapped", ["hmac-swapped"], sum(PAY + "&", RIGHT))
older("MD5 of key and text", ["md5-of-key-and-text"], hashlib.md5((PAY + "&" + RIGHT).encode()).digest())
older("MD5 of text and key", ["md5-of-key-and-text"], hashlib.md5((RIGHT + PAY + "&").encode()).digest())
older("SHA-256 of text and key", ["sha256-of-text-and-key"], hashlib.sha256((RIGHT + PAY + "&").encode()).digest())
older("HMAC-SHA512", ["hmac-sha512"], sum(RIGHT, h=hashlib.sha512))
older("a second slash", ["path-with-two-slashes"], sum(base("//pay/notify", CALLBACK)))
for n in range(1000):
    params = {**CALLBACK, "billno": f"-B{n}"}
    whole = sum(base("/pay/notify", params))
    if 5 < whole.find(b"\0") < 15:
        older("cut at a zero byte", ["hmac-cut-at-zero"], whole.split(b"\0")[0], params=params)
        break

with open("kinds.json", "w", encoding="utf-8") as f:
    json.dump(cases, f, ensure_ascii=False, indent=1)
    f.write("\n")
