package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
)

// A zone holds the players who are online in it.
type zone struct {
	name    string
	inbox   *midassql.Inbox
	players *players
	log     *slog.Logger

	mu     sync.Mutex
	online map[string]*player // by openid
}

// A player is online.
type player struct {
	openID  string
	session int64

	mu     sync.Mutex // held during a save: one after the other
	record record
	played bool // since the last save
	over   bool // the session: nothing may be saved any more
}

func newZone(name string, inbox *midassql.Inbox, players *players, log *slog.Logger) *zone {
	return &zone{name: name, inbox: inbox, players: players, log: log, online: make(map[string]*player)}
}

// run grants payments and saves players until ctx ends; then it saves them once more.
func (z *zone) run(ctx context.Context, saveEvery time.Duration) {
	var running sync.WaitGroup
	running.Go(func() {
		if err := z.inbox.Work(ctx, z.grant); ctx.Err() == nil {
			z.log.ErrorContext(ctx, "nothing is granted any more", "error", err.Error())
		}
	})
	running.Go(func() { z.listen(ctx) })
	every := time.NewTicker(saveEvery)
	defer every.Stop()
	for ctx.Err() == nil {
		select {
		case <-every.C:
			z.saveAll(ctx)
		case <-ctx.Done():
		}
	}
	running.Wait()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
	defer cancel()
	z.saveAll(last)
}

// listen wakes Work up when the gateway has stored a payment for this zone.
func (z *zone) listen(ctx context.Context) {
	stored := z.players.redis.Subscribe(ctx, storedChannel)
	defer stored.Close()
	for words := stored.Channel(); ; {
		select {
		case word, ok := <-words:
			if !ok {
				return
			}
			if word.Payload == z.name {
				z.inbox.Wake()
			}
		case <-ctx.Done():
			return
		}
	}
}

// grant gives a player what was paid for. The items and the payment's id are saved in one
// write, and nil says that they are.
func (z *zone) grant(ctx context.Context, d *midas.Delivery) error {
	p := z.player(d.OpenID)
	if p == nil {
		return midassql.ErrNotNow
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	granted := p.record.with(d)
	saved, err := z.save(ctx, p, granted, midas.PaymentID(d.OpenID, d.BillNo))
	switch {
	case errors.Is(err, errStale):
		return midassql.ErrNotNow
	case err != nil:
		return err
	case saved:
		p.record, p.played = granted, false
	}
	return nil // saved now, or by an earlier try whose Done did not come through
}

// saveTime is for one save. The end of the caller's context does not break a save off, because nobody
// would know whether it happened. It is well under what is left of a lease then.
const saveTime = 3 * time.Second

// save saves r as the player's record. After an error the session is over: the player has to log
// in again, and is loaded as he was last saved. Call it with p.mu held.
func (z *zone) save(ctx context.Context, p *player, r record, id string) (saved bool, err error) {
	if p.over {
		return false, errStale
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTime)
	defer cancel()
	if saved, err = z.players.save(ctx, z.name, p.openID, p.session, r, id); err != nil {
		z.log.WarnContext(ctx, "a player's session is over", "openid", p.openID, "error", err.Error())
		z.end(p)
	}
	return saved, err
}

// end ends a session. Call it with p.mu held.
func (z *zone) end(p *player) {
	p.over = true
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.online[p.openID] == p {
		delete(z.online, p.openID)
	}
}

func (z *zone) player(openID string) *player {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.online[openID]
}

// login loads a player, and then grants what was paid for meanwhile: in this order, because
// from the moment the player is online Work grants, too.
func (z *zone) login(ctx context.Context, openID string) (*player, error) {
	p := z.player(openID)
	if p == nil {
		session, r, err := z.players.load(ctx, z.name, openID)
		if err != nil {
			return nil, err
		}
		p = z.enter(&player{openID: openID, session: session, record: r})
	}
	for d, err := range z.inbox.Waiting(ctx, openID) {
		if err != nil {
			z.log.ErrorContext(ctx, "what was paid for while the player was away comes later", "openid", openID, "error", err.Error())
			return p, nil
		}
		if err := z.grant(ctx, d); err != nil {
			err = z.inbox.Fail(ctx, d.OpenID, d.BillNo, err)
			z.report(ctx, d, err)
			continue
		}
		z.report(ctx, d, z.inbox.Done(ctx, d.OpenID, d.BillNo))
	}
	if err := z.players.forget(ctx, z.name, openID); err != nil {
		z.log.WarnContext(ctx, "old payment ids are still there", "openid", openID, "error", err.Error())
	}
	return p, nil
}

// enter makes p online. Of two logins at once the newer session counts.
func (z *zone) enter(p *player) *player {
	z.mu.Lock()
	defer z.mu.Unlock()
	if other := z.online[p.openID]; other != nil && other.session > p.session {
		return other
	}
	z.online[p.openID] = p
	return p
}

// report logs that the inbox did not hear what became of a payment. It is handed out again,
// and the id in the record keeps it from doubling.
func (z *zone) report(ctx context.Context, d *midas.Delivery, err error) {
	if err != nil {
		z.log.ErrorContext(ctx, "the payment is handed out again", "openid", d.OpenID, "billno", d.BillNo, "error", err.Error())
	}
}

// logout saves the player and lets him go. After an error he is gone, too, as he was last saved.
func (z *zone) logout(ctx context.Context, openID string) error {
	p := z.player(openID)
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	_, err := z.save(ctx, p, p.record, "")
	if err == nil {
		z.end(p)
	}
	return err
}

// saveAll saves who has played.
func (z *zone) saveAll(ctx context.Context) {
	z.mu.Lock()
	online := make([]*player, 0, len(z.online))
	for _, p := range z.online {
		online = append(online, p)
	}
	z.mu.Unlock()
	for _, p := range online {
		p.mu.Lock()
		if p.played {
			if _, err := z.save(ctx, p, p.record, ""); err == nil {
				p.played = false
			}
		}
		p.mu.Unlock()
	}
}

const loginTime = 10 * time.Second

// endpoints is a stub: a real zone server has a connection to each app, and knows who is
// there by the game's own login.
func (z *zone) endpoints() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /players/{openid}/login", func(w http.ResponseWriter, r *http.Request) {
		// An app that hangs up must not end what its login has begun to grant.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), loginTime)
		defer cancel()
		p, err := z.login(ctx, r.PathValue("openid"))
		if err != nil {
			z.log.WarnContext(ctx, "login", "error", err.Error())
			refuse(w, http.StatusServiceUnavailable, "try again")
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		answer(w, http.StatusOK, p.record)
	})
	mux.HandleFunc("POST /players/{openid}/play", func(w http.ResponseWriter, r *http.Request) {
		p := z.player(r.PathValue("openid"))
		if p == nil {
			refuse(w, http.StatusNotFound, "log in")
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.record.Played++
		p.played = true
		answer(w, http.StatusOK, p.record)
	})
	mux.HandleFunc("POST /players/{openid}/logout", func(w http.ResponseWriter, r *http.Request) {
		if err := z.logout(r.Context(), r.PathValue("openid")); err != nil {
			refuse(w, http.StatusServiceUnavailable, "what was played since the last save is lost")
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	return mux
}
