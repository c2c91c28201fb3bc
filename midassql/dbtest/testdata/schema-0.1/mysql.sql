-- Tables of midassql for MySQL 5.7 and MariaDB 10.3 and later. Store.Migrate runs this file
-- with the table prefix put in the place of "midas_". Times are unix seconds, money is fen.
--
-- VARBINARY compares bytes: the default collation ignores case and trailing blanks, and two
-- players' payments would become one. InnoDB: without transactions nothing is once.

-- Orders, stored before the player can pay.
CREATE TABLE IF NOT EXISTS midas_orders (
    token        VARBINARY(255) NOT NULL PRIMARY KEY,
    openid       VARBINARY(255) NOT NULL,
    zone         VARBINARY(255) NOT NULL,
    items        MEDIUMBLOB NOT NULL, -- JSON: [{"ID":"gem60","Price":600,"Quantity":1}]
    metadata     VARBINARY(255) NOT NULL,
    max_quantity BIGINT NOT NULL, -- 0: the quantity is fixed
    saved_at     BIGINT NOT NULL,
    KEY midas_orders_saved_at (saved_at)
) ENGINE=InnoDB;

-- Payments whose items were granted. The primary key is what makes it once.
CREATE TABLE IF NOT EXISTS midas_deliveries (
    openid       VARBINARY(255) NOT NULL,
    billno       VARBINARY(255) NOT NULL,
    token        VARBINARY(255) NOT NULL,
    zone         VARBINARY(255) NOT NULL,
    items        MEDIUMBLOB NOT NULL,
    charged      BIGINT NOT NULL,
    called_at    BIGINT NOT NULL, -- parameter ts of the callback
    granted_at   BIGINT NOT NULL,
    repeats      BIGINT NOT NULL DEFAULT 0, -- callbacks answered OK after the one that granted
    PRIMARY KEY (openid, billno),
    KEY midas_deliveries_token (token),
    KEY midas_deliveries_granted_at (granted_at)
) ENGINE=InnoDB;
