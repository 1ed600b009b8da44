-- The trace in which a redemption was accepted, as W3C's traceparent: whoever starts its flow goes on in it.
ALTER TABLE redemptions ADD COLUMN traceparent text;
