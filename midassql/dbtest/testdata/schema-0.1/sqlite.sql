-- Tables of midassql for SQLite 3.24 and later. Store.Migrate runs this file with the table
-- prefix put in the place of "midas_". Times are unix seconds, money is fen.

-- Orders, stored before the player can pay.
CREATE TABLE IF NOT EXISTS midas_orders (
    token        TEXT NOT NULL PRIMARY KEY,
    openid       TEXT NOT NULL,
    zone         TEXT NOT NULL,
    items        TEXT NOT NULL, -- JSON: [{"ID":"gem60","Price":600,"Quantity":1}]
    metadata     TEXT NOT NULL,
    max_quantity INTEGER NOT NULL, -- 0: the quantity is fixed
    saved_at     INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS midas_orders_saved_at ON midas_orders (saved_at);

-- Payments whose items were granted. The primary key is what makes it once.
CREATE TABLE IF NOT EXISTS midas_deliveries (
    openid       TEXT NOT NULL,
    billno       TEXT NOT NULL,
    token        TEXT NOT NULL,
    zone         TEXT NOT NULL,
    items        TEXT NOT NULL,
    charged      INTEGER NOT NULL,
    called_at    INTEGER NOT NULL, -- parameter ts of the callback
    granted_at   INTEGER NOT NULL,
    repeats      INTEGER NOT NULL DEFAULT 0, -- callbacks answered OK after the one that granted
    PRIMARY KEY (openid, billno)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS midas_deliveries_token ON midas_deliveries (token);
CREATE INDEX IF NOT EXISTS midas_deliveries_granted_at ON midas_deliveries (granted_at);
