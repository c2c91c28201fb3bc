// Command midas is the developer's tool for Tencent Midas (米大师), item direct-purchase: a
// Midas on one's own machine with a cashier page, and a tool that says why a signature
// fails. It serves backends in any language. See docs/sandbox.md.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/cmd/midas/internal/lang"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1 // not verified, not accepted, or it could not be done
	exitUsage  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends what does not end at the first
	code := run(ctx, os.Args[1:], &terminal{in: os.Stdin, out: os.Stdout, err: os.Stderr, env: os.Getenv})
	stop()
	os.Exit(code)
}

// A terminal is a command's standard input, output and error, its environment and language.
type terminal struct {
	in       io.Reader
	out, err io.Writer
	env      func(string) string
	lang     string // "en" or "zh"
}

// say returns a text of the catalogue in the command's language.
func (t *terminal) say(key string, args ...any) string { return lang.T(key, args...).In(t.lang) }

var commands = map[string]func(context.Context, []string, *terminal) int{
	"sandbox": runSandbox, "explain": runExplain, "sign": runSign, "callback": runCallback, "tap": runTap, "replay": runReplay,
}

func run(ctx context.Context, args []string, t *terminal) int {
	t.lang = language(args, t.env)
	if len(args) == 0 {
		fmt.Fprint(t.err, t.say("about"))
		return exitUsage
	}
	switch name, args := args[0], args[1:]; name {
	case "version", "-version", "--version":
		fmt.Fprintln(t.out, version())
		return exitOK
	case "help", "-h", "-help", "--help":
		fmt.Fprint(t.out, t.say("about"))
		return exitOK
	default:
		if command := commands[name]; command != nil {
			return command(ctx, args, t)
		}
		return t.misused("", lang.T("usage.no-command", name))
	}
}

// language returns the language a command prints in: the one asked for with -lang, or else the
// environment's. It is looked for before the flags are read, whose errors are in it, too.
func language(args []string, env func(string) string) string {
	if asked := askedFor.FindStringSubmatch(strings.Join(args, " ")); asked != nil {
		return asked[1]
	}
	locale := cmp.Or(env("LC_ALL"), env("LC_MESSAGES"), env("LANG")) // POSIX: the first one set wins
	if strings.HasPrefix(strings.ToLower(locale), "zh") {
		return "zh"
	}
	return "en"
}

var askedFor = regexp.MustCompile(`(?:^| )--?lang[ =](en|zh)(?: |$)`)

// version says what this program was built from.
func version() string {
	info, _ := debug.ReadBuildInfo() // a program that was built with modules has it
	return fmt.Sprintf("midas %s, built with %s for %s/%s", info.Main.Version, info.GoVersion, runtime.GOOS, runtime.GOARCH)
}

// misused says what is wrong with the usage of a command.
func (t *terminal) misused(command string, err error) int {
	name := strings.TrimSpace("midas " + command)
	fmt.Fprintf(t.err, "%s\n%s\n", t.say("failed", name, err), t.say("usage.help", name))
	return exitUsage
}

func (t *terminal) failed(command string, err error) int {
	fmt.Fprintln(t.err, t.say("failed", "midas "+command, err))
	return exitFailed
}

// refused reports whether one of errs is an error, and says that it is wrong usage.
func (t *terminal) refused(command string, errs ...error) bool {
	err := cmp.Or(errs...)
	if err != nil {
		t.misused(command, err)
	}
	return err != nil
}

// when returns an error if something is wrong.
func when(wrong bool, err error) error {
	if wrong {
		return err
	}
	return nil
}

// flagError says what is wrong with a flag, if anything is.
func flagError(name string, reason error) error {
	return when(reason != nil, lang.T("usage.flag", name, reason))
}

// newFlags returns the flags of a command, -lang among them.
func newFlags(command string) *flag.FlagSet {
	flags := flag.NewFlagSet(command, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.Func("lang", "", func(s string) error { return when(s != "en" && s != "zh", lang.T("usage.lang")) }) // its value is known: see language
	return flags
}

// parse reads the flags of a command. If ok is false, the command ends with code.
func (t *terminal) parse(flags *flag.FlagSet, args []string) (code int, ok bool) {
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		t.help(flags)
		return exitOK, false
	case err != nil:
		return t.misused(flags.Name(), err), false
	}
	return exitOK, true
}

// help prints what a command does and its flags.
func (t *terminal) help(flags *flag.FlagSet) {
	fmt.Fprintf(t.out, "%s\n%s\n", t.say(flags.Name()+".about"), t.say("help.flags"))
	flags.VisitAll(func(f *flag.Flag) {
		f.Usage = lang.First(nil, flags.Name()+".flag."+f.Name, "flag."+f.Name).In(t.lang)
		value, usage := flag.UnquoteUsage(f)
		if f.DefValue != "" && f.DefValue != "0" && f.DefValue != "false" {
			usage = t.say("help.default", lang.Raw(usage), f.DefValue)
		}
		fmt.Fprintf(t.out, "  %s\n    \t%s\n", strings.TrimSpace("-"+f.Name+" "+value), usage)
	})
}

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

// repeatable registers a flag that may be given several times.
func repeatable(flags *flag.FlagSet, name string) *[]string {
	values := new([]string)
	flags.Func(name, "", func(value string) error {
		*values = append(*values, value)
		return nil
	})
	return values
}

// keyFlags are the ways to give a pay key. It is never printed.
type keyFlags struct {
	name string
	keys *[]string
	file *string
}

const keyVariable = "MIDAS_APP_KEY"

func newKeyFlags(flags *flag.FlagSet, name string) keyFlags {
	return keyFlags{name, repeatable(flags, name), flags.String(name+"-file", "", "")}
}

// given reports whether there are any.
func (k keyFlags) given(t *terminal) bool {
	return len(*k.keys) > 0 || *k.file != "" || t.env(keyVariable) != ""
}

// read returns the keys given, at least one, in the order they are to be tried.
func (k keyFlags) read(t *terminal) ([]string, error) {
	keys := *k.keys
	if *k.file != "" {
		text, err := os.ReadFile(*k.file)
		if err != nil {
			return nil, flagError("-"+k.name+"-file", err)
		}
		keys = append(keys, strings.TrimRight(string(text), "\r\n"))
	}
	if key := t.env(keyVariable); key != "" && len(keys) == 0 {
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, lang.T("usage.no-key", "-"+k.name, "-"+k.name+"-file", keyVariable)
	}
	for _, key := range keys {
		if err := wrongConfig(midas.Config{AppID: "any", AppKey: key}); err != nil {
			return nil, flagError("-"+k.name, err)
		}
	}
	return keys, nil
}

// one returns the only key given.
func (k keyFlags) one(t *terminal) (string, error) {
	keys, err := k.read(t)
	if err != nil {
		return "", err
	}
	return keys[0], when(len(keys) > 1, lang.T("usage.flag", "-"+k.name, lang.T("usage.one-key")))
}

// wrongConfig returns the library's first reason against cfg.
func wrongConfig(cfg midas.Config) error {
	_, err := midas.New(cfg)
	var wrong *midas.ConfigError
	if errors.As(err, &wrong) {
		return errors.New(wrong.Reason)
	}
	return err
}

// cutParam reads NAME=VALUE. What looks like a flag, perhaps the pay key, is not repeated.
func cutParam(arg string) (name, value string, err error) {
	name, value, isParam := strings.Cut(arg, "=")
	switch {
	case strings.HasPrefix(arg, "-"):
		return "", "", lang.T("usage.flag-after")
	case !isParam || name == "":
		return "", "", lang.T("usage.no-param", arg)
	}
	return name, value, nil
}
