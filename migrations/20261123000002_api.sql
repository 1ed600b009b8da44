-- What the API takes in and lists.

-- Events that came over HTTP, from when they are accepted: they count only once they have come
-- back from Kafka, and until then the same id with another body has to be refused all the same.
CREATE TABLE accepted_events (
    source      text        NOT NULL,
    event_id    text        NOT NULL,
    body_hash   bytea       NOT NULL CHECK (octet_length(body_hash) = 32),
    accepted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (source, event_id)
);

-- The audit record is read newest first, by who did what, to what, when.
CREATE INDEX audit_records_by_time ON audit_records (at DESC, audit_id DESC);
CREATE INDEX audit_records_by_actor ON audit_records (actor, at DESC, audit_id DESC);
CREATE INDEX audit_records_by_action ON audit_records (action, at DESC, audit_id DESC);

-- Events that gave no points, of one customer: the others are found by their transfers.
CREATE INDEX processed_events_without_points ON processed_events (customer_id, processed_at DESC)
    WHERE points = 0;
