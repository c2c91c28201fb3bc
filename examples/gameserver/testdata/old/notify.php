<?php
// The backend that moving_test.go moves away from. It does not verify the callback: the SDK's check was given the
// path of the order, and never returned true. It grants each payment once, into files; yours has a database.
//     STORE=/tmp/store php -S 127.0.0.1:8080 notify.php
ini_set('display_errors', '0'); // a warning in the answer would spoil it
$store = getenv('STORE');
if (file_exists("$store/stopped")) exit('{"ret":1,"msg":"system_busy"}'); // docs/moving.md: it grants no more
$payment = sha1("$_GET[openid] $_GET[billno]");
if ($file = @fopen("$store/$payment.paid", 'x')) {
    fputcsv($file, [$_GET['billno'], $_GET['openid'], $_GET['amt'], $_GET['payitem'], $_GET['zoneid'], $_GET['token'], time()], ',', '"', '');
    file_put_contents("$store/granted", "$_GET[openid] $_GET[billno]\n", FILE_APPEND | LOCK_EX);
}
echo '{"ret":0,"msg":"OK"}';
