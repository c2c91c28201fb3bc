// Reads lines FUNCTION TAB HEX, or FUNCTION TAB HEX=HEX&HEX=HEX for a function of pairs; writes HEX.
package main

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"net/url"
	"os"
	"strings"
)

func text(digits string) string {
	b, err := hex.DecodeString(digits)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func main() {
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		name, input, _ := strings.Cut(in.Text(), "\t")
		var out string
		switch name {
		case "QueryEscape":
			out = url.QueryEscape(text(input))
		case "PathEscape":
			out = url.PathEscape(text(input))
		case "Values.Encode":
			values := url.Values{}
			for pair := range strings.SplitSeq(input, "&") {
				key, value, _ := strings.Cut(pair, "=")
				values.Set(text(key), text(value))
			}
			out = values.Encode()
		}
		fmt.Printf("%x\n", out)
	}
}
