package main

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/midas-go/midas"
)

// players is where the players are while they are offline: redisPlayers or sqlPlayers.
type players interface {
	// load begins a session. From here on the sessions before it save nothing, also what they have
	// sent already and the store has not yet seen.
	load(ctx context.Context, zone, openID string) (session int64, r record, err error)

	// save saves the record as a whole, and checks in the same atomic step that no newer session
	// has begun; errStale says that one has. After any other error the save may have happened or
	// may still happen: the session must not save again.
	save(ctx context.Context, zone, openID string, session int64, r record) error
}

// errStale says that the player has been loaded since by somebody else, here or on another
// zone server: what is in memory must not be saved any more.
var errStale = errors.New("the player belongs to a newer session")

// A record is what is saved of a player, as a whole. So no save can write items without the ids
// of the payments that they come from, or the other way round.
type record struct {
	Items  map[string]int   `json:"items"`
	Paid   map[string]int64 `json:"paid"`   // by midas.PaymentID: when it was last handed out, in Unix time
	Bought []string         `json:"bought"` // billnos, for the player to look at; a real game shows the newest few
	Played int              `json:"played"` // the rest of the game
}

// with returns r with what was paid for, unless r has it already, and with the payment's id as
// handed out at now. It leaves r as it is.
func (r record) with(d *midas.Delivery, now time.Time) record {
	id := midas.PaymentID(d.OpenID, d.BillNo)
	_, known := r.Paid[id]
	r.Paid = maps.Clone(r.Paid)
	if r.Paid == nil {
		r.Paid = make(map[string]int64)
	}
	r.Paid[id] = now.Unix()
	if known {
		return r
	}
	r.Items = maps.Clone(r.Items)
	if r.Items == nil {
		r.Items = make(map[string]int)
	}
	for _, item := range d.Items {
		r.Items[item.ID] += item.Quantity
	}
	r.Bought = append(slices.Clip(r.Bought), d.BillNo)
	return r
}

// since returns r without the ids of payments that were last handed out before t, and whether
// there were any. It leaves r as it is.
func (r record) since(t time.Time) (record, bool) {
	n := len(r.Paid)
	r.Paid = maps.Clone(r.Paid)
	maps.DeleteFunc(r.Paid, func(_ string, handedOut int64) bool { return handedOut < t.Unix() })
	return r, len(r.Paid) < n
}
