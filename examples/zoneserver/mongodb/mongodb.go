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

// A Player is a document. Where a save of the whole document wrote null for what is empty, Grant's
// $inc and $push would fail from then on.
type Player struct {
	ID      string         `bson:"_id"` // zone and openid
	Session int64          `bson:"session"`
	Items   map[string]int `bson:"items,omitempty"`
	Paid    []Payment      `bson:"paid,omitempty"`
}

// A Payment is what a player remembers of one.
type Payment struct {
	ID string    `bson:"id"` // midas.PaymentID
	At time.Time `bson:"at"` // when it was last handed out
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
// id. It returns the player as saved. After an error that is not ErrStale nobody knows whether
// it happened: end the session, and Load the player again. Item ids are names of fields, so they
// hold no "." and do not begin with "$".
//
// The caller holds the player's lock, and takes Items and Paid from the returned Player before it
// saves the whole document again: the old ones would take away the items and the id together.
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

// Forget removes the ids of payments that were last handed out before t. Call it only when no
// payment of the player waits in the inbox, in any zone: one that was saved long ago, and whose
// Done never came through, would be granted again.
func Forget(ctx context.Context, players *mongo.Collection, p *Player, t time.Time) error {
	result, err := players.UpdateOne(ctx, bson.D{{Key: "_id", Value: p.ID}, {Key: "session", Value: p.Session}},
		bson.D{{Key: "$pull", Value: bson.D{{Key: "paid", Value: bson.D{{Key: "at", Value: bson.D{{Key: "$lt", Value: t}}}}}}}})
	if err == nil && result.MatchedCount == 0 {
		err = ErrStale
	}
	return err
}
