-- What tables of release 0.1 need before the file in the folder above is run. Each column has a
-- constant default, so that adding it rewrites nothing, and servers of 0.1 go on inserting.
ALTER TABLE midas_deliveries ADD COLUMN mark BIGINT NOT NULL DEFAULT 0;
ALTER TABLE midas_deliveries ADD COLUMN state INT NOT NULL DEFAULT 0;
ALTER TABLE midas_deliveries ADD COLUMN generation BIGINT NOT NULL DEFAULT 0;
ALTER TABLE midas_deliveries ADD COLUMN done_ms BIGINT DEFAULT NULL;
ALTER TABLE midas_deliveries ADD COLUMN app_id VARBINARY(255) NOT NULL DEFAULT '';
ALTER TABLE midas_deliveries ADD COLUMN metadata VARBINARY(255) NOT NULL DEFAULT '';
ALTER TABLE midas_deliveries ADD COLUMN pay_method VARBINARY(255) NOT NULL DEFAULT '';
ALTER TABLE midas_deliveries ADD COLUMN platform VARBINARY(255) NOT NULL DEFAULT '';
ALTER TABLE midas_deliveries ADD COLUMN provide_type BIGINT NOT NULL DEFAULT 0;
ALTER TABLE midas_deliveries ADD COLUMN settled_by VARBINARY(255) NOT NULL DEFAULT '';
ALTER TABLE midas_deliveries ADD COLUMN note VARBINARY(255) NOT NULL DEFAULT '';
ALTER TABLE midas_orders ADD INDEX midas_orders_openid (openid), ALGORITHM=INPLACE, LOCK=NONE;
ALTER TABLE midas_orders ADD INDEX midas_orders_metadata (metadata), ALGORITHM=INPLACE, LOCK=NONE;
ALTER TABLE midas_deliveries ADD INDEX midas_deliveries_billno (billno), ALGORITHM=INPLACE, LOCK=NONE;
ALTER TABLE midas_deliveries ADD INDEX midas_deliveries_metadata (metadata), ALGORITHM=INPLACE, LOCK=NONE;
ALTER TABLE midas_deliveries ADD INDEX midas_deliveries_done_ms (done_ms), ALGORITHM=INPLACE, LOCK=NONE;
-- Release 0.1 may have deleted orders: an unknown token is ret 1 (Store.Purge).
CREATE TABLE IF NOT EXISTS midas_meta (
    name  VARBINARY(255) NOT NULL,
    value BIGINT NOT NULL,
    PRIMARY KEY (name)
) ENGINE=InnoDB;
INSERT IGNORE INTO midas_meta (name, value) VALUES ('purged', 1);
