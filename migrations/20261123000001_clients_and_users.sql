-- Who may ask: clients that get tokens with a secret, and the product's own users.

CREATE TABLE clients (
    client_id         text        PRIMARY KEY CHECK (client_id ~ '^[A-Za-z0-9._-]{1,64}$'),
    secret_hash       text        NOT NULL, -- argon2id, in the PHC format
    scopes            text[]      NOT NULL CHECK (cardinality(scopes) > 0),
    merchants         text[],               -- whom it may act for; NULL: all
    created_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    secret_changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    disabled_at       timestamptz
);

CREATE TABLE users (
    user_id        uuid        PRIMARY KEY, -- a player's customer id
    username       text        NOT NULL CHECK (char_length(username) BETWEEN 3 AND 64),
    password_hash  text        NOT NULL, -- argon2id, in the PHC format
    role           text        NOT NULL CHECK (role IN ('player', 'staff', 'admin')),
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    deactivated_at timestamptz
);
-- Names that differ only in their case are one.
CREATE UNIQUE INDEX users_username_key ON users (lower(username));
CREATE INDEX users_admins ON users (user_id) WHERE role = 'admin' AND deactivated_at IS NULL;

-- A session is the family of the refresh tokens that follow from one login.
CREATE TABLE user_sessions (
    session_id uuid        PRIMARY KEY,
    user_id    uuid        NOT NULL REFERENCES users,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL,
    ended_at   timestamptz,
    end_reason text CHECK (end_reason IN ('LOGOUT', 'REUSE', 'DEACTIVATED')),
    CHECK ((ended_at IS NULL) = (end_reason IS NULL))
);
CREATE INDEX user_sessions_by_user ON user_sessions (user_id) WHERE ended_at IS NULL;
CREATE INDEX user_sessions_expiry ON user_sessions (expires_at);

-- Used ones are kept as long as their session, so that a second use is noticed.
CREATE TABLE refresh_tokens (
    token_hash  bytea       PRIMARY KEY CHECK (octet_length(token_hash) = 32), -- SHA-256
    session_id  uuid        NOT NULL REFERENCES user_sessions ON DELETE CASCADE,
    issued_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at  timestamptz NOT NULL,
    replaced_at timestamptz
);
CREATE INDEX refresh_tokens_by_session ON refresh_tokens (session_id);

-- From where a user has logged in: whoever guesses elsewhere does not lock them out there.
CREATE TABLE user_addresses (
    user_id      uuid        NOT NULL REFERENCES users,
    address_hash bytea       NOT NULL,
    seen_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (user_id, address_hash)
);

-- Attempts that were taken from a bucket: each puts `until` off, and none is left when it lies too
-- far ahead (the generic cell rate algorithm). A row whose time is over says nothing any more.
CREATE TABLE attempts (
    bucket text        NOT NULL,
    name   bytea       NOT NULL, -- a hash of who tries
    until  timestamptz NOT NULL,
    PRIMARY KEY (bucket, name)
);
CREATE INDEX attempts_over ON attempts (until);
