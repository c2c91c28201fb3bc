package frameworks

import (
	"context"
	"database/sql"

	"github.com/midas-go/midas"
	"gorm.io/driver/mysql"
	"gorm.io/gorm"
)

// BagItem is a row of what players own.
type BagItem struct {
	ID       int64  `xorm:"'id' pk autoincr"`
	OpenID   string `gorm:"column:openid" xorm:"'openid'"`
	BillNo   string `gorm:"column:billno" xorm:"'billno'"`
	Item     string
	Quantity int
}

func (BagItem) TableName() string { return "bag_items" }

// GrantWithGorm is a grant for midassql.Store.Once that writes with gorm, on the delivery's own
// transaction. A *gorm.DB of the game's has connections of its own: what is written with that
// is not rolled back with the delivery. For PostgreSQL write
// postgres.New(postgres.Config{Conn: tx}).
func GrantWithGorm(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
	db, err := gorm.Open(mysql.New(mysql.Config{Conn: tx, SkipInitializeWithVersion: true}), new(gorm.Config))
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
