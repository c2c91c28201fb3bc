// Reads lines FUNCTION TAB HEX, or FUNCTION TAB HEX=HEX&HEX=HEX for a function of pairs; writes HEX.
const querystring = require('querystring')
const text = hex => Buffer.from(hex, 'hex').toString()
const pairs = all => all.split('&').map(pair => pair.split('=').map(text))
const functions = {
  encodeURI: hex => encodeURI(text(hex)), encodeURIComponent: hex => encodeURIComponent(text(hex)), escape: hex => escape(text(hex)),
  'querystring.stringify': all => querystring.stringify(Object.fromEntries(pairs(all))),
  URLSearchParams: all => new URLSearchParams(pairs(all)).toString(),
}
for (const line of require('fs').readFileSync(0, 'latin1').trimEnd().split('\n')) {
  const [name, input] = line.split('\t')
  console.log(Buffer.from(functions[name](input)).toString('hex'))
}
