package midassql

import (
	"context"
	"database/sql"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"iter"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/stretchr/testify/require"
)

// last returns the error that comes as the last pair.
func last[T any](pairs iter.Seq2[T, error]) (err error) {
	for _, err = range pairs {
	}
	return err
}

// The functions say "midassql" and their name, once, and the sentinels do not: an error text names the call
// that failed, and no two of its parts the same package.
func TestAnErrorSaysOnceWhichFunctionFailed(t *testing.T) {
	t.Parallel()
	store := newStore(t)
	inbox, err := store.Inbox(InboxOptions{})
	require.NoError(t, err)
	grant := func(context.Context, *sql.Tx, *midas.Delivery) error { return nil }
	d := &midas.Delivery{OpenID: "o", BillNo: "b", Token: "t", Charged: 1, Items: []midas.Item{{ID: "i", Price: 1, Quantity: 1}}}
	settlement := Settlement{Delivery: d, By: "anna"}
	req, order := midas.OrderRequest{Player: midas.Player{OpenID: "o"}, Items: d.Items}, &midas.Order{Token: "t"}
	ctx, from, to := t.Context(), time.Unix(0, 0), time.Unix(1, 0)
	_, noStore := New(nil, "", Options{})
	_, noPrefix := New(store.db, SQLite, Options{TablePrefix: "9_"})
	_, noInbox := store.Inbox(InboxOptions{Workers: -1})
	_, notSettled := store.Settle(ctx, settlement, grant)
	_, notStored := inbox.Settle(ctx, settlement)
	_, tooYoung := store.Purge(ctx, time.Hour)
	_, notPurged := store.Purge(ctx, minPurgeAge)
	_, notClaimed := store.ClaimUnpaid(ctx, "", 1)
	_, noLimit := store.ClaimUnpaid(ctx, "", 0)
	_, notCounted := inbox.Counts(ctx)
	_, notMoved := inbox.MoveZone(ctx, "1", "2")
	_, noZone := inbox.MoveZone(ctx, "", "2")
	_, notRetried := inbox.Retry(ctx, RetryOptions{})
	_, notSpent := store.Spent(ctx, []string{"o"}, from, to)
	_, notChecked := store.Check(ctx)
	store.OnCallback(midas.CallbackEvent{OpenID: "o", Outcome: midas.Failed, Ret: 1})
	ended, end := context.WithCancel(ctx)
	end()
	_, notNoted := store.Refund(ctx, Refund{ID: "r", AppID: "a", OpenID: "o", BillNo: "b"}, nil)
	_, notARefund := store.Refund(ctx, Refund{}, nil)
	old := *d
	old.Time = from.Add(time.Second)
	_, notImported := store.Import(ctx, func(yield func(*midas.Delivery, error) bool) { yield(&old, nil) })
	_, notAnImport := store.Import(ctx, func(yield func(*midas.Delivery, error) bool) { yield(d, nil) })
	inbox.handed[paymentID{"o", "b"}] = handOut{}

	tested := make(map[string]bool)
	for _, test := range []struct {
		function, prefix string
		err              error
	}{
		{"New", "New", noStore},
		{"New", "New", noPrefix},
		{"Store.Migrate", "Migrate", store.Migrate(ctx)},
		{"Store.SaveOrder", "SaveOrder", store.SaveOrder(ctx, req, order)},
		{"Store.SaveOrder", "SaveOrder", store.SaveOrder(ctx, midas.OrderRequest{}, order)},
		{"Store.Once", "Once", store.Once(grant)(ctx, d)},
		{"Store.Once", "Once", store.Once(grant)(ctx, &midas.Delivery{})},
		{"Store.Settle", "Settle", notSettled},
		{"Store.Purge", "Purge", tooYoung},
		{"Store.Purge", "Purge", notPurged},
		{"Store.ClaimUnpaid", "ClaimUnpaid", notClaimed},
		{"Store.ClaimUnpaid", "ClaimUnpaid", noLimit},
		{"Store.Orders", "Orders", last(store.Orders(ctx, Query{OpenID: "o"}))},
		{"Store.Orders", "Orders", last(store.Orders(ctx, Query{}))},
		{"Store.UnpaidOrders", "UnpaidOrders", last(store.UnpaidOrders(ctx, from, to))},
		{"Store.Payments", "Payments", last(store.Payments(ctx, Query{OpenID: "o"}))},
		{"Store.Payments", "Payments", last(store.Payments(ctx, Query{State: "lost"}))},
		{"Store.Spent", "Spent", notSpent},
		{"Store.Check", "Check", notChecked},
		{"Store.Acts", "Acts", last(store.Acts(ctx, Query{OpenID: "o"}))},
		{"Store.Acts", "Acts", last(store.Acts(ctx, Query{Token: "t"}))},
		{"Store.Attempts", "Attempts", last(store.Attempts(ctx, Query{OpenID: "o"}))},
		{"Store.Wait", "Wait", store.Wait(ended)},
		{"Store.Inbox", "Inbox", noInbox},
		{"Inbox.Deliver", "Deliver", inbox.Deliver(ctx, d)},
		{"Inbox.Settle", "Settle", notStored},
		{"Inbox.Work", "Work", inbox.Work(ctx, nil)},
		{"Inbox.Waiting", "Waiting", last(inbox.Waiting(ctx, "o"))},
		{"Inbox.Done", "Done", inbox.Done(ctx, "o", "b")},
		{"Inbox.Fail", "Fail", inbox.Fail(ctx, "o", "b", ErrNotNow)},
		{"Inbox.Cancel", "Cancel", inbox.Cancel(ctx, "o", "b", "")},
		{"Inbox.Retry", "Retry", notRetried},
		{"Inbox.Counts", "Counts", notCounted},
		{"Inbox.MoveZone", "MoveZone", notMoved},
		{"Inbox.MoveZone", "MoveZone", noZone},
		{"Store.Refund", "Refund", notNoted},
		{"Store.Refund", "Refund", notARefund},
		{"Store.Import", "Import", notImported},
		{"Store.Import", "Import", notAnImport},
		{"Store.CheckImport", "CheckImport", store.CheckImport(d)},
	} {
		tested[test.function] = true
		t.Run(test.function, func(t *testing.T) {
			require.Error(t, test.err)
			text := test.err.Error()
			require.True(t, strings.HasPrefix(text, "midassql: "+test.prefix+": "), text)
			require.Equal(t, 1, strings.Count(text, "midassql: "), text)
		})
	}

	functions, sentinels := failing(t)
	for _, function := range functions {
		require.True(t, tested[function], "%s is not in the table", function)
	}
	known := map[string]error{"ErrAccepted": ErrAccepted, "ErrNotNow": ErrNotNow, "ErrNoPayment": ErrNoPayment, "ErrCancelled": ErrCancelled,
		"ErrRestored": ErrRestored, "ErrLeaseEnded": ErrLeaseEnded, "ErrNoOrder": ErrNoOrder, "ErrBroken": ErrBroken,
		"ErrRefunded": ErrRefunded, "ErrTellEnded": ErrTellEnded, "ErrEnvironment": ErrEnvironment}
	for _, name := range sentinels {
		require.Contains(t, known, name)
		require.NotContains(t, known[name].Error(), "midassql", name)
	}
	require.Len(t, sentinels, len(known))
	require.NotContains(t, NotNow(time.Minute).Error(), "midassql")
}

