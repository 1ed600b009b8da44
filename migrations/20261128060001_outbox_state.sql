-- Whether a message was published stands apart from the message, so that marking it writes a few
-- bytes and not the message once more: see docs/decisions/0016. The version before works on the
-- view, and so may whoever only reads.

CREATE TABLE outbox_state (
    outbox_id    bigint   NOT NULL,
    shard        smallint NOT NULL,
    published_at timestamptz
);
-- contract: nobody may write or mark a message while its state is copied, some seconds for a million
LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE;
INSERT INTO outbox_state (outbox_id, shard, published_at)
SELECT outbox_id, shard, published_at FROM outbox ORDER BY outbox_id;
ALTER TABLE outbox_state ADD PRIMARY KEY (outbox_id);
-- contract: its columns go, and the index of the same name on their copy takes its place
DROP INDEX outbox_waiting, outbox_by_publication;
CREATE INDEX outbox_waiting ON outbox_state (shard, outbox_id) WHERE published_at IS NULL;
CREATE INDEX outbox_by_publication ON outbox_state USING brin (published_at);
-- Every message is marked once, which leaves a dead row.
ALTER TABLE outbox_state SET (autovacuum_vacuum_scale_factor = 0.02);

-- contract: the version before finds both columns in the view
ALTER TABLE outbox DROP COLUMN published_at, DROP COLUMN shard;
-- contract: the view has this name from here on
ALTER TABLE outbox RENAME TO outbox_messages;

CREATE VIEW outbox AS
SELECT s.outbox_id, s.shard, m.topic, m.message_key, m.headers, m.body, m.created_at, s.published_at
FROM outbox_messages AS m JOIN outbox_state AS s USING (outbox_id);

-- What the version before does to messages: it writes, marks, marks as unpublished, and removes.
CREATE FUNCTION outbox_of_the_version_before() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        WITH written AS (
            INSERT INTO outbox_messages (topic, message_key, headers, body)
            VALUES (NEW.topic, NEW.message_key, coalesce(NEW.headers, '[]'), NEW.body)
            RETURNING outbox_id)
        INSERT INTO outbox_state (outbox_id, shard, published_at)
        SELECT outbox_id, NEW.shard, NEW.published_at FROM written;
        RETURN NEW;
    ELSIF TG_OP = 'UPDATE' THEN
        UPDATE outbox_state SET published_at = NEW.published_at WHERE outbox_id = OLD.outbox_id;
        RETURN NEW;
    END IF;
    DELETE FROM outbox_messages WHERE outbox_id = OLD.outbox_id;
    DELETE FROM outbox_state WHERE outbox_id = OLD.outbox_id;
    RETURN OLD;
END $$;
CREATE TRIGGER outbox_of_the_version_before INSTEAD OF INSERT OR UPDATE OR DELETE ON outbox
    FOR EACH ROW EXECUTE FUNCTION outbox_of_the_version_before();
