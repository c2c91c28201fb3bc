-- Tables of midassql for PostgreSQL 12 and later. Store.Migrate runs this file with the table
-- prefix put in the place of "midas_"; for tables that release 0.1 made it runs the one in the
-- folder from-0.1 first. Times ending in _ms are unix milliseconds, the others unix seconds;
-- money is fen.

-- Single values: "schema", the version of these tables; "purged", above 0 once an order may have
-- been deleted; "swept", up to which saved_at the last Purge went; "generation" of Inbox.Retry.
CREATE TABLE IF NOT EXISTS midas_meta (
    name  text COLLATE "C" NOT NULL,
    value bigint NOT NULL,
    PRIMARY KEY (name)
);
INSERT INTO midas_meta (name, value) VALUES ('purged', 0), ('swept', 0), ('generation', 0) ON CONFLICT DO NOTHING;

-- Orders, stored before the player can pay.
CREATE TABLE IF NOT EXISTS midas_orders (
    token        text COLLATE "C" NOT NULL,
    openid       text COLLATE "C" NOT NULL,
    zone         text NOT NULL,
    items        text NOT NULL, -- payitem: gem60*60*1;sword*5*1 (release 0.1 wrote JSON)
    metadata     text NOT NULL,
    max_quantity bigint NOT NULL, -- 0: the quantity is fixed
    saved_at     bigint NOT NULL,
    PRIMARY KEY (token)
);
CREATE INDEX IF NOT EXISTS midas_orders_saved_at ON midas_orders (saved_at);
CREATE INDEX IF NOT EXISTS midas_orders_openid ON midas_orders (openid);
CREATE INDEX IF NOT EXISTS midas_orders_metadata ON midas_orders (metadata);

-- Payments. The primary key is what makes it once: never delete a row (docs/ledger.md,
-- "Archive"). Rows that a server of release 0.1 inserts are done, by the defaults.
CREATE TABLE IF NOT EXISTS midas_deliveries (
    openid       text COLLATE "C" NOT NULL,
    billno       text COLLATE "C" NOT NULL,
    token        text COLLATE "C" NOT NULL, -- empty: settled by hand without one
    zone         text NOT NULL,
    items        text NOT NULL, -- payitem, as in midas_orders
    charged      bigint NOT NULL,
    called_at    bigint NOT NULL, -- parameter ts of the callback
    granted_at   bigint NOT NULL, -- when the row was inserted
    repeats      bigint NOT NULL DEFAULT 0, -- callbacks answered OK, and settlements, for a payment that was already stored
    mark         bigint NOT NULL DEFAULT 0, -- of the transaction that inserted the row
    state        integer NOT NULL DEFAULT 0, -- 0: done, 1: waiting in midas_inbox, 2: cancelled, 3: broken
    generation   bigint NOT NULL DEFAULT 0, -- of Inbox.Retry
    done_ms      bigint DEFAULT NULL, -- when Inbox.Done came; NULL for what Once granted
    app_id       text NOT NULL DEFAULT '', -- offer id
    metadata     text NOT NULL DEFAULT '',
    pay_method   text NOT NULL DEFAULT '',
    platform     text NOT NULL DEFAULT '',
    provide_type bigint NOT NULL DEFAULT 0,
    settled_by   text NOT NULL DEFAULT '', -- who settled it by hand; empty: a callback came
    note         text NOT NULL DEFAULT '', -- why it was settled, cancelled or broken
    PRIMARY KEY (openid, billno)
);
CREATE INDEX IF NOT EXISTS midas_deliveries_token ON midas_deliveries (token);
CREATE INDEX IF NOT EXISTS midas_deliveries_granted_at ON midas_deliveries (granted_at);
CREATE INDEX IF NOT EXISTS midas_deliveries_billno ON midas_deliveries (billno);
CREATE INDEX IF NOT EXISTS midas_deliveries_metadata ON midas_deliveries (metadata);
CREATE INDEX IF NOT EXISTS midas_deliveries_done_ms ON midas_deliveries (done_ms) WHERE done_ms IS NOT NULL;

-- One row for each payment that waits to be handed to the game. It stays as small as what
-- waits, however long the history.
CREATE TABLE IF NOT EXISTS midas_inbox (
    openid     text COLLATE "C" NOT NULL,
    billno     text COLLATE "C" NOT NULL,
    zone       text COLLATE "C" NOT NULL, -- which worker takes it: the payment's, unless it was moved
    base       text COLLATE "C" NOT NULL, -- zone up to its first "_", for the index
    stored_ms  bigint NOT NULL,
    due_ms     bigint NOT NULL, -- not handed out before, but at login
    lease_ms   bigint NOT NULL DEFAULT 0, -- end of the lease; 0: none
    accepted   integer NOT NULL DEFAULT 0, -- 1: leased, but no work function is at it
    owner      bigint NOT NULL DEFAULT 0, -- the Inbox that leased it last
    claims     bigint NOT NULL DEFAULT 0, -- how often it was leased
    attempts   integer NOT NULL DEFAULT 0, -- those that failed, and the running one
    failing_ms bigint NOT NULL DEFAULT 0, -- when it failed first; 0: never
    stuck      integer NOT NULL DEFAULT 0, -- 1: failed for 72 h
    last_error text NOT NULL DEFAULT '',
    PRIMARY KEY (openid, billno)
);
CREATE INDEX IF NOT EXISTS midas_inbox_due ON midas_inbox (due_ms);
CREATE INDEX IF NOT EXISTS midas_inbox_base ON midas_inbox (base, due_ms);

-- The zones that workers have named.
CREATE TABLE IF NOT EXISTS midas_zones (
    name    text COLLATE "C" NOT NULL,
    seen_ms bigint NOT NULL,
    PRIMARY KEY (name)
);

-- Refunds of mini-game payments, each noted once.
CREATE TABLE IF NOT EXISTS midas_refunds (
    refund_id text COLLATE "C" NOT NULL,
    openid    text COLLATE "C" NOT NULL,
    billno    text COLLATE "C" NOT NULL,
    amount    bigint NOT NULL,
    noted_at  bigint NOT NULL,
    repeats   bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (refund_id)
);
CREATE INDEX IF NOT EXISTS midas_refunds_payment ON midas_refunds (openid, billno);

INSERT INTO midas_meta (name, value) VALUES ('schema', 2) ON CONFLICT DO NOTHING;
