// Package migratetest is how tests on real databases migrate a Store to a release that they make up.
package migratetest

import (
	"context"
	"io/fs"
)

// MigrateTo is Store.Migrate of a release whose folder schema is in files, and whose tables have that
// version. midassql sets it; store is a *midassql.Store.
var MigrateTo func(ctx context.Context, store any, files fs.FS, version int64) error
