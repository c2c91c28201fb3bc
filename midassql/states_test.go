package midassql

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A payment that is noted is none yet: a refund came before it. Everything that looks at the state of a
// payment is listed here, with what it does where that is noted. Who writes another one decides it, and
// tests it in dbtest.
var withNoted = map[string]string{
	// Statements.
	"statements.takeNoted":     "makes the payment of it",
	"statements.fillNoted":     "makes it broken, since a grant lost its transaction, or done: it was imported",
	"statements.noteEarly":     "inserts it",
	"statements.noteRefund":    "adds the refund and leaves it noted",
	"statements.paymentState":  "reads it",
	"statements.payment":       "reads it",
	"statements.repeatPayment": "never matches: nil would be an OK for what is not granted",
	"statements.settlePayment": "never matches, as repeatPayment",
	"statements.breakPayment":  "matches by mark, and the mark of a noted row is 0",
	"statements.donePayment":   "never matches: waiting alone",
	"statements.cancelPayment": "never matches: waiting alone",
	"statements.regenerate":    "never matches: waiting alone",
	"statements.reopenPayment": "never matches: done alone",
	"statements.importWaiting": "never matches: waiting alone",
	"statements.mayHave":       "never matches: cancelled alone",
	"fillNoted":                "matches nothing else",
	"full":                     "what will be charged is not known: in full only where the refund says so",
	"paymentColumns":           "reads it",
	"Store.Payments":           "shows it, unless q asks for another state",

	// Code.
	"Store.Once":        "stores a payment as done",
	"Inbox.Deliver":     "stores a payment as waiting",
	"Inbox.Settle":      "stores a payment as waiting",
	"Store.Settle":      "stores a payment as done",
	"imported":          "stores a payment as done",
	"Store.resolve":     "is done, and ImportResult says that it was noted",
	"Store.storeBroken": "see fillNoted",
	"Store.repeated":    "is an error: somebody has put the row back in this moment",
	"Store.known":       "is ErrNoPayment (Fail)",
	"Store.mayHave":     "the player has nothing",
	"Store.noteRefund":  "is RefundResult.Early",
	"Inbox.doneOne":     "is ErrNoPayment",
	"Inbox.cancelIn":    "is ErrNoPayment",
	"Inbox.reopen":      "leaves it out: done alone",
	"scanPayment":       "is StateNoted, without times of its own",
	"states":            "is StateNoted",
	"Store.spent":       "leaves it out",
	"rowColumns":        "writes it",
}

func TestWhateverLooksAtTheStateOfAPaymentKnowsWhatIsNoted(t *testing.T) {
	t.Parallel()
	found := make(map[string]bool)
	aState := regexp.MustCompile(`\bstate\b`)
	constant := regexp.MustCompile(`^(stored|State)(Done|Waiting|Stuck|Cancelled|Broken|Noted)$`)
	files, err := fs.Glob(os.DirFS("."), "*.go")
	require.NoError(t, err)
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		require.NoError(t, err)
		look := func(where string, n ast.Node) {
			ast.Inspect(n, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.KeyValueExpr:
					if key, ok := n.Key.(*ast.Ident); ok && where == "Store.statements" {
						ast.Inspect(n.Value, func(v ast.Node) bool {
							switch v := v.(type) {
							case *ast.BasicLit:
								if text, _ := strconv.Unquote(v.Value); v.Kind == token.STRING && (aState.MatchString(text) || strings.Contains(text, "full}")) {
									found["statements."+key.Name] = true
								}
							case *ast.Ident:
								if v.Name == "fillNoted" || v.Name == "paymentColumns" {
									found["statements."+key.Name] = true
								}
							}
							return true
						})
						return false
					}
				case *ast.BasicLit:
					if text, _ := strconv.Unquote(n.Value); n.Kind == token.STRING && aState.MatchString(text) {
						found[where] = true
					}
				case *ast.Ident:
					if constant.MatchString(n.Name) {
						found[where] = true
					}
				}
				return true
			})
		}
		for _, decl := range file.Decls {
			switch decl := decl.(type) {
			case *ast.FuncDecl:
				look(function(decl), decl)
			case *ast.GenDecl:
				for _, spec := range decl.Specs {
					if v, ok := spec.(*ast.ValueSpec); ok && !constant.MatchString(v.Names[0].Name) {
						look(v.Names[0].Name, v)
					}
				}
			}
		}
	}
	require.NotEmpty(t, found)
	require.Equal(t, slices.Sorted(maps.Keys(withNoted)), slices.Sorted(maps.Keys(found)),
		"say in withNoted what it does with a payment that is noted")
}

// function returns the name of a function, with its receiver's.
func function(f *ast.FuncDecl) string {
	if f.Recv == nil {
		return f.Name.Name
	}
	recv := f.Recv.List[0].Type
	if star, ok := recv.(*ast.StarExpr); ok {
		recv = star.X
	}
	return recv.(*ast.Ident).Name + "." + f.Name.Name
}
