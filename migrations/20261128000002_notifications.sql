-- What players are told.

-- One row for each player who was ever told something. Whoever writes notifications locks the rows
-- of their players first, in the order of user_id, and takes the numbers from them: so a player's
-- notifications can be seen in the order of their numbers, and without gaps. Whoever has seen one
-- and asks for what comes after it misses nothing.
CREATE TABLE notification_inboxes (
    user_id text   PRIMARY KEY CHECK (char_length(user_id) BETWEEN 1 AND 128),
    last_id bigint NOT NULL DEFAULT 0 -- the number of the newest notification
);

CREATE TABLE notifications (
    user_id         text        NOT NULL REFERENCES notification_inboxes,
    notification_id bigint      NOT NULL CHECK (notification_id > 0), -- counts the player's own, from 1
    identity        text        NOT NULL, -- what its sender knows it by, or its place in Kafka
    body_hash       bytea       NOT NULL CHECK (octet_length(body_hash) = 32),
    kind            text        NOT NULL CHECK (char_length(kind) BETWEEN 1 AND 128),
    -- As it was written: jsonb would change how numbers are written, and write some at great length.
    content         json        NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    read_at         timestamptz,
    PRIMARY KEY (user_id, notification_id),
    CONSTRAINT notifications_once UNIQUE (identity)
);
CREATE INDEX notifications_unread ON notifications (user_id, notification_id) WHERE read_at IS NULL;
CREATE INDEX notifications_read ON notifications (read_at) WHERE read_at IS NOT NULL;
