-- Keys by which machines act for an account. Nothing of a key changes but its last use and its end.
CREATE TABLE api_keys (
    id           uuid PRIMARY KEY,
    user_id      uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- What its owner calls it.
    name         text NOT NULL,
    -- The letters behind `msk_`, by which a key that is found somewhere is told from others.
    public_id    text COLLATE "C" NOT NULL,
    -- SHA-256 of the key, in hexadecimal.
    hash         text COLLATE "C" NOT NULL,
    -- Names with spaces between them.
    scopes       text NOT NULL,
    created_at   timestamptz NOT NULL,
    -- When it ends by itself, or when it was revoked.
    expires_at   timestamptz NOT NULL,
    last_used_at timestamptz,
    revoked_at   timestamptz,
    CONSTRAINT api_keys_hash_key UNIQUE (hash)
);
CREATE INDEX api_keys_of_user ON api_keys (user_id, expires_at);

-- The end of a key is told to every instance as that of a session is, under the key's id.
CREATE TRIGGER api_keys_tell_revocation AFTER UPDATE OF revoked_at ON api_keys FOR EACH ROW
    WHEN (OLD.revoked_at IS DISTINCT FROM NEW.revoked_at)
    EXECUTE FUNCTION tell_session_standing();
-- What had ended before it was deleted is no news.
CREATE TRIGGER api_keys_tell_end AFTER DELETE ON api_keys FOR EACH ROW
    WHEN (OLD.revoked_at IS NULL AND OLD.expires_at > now())
    EXECUTE FUNCTION tell_session_standing();
