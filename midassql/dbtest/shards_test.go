package dbtest

import (
	"context"
	"hash/fnv"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/stretchr/testify/require"
)

// A shardedGame has a Store for each database.
type shardedGame struct {
	stores []*midassql.Store
	once   []midas.DeliverFunc // Store.Once of each
}

func (g *shardedGame) shard(openID string) int {
	hash := fnv.New32a()
	hash.Write([]byte(openID))
	return int(hash.Sum32() % uint32(len(g.stores)))
}

func (g *shardedGame) deliver(ctx context.Context, d *midas.Delivery) error {
	return g.once[g.shard(d.OpenID)](ctx, d)
}

// Two databases, and the backend chooses one by the openid (docs/shards.md, "One Store for each shard").
func TestShardsByHand(t *testing.T) {
	t.Parallel()
	for _, kind := range []struct {
		name string
		open func(t *testing.T) *database
	}{
		{"postgresql", func(t *testing.T) *database { return openDatabase(t, postgreSQL) }},
		{"mysql", func(t *testing.T) *database { return openDatabase(t, mySQL) }},
		{"sqlite", func(t *testing.T) *database { return openDatabase(t, sqlite) }},
	} {
		t.Run(kind.name, func(t *testing.T) {
			shards := []*database{kind.open(t), kind.open(t)}
			game := new(shardedGame)
			for _, db := range shards {
				store := db.store(t, midassql.Options{})
				game.stores, game.once = append(game.stores, store), append(game.once, store.Once(db.grant))
			}

			players := []string{"anna", "bert", "carl", "dora", "emil", "fred", "gina", "hans"}
			each := make([]int, 2)
			for _, player := range players {
				each[game.shard(player)]++
				ordered(t, game.stores[game.shard(player)], player, "token of "+player)
				for range 2 {
					require.NoError(t, game.deliver(t.Context(), paid(player, "token of "+player, "-"+player, func(d *midas.Delivery) { d.Numbers = []string{"number of " + player} })))
				}
			}
			for i, db := range shards {
				require.NotZero(t, each[i])
				require.Equal(t, each[i], db.count(t, "SELECT COUNT(*) FROM deliveries"))
			}
			// An order that was saved in the wrong shard is none.
			ordered(t, game.stores[1-game.shard("anna")], "anna", "elsewhere")
			require.ErrorIs(t, game.deliver(t.Context(), paid("anna", "elsewhere", "-2")), midas.ErrTokenNotFound)

			// What has no openid asks each.
			for _, player := range players {
				var found []string
				for _, store := range game.stores {
					for p, err := range store.Payments(t.Context(), midassql.Query{Number: "number of " + player}) {
						require.NoError(t, err)
						found = append(found, p.OpenID)
					}
				}
				require.Equal(t, []string{player}, found)
			}
			// One person's openids.
			byShard := make([][]string, 2)
			for _, player := range players {
				byShard[game.shard(player)] = append(byShard[game.shard(player)], player)
			}
			var spent midas.Amount
			for i, openIDs := range byShard {
				part, err := game.stores[i].Spent(t.Context(), openIDs, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
				require.NoError(t, err)
				spent += part
			}
			require.Equal(t, gem.Price*2*midas.Amount(len(players)), spent)
		})
	}
}
