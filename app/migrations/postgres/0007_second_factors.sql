-- The second factor of an account: a secret that it shares with an authenticator.
CREATE TABLE second_factors (
    user_id        uuid PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    -- The secret, sealed for this account under a secret of the service that is not in the database.
    sealed         text COLLATE "C" NOT NULL,
    -- The step of the last code that was taken: it and those before it are over. Null before the first.
    last_used_step bigint,
    created_at     timestamptz NOT NULL,
    -- Null while nobody has shown that an authenticator knows the secret; nobody is asked for a code until then.
    enabled_at     timestamptz,
    CONSTRAINT second_factors_enabled_check CHECK (enabled_at IS NULL OR last_used_step IS NOT NULL)
);

CREATE TABLE recovery_codes (
    -- SHA-256 of the code with its account, in hexadecimal.
    hash       text COLLATE "C" PRIMARY KEY,
    user_id    uuid NOT NULL REFERENCES second_factors (user_id) ON DELETE CASCADE,
    created_at timestamptz NOT NULL,
    used_at    timestamptz
);
CREATE INDEX recovery_codes_of_user ON recovery_codes (user_id);
