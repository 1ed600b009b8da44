-- The ranking is kept outside: in the memory of each api, or in Redis. Here stands who asked for it
-- to be made anew, and what the indexes tell of themselves.

-- Every index is to be made anew for the highest of these; one that was made for another is not as
-- it was asked for.
CREATE TABLE ranking_rebuilds (
    rebuild_id   bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    request      text        NOT NULL UNIQUE, -- the same one again is the same rebuild
    asked_by     text        NOT NULL,
    asked_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- One row for each index that is or was kept, which its keeper renews every few seconds.
CREATE TABLE ranking_indexes (
    index_name text        PRIMARY KEY,
    rebuild_id bigint,               -- what it was made for, 0: nobody had asked; NULL: it is not there
    customers  bigint,               -- how many are in it
    as_of      timestamptz,          -- up to when it knows all that was committed
    loaded     bigint,               -- of the one that is being made beside it: how many are in it
    expected   bigint,               -- and about how many there will be
    trouble    text,                 -- what keeps it from its work
    seen_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);
