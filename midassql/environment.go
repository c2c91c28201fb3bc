package midassql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"sync"
	"time"
)

// ErrEnvironment says that the tables belong to another environment than Options.Environment, so that
// nothing is written and no payment is granted (ret 1): a sandbox server on the live database would hand out
// items that nobody paid for, and the ledger could not tell them from the others afterwards.
var ErrEnvironment = errors.New("these tables are another environment's")

// environmentEvery is how often a Store reads the environment of its tables: a server that ran before its
// tables had one must not go on for long.
const environmentEvery = time.Minute

var plainEnvironment = regexp.MustCompile(`^[a-z0-9][a-z0-9_.-]{0,63}$`)

// environment is what a Store knows of the environment of its tables.
type environment struct {
	mu     sync.Mutex
	read   time.Time // when it was right last, by Options.Now; zero: not yet
	warned bool
}

// Environment returns Options.Environment.
func (s *Store) Environment() string { return s.opts.Environment }

// checkEnvironment returns nil if the tables had the Store's environment within the last minute. Whoever
// finds that minute over reads again; the others go on meanwhile.
func (s *Store) checkEnvironment(ctx context.Context) error {
	e := &s.environment
	now := s.opts.Now()
	e.mu.Lock()
	known := !e.read.IsZero()
	if known && now.Sub(e.read).Abs() < environmentEvery {
		e.mu.Unlock()
		return nil
	}
	if known {
		e.read = now
	}
	e.mu.Unlock()
	err := s.readEnvironment(ctx)
	e.mu.Lock()
	defer e.mu.Unlock()
	if err != nil {
		now = time.Time{}
	}
	e.read = now
	return err
}

// readEnvironment returns nil if the tables have the Store's environment.
func (s *Store) readEnvironment(ctx context.Context) error {
	stored, err := s.storedEnvironment(ctx)
	switch {
	case err != nil:
		return err
	case stored == "" && s.opts.Environment == "":
		s.warnOfNoEnvironment(ctx)
		return nil
	}
	return s.compareEnvironment(stored)
}

// storedEnvironment returns the environment of the tables; empty if they have none.
func (s *Store) storedEnvironment(ctx context.Context) (stored string, err error) {
	err = s.look(ctx, func(tx *sql.Tx) error {
		stored = ""
		err := tx.QueryRowContext(ctx, s.sql.environment).Scan(&stored)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	})
	return stored, err
}

func (s *Store) compareEnvironment(stored string) error {
	switch named := s.opts.Environment; {
	case stored == named:
		return nil
	case stored == "":
		return fmt.Errorf("%w: Options.Environment is %q, and none is stored. Is it the right database? Store.Migrate stores it, or you: %s",
			ErrEnvironment, named, s.write(`INSERT INTO midas_meta (name, value, word) VALUES ('environment', 0, '`)+named+`')`)
	case named == "":
		return fmt.Errorf("%w: they are %q, and Options.Environment is empty: name it, if this server belongs to it", ErrEnvironment, stored)
	default:
		return fmt.Errorf("%w: they are %q, and Options.Environment is %q: is it the right database?", ErrEnvironment, stored, named)
	}
}

func (s *Store) warnOfNoEnvironment(ctx context.Context) {
	e := &s.environment
	e.mu.Lock()
	warned := e.warned
	e.warned = true
	e.mu.Unlock()
	if !warned {
		s.logAt(ctx, slog.LevelWarn, "midassql: Options.Environment is empty and none is stored: "+
			"a sandbox server on this database would grant for nothing (docs/databases.md)")
	}
}

// storeEnvironment stores the Store's environment, unless there is one.
func (s *Store) storeEnvironment(ctx context.Context) error {
	if s.opts.Environment != "" {
		err := s.transact(ctx, sql.LevelDefault, func(tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, s.sql.addEnvironment, s.opts.Environment)
			return err
		})
		if err != nil {
			return err
		}
	}
	return s.readEnvironment(ctx)
}
