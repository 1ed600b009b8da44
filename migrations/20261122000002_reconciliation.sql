-- What reconciliation remembers: how far it has looked, what it has found, and its runs.

-- Where the next comparison begins: a position (an offset) or an instant.
CREATE TABLE reconciliation_marks (
    comparison text        NOT NULL,
    subject    text        NOT NULL, -- a topic and partition, a merchant, or everything
    position   bigint,
    reached    timestamptz,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (comparison, subject),
    CHECK ((position IS NULL) <> (reached IS NULL))
);

-- What did not agree. The same disagreement is one row for as long as it lasts.
CREATE TABLE reconciliation_findings (
    finding_id  bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    comparison  text        NOT NULL,
    kind        text        NOT NULL,
    subject     text        NOT NULL,
    detail      text        NOT NULL,
    fix         text        NOT NULL, -- the command that would put it right
    happened_at timestamptz, -- when the thing that it is about happened, where that is known
    evidence    jsonb       NOT NULL DEFAULT '{}', -- what is needed to look at it again
    first_seen  timestamptz NOT NULL,
    last_seen   timestamptz NOT NULL,
    resolved_at timestamptz,
    resolution  text        CHECK (resolution IN ('REPAIRED', 'GONE', 'ACCEPTED')),
    note        text,
    CHECK ((resolved_at IS NULL) = (resolution IS NULL))
);
CREATE UNIQUE INDEX reconciliation_findings_open
    ON reconciliation_findings (comparison, kind, subject) WHERE resolved_at IS NULL;
CREATE INDEX reconciliation_findings_accepted
    ON reconciliation_findings (comparison, kind, subject) WHERE resolution = 'ACCEPTED';

CREATE TABLE reconciliation_runs (
    workflow_id text        NOT NULL,
    run_id      text        NOT NULL,
    started_at  timestamptz NOT NULL,
    ended_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    repairs     boolean     NOT NULL,
    complete    boolean     NOT NULL, -- every comparison came to its end
    report      jsonb       NOT NULL,
    PRIMARY KEY (workflow_id, run_id)
);
CREATE INDEX reconciliation_runs_complete ON reconciliation_runs (ended_at) WHERE complete;

-- Windows of time in tables that only grow: block ranges cost next to nothing to keep.
CREATE INDEX transfers_by_time ON transfers USING brin (posted_at);
CREATE INDEX outbox_by_time ON outbox USING brin (created_at);
CREATE INDEX outbox_by_publication ON outbox USING brin (published_at);
CREATE INDEX redemptions_ended ON redemptions (updated_at) WHERE state IN ('SUCCESS', 'FAILED');
CREATE INDEX callbacks_late ON callbacks (callback_id) WHERE late_answer IS NOT NULL;
