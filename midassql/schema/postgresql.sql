-- Tables of midassql for PostgreSQL 12 and later. Store.Migrate runs this file with the table
-- prefix in place of "midas_". Times ending in _ms are unix milliseconds, the others unix seconds;
-- money is in fen.

-- Single values: "schema", the version of these tables; "purged", above 0 once an order may have
-- been deleted; "swept", up to which saved_at the last Purge went; "generation" of Inbox.Retry; "environment", whose
-- word is Options.Environment.
CREATE TABLE IF NOT EXISTS midas_meta (
    name  text COLLATE "C" NOT NULL,
    value bigint NOT NULL,
    word  text NOT NULL DEFAULT '',
    PRIMARY KEY (name)
);
INSERT INTO midas_meta (name, value) VALUES ('purged', 0), ('swept', 0), ('generation', 0) ON CONFLICT DO NOTHING;

-- Orders, stored before the player can pay.
CREATE TABLE IF NOT EXISTS midas_orders (
    token        text COLLATE "C" NOT NULL,
    openid       text COLLATE "C" NOT NULL,
    zone         text NOT NULL,
    items        text NOT NULL, -- payitem: gem60*60*1;sword*5*1
    metadata     text NOT NULL,
    max_quantity bigint NOT NULL, -- 0: the quantity is fixed
    saved_at     bigint NOT NULL,
    asked_ms     bigint NOT NULL DEFAULT 0, -- when ClaimUnpaid may next claim it; 0: a minute after saved_at; the greatest number: never
    PRIMARY KEY (token)
);
CREATE INDEX IF NOT EXISTS midas_orders_saved_at ON midas_orders (saved_at);
CREATE INDEX IF NOT EXISTS midas_orders_openid ON midas_orders (openid);
CREATE INDEX IF NOT EXISTS midas_orders_metadata ON midas_orders (metadata);
CREATE INDEX IF NOT EXISTS midas_orders_asked_ms ON midas_orders (asked_ms, token);

-- Payments. The primary key is what makes it once: never delete a row (docs/ledger.md,
-- "Purge and archive"). billno comes first because it holds the date: where the key orders the table, a payment is
-- written beside the last one, and not into any page of the history.
CREATE TABLE IF NOT EXISTS midas_deliveries (
    openid       text COLLATE "C" NOT NULL,
    billno       text COLLATE "C" NOT NULL,
    token        text COLLATE "C" NOT NULL, -- empty: settled by hand without one, or noted
    zone         text NOT NULL,
    items        text NOT NULL, -- payitem, as in midas_orders
    charged      bigint NOT NULL,
    called_at    bigint NOT NULL, -- parameter ts of the callback
    granted_at   bigint NOT NULL, -- when the payment was stored
    repeats      bigint NOT NULL DEFAULT 0, -- callbacks answered OK, and settlements, for a payment that was already stored
    mark         bigint NOT NULL DEFAULT 0, -- of the transaction that inserted the row
    state        integer NOT NULL DEFAULT 0, -- 0: done, 1: waiting in midas_inbox, 2: cancelled, 3: broken, 4: noted
    generation   bigint NOT NULL DEFAULT 0, -- of Inbox.Retry
    done_ms      bigint DEFAULT NULL, -- when Inbox.Done came; NULL for what Once or Settle granted, or Import stored
    app_id       text NOT NULL DEFAULT '', -- offer id
    metadata     text NOT NULL DEFAULT '',
    pay_method   text NOT NULL DEFAULT '',
    platform     text NOT NULL DEFAULT '',
    provide_type bigint NOT NULL DEFAULT 0,
    settled_by   text NOT NULL DEFAULT '', -- who settled or imported it; empty: a callback came
    note         text NOT NULL DEFAULT '', -- why it was settled, cancelled or broken; that it was imported
    token_typed  integer NOT NULL DEFAULT 0, -- 1: by hand; no callback has told the token yet
    may_have     integer NOT NULL DEFAULT 0, -- 1: cancelled, and the player may have the items
    refunded     bigint NOT NULL DEFAULT 0, -- sum of the refunds whose amount is known
    refunded_all bigint NOT NULL DEFAULT 0, -- number of the refunds in full whose amount is not known
    PRIMARY KEY (billno, openid)
);
CREATE INDEX IF NOT EXISTS midas_deliveries_token ON midas_deliveries (token);
CREATE INDEX IF NOT EXISTS midas_deliveries_granted_at ON midas_deliveries (granted_at);
CREATE INDEX IF NOT EXISTS midas_deliveries_openid ON midas_deliveries (openid);
CREATE INDEX IF NOT EXISTS midas_deliveries_metadata ON midas_deliveries (metadata);

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
    may_have   integer NOT NULL DEFAULT 0, -- 1: an earlier hand-out was not taken back for certain
    PRIMARY KEY (openid, billno)
);
CREATE INDEX IF NOT EXISTS midas_inbox_due ON midas_inbox (due_ms);
CREATE INDEX IF NOT EXISTS midas_inbox_base ON midas_inbox (base, due_ms, zone);

