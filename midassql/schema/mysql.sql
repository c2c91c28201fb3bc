-- Tables of midassql for MySQL 8 and MariaDB 10.6 and later. Store.Migrate runs this file with
-- the table prefix in place of "midas_". Times ending in _ms are unix milliseconds, the others unix
-- seconds; money is in fen.
--
-- VARBINARY compares bytes: the default collation ignores case and trailing blanks, and two
-- players' payments would become one. InnoDB: without transactions nothing is once.

-- Single values: "schema", the version of these tables; "purged", above 0 once an order may have
-- been deleted; "swept", up to which saved_at the last Purge went; "generation" of Inbox.Retry; "environment", whose
-- word is Options.Environment.
CREATE TABLE IF NOT EXISTS midas_meta (
    name  VARBINARY(255) NOT NULL,
    value BIGINT NOT NULL,
    word  VARBINARY(255) NOT NULL DEFAULT '',
    PRIMARY KEY (name)
) ENGINE=InnoDB;
-- One row each: Vitess keeps them by name, and in SINGLE mode refuses a statement on several shards.
INSERT IGNORE INTO midas_meta (name, value) VALUES ('purged', 0);
INSERT IGNORE INTO midas_meta (name, value) VALUES ('swept', 0);
INSERT IGNORE INTO midas_meta (name, value) VALUES ('generation', 0);

-- Orders, stored before the player can pay.
CREATE TABLE IF NOT EXISTS midas_orders (
    token        VARBINARY(255) NOT NULL,
    openid       VARBINARY(255) NOT NULL,
    zone         VARBINARY(255) NOT NULL,
    items        MEDIUMBLOB NOT NULL, -- payitem: gem60*60*1;sword*5*1
    metadata     VARBINARY(255) NOT NULL,
    max_quantity BIGINT NOT NULL, -- 0: the quantity is fixed
    saved_at     BIGINT NOT NULL,
    asked_ms     BIGINT NOT NULL DEFAULT 0, -- when ClaimUnpaid may next claim it; 0: a minute after saved_at; the greatest number: never
    PRIMARY KEY (token),
    KEY midas_orders_saved_at (saved_at),
    KEY midas_orders_openid (openid),
    KEY midas_orders_metadata (metadata),
    KEY midas_orders_asked_ms (asked_ms, token)
) ENGINE=InnoDB;

-- Payments. The primary key is what makes it once: never delete a row (docs/ledger.md,
-- "Purge and archive"). billno comes first because it holds the date: where the key orders the table, a payment is
-- written beside the last one, and not into any page of the history.
CREATE TABLE IF NOT EXISTS midas_deliveries (
    openid       VARBINARY(255) NOT NULL,
    billno       VARBINARY(255) NOT NULL,
    token        VARBINARY(255) NOT NULL, -- empty: settled by hand without one, or noted
    zone         VARBINARY(255) NOT NULL,
    items        MEDIUMBLOB NOT NULL, -- payitem, as in midas_orders
    charged      BIGINT NOT NULL,
    called_at    BIGINT NOT NULL, -- parameter ts of the callback
    granted_at   INT UNSIGNED NOT NULL, -- when the payment was stored; until 2106
    repeats      INT NOT NULL DEFAULT 0, -- callbacks answered OK, and settlements, for a payment that was already stored
    mark         BIGINT NOT NULL DEFAULT 0, -- of the transaction that inserted the row
    state        TINYINT NOT NULL DEFAULT 0, -- 0: done, 1: waiting in midas_inbox, 2: cancelled, 3: broken, 4: noted
    generation   INT NOT NULL DEFAULT 0, -- of Inbox.Retry
    done_ms      BIGINT DEFAULT NULL, -- when Inbox.Done came; NULL for what Once or Settle granted, or Import stored
    app_id       VARBINARY(255) NOT NULL DEFAULT '', -- offer id
    metadata     VARBINARY(255) NOT NULL DEFAULT '',
    pay_method   VARBINARY(255) NOT NULL DEFAULT '',
    platform     VARBINARY(255) NOT NULL DEFAULT '',
    provide_type INT NOT NULL DEFAULT 0,
    settled_by   VARBINARY(255) NOT NULL DEFAULT '', -- who settled or imported it; empty: a callback came
    note         VARBINARY(255) NOT NULL DEFAULT '', -- why it was settled, cancelled or broken; that it was imported
    token_typed  TINYINT NOT NULL DEFAULT 0, -- 1: by hand; no callback has told the token yet
    may_have     TINYINT NOT NULL DEFAULT 0, -- 1: cancelled, and the player may have the items
    refunded     BIGINT NOT NULL DEFAULT 0, -- sum of the refunds whose amount is known
    refunded_all INT NOT NULL DEFAULT 0, -- number of the refunds in full whose amount is not known
    PRIMARY KEY (billno, openid),
    KEY midas_deliveries_token (token),
    KEY midas_deliveries_granted_at (granted_at),
    KEY midas_deliveries_openid (openid),
    KEY midas_deliveries_metadata (metadata)
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
    may_have   INT NOT NULL DEFAULT 0, -- 1: an earlier hand-out was not taken back for certain
    PRIMARY KEY (openid, billno),
    KEY midas_inbox_due (due_ms),
    KEY midas_inbox_base (base, due_ms, zone)
) ENGINE=InnoDB;