// failing returns the package's exported functions with an error among their results, and its exported
// sentinels.
func failing(t *testing.T) (functions, sentinels []string) {
	t.Helper()
	files, err := fs.Glob(os.DirFS("."), "*.go")
	require.NoError(t, err)
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		require.NoError(t, err)
		for _, decl := range file.Decls {
			switch decl := decl.(type) {
			case *ast.FuncDecl:
				if name := exported(decl); name != "" && name != "NotNow" && returnsError(decl.Type.Results) {
					functions = append(functions, name)
				}
			case *ast.GenDecl:
				for _, spec := range decl.Specs {
					if v, ok := spec.(*ast.ValueSpec); ok && strings.HasPrefix(v.Names[0].Name, "Err") {
						sentinels = append(sentinels, v.Names[0].Name)
					}
				}
			}
		}
	}
	require.NotEmpty(t, functions)
	return functions, sentinels
}

// exported returns the name of a function, with its receiver's; "" unless both are exported.
func exported(f *ast.FuncDecl) string {
	name := f.Name.Name
	if f.Recv != nil {
		recv := f.Recv.List[0].Type
		if star, ok := recv.(*ast.StarExpr); ok {
			recv = star.X
		}
		receiver := recv.(*ast.Ident).Name
		if !ast.IsExported(receiver) {
			return ""
		}
		name = receiver + "." + name
	}
	if !ast.IsExported(f.Name.Name) {
		return ""
	}
	return name
}

