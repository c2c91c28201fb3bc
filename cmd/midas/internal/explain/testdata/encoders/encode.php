<?php // Reads lines FUNCTION TAB HEX, or FUNCTION TAB HEX=HEX&HEX=HEX for a function of pairs; writes HEX.
function pairs($text) {
    $pairs = [];
    foreach (explode('&', $text) as $pair) { [$name, $value] = explode('=', $pair); $pairs[hex2bin($name)] = hex2bin($value); }
    return $pairs;
}
while (($line = fgets(STDIN)) !== false) {
    [$function, $text] = explode("\t", rtrim($line, "\n"));
    echo bin2hex($function == 'http_build_query' ? http_build_query(pairs($text)) : $function(hex2bin($text))), "\n";
}
