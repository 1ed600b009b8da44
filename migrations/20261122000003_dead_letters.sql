-- Which messages were refused, and which dead letters were sent again.

-- One row for each message that was refused, so that a batch that is delivered again writes no
-- second dead letter. The id is made of the place where the message was read and of its content: a
-- topic that was made anew has the same places with other messages. A replay stands at a place of
-- its own, so one that is refused is a dead letter of its own.
CREATE TABLE dead_letters (
    letter_id        text        PRIMARY KEY CHECK (char_length(letter_id) BETWEEN 1 AND 64),
    source_topic     text        NOT NULL, -- where it was read
    source_partition integer     NOT NULL,
    source_offset    bigint      NOT NULL,
    error_class      text        NOT NULL,
    replay_of        text,                 -- the dead letter of which the message was a replay
    refused_at       timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX dead_letters_by_source ON dead_letters (source_topic, source_partition, source_offset);
CREATE INDEX dead_letters_by_replay ON dead_letters (replay_of) WHERE replay_of IS NOT NULL;

-- What was sent again: a row for each time, written once Kafka had acknowledged it.
CREATE TABLE dead_letter_replays (
    replay_id      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    letter_id      text        NOT NULL CHECK (char_length(letter_id) BETWEEN 1 AND 64),
    letter_place   text        NOT NULL, -- partition-offset in the topic of dead letters
    sent_topic     text        NOT NULL, -- where the replay stands
    sent_partition integer     NOT NULL,
    sent_offset    bigint      NOT NULL,
    replayed_by    text        NOT NULL,
    replayed_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX dead_letter_replays_by_letter ON dead_letter_replays (letter_id, replay_id DESC);
CREATE TRIGGER dead_letter_replays_append_only BEFORE UPDATE OR DELETE OR TRUNCATE
    ON dead_letter_replays FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
