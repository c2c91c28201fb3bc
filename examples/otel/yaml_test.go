package main

import (
	"testing"

	"github.com/midas-go/midas"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// Configurations and requests end up in YAML, too, where somebody dumps what a process
// runs with.
func TestYAMLHoldsNoSecret(t *testing.T) {
	t.Parallel()
	cfg := midas.Config{AppID: "1450000000", AppKey: "SECRET-key", DeliveryPath: "/pay/notify"}
	client, err := midas.New(cfg)
	require.NoError(t, err)
	for what, v := range map[string]any{
		"Config": cfg, "a pointer": &cfg, "Client": client,
		"OrderRequest": midas.OrderRequest{Player: midas.Player{OpenID: "ANNA", OpenKey: "SECRET-1", PFKey: "SECRET-2", PayToken: "SECRET-3"}, Extra: map[string][]string{"sp_info": {"SECRET-4"}}},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			text, err := yaml.Marshal(map[string]any{"dump": v})
			require.NoError(t, err)
			require.NotContains(t, string(text), "SECRET")
			require.Regexp(t, "1450000000|ANNA", string(text), "what identifies it is shown")
		})
	}
}
