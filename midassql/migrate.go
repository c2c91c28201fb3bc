package midassql

import (
	"cmp"
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

//go:embed schema
var schema embed.FS

// schemaVersion is what the files in the folder schema make. Release 0.1 had no such number.
const schemaVersion = 2

// Migrate makes the tables, or brings those of an earlier release up to this one, with the data
// in them. Where nothing is to be done it is one look-up. Any number of processes may call it at
// once, at every start; it needs the right to create and alter tables.
//
// Orders and callbacks go on while it changes the tables of release 0.1: columns are added without
// rewriting a row, indexes are built beside the writers (on SQLite writers wait for them). Servers
// of 0.1 may go on too. Their payments are done, and they answer ret 1 to a callback for an order
// that a newer server saved, so do not let both run for long.
//
// On PostgreSQL and MySQL this takes two connections at once, and does not work through a pooler
// in statement mode. If it is stopped halfway, call it again. On MySQL an index is built anew if
// a transaction that has read the table stays open for more than a second when it is ready: run no
// dump or report meanwhile. For teams that run their own migrations the same SQL is in the folder
// schema.
func (s *Store) Migrate(ctx context.Context) error {
	if err := s.migrate(ctx); err != nil {
		return fmt.Errorf("midassql: Migrate: %w", err)
	}
	return nil
}

func (s *Store) migrate(ctx context.Context) error {
	version, err := s.version(ctx)
	switch {
	case err != nil || version == schemaVersion:
		return err
	case version > schemaVersion:
		return fmt.Errorf("the tables are of version %d, made by a newer release; this one knows version %d", version, schemaVersion)
	}
	release, err := s.lockMigration(ctx)
	if err != nil {
		return err
	}
	defer release()
	if version, err = s.version(ctx); err != nil || version == schemaVersion { // another process was faster
		return err
	}
	old, err := s.there(ctx, s.grammar.hasColumn, "midas_deliveries", "openid")
	if err != nil {
		return err
	}
	if old {
		if err := s.run(ctx, "schema/from-0.1/"+string(s.dialect)+".sql"); err != nil {
			return err
		}
	}
	return s.run(ctx, "schema/"+string(s.dialect)+".sql") // its last statement stores the version
}

// version returns the version of the tables; 0 if there are none, or those of release 0.1.
func (s *Store) version(ctx context.Context) (version int64, err error) {
	there, err := s.there(ctx, s.grammar.hasColumn, "midas_meta", "value")
	if err != nil || !there {
		return 0, err
	}
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		err := tx.QueryRowContext(ctx, s.sql.meta, "schema").Scan(&version)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	})
	return version, err
}

// there asks a question of the grammar.
func (s *Store) there(ctx context.Context, question string, names ...string) (bool, error) {
	args := make([]any, len(names))
	for i, name := range names {
		args[i] = s.write(name)
	}
	var n int
	err := s.inTx(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, s.write(question), args...).Scan(&n)
	})
	return n > 0, err
}

const (
	migrationLock  = 7793147120258115
	migrationPause = 100 * time.Millisecond
)

// lockMigration keeps two processes from changing the same tables at once, which IF NOT EXISTS
// does not. SQLite does it by itself.
func (s *Store) lockMigration(ctx context.Context) (release func(), err error) {
	if s.dialect == SQLite {
		return func() {}, nil
	}
	if s.db.Stats().MaxOpenConnections == 1 {
		return nil, errors.New("it takes two connections, and SetMaxOpenConns allows one")
	}
	for {
		release, locked, err := s.tryMigrationLock(ctx)
		if err != nil || locked {
			return release, err
		}
		// The lock is not waited for in a statement: CREATE INDEX CONCURRENTLY, which the other
		// process may be at, waits for every statement that began before it.
		select {
		case <-time.After(migrationPause):
		case <-ctx.Done():
			return nil, fmt.Errorf("%w; another process is migrating", ctx.Err())
		}
	}
}

func (s *Store) tryMigrationLock(ctx context.Context) (release func(), locked bool, err error) {
	if s.dialect == PostgreSQL { // held by a transaction, so that a pooler keeps the connection
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
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return nil, false, err
	}
	name := s.opts.TablePrefix + "migrate"
	err = conn.QueryRowContext(ctx, `SELECT COALESCE(GET_LOCK(?, 0), 0)`, name).Scan(&locked)
	if err != nil || !locked {
		conn.Close()
	}
	return func() {
		_, _ = conn.ExecContext(context.WithoutCancel(ctx), `DO RELEASE_LOCK(?)`, name) // the end of the connection releases it too
		conn.Close()
	}, locked, err
}

var (
	aColumn = regexp.MustCompile(`^ALTER TABLE (\S+) ADD COLUMN (\S+)`)
	anIndex = regexp.MustCompile(`(?:INDEX CONCURRENTLY IF NOT EXISTS|INDEX IF NOT EXISTS|ADD INDEX) (\S+)`)
	comment = regexp.MustCompile(`(?m)^--.*\n|^\n`)
)

// run runs a file of the schema. What is there already is left out: on PostgreSQL, IF NOT EXISTS
// waits for the writers of the table before it looks, and new writers wait behind it.
func (s *Store) run(ctx context.Context, file string) error {
	content, err := schema.ReadFile(file)
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

// change runs one statement. One that needs a table for itself does not wait for it long, since all
// others would wait behind it, and tries again.
func (s *Store) change(ctx context.Context, statement string) error {
	statement = s.write(statement)
	if s.dialect == PostgreSQL && strings.Contains(statement, "CONCURRENTLY") { // not in a transaction
		name := anIndex.FindStringSubmatch(statement)[1]
		_, err := s.db.ExecContext(ctx, "DROP INDEX CONCURRENTLY IF EXISTS "+name) // an invalid one, left by a run that was stopped
		if err == nil {
			_, err = s.db.ExecContext(ctx, statement)
		}
		return err
	}
	return s.inTx(ctx, func(tx *sql.Tx) error {
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