-- The zones that workers have named.
CREATE TABLE IF NOT EXISTS midas_zones (
    name    text COLLATE "C" NOT NULL,
    seen_ms bigint NOT NULL,
    PRIMARY KEY (name)
);

-- Refunds, each noted once. early, granted, in_full, refunded and charged are what was told about it.
CREATE TABLE IF NOT EXISTS midas_refunds (
    app_id      text COLLATE "C" NOT NULL,
    refund_id   text COLLATE "C" NOT NULL,
    openid      text COLLATE "C" NOT NULL,
    billno      text COLLATE "C" NOT NULL,
    amount      bigint NOT NULL, -- 0: in full, the amount is not known
    refunded_at bigint NOT NULL, -- by the payment system; 0: not known
    noted_at    bigint NOT NULL,
    repeats     bigint NOT NULL DEFAULT 0,
    early       integer NOT NULL DEFAULT 0, -- 1: it came before its payment
    granted     integer NOT NULL DEFAULT 0, -- 1: the player had the items, or might have
    in_full     integer NOT NULL DEFAULT 0,
    refunded    bigint NOT NULL DEFAULT 0, -- of the payment's refunds, this one included
    charged     bigint NOT NULL DEFAULT 0,
    noted_by    text NOT NULL DEFAULT '', -- who noted it by hand
    reason      text NOT NULL DEFAULT '',
    PRIMARY KEY (app_id, refund_id)
);
CREATE INDEX IF NOT EXISTS midas_refunds_payment ON midas_refunds (openid, billno);
CREATE INDEX IF NOT EXISTS midas_refunds_noted_at ON midas_refunds (noted_at);

-- What the payment system calls a payment (cftid; WeChat's transaction id and merchant order number).
CREATE TABLE IF NOT EXISTS midas_numbers (
    number text COLLATE "C" NOT NULL,
    app    text COLLATE "C" NOT NULL, -- offer id; empty: not known
    openid text COLLATE "C" NOT NULL,
    billno text COLLATE "C" NOT NULL,
    PRIMARY KEY (number, openid, billno)
);

-- Verified callbacks that were not answered OK: the last five of a payment.
CREATE TABLE IF NOT EXISTS midas_attempts (
    openid   text COLLATE "C" NOT NULL,
    billno   text COLLATE "C" NOT NULL,
    id       bigint NOT NULL,
    token    text COLLATE "C" NOT NULL,
    tried_ms bigint NOT NULL,
    outcome  text NOT NULL, -- failed, timed_out …
    ret      integer NOT NULL,
    late     integer NOT NULL, -- 1: the result came after ret 1 had been answered
    error    text NOT NULL,
    PRIMARY KEY (openid, billno, id)
);
CREATE INDEX IF NOT EXISTS midas_attempts_tried_ms ON midas_attempts (tried_ms);
CREATE INDEX IF NOT EXISTS midas_attempts_billno ON midas_attempts (billno);
CREATE INDEX IF NOT EXISTS midas_attempts_token ON midas_attempts (token);

-- What somebody did to a payment by hand.
CREATE TABLE IF NOT EXISTS midas_acts (
    openid   text COLLATE "C" NOT NULL,
    billno   text COLLATE "C" NOT NULL,
    id       bigint NOT NULL, -- of the call, which may act on many payments
    acted_ms bigint NOT NULL,
    act      text NOT NULL, -- settle, cancel, retry, move_zone, refund, import, done_after_cancel
    actor    text NOT NULL, -- who
    reason   text NOT NULL,
    PRIMARY KEY (openid, billno, id)
);
CREATE INDEX IF NOT EXISTS midas_acts_acted_ms ON midas_acts (acted_ms);
CREATE INDEX IF NOT EXISTS midas_acts_billno ON midas_acts (billno);

INSERT INTO midas_meta (name, value) VALUES ('schema', 1) ON CONFLICT DO NOTHING;
