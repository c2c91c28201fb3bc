package midassql

import (
	"cmp"
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/midas-go/midas/midassql/internal/migratetest"
)

//go:embed schema
var schema embed.FS

// A release is the tables of a release: the files in the folder schema. <dialect>.sql makes the tables
// anew, from-<n>/<dialect>.sql changes those of version n into those of version n+1. The last
// statement of each file stores the version, unless another process has stored a later one.
type release struct {
	files   fs.FS
	version int64
}

var thisRelease = release{schema, 1}

func init() {
	migratetest.MigrateTo = func(ctx context.Context, store any, files fs.FS, version int64) error {
		return store.(*Store).migrateTo(ctx, release{files, version})
	}
}

// Migrate makes the tables, or brings those of an earlier release up to this one, with the data
// in them. If there is nothing to do, it is a few look-ups. Any number of processes may call it at
// once, at every start; it needs the right to create and alter tables. It stores Options.Environment
// unless the tables have one; another one is [ErrEnvironment]. What [Store.Check] finds is logged.
//
// Orders and callbacks go on while it changes tables: columns are added without rewriting a row,
// indexes are built beside the writers (on SQLite writers wait for them), and a change that has to
// wait for a table gives way within a second and tries again. Servers of the earlier release may go
// on meanwhile.
//
// On PostgreSQL and MySQL this takes two connections at once, and does not work through a pooler
// in statement mode. If it is stopped halfway, call it again. MySQL starts building an index anew if
// a transaction that has read the table stays open for more than a second once the index is ready:
// run no dump or report meanwhile. For teams that run their own migrations the same SQL is in the
// folder schema.
func (s *Store) Migrate(ctx context.Context) error {
	err := s.migrateTo(ctx, thisRelease)
	if err == nil {
		err = s.storeEnvironment(ctx)
	}
	if err != nil {
		return fmt.Errorf("midassql: Migrate: %w", err)
	}
	s.logFindings(ctx)
	return nil
}

func (s *Store) migrateTo(ctx context.Context, r release) error {
	version, err := s.version(ctx)
	if err == nil && version > 0 {
		err = s.checkBeforeMigrating(ctx)
	}
	switch {
	case err != nil || version == r.version:
		return err
	case version > r.version:
		return fmt.Errorf("the tables are of version %d, made by a newer release; this one knows version %d", version, r.version)
	}
	unlock, err := s.lockMigration(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	for {
		version, err := s.version(ctx)
		if err != nil || version == r.version { // by another process, or by the step before
			return err
		}
		folder := "schema/"
		if version > 0 {
			folder += "from-" + strconv.FormatInt(version, 10) + "/"
		}
		if err := s.run(ctx, r.files, folder+string(s.dialect)+".sql"); err != nil {
			return err
		}
		if now, err := s.version(ctx); err != nil || now <= version {
			return cmp.Or(err, fmt.Errorf("%s%s.sql leaves the tables at version %d", folder, s.dialect, now))
		}
	}
}

// checkBeforeMigrating keeps a server of another environment from changing the tables.
func (s *Store) checkBeforeMigrating(ctx context.Context) error {
	stored, err := s.storedEnvironment(ctx)
	if err != nil || stored == "" {
		return err
	}
	return s.compareEnvironment(stored)
}

// version returns the version of the tables; 0 if there are none, or not yet all of them.
func (s *Store) version(ctx context.Context) (version int64, err error) {
	there, err := s.there(ctx, s.grammar.hasColumn, "midas_meta", "value")
	if err != nil || !there {
		return 0, err
	}
	err = s.look(ctx, func(tx *sql.Tx) error {
		err := tx.QueryRowContext(ctx, s.sql.meta, "schema").Scan(&version)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	})
	return version, err
}

// there runs a query of the grammar that counts columns or indexes.
func (s *Store) there(ctx context.Context, question string, names ...string) (bool, error) {
	args := make([]any, len(names))
	for i, name := range names {
		args[i] = s.write(name)
	}
	var n int
	err := s.look(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, s.write(question), args...).Scan(&n)
	})
	return n > 0, err
}

const (
	migrationLock  = 7793147120258115
	migrationPause = 100 * time.Millisecond
)

// lockMigration waits until no other process changes the tables.
func (s *Store) lockMigration(ctx context.Context) (release func(), err error) {
	if s.grammar.tryMigrationLock == nil {
		return func() {}, nil
	}
	if s.db.Stats().MaxOpenConnections == 1 {
		return nil, errors.New("it takes two connections, and SetMaxOpenConns allows one")
	}
	for {
		release, locked, err := s.grammar.tryMigrationLock(ctx, s)
		if err != nil || locked {
			return release, err
		}
		// No statement waits for the lock: CREATE INDEX CONCURRENTLY, which the other process may be
		// running, waits for every statement that began before it.
		select {
		case <-time.After(migrationPause):
		case <-ctx.Done():
			return nil, fmt.Errorf("%w; another process is migrating", ctx.Err())
		}
	}
}

