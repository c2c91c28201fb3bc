package main

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"strings"

	"github.com/midas-go/midas/cmd/midas/internal/explain"
	"github.com/midas-go/midas/cmd/midas/internal/lang"
	"github.com/midas-go/midas/cmd/midas/internal/tap"
)

func runExplain(_ context.Context, args []string, t *terminal) int {
	const name = "explain"
	flags := newFlags(name)
	keys := newKeyFlags(flags, "key")
	path := flags.String("path", "", "")
	sig := flags.String("sig", "", "")
	asJSON := flags.Bool("json", false, "")
	secrets := flags.Bool("secrets", false, "")
	sessionKeys, tokens, aesKeys := repeatable(flags, "session-key"), repeatable(flags, "token"), repeatable(flags, "encoding-aes-key")
	appID := flags.String("app-id", "", "")
	body := flags.String("body", "", "")
	if code, ok := t.parse(flags, args); !ok {
		return code
	}
	if flags.NArg() != 1 {
		return t.misused(name, lang.T("explain.no-input"))
	}
	text := flags.Arg(0)
	if text == "-" {
		input, err := io.ReadAll(io.LimitReader(t.in, explain.MaxInput+1))
		if err != nil {
			return t.failed(name, err)
		}
		text = string(input)
	}
	if file, ok := strings.CutPrefix(*body, "@"); ok {
		content, err := os.ReadFile(file)
		if err != nil {
			return t.misused(name, flagError("-body", err))
		}
		*body = string(content)
	}
	options := explain.Options{SessionKeys: *sessionKeys, Tokens: *tokens, AESKeys: *aesKeys, AppID: *appID, Path: *path, Sig: *sig}
	if !*secrets {
		options.Mask = mask
	}
	if keys.given(t) {
		var err error
		if options.Keys, err = keys.read(t); err != nil {
			return t.misused(name, err)
		}
	}
	if tap.Masked(text) {
		return t.explainMasked(text)
	}
	m, err := explain.Parse(text, *body)
	if err != nil {
		return t.failed(name, err)
	}
	e, err := m.Explain(options)
	if err != nil {
		return t.misused(name, err)
	}
	if *asJSON {
		out := json.NewEncoder(t.out)
		out.SetEscapeHTML(false)
		out.SetIndent("", "  ")
		out.Encode(e)
	} else {
		e.Print(t.out, t.lang, t.paint)
	}
	if !e.Verified {
		return exitFailed
	}
	return exitOK
}
