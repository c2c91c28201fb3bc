package main

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSpread(t *testing.T) {
	schema, err := os.ReadFile("../../schema/vitess.json")
	require.NoError(t, err)
	require.NoError(t, spread(schema, 20_000))

	elsewhere := strings.Replace(string(schema), `"midas_orders": {"column_vindexes": [{"column": "openid"`, `"midas_orders": {"column_vindexes": [{"column": "token"`, 1)
	require.NotEqual(t, string(schema), elsewhere)
	require.ErrorContains(t, spread([]byte(elsewhere), 100), "more than one shard", "the counter-example")
}
