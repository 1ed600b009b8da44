-- Promotions, to whom they were assigned, jobs that assign them, and what other services book.

-- For a constraint over a type and a period together. A trusted extension: whoever owns the
-- database may install it.
CREATE EXTENSION IF NOT EXISTS btree_gist;

CREATE TABLE promotions (
    promotion_id text        PRIMARY KEY CHECK (char_length(promotion_id) BETWEEN 1 AND 128),
    type         text        NOT NULL CHECK (type ~ '^[A-Z][A-Z0-9_]{0,63}$'),
    title        text        NOT NULL CHECK (char_length(title) BETWEEN 1 AND 120),
    description  text        NOT NULL CHECK (char_length(description) <= 2000),
    amount       numeric     NOT NULL CHECK (amount > 0),
    currency     text        CHECK (currency ~ '^[A-Z]{3}$'),
    starts_at    timestamptz NOT NULL,
    ends_at      timestamptz NOT NULL, -- the first instant at which it does not hold any more
    is_active    boolean     NOT NULL,
    is_exclusive boolean     NOT NULL, -- whether its type was one of the exclusive ones when it was made
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (starts_at < ends_at),
    CONSTRAINT promotions_one_at_a_time EXCLUDE USING gist
        (type WITH =, tstzrange(starts_at, ends_at) WITH &&) WHERE (is_active AND is_exclusive)
);
CREATE INDEX promotions_by_time ON promotions (created_at DESC, promotion_id DESC);
CREATE INDEX promotions_by_type ON promotions (type, starts_at DESC, promotion_id DESC);

-- A promotion of a player. The row is the state machine of the claim; every step is a conditional
-- update of it. `claims` counts how often it was claimed, so that a late step of an earlier claim,
-- which was rolled back, changes nothing of a later one.
CREATE TABLE promotion_assignments (
    promotion_id     text        NOT NULL REFERENCES promotions,
    customer_id      text        NOT NULL REFERENCES customers,
    state            text        NOT NULL DEFAULT 'UNCLAIMED'
                     CHECK (state IN ('UNCLAIMED', 'CLAIMING', 'CLAIMED')),
    claims           integer     NOT NULL DEFAULT 0,
    points           bigint      CHECK (points > 0), -- what the claim is worth, once that is fixed
    rule_set_version text,
    refusal          text, -- why the last claim was rolled back
    assigned_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    claimed_at       timestamptz,
    updated_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (promotion_id, customer_id),
    CHECK ((points IS NULL) = (rule_set_version IS NULL)),
    CHECK ((state = 'CLAIMED') = (claimed_at IS NOT NULL)),
    CHECK (state <> 'UNCLAIMED' OR points IS NULL),
    CHECK (state <> 'CLAIMED' OR points IS NOT NULL),
    CHECK (state = 'UNCLAIMED' OR (claims > 0 AND refusal IS NULL))
);
CREATE INDEX promotion_assignments_by_customer
    ON promotion_assignments (customer_id, assigned_at DESC, promotion_id DESC);
CREATE INDEX promotion_claims_open ON promotion_assignments (updated_at) WHERE state = 'CLAIMING';

-- A job that assigns a promotion to many players, and what became of each of them.
CREATE TABLE assignment_jobs (
    job_id              text        PRIMARY KEY CHECK (char_length(job_id) BETWEEN 1 AND 128),
    promotion_id        text        NOT NULL REFERENCES promotions,
    state               text        NOT NULL DEFAULT 'QUEUED'
                        CHECK (state IN ('QUEUED', 'RUNNING', 'DONE', 'CANCELLED')),
    requested_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    cancel_requested_at timestamptz,
    ended_at            timestamptz,
    updated_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK ((state IN ('DONE', 'CANCELLED')) = (ended_at IS NOT NULL))
);
CREATE INDEX assignment_jobs_open ON assignment_jobs (updated_at)
    WHERE state IN ('QUEUED', 'RUNNING');

CREATE TABLE assignment_job_players (
    job_id      text    NOT NULL REFERENCES assignment_jobs,
    position    integer NOT NULL,
    customer_id text    NOT NULL,
    outcome     text    CHECK (outcome IN ('ASSIGNED', 'ALREADY', 'UNKNOWN')), -- none: not looked at
    PRIMARY KEY (job_id, position),
    UNIQUE (job_id, customer_id)
);
CREATE INDEX assignment_job_players_left ON assignment_job_players (job_id, position)
    WHERE outcome IS NULL;
CREATE INDEX assignment_job_players_unknown ON assignment_job_players (job_id, position)
    WHERE outcome = 'UNKNOWN';

-- Credits and debits of other services, each with its transfer (source `transaction`, the same id).
CREATE TABLE transactions (
    transaction_id  text        PRIMARY KEY CHECK (char_length(transaction_id) BETWEEN 1 AND 128),
    body_hash       bytea       NOT NULL CHECK (octet_length(body_hash) = 32),
    customer_id     text        NOT NULL REFERENCES customers,
    direction       text        NOT NULL CHECK (direction IN ('CREDIT', 'DEBIT')),
    amount          numeric     NOT NULL CHECK (amount > 0),
    points          bigint      NOT NULL CHECK (points > 0),
    available_after bigint      NOT NULL,
    description     text        NOT NULL,
    additional_data jsonb       NOT NULL DEFAULT '{}',
    posted_at       timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX transactions_by_customer ON transactions (customer_id, posted_at DESC);
CREATE TRIGGER transactions_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON transactions
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