func returnsError(results *ast.FieldList) (yes bool) {
	if results == nil {
		return false
	}
	ast.Inspect(results, func(n ast.Node) bool {
		id, ok := n.(*ast.Ident)
		yes = yes || ok && (id.Name == "error" || id.Name == "DeliverFunc")
		return true
	})
	return yes
}

func TestNotNowIsANotNowThatSaysWhen(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name       string
		wait, want time.Duration
	}{
		{"the time of a match", 20 * time.Minute, 20 * time.Minute},
		{"the shortest", time.Second, time.Second},
		{"none", 0, time.Second},
		{"less than none", -time.Hour, time.Second},
		{"the longest", 24 * time.Hour, 24 * time.Hour},
		{"a mistaken unit", 1 << 62, 24 * time.Hour},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := NotNow(test.wait)
			require.ErrorIs(t, err, ErrNotNow)
			require.NotErrorIs(t, err, ErrAccepted)
			var told *notNowError
			require.ErrorAs(t, err, &told)
			require.Equal(t, test.want, told.wait)
			require.Contains(t, err.Error(), test.want.String())
		})
	}
}

func TestTheInboxNamesEachOptionThatIsWrong(t *testing.T) {
	t.Parallel()
	store := newStore(t)
	for _, test := range []struct {
		name string
		opts InboxOptions
		want []string
	}{
		{"no zone at all", InboxOptions{Zones: []string{}}, []string{"Zones"}},
		{"a zone without a name", InboxOptions{Zones: []string{"1", ""}}, []string{"Zones[1]"}},
		{"a zone that no column holds", InboxOptions{Zones: []string{strings.Repeat("9", 256)}}, []string{"Zones[0]", "256 bytes"}},
		{"everything", InboxOptions{Zones: []string{"\xff"}, Workers: -1, Lease: time.Millisecond, Poll: -1}, []string{"Zones[0]", "Workers", "Lease", "Poll"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			inbox, err := store.Inbox(test.opts)
			require.Nil(t, inbox)
			for _, want := range test.want {
				require.ErrorContains(t, err, want)
			}
		})
	}
}

// vtgate's own errors: a statement is tried again, and of a COMMIT nothing is known, since the shard may have it.
func TestACommitThatVitessFailsIsUnknown(t *testing.T) {
	t.Parallel()
	db := sql.OpenDB(noDatabase{})
	defer db.Close()
	store, err := New(db, MySQL, Options{})
	require.NoError(t, err)
	for _, err := range []error{
		&mysqlError{1105, "target: game.-80.primary: primary is not serving, there may be a reparent operation in progress"},
		&mysqlError{1105, "current keyspace is being resharded"},
		&mysqlError{1105, "target: game.-40.primary: no healthy tablet available for 'keyspace:\"game\" shard:\"-40\" tablet_type:PRIMARY'"},
		&mysqlError{1203, "transaction pool connection limit exceeded"},
	} {
		require.Equal(t, ClassAgain, store.classify(err, false), err)
		require.Equal(t, ClassUnknown, store.classify(err, true), err)
	}
	deadlock := &mysqlError{1213, "Galera's certification"}
	require.Equal(t, ClassAgain, store.classify(deadlock, true))
}

// mysqlError has the fields of go-sql-driver's MySQLError.
type mysqlError struct {
	Number  uint16
	Message string
}

func (e *mysqlError) Error() string { return e.Message }
