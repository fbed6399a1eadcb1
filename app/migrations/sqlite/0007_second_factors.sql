-- The second factor of an account: a secret that it shares with an authenticator.
CREATE TABLE second_factors (
    user_id        TEXT PRIMARY KEY NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- The secret, sealed for this account under a secret of the service that is not in the database.
    sealed         TEXT NOT NULL,
    -- The step of the last code that was taken: it and those before it are over. Null before the first.
    last_used_step INTEGER,
    created_at     INTEGER NOT NULL,
    -- Null while nobody has shown that an authenticator knows the secret; nobody is asked for a code until then.
    enabled_at     INTEGER,
    CONSTRAINT second_factors_enabled_check CHECK (enabled_at IS NULL OR last_used_step IS NOT NULL)
) STRICT;

CREATE TABLE recovery_codes (
    -- SHA-256 of the code with its account, in hexadecimal.
    hash       TEXT PRIMARY KEY NOT NULL,
    user_id    TEXT NOT NULL REFERENCES second_factors (user_id) ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    used_at    INTEGER
) STRICT;
CREATE INDEX recovery_codes_of_user ON recovery_codes (user_id);
