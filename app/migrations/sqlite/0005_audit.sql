-- The audit trail: who did what to which account, from where. Written in the transaction of what it tells; read by administrators.
CREATE TABLE audit (
    id         INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    at         INTEGER NOT NULL,
    actor_kind TEXT NOT NULL CONSTRAINT audit_actor_kind_check CHECK (actor_kind IN ('stranger', 'person', 'key', 'system', 'command_line')),
    -- The account that did it; null for strangers and what is no account. No foreign key: what an account did outlives it.
    actor      TEXT,
    action     TEXT NOT NULL,
    -- The account that it was done to.
    subject    TEXT,
    address    TEXT,
    user_agent TEXT,
    request_id TEXT,
    detail     TEXT NOT NULL,
    CONSTRAINT audit_actor_check CHECK ((actor IS NOT NULL) = (actor_kind IN ('person', 'key')))
) STRICT;
CREATE INDEX audit_of_actor ON audit (actor, id);
CREATE INDEX audit_of_subject ON audit (subject, id);
CREATE INDEX audit_of_action ON audit (action, id);
CREATE INDEX audit_by_age ON audit (at);

-- What is older may be deleted. It only moves forward, and never comes within thirty days of now: whoever can merely write cannot hide what he did.
CREATE TABLE audit_horizon (
    one    INTEGER PRIMARY KEY NOT NULL CONSTRAINT audit_horizon_one_check CHECK (one = 1),
    before INTEGER NOT NULL
) STRICT;
INSERT INTO audit_horizon (one, before) VALUES (1, 0);

CREATE TRIGGER audit_keep_update BEFORE UPDATE ON audit BEGIN
    SELECT RAISE(ABORT, 'the audit trail is append only');
END;
CREATE TRIGGER audit_keep_delete BEFORE DELETE ON audit WHEN OLD.at >= (SELECT before FROM audit_horizon) BEGIN
    SELECT RAISE(ABORT, 'the audit trail is append only');
END;
CREATE TRIGGER audit_horizon_keep_whole BEFORE DELETE ON audit_horizon BEGIN
    SELECT RAISE(ABORT, 'the audit trail is append only');
END;
CREATE TRIGGER audit_horizon_keep BEFORE UPDATE ON audit_horizon
WHEN NEW.before < OLD.before OR NEW.before > (unixepoch() - 30 * 86400) * 1000000 BEGIN
    SELECT RAISE(ABORT, 'the audit trail is kept for thirty days at least');
END;
