package midas_test

import (
	"testing"

	"github.com/midas-go/midas"
	"github.com/stretchr/testify/require"
)

func TestItemsAreWrittenAndRead(t *testing.T) {
	t.Parallel()
	for payItem, items := range map[string][]midas.Item{ // protocol.md 3 and 5
		"sword*60*2":               {{"sword", 60 * midas.QPoint, 2}},
		"3*0.1*1":                  {{"3", midas.Fen, 1}},
		"G001*10*1;G008*8*2":       {{"G001", 100, 1}, {"G008", 80, 2}},
		"a*10.5*1;b*1*2147483647":  {{"a", 105, 1}, {"b", 10, 2147483647}},
		"a*922337203685477580.7*1": {{"a", 9223372036854775807, 1}},
	} {
		t.Run(payItem, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, payItem, midas.FormatItems(items))
			got, err := midas.ParseItems(payItem)
			require.NoError(t, err)
			require.Equal(t, items, got)
		})
	}
	require.Empty(t, midas.FormatItems(nil))
	got, err := midas.ParseItems("a*60.0*1;b*0.10*2") // trailing zeros, as callbacks show them
	require.NoError(t, err)
	require.Equal(t, []midas.Item{{"a", 600, 1}, {"b", 1, 2}}, got)
}

func TestItemsThatCannotBeReadAreNamed(t *testing.T) {
	t.Parallel()
	const (
		shape    = "want id*price*num"
		price    = "the price is not a number of Q-points with at most one decimal, or too large"
		quantity = "the quantity is not a number from 1 to 2147483647"
	)
	for payItem, want := range map[string]string{
		"": "item 1: " + shape, "a": "item 1: " + shape, "a*1": "item 1: " + shape, "*1*1": "item 1: " + shape, ";": "item 1: " + shape, "a*1*1;": "item 2: " + shape,
		"a**1": "item 1: " + price, "a*0.01*1": "item 1: " + price, "a*-1*1": "item 1: " + price, "a*1e1*1": "item 1: " + price, "a*922337203685477580.8*1": "item 1: " + price,
		"a*1*": "item 1: " + quantity, "a*1*0": "item 1: " + quantity, "a*1*-1": "item 1: " + quantity, "a*1*+1": "item 1: " + quantity, "a*1*2147483648": "item 1: " + quantity, "a*1*1*1": "item 1: " + quantity,
		"a*1*1;b*1*1;c*x*1": "item 3: " + price,
	} {
		t.Run(payItem, func(t *testing.T) {
			t.Parallel()
			items, err := midas.ParseItems(payItem)
			require.Nil(t, items)
			require.Equal(t, &midas.FieldError{Param: "payitem", Field: "payitem", Reason: want}, err)
			require.EqualError(t, err, "payitem: "+want)
		})
	}
}

// What an order may hold is read back as it was.
func FuzzItemsOfAnOrder(f *testing.F) {
	f.Add("sword", int64(1), 1, "shield", int64(600), 20)
	f.Add("G1", int64(200), 2, "x_1", int64(99), 1)
	f.Fuzz(func(t *testing.T, id1 string, price1 int64, n1 int, id2 string, price2 int64, n2 int) {
		req := goldenOrder()
		req.Items = []midas.Item{{id1, midas.Amount(price1), n1}, {id2, midas.Amount(price2), n2}}
		if midas.ValidateItems(req.Items) != nil {
			return
		}
		got, err := midas.ParseItems(midas.FormatItems(req.Items))
		require.NoError(t, err)
		require.Equal(t, req.Items, got)
	})
}

func FuzzParseItems(f *testing.F) {
	for _, seed := range []string{"3*0.1*1", "G1*20*2", "G001*10*1;G008*8*2", "a*60.0*1", "a*0.10*1", "a*0.01*1", "a**1", ";", "a*1*0", "a*1*99999999999"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		items, err := midas.ParseItems(s)
		if err != nil {
			var paramErr *midas.FieldError
			require.ErrorAs(t, err, &paramErr)
			require.Equal(t, []string{"payitem", "payitem"}, []string{paramErr.Param, paramErr.Field})
			return
		}
		again, err := midas.ParseItems(midas.FormatItems(items))
		require.NoError(t, err)
		require.Equal(t, items, again)
	})
}
