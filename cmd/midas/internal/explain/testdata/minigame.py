"""Writes minigame.json: orders, server calls and pushes of mini games whose signature holds a known
mistake (minigame.md 7). Each is signed here with Python's hmac and hashlib. Run it in this folder.
"""
import base64, hashlib, hmac, json

APP, OTHER, SESSION, OLD, TOKEN = "AppKeyLive0001", "AppKeySandbox0001", "o0q0otL8aEzpcZL/FT9WsQ==", "9hAb/NEYUlkaMBEsmFgzig==", "AAAAA"
GAME, PROGRAM = "requestMidasPaymentGameItem", "requestVirtualPayment"


def mac(key, text, h=hashlib.sha256):
    return hmac.new(key if isinstance(key, bytes) else key.encode(), text.encode(), h).hexdigest()


ORDER = {"mode": "goods", "offerId": "123", "buyQuantity": 1, "env": 0, "currencyType": "CNY", "platform": "android", "zoneId": "1",
         "productId": "道具/1", "goodsPrice": 10, "outTradeNo": "order-0001", "attach": "<a&b>"}
DATA = json.dumps(ORDER, ensure_ascii=False, separators=(",", ":"))
PROGRAM_DATA = json.dumps({k: v for k, v in ORDER.items() if k not in ("mode", "platform", "zoneId")}, ensure_ascii=False, separators=(",", ":"))
URI = "/wxa/game/getbalance"
BODY = '{"openid": "oUrsfxxxxxxxxxx", "offer_id":"12345678","ts":1668512806,"zone_id":"1","env":0,"user_ip":"127.0.0.1","name":"道具/<1>"}'
EVENT = "minigame_game_pay_goods_deliver_notify"
PAYLOAD = '{"OpenId":"to_user_openid","Env":0,"OutTradeNo":"order-0001","GoodsInfo":{"ProductId":"p","Quantity":1,"ZoneId":"1","OrigPrice":10,"ActualPrice":10,"Attach":"中/文<&>","OrderSource":1}}'
cases = []


def case(name, want, text, signature, body=""):
    cases.append(dict(name=name, text=text, body=body, signature=signature, want=want, app_keys=[APP, OTHER], session_keys=[SESSION, OLD], tokens=[TOKEN]))


def order(name, want, pay_sig=None, signature=None, data=DATA, what=GAME):
    checked = "paySig" if pay_sig is not None or signature is None else "signature"
    case(name, want, json.dumps(dict(signData=data, paySig=pay_sig or mac(APP, what + "&" + data), signature=signature or mac(SESSION, data)), ensure_ascii=False), checked)


def call(name, want, pay_sig=None, signature=None, uri=URI, body=BODY):
    url = f"https://api.weixin.qq.com{uri}?access_token=TOKEN&signature={signature or mac(SESSION, body)}&sig_method=hmac_sha256&pay_sig={pay_sig or mac(APP, uri + '&' + body)}"
    case(name, want, url, "signature" if signature else "pay_sig", body)


def push(name, want, sig=None, payload=PAYLOAD, event=EVENT, ascii=True):
    body = json.dumps(dict(ToUserName="gh_1", FromUserName="o", CreateTime=1583202606, MsgType="event", Event=event,
                           MiniGame=dict(Payload=payload, PayEventSig=sig or mac(APP, event + "&" + payload), IsMock=False)), ensure_ascii=ascii)
    case(name, want, body, "PayEventSig")


def sha1(*parts, order=sorted, join="", h=hashlib.sha1):
    return h(join.join(order(parts)).encode()).hexdigest()


TS, NONCE, ENCRYPT = "1714037059", "486452656", "xjLac49nBmOk4B3DdBoBQco54KYvt/f9kFrOZl34rE7tf59dJFLUooRaeTkQP2amfzmpOAjWy6vD3ODwPcvlzg=="