-- The zones that workers have named.
CREATE TABLE IF NOT EXISTS midas_zones (
    name    VARBINARY(255) NOT NULL,
    seen_ms BIGINT NOT NULL,
    PRIMARY KEY (name)
) ENGINE=InnoDB;

-- Refunds, each noted once. early, granted, in_full, refunded and charged are what was told about it.
CREATE TABLE IF NOT EXISTS midas_refunds (
    app_id      VARBINARY(255) NOT NULL,
    refund_id   VARBINARY(255) NOT NULL,
    openid      VARBINARY(255) NOT NULL,
    billno      VARBINARY(255) NOT NULL,
    amount      BIGINT NOT NULL, -- 0: in full, the amount is not known
    refunded_at BIGINT NOT NULL, -- by the payment system; 0: not known
    noted_at    BIGINT NOT NULL,
    repeats     BIGINT NOT NULL DEFAULT 0,
    early       INT NOT NULL DEFAULT 0, -- 1: it came before its payment
    granted     INT NOT NULL DEFAULT 0, -- 1: the player had the items, or might have
    in_full     INT NOT NULL DEFAULT 0,
    refunded    BIGINT NOT NULL DEFAULT 0, -- of the payment's refunds, this one included
    charged     BIGINT NOT NULL DEFAULT 0,
    noted_by    VARBINARY(255) NOT NULL DEFAULT '', -- who noted it by hand
    reason      VARBINARY(255) NOT NULL DEFAULT '',
    PRIMARY KEY (app_id, refund_id),
    KEY midas_refunds_payment (openid, billno),
    KEY midas_refunds_noted_at (noted_at)
) ENGINE=InnoDB;

-- What the payment system calls a payment (cftid; WeChat's transaction id and merchant order number).
CREATE TABLE IF NOT EXISTS midas_numbers (
    number VARBINARY(255) NOT NULL,
    app    VARBINARY(255) NOT NULL, -- offer id; empty: not known
    openid VARBINARY(255) NOT NULL,
    billno VARBINARY(255) NOT NULL,
    PRIMARY KEY (number, openid, billno)
) ENGINE=InnoDB;

-- Verified callbacks that were not answered OK: the last five of a payment.
CREATE TABLE IF NOT EXISTS midas_attempts (
    openid   VARBINARY(255) NOT NULL,
    billno   VARBINARY(255) NOT NULL,
    id       BIGINT NOT NULL,
    token    VARBINARY(255) NOT NULL,
    tried_ms BIGINT NOT NULL,
    outcome  VARBINARY(255) NOT NULL, -- failed, timed_out …
    ret      INT NOT NULL,
    late     INT NOT NULL, -- 1: the result came after ret 1 had been answered
    error    VARBINARY(255) NOT NULL,
    PRIMARY KEY (openid, billno, id),
    KEY midas_attempts_tried_ms (tried_ms),
    KEY midas_attempts_billno (billno),
    KEY midas_attempts_token (token)
) ENGINE=InnoDB;

-- What somebody did to a payment by hand.
CREATE TABLE IF NOT EXISTS midas_acts (
    openid   VARBINARY(255) NOT NULL,
    billno   VARBINARY(255) NOT NULL,
    id       BIGINT NOT NULL, -- of the call, which may act on many payments
    acted_ms BIGINT NOT NULL,
    act      VARBINARY(255) NOT NULL, -- settle, cancel, retry, move_zone, refund, import, done_after_cancel
    actor    VARBINARY(255) NOT NULL, -- who
    reason   VARBINARY(255) NOT NULL,
    PRIMARY KEY (openid, billno, id),
    KEY midas_acts_acted_ms (acted_ms),
    KEY midas_acts_billno (billno)
) ENGINE=InnoDB;

INSERT IGNORE INTO midas_meta (name, value) VALUES ('schema', 1);
