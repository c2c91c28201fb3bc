package midassqltest_test

import (
	"database/sql"
	"os"
	"testing"

	"github.com/midas-go/midas/midassql"
	"github.com/midas-go/midas/midassql/midassqltest"
)

// In a test file of the game, with its driver imported.
func ExampleRun() {
	_ = func(t *testing.T) { // func TestOurDatabase(t *testing.T)
		open := func() (*sql.DB, error) { return sql.Open("mysql", os.Getenv("GAME_DSN")) }
		midassqltest.Run(t, open, midassql.MySQL, midassql.Options{})
	}
	// Output:
}
