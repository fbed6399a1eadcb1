CREATE TABLE products (
    id            uuid PRIMARY KEY,
    sku           text,
    name          text NOT NULL,
    -- Folded, and compared byte by byte, so that pages by name mean the same on every database and in every locale.
    name_folded   text COLLATE "C" NOT NULL,
    description   text,
    manufacturer  text,
    category      jsonb NOT NULL,
    -- 'eyeliner > liquid > ': a prefix of it is a category with everything below.
    category_path text COLLATE "C" NOT NULL,
    type          text,
    -- Ten-thousandths, exact: every currency has at most four decimals (ISO 4217).
    price_e4      bigint CONSTRAINT products_price_check CHECK (price_e4 >= 0),
    currency      text,
    url           text,
    image         text,
    tags          jsonb NOT NULL,
    attributes    jsonb NOT NULL,
    version       bigint NOT NULL,
    created_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL,
    deleted_at    timestamptz
);
-- A removed product does not keep its number from a new one.
CREATE UNIQUE INDEX products_sku_key ON products (sku) WHERE deleted_at IS NULL;
-- One index per order of the list; the page after any row costs what the first page costs.
CREATE INDEX products_by_age ON products (created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX products_by_name ON products (name_folded, id) WHERE deleted_at IS NULL;
CREATE INDEX products_by_price ON products (price_e4, id) WHERE deleted_at IS NULL;
CREATE INDEX products_by_category ON products (category_path) WHERE deleted_at IS NULL;
CREATE INDEX products_by_manufacturer ON products (manufacturer) WHERE deleted_at IS NULL;

-- The change log that search indexes follow: the latest change of each product, in an order that commits cannot overtake.
-- A reader takes only changes of transactions older than every one still running (xact below the snapshot's xmin), so a
-- transaction that took its number early and commits late is never skipped. Triggers write it: no writer can forget.
CREATE SEQUENCE product_changes_seq;
CREATE TABLE product_changes (
    product_id uuid PRIMARY KEY,
    xact       bigint NOT NULL,
    seq        bigint NOT NULL
);
CREATE INDEX product_changes_in_order ON product_changes (xact, seq);

CREATE FUNCTION note_product_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO product_changes (product_id, xact, seq)
    VALUES (coalesce(NEW.id, OLD.id), pg_current_xact_id()::text::bigint, nextval('product_changes_seq'))
    ON CONFLICT (product_id) DO UPDATE SET xact = excluded.xact, seq = excluded.seq;
    RETURN NULL;
END
$$;
CREATE TRIGGER products_note_change AFTER INSERT OR UPDATE OR DELETE ON products
    FOR EACH ROW EXECUTE FUNCTION note_product_change();
