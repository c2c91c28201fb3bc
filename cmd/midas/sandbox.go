package main

import (
	"context"

	"github.com/midas-go/midas/midastest"
)

const demoAppID = "1450000000"

func runSandbox(ctx context.Context, args []string, t *terminal) int { return 1 }
func newReply(r *midastest.Receipt) any                              { return r }
