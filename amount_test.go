package midas_test

import (
	"math"
	"testing"

	"github.com/midas-go/midas"
	"github.com/stretchr/testify/require"
)

func TestUnitsOfMoney(t *testing.T) {
	t.Parallel()
	// protocol.md: 1 Q-coin = 10 Q-points = 1 yuan; 1 Q-point = 10 fen.
	require.EqualValues(t, 1, midas.Fen)
	require.EqualValues(t, 10, midas.QPoint)
	require.EqualValues(t, 100, midas.QCoin)
	for _, test := range []struct {
		amount       midas.Amount
		points, yuan string
	}{
		{0, "0", "0.00"},
		{1, "0.1", "0.01"},
		{9, "0.9", "0.09"},
		{10, "1", "0.10"},
		{105, "10.5", "1.05"},
		{60 * midas.QPoint, "60", "6.00"},
		{-1, "-0.1", "-0.01"},
		{-105, "-10.5", "-1.05"},
		{math.MaxInt64, "922337203685477580.7", "92233720368547758.07"},
		{math.MinInt64, "-922337203685477580.8", "-92233720368547758.08"},
	} {
		require.Equal(t, test.points, test.amount.QPoints())
		require.Equal(t, test.yuan, test.amount.Yuan())
		require.Equal(t, test.points+" Q-points ("+test.yuan+" yuan)", test.amount.String())
	}
}

func TestParseQPoints(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]midas.Amount{
		"0": 0, "0.1": 1, "1": 10, "60.0": 600, "0.10": 1, "10.5000": 105, "007": 70,
		"922337203685477580.7": math.MaxInt64,
	} {
		got, err := midas.ParseQPoints(s)
		require.NoError(t, err, s)
		require.Equal(t, want, got, s)
	}
	for _, s := range []string{"", ".", ".5", "5.", "0.01", "0.11", "-1", "+1", " 1", "1 ", "1,5", "1e3", "0x1", "1.0.0", "١", "NaN", "922337203685477580.8", "922337203685477581", "99999999999999999999"} {
		_, err := midas.ParseQPoints(s)
		var paramErr *midas.ParamError
		require.ErrorAs(t, err, &paramErr, s)
	}
}

func FuzzAmount(f *testing.F) {
	for _, seed := range []int64{0, 1, 10, 105, math.MaxInt64, -1} {
		f.Add(seed, "60.0")
	}
	f.Fuzz(func(t *testing.T, fen int64, s string) {
		a := midas.Amount(fen)
		got, err := midas.ParseQPoints(a.QPoints())
		if a < 0 {
			require.Error(t, err)
		} else {
			require.NoError(t, err)
			require.Equal(t, a, got)
		}
		if parsed, err := midas.ParseQPoints(s); err == nil {
			again, err := midas.ParseQPoints(parsed.QPoints())
			require.NoError(t, err)
			require.Equal(t, parsed, again)
			require.GreaterOrEqual(t, parsed, midas.Amount(0))
		}
	})
}
