-- The ledger: append-only transfers, and what is projected from them.

-- One row per customer: the projection of that customer's transfers. Everything that changes a
-- customer's points locks this row first, in the order of customer_id.
CREATE TABLE customers (
    customer_id     text        PRIMARY KEY CHECK (char_length(customer_id) BETWEEN 1 AND 128),
    available       bigint      NOT NULL DEFAULT 0,
    held            bigint      NOT NULL DEFAULT 0,
    lifetime_earned bigint      NOT NULL DEFAULT 0,
    version         bigint      NOT NULL DEFAULT 0,
    tier            text        NOT NULL DEFAULT 'BRONZE'
                    CHECK (tier IN ('BRONZE', 'SILVER', 'GOLD', 'PLATINUM')),
    tier_version    bigint      NOT NULL DEFAULT 0,
    opened_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT customers_available_not_negative CHECK (available >= 0),
    CONSTRAINT customers_held_not_negative CHECK (held >= 0),
    CONSTRAINT customers_lifetime_not_negative CHECK (lifetime_earned >= 0)
);

CREATE TYPE account_kind AS ENUM
    ('ISSUANCE', 'AVAILABLE', 'HELD', 'SETTLEMENT', 'ADJUSTMENT', 'EXPIRY');

-- One transfer moves an amount from one account to another, so the sum over all accounts is zero
-- by construction. AVAILABLE and HELD are the customer's; SETTLEMENT is the merchant's.
CREATE TABLE transfers (
    transfer_id       bigint       GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source            text         NOT NULL,
    source_event_id   text         NOT NULL,
    leg               text         NOT NULL,
    debit_account     account_kind NOT NULL,
    credit_account    account_kind NOT NULL CHECK (credit_account <> debit_account),
    customer_id       text         NOT NULL REFERENCES customers,
    merchant_id       text,
    amount            bigint       NOT NULL CHECK (amount > 0),
    reason            text         NOT NULL, -- what it was for, such as HOTEL_STAY or REDEMPTION
    workflow_id       text         NOT NULL,
    rule_set_version  text,
    customer_version  bigint       NOT NULL, -- the customer's version after this transfer
    available_after   bigint       NOT NULL,
    held_after        bigint       NOT NULL,
    occurred_at       timestamptz  NOT NULL, -- when the business event happened
    posted_at         timestamptz  NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT transfers_once UNIQUE (source, source_event_id, leg),
    CHECK ((merchant_id IS NOT NULL) = (debit_account = 'SETTLEMENT' OR credit_account = 'SETTLEMENT'))
);
CREATE UNIQUE INDEX transfers_by_customer ON transfers (customer_id, customer_version);
CREATE UNIQUE INDEX transfers_one_closing_per_hold ON transfers (source, source_event_id)
    WHERE leg IN ('settle', 'release');

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER transfers_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON transfers
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Every event that was read, also those that gave no points: the same one again is nothing, the
-- same id with another body is refused.
CREATE TABLE processed_events (
    source         text        NOT NULL,
    event_id       text        NOT NULL,
    body_hash      bytea       NOT NULL,
    customer_id    text        NOT NULL,
    points         bigint      NOT NULL CHECK (points >= 0),
    processed_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (source, event_id)
);

-- What a rule with a daily cap has awarded a customer on a UTC day of event time.
CREATE TABLE daily_awards (
    customer_id text   NOT NULL REFERENCES customers,
    rule        text   NOT NULL,
    day         date   NOT NULL,
    points      bigint NOT NULL CHECK (points >= 0),
    PRIMARY KEY (customer_id, rule, day)
);

-- Messages to publish, written in the transaction of what they tell of. The relay is the only one
-- that reads this and publishes. Ids are allocated under the customer's row lock, so that their
-- order within a shard is the order of the customer's changes.
CREATE TABLE outbox (
    outbox_id    bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    shard        smallint    NOT NULL,
    topic        text        NOT NULL,
    message_key  bytea,
    headers      jsonb       NOT NULL DEFAULT '[]', -- [[name, base64 value], ...]
    body         bytea       NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    published_at timestamptz
);
CREATE INDEX outbox_waiting ON outbox (shard, outbox_id) WHERE published_at IS NULL;

CREATE TABLE outbox_shards (shard smallint PRIMARY KEY);
INSERT INTO outbox_shards SELECT generate_series(0, 15);
