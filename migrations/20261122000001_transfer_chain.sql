-- The hash chain over the transfers: for each transfer, in the order of their ids, the SHA-256 of
-- the hash before it and of what the transfer says. It is built behind the posting of transfers,
-- never within it. There is no foreign key: a hash whose transfer is gone is how that is noticed.
CREATE TABLE transfer_hashes (
    transfer_id bigint      PRIMARY KEY,
    hash        bytea       NOT NULL CHECK (octet_length(hash) = 32),
    sealed_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TRIGGER transfer_hashes_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON transfer_hashes
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
