-- An account and its profile. They are written in one transaction: the account signs in, the profile is the person.
CREATE TABLE users (
    id            TEXT PRIMARY KEY NOT NULL,
    -- As the person wrote it; letters of any case reach the same mailbox in practice, so uniqueness is on the folded form.
    email         TEXT NOT NULL,
    email_folded  TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    role          TEXT NOT NULL CONSTRAINT users_role_check CHECK (role IN ('user', 'editor', 'admin')),
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    disabled_at   INTEGER,
    CONSTRAINT users_email_folded_key UNIQUE (email_folded)
) STRICT;
CREATE INDEX users_by_age ON users (created_at, id);

CREATE TABLE profiles (
    user_id    TEXT PRIMARY KEY NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name       TEXT NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
