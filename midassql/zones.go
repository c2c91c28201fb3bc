package midassql

import (
	"cmp"
	"context"
	"database/sql"
	"slices"
	"strings"
	"time"
)

const (
	zonesEvery    = time.Minute      // how often an Inbox says that it is there, and looks for others
	unservedAfter = 10 * time.Minute // without news from a worker of the zone
)

// zoneOf returns the zone that a zoneid names: an empty one is sent as "1" (protocol.md 3, parameters), so
// the two are one zone.
func zoneOf(zoneid string) string {
	return cmp.Or(zoneid, "1")
}

// inZone reports whether zoneid belongs to name, considering that name alone.
func inZone(zoneid, name string) bool {
	return zoneid == name || strings.HasPrefix(zoneid, name+"_")
}

// base returns what a name and all zones that belong to it begin with: the part before the first
// "_". An index on it keeps a claim from walking over what waits for other zones: not even over the entries
// of the index, unless their names begin the same.
func base(zoneid string) string {
	before, _, _ := strings.Cut(zoneid, "_")
	return before
}

func byBase(names []string) map[string][]string {
	m := make(map[string][]string)
	for _, name := range names {
		m[base(name)] = append(m[base(name)], name)
	}
	return m
}

// zoneCondition is inZone in SQL. "`" follows "_" in ASCII.
func zoneCondition(name string) (string, []any) {
	return "(zone = ? OR zone >= ? AND zone < ?)", []any{name, name + "_", name + "`"}
}

// inZones returns the condition for the payments of this Inbox's zones.
func (b *Inbox) inZones() (string, []any) {
	if b.opts.Zones == nil {
		return "1 = 1", nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return zonesCondition(b.opts.Zones, b.others)
}

// zonesCondition returns the condition for the payments that belong to one of our names. The longest
// name that fits wins, so payments that fit a name of others are left out unless a still longer name is
// ours.
func zonesCondition(ours, others []string) (string, []any) {
	sql, args := anyZone(ours)
	for _, other := range others {
		condition, more := zoneCondition(other)
		nested := slices.DeleteFunc(slices.Clone(ours), func(zone string) bool { return !inZone(zone, other) })
		inner, innerArgs := anyZone(nested)
		sql += " AND NOT (" + condition + " AND NOT " + inner + ")"
		args = append(append(args, more...), innerArgs...)
	}
	return sql, args
}

// inside returns the names of others that begin with one of ours.
func inside(ours []string, names []zoneName) (others []string) {
	for _, n := range names {
		if !slices.Contains(ours, n.name) && slices.ContainsFunc(ours, func(zone string) bool { return inZone(n.name, zone) }) {
			others = append(others, n.name)
		}
	}
	return others
}

func anyZone(names []string) (string, []any) {
	if len(names) == 0 {
		return "(1 = 0)", nil
	}
	var conditions []string
	var args []any
	for _, name := range names {
		condition, more := zoneCondition(name)
		conditions = append(conditions, condition)
		args = append(args, more...)
	}
	return "(" + strings.Join(conditions, " OR ") + ")", args
}

// serves is inZones for one zoneid.
func (b *Inbox) serves(zoneid string) bool {
	if b.opts.Zones == nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return longest(zoneid, b.opts.Zones) > longest(zoneid, b.others)
}

// longest returns the length of the longest name that zoneid belongs to; -1 if there is none.
func longest(zoneid string, names []string) int {
	n := -1
	for _, name := range names {
		if inZone(zoneid, name) {
			n = max(n, len(name))
		}
	}
	return n
}

type zoneName struct {
	name   string // empty: a worker for every zone
	served bool
}

func scanZoneName(rows *sql.Rows) (z zoneName, err error) {
	return z, rows.Scan(&z.name, &z.served)
}

// seeZones reads, once a minute, which other names there are inside the Inbox's zones.
func (b *Inbox) seeZones(ctx context.Context) error {
	now := b.store.opts.Now()
	b.mu.Lock()
	recent := !b.zonesSeen.IsZero() && now.Sub(b.zonesSeen) < zonesEvery
	b.mu.Unlock()
	if recent || b.opts.Zones == nil {
		return nil
	}
	var names []zoneName
	err := b.store.look(ctx, func(tx *sql.Tx) (err error) {
		names, err = query(ctx, tx, scanZoneName, b.store.sql.zones, unservedAfter.Milliseconds())
		return err
	})
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.others, b.zonesSeen = inside(b.opts.Zones, names), now
	return nil
}

// nameZones writes down that a worker for the Inbox's zones is there.
func (b *Inbox) nameZones(ctx context.Context) error {
	names := b.opts.Zones
	if names == nil {
		names = []string{""}
	}
	for _, name := range names {
		if err := b.nameZone(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

func (b *Inbox) nameZone(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, finishTime) // see claim
	defer cancel()
	return b.store.inTx(ctx, func(tx *sql.Tx) error {
		there, err := changed(ctx, tx, b.store.sql.seeZone, name)
		if err == nil && !there {
			_, err = tx.ExecContext(ctx, b.store.sql.addZone, name)
		}
		return err
	})
}
