package midas_test

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/midas-go/midas"
	"github.com/stretchr/testify/require"
)

// The answers of protocol.md 5, to the byte.
func TestReplies(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		what string
		err  error
		ret  int
		want string
	}{
		{"delivered", nil, 0, `{"ret":0,"msg":"OK"}`},
		{"any error", errors.New("the database says: no\n"), 1, `{"ret":1,"msg":"system_busy"}`},
		{"out of time", context.DeadlineExceeded, 1, `{"ret":1,"msg":"system_busy"}`},
		{"token expired", fmt.Errorf("x: %w", midas.ErrTokenExpired), 2, `{"ret":2,"msg":"token_expired"}`},
		{"no such token", fmt.Errorf("x: %w", midas.ErrTokenNotFound), 3, `{"ret":3,"msg":"token_not_found"}`},
		{"a DeliverFunc's parameter", &midas.ParamError{Param: "amt", Reason: "differs"}, 4, `{"ret":4,"msg":"bad_parameter:amt"}`},
		{"the same, wrapped", fmt.Errorf("x: %w", &midas.ParamError{Param: "amt", Reason: "differs"}), 4, `{"ret":4,"msg":"bad_parameter:amt"}`},
		{"a name that Midas does not know", &midas.ParamError{Param: "<b>"}, 4, `{"ret":4,"msg":"bad_parameter"}`},
		{"not verified", midas.ErrSignature, 4, `{"ret":4,"msg":"bad_parameter:sig"}`},
		{"a nil *ParamError", (*midas.ParamError)(nil), 1, `{"ret":1,"msg":"system_busy"}`}, // no nil: an error with a nil in it
		{"a nil *Error", (*midas.Error)(nil), 1, `{"ret":1,"msg":"system_busy"}`},
	} {
		t.Run(test.what, func(t *testing.T) {
			t.Parallel()
			reply := midas.ReplyTo(test.err)
			require.Equal(t, test.ret, reply.Ret())
			require.Equal(t, test.want, string(reply.Bytes()))
		})
	}
}

// The player has paid: what is wrong with another order, or with a price of the catalogue, must
// not end that payment, and 2, 3 and 4 are final for Midas.
func TestAnErrorOfAnOrderOrAnAmountIsNeverFinal(t *testing.T) {
	t.Parallel()
	_, ofOrder := newClient(t, midas.Config{AppID: testAppID, AppKey: testAppKey}).CreateOrder(t.Context(), midas.OrderRequest{})
	_, ofYuan := midas.ParseYuan("six")
	_, ofQPoints := midas.ParseQPoints("0.01")
	_, ofItems := midas.ParseItems("sword")
	failing := newClient(t, midas.Config{
		AppID: testAppID, AppKey: testAppKey, MaxRetries: -1,
		HTTPClient: &http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) { return nil, midas.ErrTokenNotFound })},
	})
	_, ofFault := failing.CreateOrder(t.Context(), goldenOrder())
	_, ofCallback := callbackClient(t).ParseDeliveryQuery(signed(map[string]string{"amt": "x"}))
	require.Equal(t, 4, midas.ReplyTo(ofCallback).Ret(), "a callback's own")

	for what, err := range map[string]error{
		"CreateOrder": ofOrder, "ParseYuan": ofYuan, "ParseQPoints": ofQPoints, "ParseItems": ofItems,
		"a refusal": &midas.Error{Ret: 1018}, "a refused signature": &midas.Error{Ret: 1001, Msg: "sig error"},
		"a literal with a Field": &midas.FieldError{Param: "payitem", Field: "Items"},
		"an unusable answer":     &midas.ResponseError{StatusCode: 502},
		"a network fault":        ofFault,
		"a database's fault":     &net.OpError{Op: "read", Net: "tcp", Err: errors.New("reset")},
		"a wrong configuration":  &midas.ConfigError{Field: "DeliveryPath"},
		"As() only":              hidden{&midas.FieldError{Param: "payitem", Field: "Items"}},
		"Is() and As() only":     hidden{&midas.Error{Ret: 1001, Msg: "sig error"}},
	} {
		for where, tree := range map[string]error{
			"alone":                         err,
			"wrapped":                       fmt.Errorf("price: %w", fmt.Errorf("catalogue: %w", err)),
			"joined":                        errors.Join(errors.New("x"), err),
			"behind token_not_found":        errors.Join(midas.ErrTokenNotFound, err),
			"before token_not_found":        errors.Join(err, midas.ErrTokenNotFound),
			"wrapped with token_expired":    fmt.Errorf("%w: %w", midas.ErrTokenExpired, err),
			"behind a callback's":           errors.Join(ofCallback, err),
			"before a callback's":           errors.Join(err, ofCallback),
			"behind a DeliverFunc's own":    errors.Join(&midas.ParamError{Param: "amt"}, err),
			"deep, behind a wrapped sig":    fmt.Errorf("x: %w", errors.Join(fmt.Errorf("y: %w", midas.ErrSignature), fmt.Errorf("z: %w", errors.Join(err)))),
			"behind a nil pointer's error":  errors.Join((*midas.ParamError)(nil), err),
			"before a nil pointer's error":  errors.Join(err, (*midas.ParamError)(nil)),
			"behind an error with own As()": errors.Join(asParamError{}, err),
		} {
			t.Run(what+" "+where, func(t *testing.T) {
				t.Parallel()
				require.Equal(t, `{"ret":1,"msg":"system_busy"}`, string(midas.ReplyTo(tree).Bytes()))
			})
		}
	}
}

