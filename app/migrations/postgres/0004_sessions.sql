-- A session: one sign-in on one device, until it ends. All of its refresh tokens are one family, of which at most one waits for its use.
CREATE TABLE sessions (
    id              uuid PRIMARY KEY,
    user_id         uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- SHA-256 of the half that all refresh tokens of the session have in common, in hexadecimal. By it a token is known to be of this session
    -- when its own row is long gone, so rows of used tokens need not be kept to notice a theft.
    family          text COLLATE "C" NOT NULL,
    created_at      timestamptz NOT NULL,
    last_used_at    timestamptz NOT NULL,
    -- When it ends by itself, or when it was revoked.
    expires_at      timestamptz NOT NULL,
    address         text NOT NULL,
    user_agent      text,
    revoked_at      timestamptz,
    revoked_because text,
    CONSTRAINT sessions_family_key UNIQUE (family),
    CONSTRAINT sessions_revoked_check CHECK ((revoked_at IS NULL) = (revoked_because IS NULL))
);
CREATE INDEX sessions_of_user ON sessions (user_id, last_used_at);
CREATE INDEX sessions_by_end ON sessions (expires_at);

CREATE TABLE refresh_tokens (
    -- SHA-256 of the token, in hexadecimal.
    hash       text COLLATE "C" PRIMARY KEY,
    session_id uuid NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    created_at timestamptz NOT NULL,
    used_at    timestamptz,
    -- The token that took its place, sealed under a key that only the token itself gives.
    successor  text,
    CONSTRAINT refresh_tokens_used_check CHECK ((used_at IS NULL) = (successor IS NULL))
);
CREATE INDEX refresh_tokens_of_session ON refresh_tokens (session_id);
CREATE UNIQUE INDEX refresh_tokens_live_key ON refresh_tokens (session_id) WHERE used_at IS NULL;

-- Changes of standing are told to every instance with the commit that makes them. Triggers tell: no writer can forget.
CREATE FUNCTION tell_account_standing() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('mainstay_standing', OLD.id || ' ' || pg_current_xact_id()::text);
    RETURN NULL;
END
$$;
CREATE TRIGGER users_tell_change AFTER UPDATE OF role, disabled_at ON users FOR EACH ROW
    WHEN (OLD.role IS DISTINCT FROM NEW.role OR OLD.disabled_at IS DISTINCT FROM NEW.disabled_at)
    EXECUTE FUNCTION tell_account_standing();
CREATE TRIGGER users_tell_end AFTER DELETE ON users FOR EACH ROW EXECUTE FUNCTION tell_account_standing();

CREATE FUNCTION tell_session_standing() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('mainstay_standing', OLD.user_id || '/' || OLD.id || ' ' || pg_current_xact_id()::text);
    RETURN NULL;
END
$$;
CREATE TRIGGER sessions_tell_revocation AFTER UPDATE OF revoked_at ON sessions FOR EACH ROW
    WHEN (OLD.revoked_at IS DISTINCT FROM NEW.revoked_at)
    EXECUTE FUNCTION tell_session_standing();
-- What had ended before it was deleted is no news.
CREATE TRIGGER sessions_tell_end AFTER DELETE ON sessions FOR EACH ROW
    WHEN (OLD.revoked_at IS NULL AND OLD.expires_at > now())
    EXECUTE FUNCTION tell_session_standing();
