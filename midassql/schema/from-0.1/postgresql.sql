-- What tables of release 0.1 need before the file in the folder above is run. Each column has a
-- constant default, so that adding it rewrites nothing, and servers of 0.1 go on inserting.
ALTER TABLE midas_deliveries ADD COLUMN mark bigint NOT NULL DEFAULT 0;
ALTER TABLE midas_deliveries ADD COLUMN state integer NOT NULL DEFAULT 0;
ALTER TABLE midas_deliveries ADD COLUMN generation bigint NOT NULL DEFAULT 0;
ALTER TABLE midas_deliveries ADD COLUMN done_ms bigint DEFAULT NULL;
ALTER TABLE midas_deliveries ADD COLUMN app_id text NOT NULL DEFAULT '';
ALTER TABLE midas_deliveries ADD COLUMN metadata text NOT NULL DEFAULT '';
ALTER TABLE midas_deliveries ADD COLUMN pay_method text NOT NULL DEFAULT '';
ALTER TABLE midas_deliveries ADD COLUMN platform text NOT NULL DEFAULT '';
ALTER TABLE midas_deliveries ADD COLUMN provide_type bigint NOT NULL DEFAULT 0;
ALTER TABLE midas_deliveries ADD COLUMN settled_by text NOT NULL DEFAULT '';
ALTER TABLE midas_deliveries ADD COLUMN note text NOT NULL DEFAULT '';
CREATE INDEX CONCURRENTLY IF NOT EXISTS midas_orders_openid ON midas_orders (openid);
CREATE INDEX CONCURRENTLY IF NOT EXISTS midas_orders_metadata ON midas_orders (metadata);
CREATE INDEX CONCURRENTLY IF NOT EXISTS midas_deliveries_billno ON midas_deliveries (billno);
CREATE INDEX CONCURRENTLY IF NOT EXISTS midas_deliveries_metadata ON midas_deliveries (metadata);
CREATE INDEX CONCURRENTLY IF NOT EXISTS midas_deliveries_done_ms ON midas_deliveries (done_ms) WHERE done_ms IS NOT NULL;
-- Release 0.1 may have deleted orders: an unknown token is ret 1 (Store.Purge).
CREATE TABLE IF NOT EXISTS midas_meta (
    name  text COLLATE "C" NOT NULL,
    value bigint NOT NULL,
    PRIMARY KEY (name)
);
INSERT INTO midas_meta (name, value) VALUES ('purged', 1) ON CONFLICT DO NOTHING;
