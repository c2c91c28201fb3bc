package failovertest

import (
	"math/rand/v2"
	"testing"

	"github.com/anishathalye/porcupine"
	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql/failovertest/ledgermodel"
	"github.com/stretchr/testify/require"
)

// The page that judges histories and the model of the ledger's statements have the same rules: a walk through
// the statements is a history that the page explains exactly if the model finds nothing wrong in it.
func TestBothModelsAgree(t *testing.T) {
	t.Parallel()
	for _, c := range ledgermodel.Cases() {
		t.Run(c.Name, func(t *testing.T) {
			const walks = 1000
			wrong := 0
			for seed := range uint64(walks) {
				events, end, broken := c.Walk(rand.New(rand.NewPCG(seed, 0)))
				operations := operationsOf(events, end, c.Inbox)
				explained := porcupine.CheckOperations(model, operations)
				require.Equal(t, len(broken) == 0, explained, "walk %d: %v; %+v %+v", seed, broken, events, end)
				if !explained {
					wrong++
				}
			}
			require.Equal(t, c.Right, wrong == 0, "%d of %d walks break a rule", wrong, walks)
			t.Logf("%d walks, %d break a rule, and both models say so of the same ones", walks, wrong)
		})
	}
}

// operationsOf returns a walk as a history.
func operationsOf(events []ledgermodel.Event, end ledgermodel.End, inbox bool) (operations []porcupine.Operation) {
	open := make(map[int]int) // the call of a process
	add := func(c call, called int64, a answer, returned int64) {
		operations = append(operations, porcupine.Operation{ClientId: len(operations), Input: c, Call: called, Output: a, Return: returned})
	}
	for i, e := range events {
		at := int64(i)
		c := call{Op: e.Op, Inbox: inbox, Refund: e.Refund, Server: e.Process + 1}
		switch {
		case e.Op == "hand":
			c.Op = "hand, leases may end" // at any time, in the model
			add(c, at, answer{}, at)
		case e.Op == "back":
			add(c, at, answer{Saved: e.Saved}, at)
		case e.Begins:
			open[e.Process] = len(operations)
			add(c, at, answer{Unknown: true}, forever)
		case e.OK:
			o := &operations[open[e.Process]]
			o.Output, o.Return = answer{Told: e.Told, Repeat: e.Repeat, Sum: midas.Amount(e.Sum) * price / 2}, at
		}
	}
	last := int64(len(events))
	add(call{Op: "look", Inbox: inbox}, last, answer{Rows: end.Grants, Sum: midas.Amount(end.Refunded) * price / 2, State: end.State}, last)
	return operations
}
