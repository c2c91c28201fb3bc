// A backend in JavaScript, with nothing but Node.js. See README.md.     PORT=8080 node shop.js
'use strict';
const crypto = require('crypto');
const http = require('http');

const APP_ID = '1450000000', APP_KEY = 'midastest-demo-key', NOTIFY = '/pay/notify', ITEMS = 'sword*60*1;potion*0.5*3';
const orders = new Map(), paid = new Set(); // yours are in a database

// Keeps letters, digits and the bytes of keep; every other byte becomes %XX.
const encode = (bytes, keep) => [...bytes].map((b) => {
  const c = String.fromCharCode(b);
  return /[0-9A-Za-z]/.test(c) || keep.includes(c) ? c : '%' + b.toString(16).toUpperCase().padStart(2, '0');
}).join('');
const E = (s) => encode(Buffer.from(s), '-_.'); // protocol 2: for a request
const C = (s) => encode(Buffer.from(s, 'latin1'), '!*()'); // protocol 5: for a callback's values, whose bytes are latin1 here
const decode = (s) => s.replace(/\+/g, ' ').replace(/%([0-9A-Fa-f]{2})/g, (_, hex) => String.fromCharCode(parseInt(hex, 16)));

function sig(path, params, encoded = (value) => value) {
  const pairs = Object.keys(params).sort().map((name) => name + '=' + encoded(params[name])).join('&');
  return crypto.createHmac('sha1', APP_KEY + '&').update(`GET&${E(path)}&${E(pairs)}`).digest('base64');
}

async function buy(openid, note) { // the app asks for an order
  const params = {
    openid, openkey: 'from-the-login', pf: 'qq_m_qq-2001-android-2011-xxxx', pfkey: 'from-the-login',
    appid: APP_ID, ts: String(Math.floor(Date.now() / 1000)), zoneid: '1', payitem: ITEMS, appmode: '1',
    goodsmeta: '屠龙刀*一把好刀', goodsurl: '', app_metadata: note, format: 'json',
  };
  params.sig = sig('/v3/r/mpay/buy_goods_m', params); // not the path of the URL
  const url = (process.env.MIDAS || 'https://ysdktest.qq.com') + '/mpay/buy_goods_m?' + Object.entries(params).map(([k, v]) => k + '=' + E(v)).join('&');
  const cookie = 'session_id=openid; session_type=kp_actoken; org_loc=%2Fv3%2Fr%2Fmpay%2Fbuy_goods_m'; // a QQ login
  const order = JSON.parse(await (await fetch(url, {headers: {cookie}, signal: AbortSignal.timeout(5000)})).text()); // its Content-Type may say HTML
  if (Number(order.ret) === 0) orders.set(order.token, [openid, '1', ITEMS].join()); // before the app has it
  return JSON.stringify(order); // token and url_params, for the app
}

function notify(query) { // Midas says that the player paid
  const got = Object.create(null);
  for (const pair of query.split('&').filter(Boolean)) { // URLSearchParams cannot hold bytes that are no UTF-8
    const at = (pair + '=').indexOf('='), name = decode(pair.slice(0, at));
    if (name in got || !/^[A-Za-z0-9_.-]+$/.test(name)) return [4, 'bad_parameter'];
    got[name] = decode(pair.slice(at + 1));
  }
  const received = Buffer.from((got.sig || '').replace(/ /g, '+'));
  delete got.sig;
  delete got.cee_extend;
  const right = Buffer.from(sig(NOTIFY, got, C));
  if (received.length !== right.length || !crypto.timingSafeEqual(received, right)) return [4, 'bad_parameter:sig'];
  if (!orders.has(got.token)) return [3, 'token_not_found'];
  if (orders.get(got.token) !== [got.openid, got.zoneid, got.payitem].join()) return [4, 'bad_parameter:payitem']; // amt may be less: discounts
  const payment = got.openid + ' ' + got.billno;
  if (!paid.has(payment)) console.log('granted', got.payitem, 'to', got.openid); // once for each payment
  paid.add(payment);
  return [0, 'OK'];
}

http.createServer(async (request, response) => {
  const [path, query = ''] = request.url.split(/\?(.*)/s);
  try {
    const asked = new URLSearchParams(query);
    if (path === '/buy') response.end(await buy(asked.get('openid'), asked.get('note') || ''));
    else if (path === NOTIFY) {
      const [ret, msg] = notify(query);
      response.end(`{"ret":${ret},"msg":"${msg}"}`); // these bytes, no line end
    } else response.writeHead(404).end();
  } catch { // not the error's text: it may hold the URL
    response.writeHead(500).end();
  }
}).listen(Number(process.env.PORT || 8080), '127.0.0.1');
