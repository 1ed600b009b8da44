-- When a starter has last started the flow of a redemption that is QUEUED, or found it open: it waits for its turn then.
ALTER TABLE redemptions ADD COLUMN started_at timestamptz;