def pushed(name, want, signature=None, msg_signature=None):
    url = f"/push?signature={signature or sha1(TOKEN, TS, NONCE)}&timestamp={TS}&nonce={NONCE}"
    body = ""
    if msg_signature:
        url += f"&encrypt_type=aes&msg_signature={msg_signature}"
        body = json.dumps(dict(ToUserName="gh_1", Encrypt=ENCRYPT))
    case(name, want, url, "msg_signature" if msg_signature else "signature", body)


# Right ones.
order("a right order", [])
order("a right order of a mini program", [], data=PROGRAM_DATA, what=PROGRAM)
order("a right signature", [], signature=mac(SESSION, DATA))
call("a right call", [])
call("a right signature of a call", [], signature=mac(SESSION, BODY))
push("a right push", [])
pushed("a right push's URL", [])
pushed("a right push's URL in secure mode", [], msg_signature=sha1(TOKEN, TS, NONCE, ENCRYPT))

# Orders.
KEYS = {"key-with-ampersand": APP + "&", "other-key": OTHER, "session-key-used": SESSION, "token-used": TOKEN, "key-with-blank": APP + "\n", "key-with-bom": "\ufeff" + APP}
PREFIXES = {"other-prefix": "/wxa/game/queryorderinfo&", "prefix-missing": "", "ampersand-missing": GAME, "prefix-with-wx": "wx." + GAME + "&"}
TEXTS = {
    "re-serialised": json.dumps(ORDER), "line-end-signed": DATA + "\n", "text-missing": "",
}
for name, key in KEYS.items():
    order("paySig: " + name, [name], pay_sig=mac(key, GAME + "&" + DATA))
    call("pay_sig: " + name, [name], pay_sig=mac(key, URI + "&" + BODY))
    push("PayEventSig: " + name, [name], sig=mac(key, EVENT + "&" + PAYLOAD))
    for second, prefix in PREFIXES.items():
        order(f"paySig: {name} and {second}", [name, second], pay_sig=mac(key, prefix + DATA))
    for second, text in TEXTS.items():
        order(f"paySig: {name} and {second}", [name, second], pay_sig=mac(key, GAME + "&" + text))
for name, prefix in PREFIXES.items():
    order("paySig: " + name, [name], pay_sig=mac(APP, prefix + DATA))
for name, text in TEXTS.items():
    order("paySig: " + name, [name], pay_sig=mac(APP, GAME + "&" + text))
order("paySig of a mini program with a mini game's method", ["other-prefix"], pay_sig=mac(APP, GAME + "&" + PROGRAM_DATA), data=PROGRAM_DATA)
order("paySig: swapped", ["swapped"], pay_sig=mac(APP, DATA + "&" + GAME))
order("paySig in capitals", ["sig-upper-case"], pay_sig=mac(APP, GAME + "&" + DATA).upper())
order("paySig in base64", ["sig-in-base64"], pay_sig=base64.b64encode(bytes.fromhex(mac(APP, GAME + "&" + DATA))).decode())
order("paySig: HMAC-SHA1", ["hmac-sha1"], pay_sig=mac(APP, GAME + "&" + DATA, hashlib.sha1))
order("paySig: SHA-256", ["sha256-of-key-and-text"], pay_sig=hashlib.sha256((APP + GAME + "&" + DATA).encode()).hexdigest())
for name, text in {
    "json.dumps": json.dumps(ORDER), "json.dumps without ASCII": json.dumps(ORDER, ensure_ascii=False), "compact, \\u": json.dumps(ORDER, separators=(",", ":")),
    "PHP's json_encode": json.dumps(ORDER, separators=(",", ":")).replace("/", "\\/"),
    "Go's encoding/json": DATA.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"),
    "sorted keys": json.dumps(ORDER, ensure_ascii=False, separators=(",", ":"), sort_keys=True),
    "Go's map": json.dumps(ORDER, ensure_ascii=False, separators=(",", ":"), sort_keys=True).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"),
}.items():
    order("re-serialised: " + name, ["re-serialised"], pay_sig=mac(APP, GAME + "&" + text))

