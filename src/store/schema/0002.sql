-- When a person has followed up an entry that the app declined: it stays closed and declined, and is no work any more.
ALTER TABLE state ADD COLUMN followed_up INTEGER;
CREATE INDEX state_to_follow_up ON state (seq) WHERE outcome = 'declined' AND followed_up IS NULL;
