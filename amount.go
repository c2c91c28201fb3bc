package midas

import (
	"cmp"
	"strconv"
	"strings"
)

// Amount is money in fen (分, 0.01 yuan), as time.Duration is time in
// nanoseconds: write 60*midas.QPoint for sixty Q-points. There is no float
// anywhere. The zero value is no money; JSON shows the number of fen.
type Amount int64

// The units of money (protocol.md, its introduction). Prices go out in Q-points, what was
// charged comes back in fen; the type keeps the factor of ten out of your code.
const (
	Fen    Amount = 1           // 分: 0.1 Q-point, 0.01 yuan
	QPoint        = 10 * Fen    // Q点: 0.1 yuan
	QCoin         = 10 * QPoint // Q币: 1 yuan
)

// QPoints returns a in Q-points with at most one decimal, as it goes out on the
// wire: "0.1", "60".
func (a Amount) QPoints() string {
	whole, tenths := a/QPoint, a%QPoint
	if tenths == 0 {
		return strconv.FormatInt(int64(whole), 10)
	}
	return a.sign() + digits(whole) + "." + digits(tenths)
}

// Yuan returns a in yuan (元) with two decimals: "0.01", "6.00".
func (a Amount) Yuan() string {
	whole, fen := a/QCoin, a%QCoin
	return a.sign() + digits(whole) + "." + digits(fen/10) + digits(fen%10)
}

// String returns a in both units: "0.1 Q-points (0.01 yuan)".
func (a Amount) String() string {
	return a.QPoints() + " Q-points (" + a.Yuan() + " yuan)"
}

func (a Amount) sign() string {
	if a < 0 {
		return "-"
	}
	return ""
}

// digits formats n without its sign.
func digits(n Amount) string {
	return strings.TrimPrefix(strconv.FormatInt(int64(n), 10), "-")
}

// ParseQPoints reads an amount written in Q-points: "60", "0.1", and with the
// trailing zeros that callbacks show (protocol.md 5) "60.0", "0.10".
// A sign, a part of a fen ("0.01"), an amount that does not fit, and anything
// else is a [*ParamError] for the parameter "price".
func ParseQPoints(s string) (Amount, error) {
	whole, fraction, dotted := strings.Cut(s, ".")
	if !isDigits(whole) || dotted && !isDigits(fraction) {
		return 0, &ParamError{Param: "price", Reason: `want Q-points such as "60" or "0.1"`}
	}
	tenth := strings.TrimRight(fraction, "0")
	if len(tenth) > 1 {
		return 0, &ParamError{Param: "price", Reason: "a part of a fen: the smallest price is 0.1 Q-point"}
	}
	fen, err := strconv.ParseInt(whole+cmp.Or(tenth, "0"), 10, 64)
	if err != nil {
		return 0, &ParamError{Param: "price", Reason: "too large"}
	}
	return Amount(fen), nil
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
