-- Up to when published messages may be gone from the outbox: one that was written at or after this
-- is still there. In one row.
CREATE TABLE outbox_pruned (
    one           boolean     PRIMARY KEY DEFAULT true CHECK (one),
    pruned_before timestamptz NOT NULL
);
INSERT INTO outbox_pruned (pruned_before) VALUES ('-infinity');
