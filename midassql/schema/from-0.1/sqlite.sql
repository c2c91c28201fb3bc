-- What tables of release 0.1 need before the file in the folder above is run. Each column has a
-- constant default, so that adding it rewrites nothing, and servers of 0.1 go on inserting.
ALTER TABLE midas_deliveries ADD COLUMN mark INTEGER NOT NULL DEFAULT 0;
ALTER TABLE midas_deliveries ADD COLUMN state INTEGER NOT NULL DEFAULT 0;
ALTER TABLE midas_deliveries ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;
ALTER TABLE midas_deliveries ADD COLUMN done_ms INTEGER DEFAULT NULL;
ALTER TABLE midas_deliveries ADD COLUMN app_id TEXT NOT NULL DEFAULT '';
ALTER TABLE midas_deliveries ADD COLUMN metadata TEXT NOT NULL DEFAULT '';
ALTER TABLE midas_deliveries ADD COLUMN pay_method TEXT NOT NULL DEFAULT '';
ALTER TABLE midas_deliveries ADD COLUMN platform TEXT NOT NULL DEFAULT '';
ALTER TABLE midas_deliveries ADD COLUMN provide_type INTEGER NOT NULL DEFAULT 0;
ALTER TABLE midas_deliveries ADD COLUMN settled_by TEXT NOT NULL DEFAULT '';
ALTER TABLE midas_deliveries ADD COLUMN note TEXT NOT NULL DEFAULT '';
CREATE INDEX IF NOT EXISTS midas_orders_openid ON midas_orders (openid);
CREATE INDEX IF NOT EXISTS midas_orders_metadata ON midas_orders (metadata);
CREATE INDEX IF NOT EXISTS midas_deliveries_billno ON midas_deliveries (billno);
CREATE INDEX IF NOT EXISTS midas_deliveries_metadata ON midas_deliveries (metadata);
CREATE INDEX IF NOT EXISTS midas_deliveries_done_ms ON midas_deliveries (done_ms) WHERE done_ms IS NOT NULL;
-- Release 0.1 may have deleted orders: an unknown token is ret 1 (Store.Purge).
CREATE TABLE IF NOT EXISTS midas_meta (
    name  TEXT NOT NULL,
    value INTEGER NOT NULL,
    PRIMARY KEY (name)
) WITHOUT ROWID;
INSERT INTO midas_meta (name, value) VALUES ('purged', 1) ON CONFLICT DO NOTHING;
