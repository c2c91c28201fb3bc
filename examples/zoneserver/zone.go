package main

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/redis/go-redis/v9"
)

// A zone holds the players who are online in it.
type zone struct {
	name    string
	store   *midassql.Store
	inbox   *midassql.Inbox
	players players
	log     *slog.Logger
	now     func() time.Time

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

func newZone(name string, store *midassql.Store, inbox *midassql.Inbox, players players, log *slog.Logger) *zone {
	return &zone{name: name, store: store, inbox: inbox, players: players, log: log, now: time.Now, online: make(map[string]*player)}
}

// serve serves players until ctx ends, and then until everybody is saved. The last save comes
// after the last answer: what a player has played until then was answered, and is kept.
func (z *zone) serve(ctx context.Context, address string, news *redis.Client, saveEvery time.Duration) error {
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		z.run(running, news, saveEvery)
	}()
	err := serve(ctx, address, z.endpoints(), z.log)
	stop()
	<-ended
	return err
}

// run grants payments and saves players until ctx ends; then it saves them once more, for
// which it takes no longer than shutdownTime and saveTime.
func (z *zone) run(ctx context.Context, news *redis.Client, saveEvery time.Duration) {
	var running sync.WaitGroup
	running.Go(func() {
		if err := z.inbox.Work(ctx, z.grant); ctx.Err() == nil {
			z.log.ErrorContext(ctx, "nothing is granted any more", "error", err.Error())
		}
	})
	running.Go(func() { z.listen(ctx, news) })
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
	if left := z.saveAll(last); left > 0 {
		z.log.ErrorContext(ctx, "out of time: not every player was saved once more", "players", left)
	}
}

// listen wakes Work up when the gateway has stored a payment for this zone.
func (z *zone) listen(ctx context.Context, news *redis.Client) {
	stored := news.Subscribe(ctx, storedChannel)
	defer stored.Close()
	for words := stored.Channel(); ; {
		select {
		case word, ok := <-words:
			if !ok {
				return
			}
			if word.Payload == z.name || strings.HasPrefix(word.Payload, z.name+"_") { // zone_role
				z.inbox.Wake()
			}
		case <-ctx.Done():
			return
		}
	}
}

// grant gives a player what was paid for, unless he has it. nil says that his record is saved,
// with the items and the payment's id in one write.
func (z *zone) grant(ctx context.Context, d *midas.Delivery) error {
	p := z.player(d.OpenID)
	if p == nil {
		return midassql.ErrNotNow
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	// Where the record has the id already, this writes all the same: nobody knows whether the save
	// that wrote it has outlived a failover.
	err := z.save(ctx, p, p.record.with(d, z.now()))
	if errors.Is(err, errStale) {
		return midassql.ErrNotNow
	}
	return err
}

// saveTime is for one save. The end of the caller's context does not break a save off, because
// nobody would know whether it happened. Work's context ends after five sixths of the lease, so
// with a lease of 18 s or more the save ends before the lease does. With a shorter one the payment
// may be handed out once more meanwhile; session and id see to it that it counts once.
const saveTime = 3 * time.Second

// save saves r as the player's record. After an error the session is over: the player has to log
// in again, and is loaded as he was last saved. Call it with p.mu held.
func (z *zone) save(ctx context.Context, p *player, r record) error {
	if p.over {
		return errStale
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTime)
	defer cancel()
	if err := z.players.save(ctx, z.name, p.openID, p.session, r); err != nil {
		z.log.WarnContext(ctx, "a player's session is over", "openid", p.openID, "error", err.Error())
		z.end(p)
		return err
	}
	p.record, p.played = r, false
	return nil
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

// current returns the player if he is here, and nil if his session is not the newest: he may have
// been on another zone server since. Only a save tells.
func (z *zone) current(ctx context.Context, openID string) *player {
	p := z.player(openID)
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if z.save(ctx, p, p.record) != nil { // it logs its errors
		return nil
	}
	return p
}

// login loads a player, and then grants what was paid for meanwhile: in this order, because
// from the moment the player is online Work grants, too.
func (z *zone) login(ctx context.Context, openID string) (*player, error) {
	p := z.current(ctx, openID)
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
			z.report(ctx, d, z.inbox.Fail(ctx, d.OpenID, d.BillNo, err))
			continue
		}
		z.report(ctx, d, z.inbox.Done(ctx, d.OpenID, d.BillNo))
	}
	z.forget(ctx, p)
	return p, nil
}

