-- Windows of time in tables of which old rows are removed.
CREATE INDEX accepted_events_by_time ON accepted_events USING brin (accepted_at);
CREATE INDEX dead_letters_by_time ON dead_letters USING brin (refused_at);
