-- Changes of products are told to every instance with the commit that makes them, for the answers that it keeps. Triggers tell: no writer can forget.
-- One notification for a statement, whatever it changes: an import changes 200 products with one, and each notification is read by every instance.
-- 200 ids have 7,400 bytes, and a notification holds 8,000; of more it is only told that there were some.
CREATE FUNCTION tell_products() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changed bigint;
    ids     text;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        PERFORM pg_notify('mainstay_cache', 'products ' || pg_current_xact_id()::text);
        RETURN NULL;
    END IF;
    SELECT count(*), string_agg(id::text, ',') INTO changed, ids FROM (SELECT id FROM changes LIMIT 201) AS first;
    IF changed > 200 THEN
        PERFORM pg_notify('mainstay_cache', 'products ' || pg_current_xact_id()::text);
    ELSIF changed > 0 THEN
        PERFORM pg_notify('mainstay_cache', 'products/' || ids || ' ' || pg_current_xact_id()::text);
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER products_tell_insert AFTER INSERT ON products
    REFERENCING NEW TABLE AS changes FOR EACH STATEMENT EXECUTE FUNCTION tell_products();
CREATE TRIGGER products_tell_update AFTER UPDATE ON products
    REFERENCING NEW TABLE AS changes FOR EACH STATEMENT EXECUTE FUNCTION tell_products();
CREATE TRIGGER products_tell_delete AFTER DELETE ON products
    REFERENCING OLD TABLE AS changes FOR EACH STATEMENT EXECUTE FUNCTION tell_products();
CREATE TRIGGER products_tell_truncate AFTER TRUNCATE ON products
    FOR EACH STATEMENT EXECUTE FUNCTION tell_products();