// idsKept is for how long a record remembers a payment after it was last handed out: longer
// than any backup that would be restored, and 30 days at least (see midassql.Inbox).
const idsKept = 90 * 24 * time.Hour

// forget lets a record forget old ids, unless any payment of the player still waits, in
// whatever zone and whoever has a lease on it: it may be one of those, saved long ago by a
// zone server whose Done did not come through.
func (z *zone) forget(ctx context.Context, p *player) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r, some := p.record.since(z.now().Add(-idsKept))
	if !some {
		return
	}
	for _, err := range z.store.Payments(ctx, midassql.Query{OpenID: p.openID, State: midassql.StateWaiting}) { // stuck ones included
		if err != nil {
			z.log.WarnContext(ctx, "old payment ids are still there", "openid", p.openID, "error", err.Error())
		}
		return
	}
	_ = z.save(ctx, p, r) // it logs its errors
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

// report logs what the inbox says against what became of a payment. As a rule it is handed out
// again, and the id in the record keeps it from doubling.
func (z *zone) report(ctx context.Context, d *midas.Delivery, err error) {
	switch {
	case err == nil:
	case errors.Is(err, midassql.ErrCancelled):
		z.log.ErrorContext(ctx, "the payment was cancelled, and the player has the items: somebody must decide about them",
			"openid", d.OpenID, "billno", d.BillNo, "error", err.Error())
	default:
		z.log.ErrorContext(ctx, "the payment is handed out again", "openid", d.OpenID, "billno", d.BillNo, "error", err.Error())
	}
}

// play lets a player play, and reports whether he is here. It returns his record, which is answered
// without the lock: an app that does not read its answer must not hold up the next save. Nobody changes the
// maps of a record, with and since clone them.
func (z *zone) play(openID string) (record, bool) {
	p := z.player(openID)
	if p == nil {
		return record{}, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over { // while this waited for the lock
		return record{}, false
	}
	p.record.Played++
	p.played = true
	return p.record, true
}

// logout saves the player and lets him go. After an error he is gone, too, as he was last saved.
func (z *zone) logout(ctx context.Context, openID string) error {
	p := z.player(openID)
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	err := z.save(ctx, p, p.record)
	if err == nil {
		z.end(p)
	}
	return err
}

// saveAll saves who has played, a few players at once, until ctx ends. It returns how many it
// did not come to.
func (z *zone) saveAll(ctx context.Context) (left int) {
	z.mu.Lock()
	online := slices.Collect(maps.Values(z.online))
	z.mu.Unlock()
	next := make(chan *player)
	var saving sync.WaitGroup
	for range 8 {
		saving.Go(func() {
			for p := range next {
				p.mu.Lock()
				if p.played {
					_ = z.save(ctx, p, p.record) // it logs its errors
				}
				p.mu.Unlock()
			}
		})
	}
	left = len(online)
	for _, p := range online {
		if ctx.Err() != nil {
			break
		}
		select {
		case next <- p:
			left--
		case <-ctx.Done():
		}
	}
	close(next)
	saving.Wait()
	return left
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
		loaded := p.record
		p.mu.Unlock()
		answer(w, http.StatusOK, loaded)
	})
	mux.HandleFunc("POST /players/{openid}/play", func(w http.ResponseWriter, r *http.Request) {
		played, ok := z.play(r.PathValue("openid"))
		if !ok {
			refuse(w, http.StatusNotFound, "log in")
			return
		}
		answer(w, http.StatusOK, played)
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
