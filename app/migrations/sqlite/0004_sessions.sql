-- A session: one sign-in on one device, until it ends. All of its refresh tokens are one family, of which at most one waits for its use.
CREATE TABLE sessions (
    id              TEXT PRIMARY KEY NOT NULL,
    user_id         TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- SHA-256 of the half that all refresh tokens of the session have in common, in hexadecimal. By it a token is known to be of this session
    -- when its own row is long gone, so rows of used tokens need not be kept to notice a theft.
    family          TEXT NOT NULL,
    created_at      INTEGER NOT NULL,
    last_used_at    INTEGER NOT NULL,
    -- When it ends by itself, or when it was revoked.
    expires_at      INTEGER NOT NULL,
    address         TEXT NOT NULL,
    user_agent      TEXT,
    revoked_at      INTEGER,
    revoked_because TEXT,
    CONSTRAINT sessions_family_key UNIQUE (family),
    CONSTRAINT sessions_revoked_check CHECK ((revoked_at IS NULL) = (revoked_because IS NULL))
) STRICT;
CREATE INDEX sessions_of_user ON sessions (user_id, last_used_at);
CREATE INDEX sessions_by_end ON sessions (expires_at);

CREATE TABLE refresh_tokens (
    -- SHA-256 of the token, in hexadecimal.
    hash       TEXT PRIMARY KEY NOT NULL,
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    used_at    INTEGER,
    -- The token that took its place, sealed under a key that only the token itself gives.
    successor  TEXT,
    CONSTRAINT refresh_tokens_used_check CHECK ((used_at IS NULL) = (successor IS NULL))
) STRICT;
CREATE INDEX refresh_tokens_of_session ON refresh_tokens (session_id);
CREATE UNIQUE INDEX refresh_tokens_live_key ON refresh_tokens (session_id) WHERE used_at IS NULL;
-- There is one process and nobody to be told.
