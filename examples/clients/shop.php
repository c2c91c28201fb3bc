<?php
// A backend in PHP, with nothing but PHP. See README.md.     php -S 127.0.0.1:8080 shop.php
ini_set('display_errors', '0'); // a warning in the answer would spoil it
const APP_ID = '1450000000', APP_KEY = 'midastest-demo-key', NOTIFY = '/pay/notify', ITEMS = 'sword*60*1;potion*0.5*3';

function E($s) { return str_replace('~', '%7E', rawurlencode($s)); } // protocol 2: for a request
function C($s) { // protocol 5: for a callback's values
    return strtr(E($s), ['-' => '%2D', '_' => '%5F', '.' => '%2E', '%21' => '!', '%2A' => '*', '%28' => '(', '%29' => ')']);
}
function sig($path, $params, $encode) {
    ksort($params, SORT_STRING); // by bytes: numbers too
    foreach ($params as $name => $value) $pairs[] = $name . '=' . $encode($value);
    return base64_encode(hash_hmac('sha1', 'GET&' . E($path) . '&' . E(implode('&', $pairs)), APP_KEY . '&', true));
}
function answer($ret, $msg) { exit("{\"ret\":$ret,\"msg\":\"$msg\"}"); } // these bytes, no line end
function db($name) { return (getenv('STORE') ?: sys_get_temp_dir()) . '/' . sha1($name); } // yours is a database

if ($_SERVER['SCRIPT_NAME'] === '/buy') { // the app asks for an order
    $params = [
        'openid' => $_GET['openid'], 'openkey' => 'from-the-login', 'pf' => 'qq_m_qq-2001-android-2011-xxxx', 'pfkey' => 'from-the-login',
        'appid' => APP_ID, 'ts' => (string)time(), 'zoneid' => '1', 'payitem' => ITEMS, 'appmode' => '1',
        'goodsmeta' => '屠龙刀*一把好刀', 'goodsurl' => '', 'app_metadata' => $_GET['note'] ?? '', 'format' => 'json',
    ];
    $params['sig'] = sig('/v3/r/mpay/buy_goods_m', $params, fn($value) => $value); // not the path of the URL
    $url = (getenv('MIDAS') ?: 'https://ysdktest.qq.com') . '/mpay/buy_goods_m?' . http_build_query($params, '', '&', PHP_QUERY_RFC3986);
    $cookies = 'session_id=openid; session_type=kp_actoken; org_loc=%2Fv3%2Fr%2Fmpay%2Fbuy_goods_m'; // a QQ login
    $order = json_decode(file_get_contents($url, false, stream_context_create(['http' => ['header' => "Cookie: $cookies", 'timeout' => 5]])), true);
    if (!isset($order['ret'])) { http_response_code(502); exit; } // a page in place of JSON is null, and null == 0
    if ($order['ret'] == 0) file_put_contents(db('order ' . $order['token']), "$_GET[openid] 1 " . ITEMS); // before the app has it
    exit(json_encode($order)); // token and url_params, for the app
}
if ($_SERVER['SCRIPT_NAME'] !== NOTIFY) { http_response_code(404); exit; }

foreach (explode('&', $_SERVER['QUERY_STRING']) as $pair) { // $_GET drops what it does not like
    if ($pair === '') continue;
    [$name, $value] = explode('=', $pair, 2) + [1 => ''];
    $name = urldecode($name);
    if (isset($got[$name]) || !preg_match('/^[A-Za-z0-9_.-]+$/D', $name)) answer(4, 'bad_parameter');
    $got[$name] = urldecode($value);
}
$sig = str_replace(' ', '+', $got['sig'] ?? '');
unset($got['sig'], $got['cee_extend']);
if (!hash_equals(sig(NOTIFY, $got ?? [], 'C'), $sig)) answer(4, 'bad_parameter:sig');
$got += ['token' => '', 'openid' => '', 'zoneid' => '', 'payitem' => '', 'billno' => '']; // signed, and still not there
$order = @file_get_contents(db("order $got[token]"));
if ($order === false) answer(3, 'token_not_found');
if ($order !== "$got[openid] $got[zoneid] $got[payitem]") answer(4, 'bad_parameter:payitem'); // amt may be less: discounts
if (@fopen(db("paid $got[openid] $got[billno]"), 'x')) error_log("granted $got[payitem] to $got[openid]"); // once for each payment
answer(0, 'OK');
