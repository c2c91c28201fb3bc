package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/midas-go/midas/midassql"
)

// sqlPlayers keeps each player in a row of the table players: the record, and the number of the
// session that may save it.
//
// Each save changes the row, because of the column saves, also where the record is what it was: a
// commit that changed nothing would not wait for a replica, and MySQL would not count the row.
type sqlPlayers struct {
	db                   *database
	upsert, read, update string
}

// openSQLPlayers makes the table if it is missing.
func openSQLPlayers(ctx context.Context, db *database) (*sqlPlayers, error) {
	p := &sqlPlayers{db: db}
	var create string
	if db.dialect == midassql.PostgreSQL {
		// The lock keeps two servers that start at once from creating the same table.
		create = `SELECT pg_advisory_xact_lock(20240209);
			CREATE TABLE IF NOT EXISTS players (
				zone text NOT NULL, openid text NOT NULL, session bigint NOT NULL, saves bigint NOT NULL, record text NOT NULL,
				PRIMARY KEY (zone, openid))`
		p.upsert = `INSERT INTO players (zone, openid, session, saves, record) VALUES ($1, $2, 1, 0, '{}')
			ON CONFLICT (zone, openid) DO UPDATE SET session = players.session + 1`
		p.read = "SELECT session, record FROM players WHERE zone = $1 AND openid = $2"
		p.update = "UPDATE players SET record = $1, saves = saves + 1 WHERE zone = $2 AND openid = $3 AND session = $4"
	} else {
		create = `CREATE TABLE IF NOT EXISTS players (
			zone VARBINARY(255) NOT NULL, openid VARBINARY(255) NOT NULL, session BIGINT NOT NULL, saves BIGINT NOT NULL, record MEDIUMBLOB NOT NULL,
			PRIMARY KEY (zone, openid)) ENGINE=InnoDB`
		p.upsert = `INSERT INTO players (zone, openid, session, saves, record) VALUES (?, ?, 1, 0, '{}')
			ON DUPLICATE KEY UPDATE session = session + 1`
		p.read = "SELECT session, record FROM players WHERE zone = ? AND openid = ?"
		p.update = "UPDATE players SET record = ?, saves = saves + 1 WHERE zone = ? AND openid = ? AND session = ?"
	}
	if _, err := db.ExecContext(ctx, create); err != nil {
		return nil, fmt.Errorf("creating the table players: %w", err)
	}
	return p, nil
}

func (p *sqlPlayers) load(ctx context.Context, zone, openID string) (session int64, r record, err error) {
	text, err := p.begin(ctx, zone, openID, &session)
	if err == nil {
		err = json.Unmarshal([]byte(text), &r)
	}
	if err != nil {
		return 0, record{}, fmt.Errorf("loading a player: %w", err)
	}
	return session, r, nil
}

func (p *sqlPlayers) begin(ctx context.Context, zone, openID string, session *int64) (text string, err error) {
	tx, err := p.db.BeginTx(ctx, nil)
	if err != nil {
		return "", err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, p.upsert, zone, openID); err != nil {
		return "", err
	}
	if err := tx.QueryRowContext(ctx, p.read, zone, openID).Scan(session, &text); err != nil {
		return "", err
	}
	return text, tx.Commit()
}

// save is one statement, which is its own transaction.
func (p *sqlPlayers) save(ctx context.Context, zone, openID string, session int64, r record) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	var saved int64
	result, err := p.db.ExecContext(ctx, p.update, string(text), zone, openID, session)
	if err == nil {
		saved, err = result.RowsAffected()
	}
	switch {
	case err != nil:
		return fmt.Errorf("saving a player: %w", err)
	case saved == 0:
		return errStale
	}
	return nil
}
