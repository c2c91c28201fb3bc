package failovertest

import (
	"database/sql/driver"
	"errors"

	"github.com/go-sql-driver/mysql"
	"github.com/midas-go/midas/midassql"
)

// options are those of examples/gameserver.
func options(dialect midassql.Dialect) midassql.Options {
	if dialect == midassql.PostgreSQL {
		return midassql.Options{}
	}
	return midassql.Options{Transient: func(err error) bool {
		var refused *mysql.MySQLError
		return errors.Is(err, driver.ErrBadConn) || errors.As(err, &refused) && (refused.Number == 1213 || refused.Number == 1205)
	}}
}
