-- The rows that durable flows follow: redemptions, tier-upgrade orders, callbacks.

-- A redemption's row is its state machine; every step is a conditional update of it.
CREATE TABLE redemptions (
    redeem_request_id   text        PRIMARY KEY CHECK (char_length(redeem_request_id) BETWEEN 1 AND 128),
    body_hash           bytea       NOT NULL,
    customer_id         text        NOT NULL,
    merchant_id         text        NOT NULL,
    order_id            text        NOT NULL,
    points              bigint      NOT NULL CHECK (points > 0),
    origin              text        NOT NULL CHECK (origin IN ('HTTP', 'KAFKA', 'LOYALTY')),
    state               text        NOT NULL DEFAULT 'QUEUED'
                        CHECK (state IN ('QUEUED', 'RESERVED', 'CONFIRMING', 'AWAITING_CALLBACK', 'SUCCESS', 'FAILED')),
    reason              text,
    partner_verdict     text        CHECK (partner_verdict IN ('CONFIRMED', 'REFUSED', 'VOIDED')),
    partner_detail      text, -- the partner's own reason or confirmation id, as it gave it
    cancel_requested_at timestamptz,
    callback_id         text        UNIQUE,
    hold_expires_at     timestamptz,
    points_deducted     bigint      NOT NULL DEFAULT 0,
    balance_after       bigint,
    requested_at        timestamptz NOT NULL,
    created_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK ((state = 'FAILED') = (reason IS NOT NULL)),
    CHECK ((state = 'SUCCESS') = (points_deducted > 0)),
    CHECK (state <> 'SUCCESS' OR points_deducted = points)
);
CREATE INDEX redemptions_open ON redemptions (updated_at) WHERE state NOT IN ('SUCCESS', 'FAILED');
CREATE INDEX redemptions_by_customer ON redemptions (customer_id, created_at DESC);

-- The order to look at a customer's tier, written by the commit that takes the customer past a
-- threshold. At most one is open per customer.
CREATE TABLE tier_orders (
    order_id      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id   text        NOT NULL REFERENCES customers,
    opened_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at    timestamptz,
    closed_at     timestamptz,
    outcome       text,
    previous_tier text,
    new_tier      text,
    upgraded_at   timestamptz,
    notified_at   timestamptz,
    callback_id   text        UNIQUE,
    CHECK ((closed_at IS NULL) = (outcome IS NULL)),
    CHECK ((upgraded_at IS NULL) = (new_tier IS NULL)),
    CHECK (notified_at IS NULL OR upgraded_at IS NOT NULL)
);
CREATE UNIQUE INDEX tier_orders_one_open ON tier_orders (customer_id) WHERE closed_at IS NULL;
CREATE INDEX tier_orders_by_customer ON tier_orders (customer_id, order_id DESC);

-- Callback ids: unguessable, single-use, expiring. The answer is stored first and then signalled;
-- what was stored and not signalled is signalled again.
CREATE TABLE callbacks (
    callback_id  text        PRIMARY KEY,
    kind         text        NOT NULL CHECK (kind IN ('PARTNER', 'TIER_UPGRADE')),
    workflow_id  text        NOT NULL,
    subject      text        NOT NULL, -- the redeem request id or the tier order id
    merchant_id  text,
    expires_at   timestamptz NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    answer       text, -- SUCCESS, FAILURE, CONFIRMED, REFUSED
    answer_body  jsonb,
    answered_at  timestamptz,
    signalled_at timestamptz,
    late_answer  text, -- what a merchant said after it could count, against what had happened
    CHECK ((answer IS NULL) = (answered_at IS NULL)),
    CHECK ((kind = 'PARTNER') = (merchant_id IS NOT NULL))
);
CREATE INDEX callbacks_to_signal ON callbacks (answered_at)
    WHERE answered_at IS NOT NULL AND signalled_at IS NULL;
