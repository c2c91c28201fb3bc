package main

import (
	"regexp"
	"slices"
)

// secretNames are the player's credentials.
var secretNames = []string{"openkey", "pfkey", "pay_token"}

const masked = "[masked]"

func maskParams(params []param) []param {
	params = slices.Clone(params)
	for i, p := range params {
		if slices.Contains(secretNames, p.Name) && p.Value != "" {
			params[i].Value = masked
		}
	}
	return params
}

var secretInQuery = regexp.MustCompile(`\b(openkey|pfkey|pay_token)=[^&\s"'<>]+`)

// maskText masks the player's credentials in a query, or where a proxy's page repeats one.
func maskText(text string) string { return secretInQuery.ReplaceAllString(text, "${1}="+masked) }
