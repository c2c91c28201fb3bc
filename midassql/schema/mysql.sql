-- Tables of midassql for MySQL 8 and MariaDB 10.6 and later. Store.Migrate runs this file with
-- the table prefix put in the place of "midas_"; for tables that release 0.1 made it runs the
-- one in the folder from-0.1 first. Times ending in _ms are unix milliseconds, the others unix
-- seconds; money is fen.
--
-- VARBINARY compares bytes: the default collation ignores case and trailing blanks, and two
-- players' payments would become one. InnoDB: without transactions nothing is once.

-- Single values: "schema", the version of these tables; "purged", above 0 once an order may have
-- been deleted; "swept", up to which saved_at the last Purge went; "generation" of Inbox.Retry.
CREATE TABLE IF NOT EXISTS midas_meta (
    name  VARBINARY(255) NOT NULL,
    value BIGINT NOT NULL,
    PRIMARY KEY (name)
) ENGINE=InnoDB;
INSERT IGNORE INTO midas_meta (name, value) VALUES ('purged', 0), ('swept', 0), ('generation', 0);

-- Orders, stored before the player can pay.
CREATE TABLE IF NOT EXISTS midas_orders (
    token        VARBINARY(255) NOT NULL,
    openid       VARBINARY(255) NOT NULL,
    zone         VARBINARY(255) NOT NULL,
    items        MEDIUMBLOB NOT NULL, -- payitem: gem60*60*1;sword*5*1 (release 0.1 wrote JSON)
    metadata     VARBINARY(255) NOT NULL,
    max_quantity BIGINT NOT NULL, -- 0: the quantity is fixed
    saved_at     BIGINT NOT NULL,
    PRIMARY KEY (token),
    KEY midas_orders_saved_at (saved_at),
    KEY midas_orders_openid (openid),
    KEY midas_orders_metadata (metadata)
) ENGINE=InnoDB;

-- Payments. The primary key is what makes it once: never delete a row (docs/ledger.md,
-- "Archive"). Rows that a server of release 0.1 inserts are done, by the defaults.
CREATE TABLE IF NOT EXISTS midas_deliveries (
    openid       VARBINARY(255) NOT NULL,
    billno       VARBINARY(255) NOT NULL,
    token        VARBINARY(255) NOT NULL, -- empty: settled by hand without one
    zone         VARBINARY(255) NOT NULL,
    items        MEDIUMBLOB NOT NULL, -- payitem, as in midas_orders
    charged      BIGINT NOT NULL,
    called_at    BIGINT NOT NULL, -- parameter ts of the callback
    granted_at   BIGINT NOT NULL, -- when the row was inserted
    repeats      BIGINT NOT NULL DEFAULT 0, -- callbacks answered OK, and settlements, for a payment that was already stored
    mark         BIGINT NOT NULL DEFAULT 0, -- of the transaction that inserted the row
    state        INT NOT NULL DEFAULT 0, -- 0: done, 1: waiting in midas_inbox, 2: cancelled, 3: broken
    generation   BIGINT NOT NULL DEFAULT 0, -- of Inbox.Retry
    done_ms      BIGINT DEFAULT NULL, -- when Inbox.Done came; NULL for what Once granted
    app_id       VARBINARY(255) NOT NULL DEFAULT '', -- offer id
    metadata     VARBINARY(255) NOT NULL DEFAULT '',
    pay_method   VARBINARY(255) NOT NULL DEFAULT '',
    platform     VARBINARY(255) NOT NULL DEFAULT '',
    provide_type BIGINT NOT NULL DEFAULT 0,
    settled_by   VARBINARY(255) NOT NULL DEFAULT '', -- who settled it by hand; empty: a callback came
    note         VARBINARY(255) NOT NULL DEFAULT '', -- why it was settled, cancelled or broken
    PRIMARY KEY (openid, billno),
    KEY midas_deliveries_token (token),
    KEY midas_deliveries_granted_at (granted_at),
    KEY midas_deliveries_billno (billno),
    KEY midas_deliveries_metadata (metadata),
    KEY midas_deliveries_done_ms (done_ms)
) ENGINE=InnoDB;

-- One row for each payment that waits to be handed to the game. It stays as small as what
-- waits, however long the history.
CREATE TABLE IF NOT EXISTS midas_inbox (
    openid     VARBINARY(255) NOT NULL,
    billno     VARBINARY(255) NOT NULL,
    zone       VARBINARY(255) NOT NULL, -- which worker takes it: the payment's, unless it was moved
    base       VARBINARY(255) NOT NULL, -- zone up to its first "_", for the index
    stored_ms  BIGINT NOT NULL,
    due_ms     BIGINT NOT NULL, -- not handed out before, but at login
    lease_ms   BIGINT NOT NULL DEFAULT 0, -- end of the lease; 0: none
    accepted   INT NOT NULL DEFAULT 0, -- 1: leased, but no work function is at it
    owner      BIGINT NOT NULL DEFAULT 0, -- the Inbox that leased it last
    claims     BIGINT NOT NULL DEFAULT 0, -- how often it was leased
    attempts   INT NOT NULL DEFAULT 0, -- those that failed, and the running one
    failing_ms BIGINT NOT NULL DEFAULT 0, -- when it failed first; 0: never
    stuck      INT NOT NULL DEFAULT 0, -- 1: failed for 72 h
    last_error VARBINARY(255) NOT NULL DEFAULT '',
    PRIMARY KEY (openid, billno),
    KEY midas_inbox_due (due_ms),
    KEY midas_inbox_base (base, due_ms)
) ENGINE=InnoDB;

-- The zones that workers have named.
CREATE TABLE IF NOT EXISTS midas_zones (
    name    VARBINARY(255) NOT NULL,
    seen_ms BIGINT NOT NULL,
    PRIMARY KEY (name)
) ENGINE=InnoDB;

-- Refunds of mini-game payments, each noted once.
CREATE TABLE IF NOT EXISTS midas_refunds (
    refund_id VARBINARY(255) NOT NULL,
    openid    VARBINARY(255) NOT NULL,
    billno    VARBINARY(255) NOT NULL,
    amount    BIGINT NOT NULL,
    noted_at  BIGINT NOT NULL,
    repeats   BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (refund_id),
    KEY midas_refunds_payment (openid, billno)
) ENGINE=InnoDB;

INSERT IGNORE INTO midas_meta (name, value) VALUES ('schema', 2);
