-- An account and its profile. They are written in one transaction: the account signs in, the profile is the person.
CREATE TABLE users (
    id            uuid PRIMARY KEY,
    -- As the person wrote it; letters of any case reach the same mailbox in practice, so uniqueness is on the folded form.
    email         text NOT NULL,
    email_folded  text NOT NULL,
    password_hash text NOT NULL,
    role          text NOT NULL CONSTRAINT users_role_check CHECK (role IN ('user', 'editor', 'admin')),
    created_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL,
    disabled_at   timestamptz,
    CONSTRAINT users_email_folded_key UNIQUE (email_folded)
);
CREATE INDEX users_by_age ON users (created_at, id);

CREATE TABLE profiles (
    user_id    uuid PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    name       text NOT NULL,
    updated_at timestamptz NOT NULL
);
