-- Since when an address is known to be its account's. Accounts from before were opened without asking, and count as asked.
ALTER TABLE users ADD COLUMN verified_at timestamptz;
UPDATE users SET verified_at = created_at;

-- What the links of letters prove: once, for a limited time, one of a purpose.
CREATE TABLE one_time_tokens (
    -- SHA-256 of the token, in hexadecimal.
    hash       text COLLATE "C" PRIMARY KEY,
    user_id    uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    purpose    text NOT NULL CONSTRAINT one_time_tokens_purpose_check
               CHECK (purpose IN ('verify_address', 'reset_password', 'confirm_old_address', 'confirm_new_address')),
    -- The address that an account is to have.
    new_email  text,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    -- When one side of a change of the address confirmed; the others are deleted when they are used.
    used_at    timestamptz,
    CONSTRAINT one_time_tokens_user_id_purpose_key UNIQUE (user_id, purpose)
);
CREATE INDEX one_time_tokens_by_end ON one_time_tokens (expires_at);

-- Accounts that will be when whoever reads the mailbox says so (REGISTRATION=verified). Until then they are none: nothing can be asked of them.
CREATE TABLE registrations (
    hash          text COLLATE "C" PRIMARY KEY,
    email         text NOT NULL,
    email_folded  text NOT NULL,
    name          text NOT NULL,
    password_hash text NOT NULL,
    created_at    timestamptz NOT NULL,
    expires_at    timestamptz NOT NULL
);
CREATE INDEX registrations_of_email ON registrations (email_folded, created_at);
CREATE INDEX registrations_by_end ON registrations (expires_at);
