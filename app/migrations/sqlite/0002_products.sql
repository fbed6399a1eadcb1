CREATE TABLE products (
    id            TEXT PRIMARY KEY NOT NULL,
    sku           TEXT,
    name          TEXT NOT NULL,
    -- Folded, and compared byte by byte, so that pages by name mean the same on every database and in every locale.
    name_folded   TEXT NOT NULL,
    description   TEXT,
    manufacturer  TEXT,
    category      TEXT NOT NULL,
    -- 'eyeliner > liquid > ': a prefix of it is a category with everything below.
    category_path TEXT NOT NULL,
    type          TEXT,
    -- Ten-thousandths, exact: every currency has at most four decimals (ISO 4217).
    price_e4      INTEGER CONSTRAINT products_price_check CHECK (price_e4 >= 0),
    currency      TEXT,
    url           TEXT,
    image         TEXT,
    tags          TEXT NOT NULL,
    attributes    TEXT NOT NULL,
    version       INTEGER NOT NULL,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    deleted_at    INTEGER
) STRICT;
-- A removed product does not keep its number from a new one.
CREATE UNIQUE INDEX products_sku_key ON products (sku) WHERE deleted_at IS NULL;
-- One index per order of the list; the page after any row costs what the first page costs.
CREATE INDEX products_by_age ON products (created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX products_by_name ON products (name_folded, id) WHERE deleted_at IS NULL;
CREATE INDEX products_by_price ON products (price_e4, id) WHERE deleted_at IS NULL;
CREATE INDEX products_by_category ON products (category_path) WHERE deleted_at IS NULL;
CREATE INDEX products_by_manufacturer ON products (manufacturer) WHERE deleted_at IS NULL;

-- The change log that search indexes follow: the latest change of each product, in the order of commits, which one writer
-- at a time makes the order of the numbers. Triggers write it: no writer can forget. `xact` is for PostgreSQL's sake.
CREATE TABLE product_changes (
    product_id TEXT PRIMARY KEY NOT NULL,
    xact       INTEGER NOT NULL,
    seq        INTEGER NOT NULL
) STRICT;
CREATE INDEX product_changes_in_order ON product_changes (xact, seq);

CREATE TRIGGER products_note_insert AFTER INSERT ON products BEGIN
    INSERT INTO product_changes (product_id, xact, seq)
    VALUES (NEW.id, 0, (SELECT coalesce(max(seq), 0) + 1 FROM product_changes WHERE xact = 0))
    ON CONFLICT (product_id) DO UPDATE SET seq = excluded.seq;
END;
CREATE TRIGGER products_note_update AFTER UPDATE ON products BEGIN
    INSERT INTO product_changes (product_id, xact, seq)
    VALUES (NEW.id, 0, (SELECT coalesce(max(seq), 0) + 1 FROM product_changes WHERE xact = 0))
    ON CONFLICT (product_id) DO UPDATE SET seq = excluded.seq;
END;
CREATE TRIGGER products_note_delete AFTER DELETE ON products BEGIN
    INSERT INTO product_changes (product_id, xact, seq)
    VALUES (OLD.id, 0, (SELECT coalesce(max(seq), 0) + 1 FROM product_changes WHERE xact = 0))
    ON CONFLICT (product_id) DO UPDATE SET seq = excluded.seq;
END;
