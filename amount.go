package midas

import (
	"strconv"
	"strings"
)

// Amount is money in fen (分, 0.01 yuan), as time.Duration is time in
// nanoseconds: sixty Q-points are 60*midas.QPoint. The zero value is no money.
// JSON shows the number of fen.
//
// Beware of bare numbers: Price: 60 is 60 fen, that is 6 Q-points. For a catalogue in
// yuan use [ParseYuan]: a float loses fen, and with f := 0.29, Amount(f*100) is 28 fen.
type Amount int64

// The units of money.
const (
	Fen    Amount = 1           // 分: 0.1 Q-point, 0.01 yuan
	QPoint        = 10 * Fen    // Q点: 0.1 yuan
	QCoin         = 10 * QPoint // Q币: 1 yuan
)

// QPoints returns a in Q-points with at most one decimal, as orders carry it:
// "0.1", "60".
func (a Amount) QPoints() string {
	if a%QPoint == 0 {
		return strconv.FormatInt(int64(a/QPoint), 10)
	}
	return a.decimal(1)
}

// Yuan returns a in yuan (元) with two decimals: "0.01", "6.00".
func (a Amount) Yuan() string { return a.decimal(2) }

// String returns a in both units: "0.1 Q-points (0.01 yuan)".
func (a Amount) String() string {
	return a.QPoints() + " Q-points (" + a.Yuan() + " yuan)"
}

// decimal formats a with the point in front of its last decimals digits.
func (a Amount) decimal(decimals int) string {
	digits, negative := strings.CutPrefix(strconv.FormatInt(int64(a), 10), "-")
	if len(digits) <= decimals {
		digits = "00"[:decimals+1-len(digits)] + digits
	}
	point := len(digits) - decimals
	s := digits[:point] + "." + digits[point:]
	if negative {
		return "-" + s
	}
	return s
}

// ParseQPoints reads an amount in Q-points: "60", "0.1", and with the trailing
// zeros that callbacks show, "60.0" and "0.10" (protocol.md 5, delivery callback).
// Anything else is a [*FieldError]: a sign, a fraction of a fen ("0.01"), an amount over
// int64.
func ParseQPoints(s string) (Amount, error) {
	return parseAmount(s, 1, `want Q-points such as "60" or "0.1"`)
}

// ParseYuan reads an amount in yuan (元) for a catalogue: "6", "0.29", "6.50".
// Anything else is a [*FieldError]: a sign, a fraction of a fen ("0.001"), an amount over
// int64.
func ParseYuan(s string) (Amount, error) {
	return parseAmount(s, 2, `want yuan such as "6" or "0.29"`)
}

func parseAmount(s string, decimals int, want string) (Amount, error) {
	a, ok := parseDecimal(s, decimals)
	if !ok {
		return 0, &FieldError{Field: "amount", Reason: want + ", to the fen"}
	}
	return a, nil
}

// parseDecimal reads s in a unit of ten to the power of decimals fen.
func parseDecimal(s string, decimals int) (Amount, bool) {
	whole, fraction, dotted := strings.Cut(s, ".")
	if !isDigits(whole) || dotted && !isDigits(fraction) {
		return 0, false
	}
	fraction = strings.TrimRight(fraction, "0")
	if len(fraction) > decimals {
		return 0, false
	}
	fen, err := strconv.ParseInt(whole+fraction+"00"[:decimals-len(fraction)], 10, 64)
	return Amount(fen), err == nil
}

// isDigits reports whether s is one or more ASCII digits.
func isDigits(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}
