package mongodb

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// A new player has neither items nor payments. Saved as null, they would take no $inc and no $push.
func TestANewPlayerIsSavedWithoutNull(t *testing.T) {
	t.Parallel()
	text, err := bson.Marshal(Player{ID: "1:player", Session: 1})
	require.NoError(t, err)
	var saved bson.M
	require.NoError(t, bson.Unmarshal(text, &saved))
	require.Equal(t, bson.M{"_id": "1:player", "session": int64(1)}, saved)
}
