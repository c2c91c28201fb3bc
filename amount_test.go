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
		t.Run(test.points, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, test.points, test.amount.QPoints())
			require.Equal(t, test.yuan, test.amount.Yuan())
			require.Equal(t, test.points+" Q-points ("+test.yuan+" yuan)", test.amount.String())
		})
	}
}

func TestParseAmounts(t *testing.T) {
	t.Parallel()
	for name, unit := range map[string]struct {
		parse func(string) (midas.Amount, error)
		good  map[string]midas.Amount
		bad   []string
		want  string
	}{
		"Q-points": {midas.ParseQPoints, map[string]midas.Amount{
			"0": 0, "0.1": 1, "1": 10, "60.0": 600, "0.10": 1, "10.5000": 105, "007": 70, "922337203685477580.7": math.MaxInt64,
		}, []string{"0.01", "0.11", "922337203685477580.8", "922337203685477581"}, `amount: want Q-points such as "60" or "0.1", to the fen`},
		"yuan": {midas.ParseYuan, map[string]midas.Amount{
			"0": 0, "0.01": 1, "0.1": 10, "0.29": 29, "1": 100, "6.50": 650, "6.5": 650, "0.2900": 29, "007": 700, "19.99": 1999, "92233720368547758.07": math.MaxInt64,
		}, []string{"0.001", "0.295", "92233720368547758.08", "92233720368547759"}, `amount: want yuan such as "6" or "0.29", to the fen`},
	} {
		for s, want := range unit.good {
			t.Run(name+" "+s, func(t *testing.T) {
				t.Parallel()
				got, err := unit.parse(s)
				require.NoError(t, err)
				require.Equal(t, want, got)
			})
		}
		for _, s := range append(unit.bad, "", ".", ".5", "5.", "-1", "-0", "+1", " 1", "1 ", "1\n", "1,5", "1_000", "1e3", "0x1", "1.0.0", "1.-5", "١", "¥6", "6元", "NaN", "Inf", "99999999999999999999") {
			t.Run(name+" "+s, func(t *testing.T) {
				t.Parallel()
				got, err := unit.parse(s)
				require.Zero(t, got)
				var paramErr *midas.FieldError
				require.ErrorAs(t, err, &paramErr)
				require.Equal(t, "amount", paramErr.Field)
				require.EqualError(t, err, unit.want)
			})
		}
	}
}

func FuzzAmount(f *testing.F) {
	for _, seed := range []int64{0, 1, 10, 105, math.MaxInt64, -1} {
		f.Add(seed, "60.0")
	}
	f.Fuzz(func(t *testing.T, fen int64, s string) {
		a := midas.Amount(fen)
		for _, unit := range []struct {
			write func(midas.Amount) string
			parse func(string) (midas.Amount, error)
		}{{midas.Amount.QPoints, midas.ParseQPoints}, {midas.Amount.Yuan, midas.ParseYuan}} {
			got, err := unit.parse(unit.write(a))
			if a < 0 {
				require.Error(t, err)
			} else {
				require.NoError(t, err)
				require.Equal(t, a, got)
			}
			if parsed, err := unit.parse(s); err == nil {
				again, err := unit.parse(unit.write(parsed))
				require.NoError(t, err)
				require.Equal(t, parsed, again)
				require.GreaterOrEqual(t, parsed, midas.Amount(0))
			}
		}
		// A Q-point is a tenth of a yuan.
		if points, err := midas.ParseQPoints(s); err == nil && points%midas.QPoint == 0 {
			yuan, err := midas.ParseYuan(points.Yuan())
			require.NoError(t, err)
			require.Equal(t, points, yuan)
		}
	})
}