// asParamError is an error that says it is a *ParamError.
type asParamError struct{}

func (asParamError) Error() string { return "as" }
func (asParamError) As(target any) bool {
	param, ok := target.(**midas.ParamError)
	if ok {
		*param = &midas.ParamError{Param: "amt"}
	}
	return ok
}

// hidden is an error that matches what it holds without an Unwrap.
type hidden struct{ err error }

func (h hidden) Error() string        { return "hidden" }
func (h hidden) Is(target error) bool { return errors.Is(h.err, target) }
func (h hidden) As(target any) bool   { return errors.As(h.err, target) }

// Every exported function that fails, with what it makes of bad input: only an error about a
// callback itself is answered 4. The player has paid; any other refusal would be final.
func TestOnlyTheErrorsOfACallbackRefuseIt(t *testing.T) {
	t.Parallel()
	c := callbackClient(t, func(cfg *midas.Config) { cfg.MaxDeliveries = 1 })
	_, wrongConfig := midas.New(midas.Config{})
	_, wrongItems := midas.ParseItems("x")
	_, wrongQPoints := midas.ParseQPoints("x")
	_, wrongYuan := midas.ParseYuan("x")
	_, wrongOrder := c.CreateOrder(t.Context(), midas.OrderRequest{})
	_, wrongMethod := c.ParseDelivery(httptest.NewRequest(http.MethodPost, "/pay/notify", nil))
	_, wrongQuery := c.ParseDeliveryQuery("")
	_, noGob := midas.Config{}.GobEncode()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	stuck, started := make(chan struct{}), make(chan struct{})
	h := c.DeliveryHandler(func(context.Context, *midas.Delivery) error { close(started); <-stuck; return nil })
	go serve(h, "GET", signed(nil))
	<-started
	tested := map[string]bool{"Client.MarshalJSON": true, "Client.MarshalYAML": true, "Config.MarshalJSON": true, "Config.MarshalYAML": true,
		"OrderRequest.MarshalJSON": true, "OrderRequest.MarshalYAML": true, "Player.MarshalJSON": true, "Player.MarshalYAML": true, "Call.MarshalJSON": true, "Call.MarshalYAML": true, // these do not fail
		"ResponseError.Unwrap": true} // and this is not a failure
	for _, test := range []struct {
		function string
		err      error
		ret      int
		call     bool // the error is about a call, an amount or the configuration
	}{
		{"New", wrongConfig, 1, true}, {"ParseItems", wrongItems, 1, true}, {"ParseQPoints", wrongQPoints, 1, true}, {"ParseYuan", wrongYuan, 1, true},
		{"Client.CreateOrder", wrongOrder, 1, true}, {"Client.Call", c.Call(t.Context(), midas.Call{}, nil), 1, true},
		{"Client.ParseDelivery", wrongMethod, 4, false}, {"Client.ParseDeliveryQuery", wrongQuery, 4, false},
		{"Client.Ready", c.Ready(), 1, false}, {"Client.Wait", c.Wait(ended), 1, false},
		{"Config.GobEncode", noGob, 1, false}, {"OrderRequest.GobEncode", noGob, 1, false}, {"Player.GobEncode", noGob, 1, false}, {"Call.GobEncode", noGob, 1, false},
		{"Player.UnmarshalJSON", new(midas.Player).UnmarshalJSON([]byte(`{"openkey":"[redacted]"}`)), 1, true},
	} {
		tested[test.function] = true
		require.Error(t, test.err, test.function)
		require.Equal(t, test.ret, midas.ReplyTo(test.err).Ret(), test.function)
		require.Equal(t, test.ret, midas.ReplyTo(fmt.Errorf("grant: %w", test.err)).Ret(), test.function)
		if test.ret == 1 {
			about := 4 // the player has paid: beside an error about a call even a callback's own is 1
			if test.call {
				about = 1
			}
			require.Equal(t, about, midas.ReplyTo(errors.Join(test.err, wrongQuery)).Ret(), test.function)
		}
	}
	close(stuck)
	require.NoError(t, c.Wait(t.Context()))
	for _, function := range failing(t, ".") {
		require.True(t, tested[function], "%s is not in the table", function)
	}
}

// failing returns the exported functions of a package that have an error among their results.
func failing(t *testing.T, dir string) (functions []string) {
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(t, err)
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || !f.Name.IsExported() || f.Type.Results == nil {
				continue
			}
			function := f.Name.Name
			if f.Recv != nil {
				receiver := f.Recv.List[0].Type
				if star, ok := receiver.(*ast.StarExpr); ok {
					receiver = star.X
				}
				name := receiver.(*ast.Ident).Name
				if !ast.IsExported(name) {
					continue
				}
				function = name + "." + function
			}
			for _, result := range f.Type.Results.List {
				if id, ok := result.Type.(*ast.Ident); ok && id.Name == "error" {
					functions = append(functions, function)
				}
			}
		}
	}
	require.NotEmpty(t, functions)
	return functions
}