// tryPostgresLock holds the lock in a transaction, so that a pooler keeps the connection.
func tryPostgresLock(ctx context.Context, s *Store) (release func(), locked bool, err error) {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return nil, false, err
	}
	err = tx.QueryRowContext(ctx, `SELECT pg_try_advisory_xact_lock($1)`, int64(migrationLock)).Scan(&locked)
	if err == nil && locked {
		// The SELECT's snapshot lasts until the next statement, and CREATE INDEX CONCURRENTLY waits
		// for snapshots.
		_, err = tx.ExecContext(ctx, `SAVEPOINT locked`)
	}
	if err != nil || !locked {
		tx.Rollback()
	}
	return func() { tx.Rollback() }, locked, err
}

func tryMySQLLock(ctx context.Context, s *Store) (release func(), locked bool, err error) {
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return nil, false, err
	}
	name := s.opts.TablePrefix + "migrate"
	// These two forms are those that Vitess takes. It accepts DO RELEASE_LOCK, and does nothing.
	var got sql.NullBool
	err = conn.QueryRowContext(ctx, `SELECT GET_LOCK(?, 0)`, name).Scan(&got)
	if err != nil || !got.Bool {
		conn.Close()
	}
	return func() {
		_ = conn.QueryRowContext(context.WithoutCancel(ctx), `SELECT RELEASE_LOCK(?)`, name).Scan(&got) // the end of the connection releases it too
		conn.Close()
	}, got.Bool, err
}

var (
	aColumn = regexp.MustCompile(`^ALTER TABLE (\S+) ADD COLUMN (\S+)`)
	anIndex = regexp.MustCompile(`(?:INDEX CONCURRENTLY IF NOT EXISTS|INDEX IF NOT EXISTS|ADD INDEX) (\S+)`)
	comment = regexp.MustCompile(`(?m)^--.*\n|^\n`)
)

// run runs a file of a release. It leaves out what is there already: on PostgreSQL, IF NOT EXISTS
// waits for the writers of the table before it looks, and new writers wait behind it.
func (s *Store) run(ctx context.Context, files fs.FS, file string) error {
	content, err := fs.ReadFile(files, file)
	if err != nil {
		return err
	}
	for statement := range strings.SplitSeq(comment.ReplaceAllString(string(content), ""), ";\n") { // not every driver takes several at once
		if strings.TrimSpace(statement) == "" {
			continue
		}
		made, err := s.made(ctx, statement)
		if err == nil && !made {
			if err = s.change(ctx, statement); err != nil {
				if made, _ := s.made(ctx, statement); made { // by another process
					err = nil
				}
			}
		}
		if err != nil {
			return fmt.Errorf("%s: %w", strings.SplitN(s.write(statement), "\n", 2)[0], err)
		}
	}
	return nil
}

// made reports whether the column or index that statement makes is there.
func (s *Store) made(ctx context.Context, statement string) (bool, error) {
	if names := aColumn.FindStringSubmatch(statement); names != nil {
		return s.there(ctx, s.grammar.hasColumn, names[1], names[2])
	}
	if names := anIndex.FindStringSubmatch(statement); names != nil {
		return s.there(ctx, s.grammar.hasIndex, names[1])
	}
	return false, nil
}

// change runs one statement. A statement that needs a table for itself does not wait for it long, since
// all others would wait behind it, but tries again.
func (s *Store) change(ctx context.Context, statement string) error {
	statement = s.write(statement)
	if strings.Contains(statement, "CONCURRENTLY") { // PostgreSQL refuses it in a transaction
		name := anIndex.FindStringSubmatch(statement)[1]
		_, err := s.db.ExecContext(ctx, "DROP INDEX CONCURRENTLY IF EXISTS "+name) // an invalid one, left by a run that was stopped
		if err == nil {
			_, err = s.db.ExecContext(ctx, statement)
		}
		return err
	}
	return s.transact(ctx, sql.LevelDefault, func(tx *sql.Tx) error {
		if s.grammar.lockTimeout != "" {
			if _, err := tx.ExecContext(ctx, s.grammar.lockTimeout); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, statement)
		// If ctx ends right here, the connection goes back to the pool with a limit of 1 s for locks on
		// a table's definition.
		if s.grammar.oldLockTimeout != "" {
			_, restored := tx.ExecContext(ctx, s.grammar.oldLockTimeout)
			err = cmp.Or(err, restored)
		}
		return err
	})
}
