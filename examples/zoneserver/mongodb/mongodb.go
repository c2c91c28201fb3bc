// Package mongodb is a zone server's save where the players are documents in MongoDB. It is
// compiled and not run here: take it as a recipe.
package mongodb

import (
	"context"
	"errors"
	"time"

	"github.com/midas-go/midas"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"
)

// A Player is a document.
type Player struct {
	ID      string         `bson:"_id"` // zone and openid
	Session int64          `bson:"session"`
	Items   map[string]int `bson:"items"`
	Paid    []Payment      `bson:"paid"`
}

// A Payment is what a player remembers of one.
type Payment struct {
	ID string    `bson:"id"` // midas.PaymentID
	At time.Time `bson:"at"`
}

// ErrStale says that the player was loaded since by another process.
var ErrStale = errors.New("the player belongs to a newer session")

// Players returns the collection as Grant needs it: an answer means that a majority of the
// replica set has the write in its journal, so a failover loses nothing that was done.
func Players(db *mongo.Database) *mongo.Collection {
	majority := writeconcern.Majority()
	journaled := true
	majority.Journal = &journaled
	return db.Collection("players", options.Collection().SetWriteConcern(majority))
}

// Load begins a session: the ones before it change nothing any more.
func Load(ctx context.Context, players *mongo.Collection, id string) (*Player, error) {
	var p Player
	err := players.FindOneAndUpdate(ctx, bson.D{{Key: "_id", Value: id}},
		bson.D{{Key: "$inc", Value: bson.D{{Key: "session", Value: 1}}}},
		options.FindOneAndUpdate().SetUpsert(true).SetReturnDocument(options.After)).Decode(&p)
	return &p, err
}

// Grant adds what was paid for and the payment's id in one write, unless the player has that
// id. It returns the player as saved. Item ids are names of fields, so they hold no "." and do
// not begin with "$".
func Grant(ctx context.Context, players *mongo.Collection, p *Player, d *midas.Delivery) (*Player, error) {
	id := midas.PaymentID(d.OpenID, d.BillNo)
	bought := bson.M{}
	for _, item := range d.Items {
		n, _ := bought["items."+item.ID].(int)
		bought["items."+item.ID] = n + item.Quantity
	}
	mine := bson.D{{Key: "_id", Value: p.ID}, {Key: "session", Value: p.Session}}
	var saved Player
	err := players.FindOneAndUpdate(ctx,
		append(mine, bson.E{Key: "paid.id", Value: bson.D{{Key: "$ne", Value: id}}}),
		bson.D{
			{Key: "$inc", Value: bought},
			{Key: "$push", Value: bson.D{{Key: "paid", Value: Payment{ID: id, At: time.Now()}}}},
		},
		options.FindOneAndUpdate().SetReturnDocument(options.After)).Decode(&saved)
	if !errors.Is(err, mongo.ErrNoDocuments) {
		return &saved, err
	}
	// The player has the id, or is another process's. Nil only if he has it. This writes,
	// too, because a read could see what a failover takes back.
	err = players.FindOneAndUpdate(ctx, append(mine, bson.E{Key: "paid.id", Value: id}),
		bson.D{{Key: "$set", Value: bson.D{{Key: "paid.$.at", Value: time.Now()}}}},
		options.FindOneAndUpdate().SetReturnDocument(options.After)).Decode(&saved)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return nil, ErrStale
	}
	return &saved, err
}
