<?php
// Prints what the old backend granted.     STORE=/tmp/store php export.php
echo "billno,openid,amt,payitem,zoneid,token,time\n"; // amt is in fen, as in the callback
foreach (glob(getenv('STORE') . '/*.paid') as $file) readfile($file);
