-- Tables of midassql for PostgreSQL 12 and later. Store.Migrate runs this file with the
-- table prefix put in the place of "midas_". Times are unix seconds, money is fen.

-- Orders, stored before the player can pay.
CREATE TABLE IF NOT EXISTS midas_orders (
    token        text COLLATE "C" NOT NULL PRIMARY KEY,
    openid       text COLLATE "C" NOT NULL,
    zone         text NOT NULL,
    items        text NOT NULL, -- JSON: [{"ID":"gem60","Price":600,"Quantity":1}]
    metadata     text NOT NULL,
    max_quantity bigint NOT NULL, -- 0: the quantity is fixed
    saved_at     bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS midas_orders_saved_at ON midas_orders (saved_at);

-- Payments whose items were granted. The primary key is what makes it once.
CREATE TABLE IF NOT EXISTS midas_deliveries (
    openid       text COLLATE "C" NOT NULL,
    billno       text COLLATE "C" NOT NULL,
    token        text COLLATE "C" NOT NULL,
    zone         text NOT NULL,
    items        text NOT NULL,
    charged      bigint NOT NULL,
    called_at    bigint NOT NULL, -- parameter ts of the callback
    granted_at   bigint NOT NULL,
    repeats      bigint NOT NULL DEFAULT 0, -- callbacks answered OK after the one that granted
    PRIMARY KEY (openid, billno)
);
CREATE INDEX IF NOT EXISTS midas_deliveries_token ON midas_deliveries (token);
CREATE INDEX IF NOT EXISTS midas_deliveries_granted_at ON midas_deliveries (granted_at);
