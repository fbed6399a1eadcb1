-- The audit trail: who did what to which account, from where. Written in the transaction of what it tells; read by administrators.
CREATE TABLE audit (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL,
    actor_kind text NOT NULL CONSTRAINT audit_actor_kind_check CHECK (actor_kind IN ('stranger', 'person', 'key', 'system', 'command_line')),
    -- The account that did it; null for strangers and what is no account. No foreign key: what an account did outlives it.
    actor      uuid,
    action     text COLLATE "C" NOT NULL,
    -- The account that it was done to.
    subject    uuid,
    address    text,
    user_agent text,
    request_id text,
    detail     jsonb NOT NULL,
    CONSTRAINT audit_actor_check CHECK ((actor IS NOT NULL) = (actor_kind IN ('person', 'key')))
);
CREATE INDEX audit_of_actor ON audit (actor, id);
CREATE INDEX audit_of_subject ON audit (subject, id);
CREATE INDEX audit_of_action ON audit (action, id);
CREATE INDEX audit_by_age ON audit (at);

-- What is older may be deleted. It only moves forward, and never comes within thirty days of now: whoever can merely write cannot hide what he did.
CREATE TABLE audit_horizon (
    one    integer PRIMARY KEY CONSTRAINT audit_horizon_one_check CHECK (one = 1),
    before timestamptz NOT NULL
);
INSERT INTO audit_horizon (one, before) VALUES (1, 'epoch');

CREATE FUNCTION keep_audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND OLD.at < (SELECT before FROM audit_horizon) THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'the audit trail is append only';
END
$$;
CREATE TRIGGER audit_keep BEFORE UPDATE OR DELETE ON audit FOR EACH ROW EXECUTE FUNCTION keep_audit();

CREATE FUNCTION keep_audit_whole() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit trail is append only';
END
$$;
CREATE TRIGGER audit_keep_whole BEFORE TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION keep_audit_whole();
CREATE TRIGGER audit_horizon_keep_whole BEFORE DELETE OR TRUNCATE ON audit_horizon FOR EACH STATEMENT EXECUTE FUNCTION keep_audit_whole();

CREATE FUNCTION keep_audit_horizon() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.before < OLD.before OR NEW.before > now() - interval '30 days' THEN
        RAISE EXCEPTION 'the audit trail is kept for thirty days at least';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER audit_horizon_keep BEFORE UPDATE ON audit_horizon FOR EACH ROW EXECUTE FUNCTION keep_audit_horizon();
