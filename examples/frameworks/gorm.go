package frameworks

import (
	"context"
	"database/sql"
	"log"
	"time"

	"github.com/midas-go/midas"
	"gorm.io/driver/mysql"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
)

// BagItem is a row of what players own. The column of openids compares bytes: for the usual collations
// of MySQL and MariaDB "oAbC" and "oaBc" are one player. On PostgreSQL and SQLite, which compare text in
// this way by themselves, leave the type out.
type BagItem struct {
	ID       int64  `xorm:"'id' pk autoincr"`
	OpenID   string `gorm:"column:openid;type:varbinary(255);index" xorm:"varbinary(255) 'openid' index"`
	BillNo   string `gorm:"column:billno" xorm:"'billno'"`
	Item     string
	Quantity int
}

func (BagItem) TableName() string { return "bag_items" }

// gormLog writes slow and failed statements without their values. gorm's default writes whole
// statements, the player's openid in them.
func gormLog(out logger.Writer) logger.Interface {
	return logger.New(out, logger.Config{SlowThreshold: 200 * time.Millisecond, LogLevel: logger.Warn, ParameterizedQueries: true})
}

// GrantWithGorm is a grant for midassql.Store.Once that writes with gorm, on the delivery's own
// transaction. A *gorm.DB of the game's has connections of its own: what is written with that
// is not rolled back with the delivery. For PostgreSQL write
// postgres.New(postgres.Config{Conn: tx}).
func GrantWithGorm(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
	db, err := gorm.Open(mysql.New(mysql.Config{Conn: tx, SkipInitializeWithVersion: true}), &gorm.Config{Logger: gormLog(log.Default())})
	if err != nil {
		return err
	}
	rows := bagItems(d)
	return db.WithContext(ctx).Create(&rows).Error
}

func bagItems(d *midas.Delivery) (rows []BagItem) {
	for _, item := range d.Items {
		rows = append(rows, BagItem{OpenID: d.OpenID, BillNo: d.BillNo, Item: item.ID, Quantity: item.Quantity})
	}
	return rows
}
