-- When a redemption reached the states that no transfer tells of, and when the merchant had its last word: for people
-- who look into it. Nothing where it happened before these columns were there.
ALTER TABLE redemptions
    ADD COLUMN confirming_at timestamptz,
    ADD COLUMN awaiting_callback_at timestamptz,
    ADD COLUMN partner_said_at timestamptz;
