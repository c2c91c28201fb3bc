package main

import (
	"bufio"
	"encoding/csv"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/midas-go/midas"
	"golang.org/x/text/encoding/simplifiedchinese"
)

// maxLine is far above a line of payments, and keeps a quote that is never closed from making one line of the
// whole file.
const maxLine = 1 << 20

// A sheet is a CSV file with a header, as spreadsheets and databases write it.
type sheet struct {
	line int // of the row

	rows  *csv.Reader
	left  *io.LimitedReader // of a row
	at    map[string]int    // columns by our names
	width int               // of the header, in cells
	row   []string
}

// openSheet reads the header. columns are pairs of our name and that in the header, such as billno=流水号.
func openSheet(r io.Reader, encoding, columns string, required, optional []string) (*sheet, error) {
	switch encoding {
	case "utf-8":
	case "gbk":
		r = simplifiedchinese.GB18030.NewDecoder().Reader(r) // GBK and more
	default:
		return nil, fmt.Errorf("-encoding %q: want utf-8 or gbk", encoding)
	}
	s := &sheet{left: &io.LimitedReader{R: r}, at: make(map[string]int)}
	s.left.N = maxLine
	buffered := bufio.NewReader(s.left)
	if first, _ := buffered.Peek(3); string(first) == "\ufeff" { // a byte order mark
		_, _ = buffered.Discard(3)
	}
	s.rows = csv.NewReader(buffered)
	s.rows.FieldsPerRecord, s.rows.LazyQuotes, s.rows.ReuseRecord = -1, true, true
	if err := s.next(); err != nil {
		return nil, fmt.Errorf("the header: %w", err)
	}
	s.width = len(s.row)
	for pair := range strings.SplitSeq(columns, ",") {
		name, title, _ := strings.Cut(pair, "=")
		i := slices.IndexFunc(s.row, func(cell string) bool { return plain(cell) == title })
		switch {
		case !slices.Contains(required, name) && !slices.Contains(optional, name):
			return nil, fmt.Errorf("-columns: %q: want %s", name, strings.Join(slices.Concat(required, optional), ", "))
		case i < 0:
			return nil, fmt.Errorf("-columns: the header has no %q; is -encoding right? It has: %s", title, visible(short(strings.Join(s.row, ", "))))
		}
		s.at[name] = i
	}
	for _, name := range required {
		if _, ok := s.at[name]; !ok {
			return nil, fmt.Errorf("-columns: %s is missing", name)
		}
	}
	return s, nil
}

// next reads the next row; after the last one it returns io.EOF.
func (s *sheet) next() (err error) {
	s.left.N = maxLine
	s.row, err = s.rows.Read()
	if s.left.N <= 0 {
		return fmt.Errorf("the line after line %d is longer than 1 MiB: is there a quote that is not closed?", s.line)
	}
	if err != nil {
		return err
	}
	s.line, _ = s.rows.FieldPos(0)
	for _, cell := range s.row {
		if strings.ContainsAny(cell, "\r\n") { // the rows up to the next quote
			return fmt.Errorf("line %d: a cell holds a line break: is there a quote that is not closed?", s.line)
		}
	}
	return nil
}

// whole returns why the row is none: with a cell too many or too few, columns hold what belongs to others.
func (s *sheet) whole() error {
	if len(s.row) != s.width {
		return fmt.Errorf("it has %d cells, and the header %d", len(s.row), s.width)
	}
	return nil
}

// cell returns what the row has in one of our columns.
func (s *sheet) cell(name string) string {
	if i, named := s.at[name]; named && i < len(s.row) {
		return strings.Clone(plain(s.row[i]))
	}
	return ""
}

// plain takes off what keeps spreadsheets from making a number of a long one: `123, '123 and ="123".
func plain(cell string) string {
	cell = strings.TrimSpace(cell)
	cell = strings.TrimPrefix(strings.TrimPrefix(cell, "`"), "'")
	if inner, ok := strings.CutPrefix(cell, `="`); ok {
		cell = strings.TrimSuffix(inner, `"`)
	}
	return strings.TrimSpace(cell)
}

// short keeps a line of output from growing with what a file holds.
func short(text string) string {
	const most = 200
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

// amountsIn returns how amounts are read: 1,234.50 yuan, or whole fen.
func amountsIn(unit string) (func(string) (midas.Amount, error), error) {
	parse := map[string]func(string) (midas.Amount, error){"yuan": midas.ParseYuan, "fen": parseFen}[unit]
	if parse == nil {
		return nil, fmt.Errorf("-unit %q: want yuan or fen", unit)
	}
	return func(text string) (midas.Amount, error) { return parse(strings.ReplaceAll(text, ",", "")) }, nil
}

func parseFen(text string) (midas.Amount, error) {
	fen, err := strconv.ParseUint(text, 10, 62)
	return midas.Amount(fen) * midas.Fen, err
}
