-- Work that outlives the request that caused it. A row is written in the transaction of its cause; see crates/mainstay/src/jobs.
CREATE TABLE jobs (
    id           uuid PRIMARY KEY,
    kind         text NOT NULL,
    -- Of one event there is one job, also after it is done. Jobs without a key are as many as were asked for.
    unique_key   text,
    -- Gone when the job is done, and when a secret one has failed.
    payload      jsonb,
    secret       boolean NOT NULL,
    state        text NOT NULL CONSTRAINT jobs_state_check CHECK (state IN ('waiting', 'running', 'done', 'dead', 'uncertain')),
    -- What happens next, and when: waiting, it may be claimed; running, its lease ends; else the row goes.
    due_at       timestamptz NOT NULL,
    -- Who runs it: a worker that finds another token here has lost the job.
    claim        uuid,
    -- Its effect, which cannot be undone or repeated, may have begun.
    begun        boolean NOT NULL,
    attempts     bigint NOT NULL,
    failure      text,
    created_at   timestamptz NOT NULL,
    finished_at  timestamptz,
    CONSTRAINT jobs_kind_unique_key_key UNIQUE (kind, unique_key)
);
-- Each row is in one of these three, and each question reads one of them from its beginning.
CREATE INDEX jobs_open ON jobs (due_at) WHERE state IN ('waiting', 'running');
CREATE INDEX jobs_done ON jobs (due_at) WHERE state = 'done';
CREATE INDEX jobs_failed ON jobs (due_at) WHERE state IN ('dead', 'uncertain');
