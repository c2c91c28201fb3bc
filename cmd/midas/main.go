// Command midas is the developer's tool for Tencent Midas (米大师), item direct-purchase: a
// Midas on one's own machine with a cashier page, and a tool that says why a signature
// fails. It serves backends in any language. See docs/sandbox.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/midas-go/midas"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1 // not verified, not accepted, or it could not be done
	exitUsage  = 2
)

const usage = `midas is the developer's tool for Tencent Midas, item direct-purchase.

Usage: midas COMMAND [flags]

  sandbox    a Midas on this machine, with a cashier page and a dashboard
  explain    say why the signature of a request or a callback fails
  sign       sign the parameters of a request or a callback
  callback   send one signed callback to an endpoint and judge the reply
  replay     send recorded callbacks to an endpoint once more and judge the replies
  version    print the version

"midas COMMAND -h" describes a command. Exit codes: 0 done, verified or accepted;
1 not verified, not accepted, or not possible; 2 wrong usage.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends what does not end at the first
	code := run(ctx, os.Args[1:], &terminal{os.Stdin, os.Stdout, os.Stderr, os.Getenv})
	stop()
	os.Exit(code)
}

// A terminal is what a command talks to.
type terminal struct {
	in       io.Reader
	out, err io.Writer
	env      func(string) string
}

func run(ctx context.Context, args []string, t *terminal) int {
	usage := usage
	if language("", t.env) == "zh" {
		usage = chineseHelp[""].about
	}
	if len(args) == 0 {
		fmt.Fprint(t.err, usage)
		return exitUsage
	}
	switch name, args := args[0], args[1:]; name {
	case "sandbox":
		return runSandbox(ctx, args, t)
	case "explain":
		return runExplain(args, t)
	case "sign":
		return runSign(args, t)
	case "callback":
		return runCallback(ctx, args, t)
	case "replay":
		return runReplay(ctx, args, t)
	case "version", "-version", "--version":
		fmt.Fprintln(t.out, version())
		return exitOK
	case "help", "-h", "-help", "--help":
		fmt.Fprint(t.out, usage)
		return exitOK
	default:
		return t.misused("", fmt.Errorf("there is no command %q", name))
	}
}

// version says what this program was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "midas (unknown version)"
	}
	return fmt.Sprintf("midas %s, built with %s for %s/%s", info.Main.Version, info.GoVersion, runtime.GOOS, runtime.GOARCH)
}

// misused says what is wrong with the usage of a command.
func (t *terminal) misused(command string, err error) int {
	name := strings.TrimSpace("midas " + command)
	fmt.Fprintf(t.err, "%s: %v\nRun '%s -h' for help.\n", name, err, name)
	return exitUsage
}

func (t *terminal) failed(command string, err error) int {
	fmt.Fprintf(t.err, "midas %s: %v\n", command, err)
	return exitFailed
}

// parse reads the flags of a command. If ok is false, the command ends with code.
func (t *terminal) parse(flags *flag.FlagSet, args []string, about string) (code int, ok bool) {
	flags.SetOutput(io.Discard)
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(t.out, t.help(flags, about))
		flags.SetOutput(t.out)
		flags.PrintDefaults()
		return exitOK, false
	case err != nil:
		return t.misused(flags.Name(), err), false
	}
	return exitOK, true
}

// Colours, for a terminal alone.
const (
	red   = "31"
	green = "32"
	bold  = "1"
	dim   = "2"
)

// paint returns text in a colour if the output is a terminal, and not as plain as NO_COLOR asks.
func (t *terminal) paint(colour, text string) string {
	if t.env("NO_COLOR") != "" || t.env("TERM") == "dumb" || !isTerminal(t.out) {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// progress returns what shows a line about long work in place of the one before, or takes it
// away where the text is empty. Without a terminal it shows nothing.
func (t *terminal) progress() func(text string) {
	if t.env("TERM") == "dumb" || !isTerminal(t.err) {
		return func(string) {}
	}
	return func(text string) { fmt.Fprintf(t.err, "\r\x1b[K%s", text) }
}

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// keyFlags are the ways to give a pay key. It is never printed.
type keyFlags struct {
	keys []string
	file string
}

const keyVariable = "MIDAS_APP_KEY"

func (k *keyFlags) register(flags *flag.FlagSet, name, usage string) {
	flags.Func(name, usage+"; else the environment's "+keyVariable, func(key string) error {
		k.keys = append(k.keys, key)
		return nil
	})
	flags.StringVar(&k.file, name+"-file", "", "read the pay key from this `file`")
}

// read returns the keys given, at least one, in the order they are to be tried.
func (k *keyFlags) read(t *terminal, name string) ([]string, error) {
	keys := k.keys
	if k.file != "" {
		text, err := os.ReadFile(k.file)
		if err != nil {
			return nil, fmt.Errorf("-%s-file: %w", name, err)
		}
		keys = append(keys, strings.TrimRight(string(text), "\r\n"))
	}
	if key := t.env(keyVariable); key != "" && len(keys) == 0 {
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("no pay key: give -%s KEY or -%s-file FILE, or set %s", name, name, keyVariable)
	}
	for _, key := range keys {
		if _, err := newClient(midas.Config{AppID: "any", AppKey: key}); err != nil {
			return nil, fmt.Errorf("-%s: %w", name, err)
		}
	}
	return keys, nil
}

// newClient returns a client with the library's own checks, or the first reason against cfg.
func newClient(cfg midas.Config) (*midas.Client, error) {
	client, err := midas.New(cfg)
	var wrong *midas.ConfigError
	if errors.As(err, &wrong) {
		return nil, errors.New(wrong.Reason)
	}
	return client, err
}

// cutParam reads NAME=VALUE. What looks like a flag, perhaps the pay key, is not repeated.
func cutParam(arg string) (name, value string, err error) {
	name, value, isParam := strings.Cut(arg, "=")
	switch {
	case strings.HasPrefix(arg, "-"):
		return "", "", errors.New("a flag after the parameters: flags go first")
	case !isParam || name == "":
		return "", "", fmt.Errorf("%s is not NAME=VALUE", quote(arg))
	}
	return name, value, nil
}
