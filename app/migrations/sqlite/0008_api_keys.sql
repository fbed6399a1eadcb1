-- Keys by which machines act for an account. Nothing of a key changes but its last use and its end.
CREATE TABLE api_keys (
    id           TEXT PRIMARY KEY NOT NULL,
    user_id      TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- What its owner calls it.
    name         TEXT NOT NULL,
    -- The letters behind `msk_`, by which a key that is found somewhere is told from others.
    public_id    TEXT NOT NULL,
    -- SHA-256 of the key, in hexadecimal.
    hash         TEXT NOT NULL,
    -- Names with spaces between them.
    scopes       TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    -- When it ends by itself, or when it was revoked.
    expires_at   INTEGER NOT NULL,
    last_used_at INTEGER,
    revoked_at   INTEGER,
    CONSTRAINT api_keys_hash_key UNIQUE (hash)
) STRICT;
CREATE INDEX api_keys_of_user ON api_keys (user_id, expires_at);
-- There is one process and nobody to be told.
