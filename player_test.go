package midas_test

import (
	"encoding/json"
	"testing"

	"github.com/midas-go/midas"
	"github.com/stretchr/testify/require"
)

// What an app's SDK hands out at the login, as an app sends it on.
const appLogin = `{"login":"qq","openid":"o_TEST","openkey":"KEY","pay_token":"TOKEN","pf":"qq_m_qq-2001-android-2011-xxxx","pfkey":"PFKEY","zoneid":"9","ZoneID":"9","userip":"192.0.2.1","more":1}`

func TestWhatAnAppSendsDecodesIntoAPlayer(t *testing.T) {
	t.Parallel()
	player := midas.Player{ZoneID: "3", UserIP: "198.51.100.7"} // the server's
	require.NoError(t, json.Unmarshal([]byte(appLogin), &player))
	require.Equal(t, midas.Player{
		Login: midas.QQ, OpenID: "o_TEST", OpenKey: "KEY", PayToken: "TOKEN", PF: "qq_m_qq-2001-android-2011-xxxx", PFKey: "PFKEY",
		ZoneID: "3", UserIP: "198.51.100.7",
	}, player)

	var request struct {
		Product string       `json:"product"`
		Player  midas.Player `json:"player"`
	}
	require.NoError(t, json.Unmarshal([]byte(`{"product":"sword","player":`+appLogin+`}`), &request))
	require.Equal(t, "KEY", request.Player.OpenKey)

	require.ErrorContains(t, json.Unmarshal([]byte(`{"openid":7}`), &player), "midas: Player: ")
	require.Equal(t, "o_TEST", player.OpenID, "after an error it is as it was")
}

// Stored by mistake as it prints, a Player would be refused by Midas only at the next order.
func TestAPlayerRefusesItsOwnRedactedForm(t *testing.T) {
	t.Parallel()
	for name, player := range map[string]midas.Player{
		"Player.OpenKey": {OpenID: "o", OpenKey: "k"}, "Player.PFKey": {PFKey: "k"}, "Player.PayToken": {PayToken: "k"},
	} {
		printed, err := json.Marshal(player)
		require.NoError(t, err)
		var read midas.Player
		err = json.Unmarshal(printed, &read)
		var field *midas.FieldError
		require.ErrorAs(t, err, &field, string(printed))
		require.Equal(t, name, field.Field)
		require.ErrorContains(t, err, "convert it to a type without methods")
		require.Equal(t, midas.Player{}, read)
	}
}

// The first line of Player's comment.
func TestAPlayerIsStoredThroughATypeWithoutMethods(t *testing.T) {
	t.Parallel()
	type stored midas.Player
	var player midas.Player
	require.NoError(t, json.Unmarshal([]byte(appLogin), &player))
	player.ZoneID, player.UserIP = "3", "198.51.100.7"
	kept, err := json.Marshal(stored(player))
	require.NoError(t, err)
	var back stored
	require.NoError(t, json.Unmarshal(kept, &back))
	require.Equal(t, player, midas.Player(back))
}
