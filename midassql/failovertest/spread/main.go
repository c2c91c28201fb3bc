// Command spread shows how Vitess spreads the ledger of random players over shards by the vindexes of
// midassql/schema/vitess.json: the shards that one payment touches, and each shard's part of the rows.
//
//	go run ./spread -players 20000
//
// It needs no Vitess: the vindex xxhash is XXH64 of the column, and a shard is a range of it. It fails if a
// payment needs two shards, or if a shard has 10 % more or less than its part.
package main

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/bits"
	"os"

	"github.com/cespare/xxhash/v2"
)

// ofAPayment are the tables that an order and its callback write.
var ofAPayment = []string{"midas_orders", "midas_deliveries", "midas_numbers", "midas_inbox"}

func main() {
	players := flag.Int("players", 20000, "random players, of one payment each")
	schema := flag.String("schema", "../schema/vitess.json", "the vindexes")
	flag.Parse()
	content, err := os.ReadFile(*schema)
	if err == nil {
		err = spread(content, *players)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "spread:", err)
		os.Exit(1)
	}
}

func spread(schema []byte, players int) error {
	var vschema struct {
		Tables map[string]struct {
			Vindexes []struct{ Column, Name string } `json:"column_vindexes"`
		}
	}
	if err := json.Unmarshal(schema, &vschema); err != nil {
		return err
	}
	for _, shards := range []int{1, 2, 4} {
		rows := make([]int, shards)
		most := 0 // shards of one payment
		for range players {
			row := map[string]string{"openid": "o" + rand.Text(), "billno": rand.Text(), "token": rand.Text(), "number": rand.Text()}
			touched := make(map[int]bool)
			for _, table := range ofAPayment {
				vindexes := vschema.Tables[table].Vindexes
				if len(vindexes) != 1 || vindexes[0].Name != "xxhash" || row[vindexes[0].Column] == "" {
					return fmt.Errorf("%s: want one vindex xxhash on a column of a payment", table)
				}
				// The shards are equal ranges of the hash: this is hash * shards / 2^64.
				shard, _ := bits.Mul64(xxhash.Sum64String(row[vindexes[0].Column]), uint64(shards))
				touched[int(shard)] = true
				rows[shard]++
			}
			most = max(most, len(touched))
		}
		fmt.Printf("%d shards: %d for a payment; rows", shards, most)
		uneven := false
		for _, n := range rows {
			part := float64(n) * float64(shards) / float64(players*len(ofAPayment))
			fmt.Printf(" %d (%.3f)", n, part)
			uneven = uneven || math.Abs(part-1) > 0.1
		}
		fmt.Println()
		switch {
		case most > 1:
			return errors.New("a payment needs more than one shard")
		case uneven:
			return errors.New("a shard has too many rows, or too few")
		}
	}
	return nil
}
