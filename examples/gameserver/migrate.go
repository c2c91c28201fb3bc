package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"time"

	"github.com/midas-go/midas/midassql"
)

// migrateTables makes the tables, or changes those of an earlier release, for as long as that
// takes: an index on a hundred million payments is built in minutes, not in the 30 s that a
// starting server gives it. Servers go on meanwhile, and so does what Ctrl-C interrupts
// when it is called again.
func migrateTables(*flag.FlagSet) action {
	return func(ctx context.Context, s *shop, out, terminal io.Writer) error {
		ended := make(chan error, 1)
		go func() { ended <- s.migrate(ctx) }()
		begun, every := time.Now(), time.NewTicker(time.Second)
		defer every.Stop()
		for {
			select {
			case err := <-ended:
				if terminal != nil {
					fmt.Fprint(terminal, "\r\x1b[K")
				}
				if err == nil {
					fmt.Fprintln(out, "the tables are there")
				}
				return err
			case <-every.C:
				if terminal != nil {
					fmt.Fprintf(terminal, "\r\x1b[Kchanging the tables for %s%s", time.Since(begun).Round(time.Second), s.indexProgress(ctx))
				}
			}
		}
	}
}

// indexProgress says how far an index is, where the database tells.
func (s *shop) indexProgress(ctx context.Context) string {
	if s.db.dialect != midassql.PostgreSQL {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, queryTime)
	defer cancel()
	var phase string
	var percent int
	err := s.db.QueryRowContext(ctx, `SELECT phase, COALESCE(100 * blocks_done / NULLIF(blocks_total, 0), 0)
		FROM pg_stat_progress_create_index WHERE datname = current_database()`).Scan(&phase, &percent)
	if err != nil { // no index is being built now
		return ""
	}
	return fmt.Sprintf(": %s, %d %%", phase, percent)
}
