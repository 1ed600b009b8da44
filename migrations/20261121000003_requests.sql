-- What the API remembers of requests: idempotency keys and the audit record.

CREATE TABLE idempotency_keys (
    client          text        NOT NULL,
    route           text        NOT NULL,
    key             text        NOT NULL CHECK (char_length(key) BETWEEN 1 AND 255),
    body_hash       bytea       NOT NULL,
    response_status smallint,
    response_body   jsonb,
    response_headers jsonb,
    locked_until    timestamptz NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at      timestamptz NOT NULL,
    PRIMARY KEY (client, route, key),
    CHECK ((response_status IS NULL) = (response_body IS NULL))
);
CREATE INDEX idempotency_keys_expiry ON idempotency_keys (expires_at);

CREATE TABLE audit_records (
    audit_id   bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor      text        NOT NULL,
    action     text        NOT NULL,
    subject    text        NOT NULL,
    request_id text        NOT NULL,
    address    text,
    detail     jsonb       NOT NULL DEFAULT '{}'
);
CREATE INDEX audit_records_by_subject ON audit_records (subject, audit_id DESC);
CREATE TRIGGER audit_records_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_records
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