# The player's signature.
for name, key in {"key-base64-decoded": base64.b64decode(SESSION), "key-without-padding": SESSION.rstrip("="), "other-key": OLD, "app-key-used": APP, "key-with-ampersand": SESSION + "&"}.items():
    order("signature: " + name, [name], signature=mac(key, DATA))
    call("signature of a call: " + name, [name], signature=mac(key, BODY))
order("signature with the method", ["prefix-signed"], signature=mac(SESSION, GAME + "&" + DATA))
call("signature with the path", ["prefix-signed"], signature=mac(SESSION, URI + "&" + BODY))

# Server calls.
for name, prefix in {"path-without-slash": URI[1:] + "&", "whole-url": "https://api.weixin.qq.com" + URI + "&", "path-with-query": URI + "?access_token=TOKEN&", "api-name": "pay_v2.getBalance&",
                     "method-signed": "POST&" + URI + "&", "trailing-slash": URI + "/&", "prefix-missing": "", "other-prefix": "/wxa/game/pay&"}.items():
    call("pay_sig: " + name, [name], pay_sig=mac(APP, prefix + BODY))
    call(f"pay_sig: {name} and other-key", [name, "other-key"], pay_sig=mac(OTHER, prefix + BODY))
call("pay_sig: swapped", ["swapped"], pay_sig=mac(APP, BODY + "&" + URI))
call("pay_sig: re-serialised", ["re-serialised"], pay_sig=mac(APP, URI + "&" + json.dumps(json.loads(BODY), ensure_ascii=False, separators=(",", ":"))))
call("pay_sig: re-serialised and api-name", ["re-serialised", "api-name"], pay_sig=mac(APP, "pay_v2.getBalance&" + json.dumps(json.loads(BODY))))

# Pushes.
push("PayEventSig: without the event", ["prefix-missing"], sig=mac(APP, PAYLOAD))
push("PayEventSig: another event", ["other-prefix"], sig=mac(APP, "minigame_h5_goods_deliver_notify&" + PAYLOAD))
push("PayEventSig: the raw text of the Payload", ["payload-not-decoded"], sig=mac(APP, EVENT + "&" + json.dumps(PAYLOAD)[1:-1]))
push("PayEventSig: re-serialised", ["re-serialised"], sig=mac(APP, EVENT + "&" + json.dumps(json.loads(PAYLOAD))))
pushed("a push's signature joined with &", ["joined-with-ampersand"], signature=sha1(TOKEN, TS, NONCE, join="&"))
pushed("sorted as numbers", ["sorted-as-numbers"], signature=sha1(TOKEN, TS, NONCE, order=lambda p: sorted(p, key=lambda s: (not s.isdigit(), int(s) if s.isdigit() else 0, s))))
pushed("not sorted", ["not-sorted"], signature=sha1(TOKEN, TS, NONCE, order=list))
pushed("without the Token", ["token-missing"], signature=sha1(TS, NONCE))
pushed("the AppKey in place of the Token", ["app-key-used"], signature=sha1(APP, TS, NONCE))
pushed("signature in place of msg_signature", ["encrypt-not-signed"], msg_signature=sha1(TOKEN, TS, NONCE))
pushed("msg_signature over the body", ["body-signed"], msg_signature=sha1(TOKEN, TS, NONCE, json.dumps(dict(ToUserName="gh_1", Encrypt=ENCRYPT))))
pushed("not sorted and joined with &", ["not-sorted", "joined-with-ampersand"], msg_signature=sha1(TOKEN, TS, NONCE, ENCRYPT, order=list, join="&"))
pushed("in capitals", ["sig-upper-case"], signature=sha1(TOKEN, TS, NONCE).upper())

# Nothing fits.
order("forged", None, pay_sig=mac("another", GAME + "&" + DATA))
push("a changed payload", None, sig=mac(APP, EVENT + "&" + PAYLOAD.replace("10", "11")))
pushed("another Token", None, signature=sha1("BBBBB", TS, NONCE))

with open("minigame.json", "w", encoding="utf-8") as f:
    json.dump(cases, f, ensure_ascii=False, indent=1)
    f.write("\n")
