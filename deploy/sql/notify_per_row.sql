-- Sends the key of a changed row to {channel}: a JSON array of keys, each an array of its columns' text forms; or *
-- where the whole table should be read again, also for all rows of a transaction after its first 500. Once a row, since
-- writes to a partition by its own name fire no other triggers. It must never make the statement fail.
DECLARE
	sent text;
BEGIN
	-- A full queue would fail the commit. capture watches the queue as well, and reads the whole table meanwhile.
	IF pg_notification_queue_usage() > 0.5 THEN
		RETURN NULL;
	END IF;
	BEGIN
		sent := current_setting({counter}, true);
		IF sent ~ '^[0-9]{1,3}$' THEN
			sent := (sent::int + 1)::text;
		ELSE
			sent := '1';
		END IF;
		IF TG_OP = 'TRUNCATE' OR sent::int > 500 THEN
			PERFORM pg_notify({channel}, '*');
			RETURN NULL;
		END IF;
		PERFORM set_config({counter}, sent, true);
		IF TG_OP <> 'DELETE' THEN
			PERFORM pg_notify({channel}, CASE WHEN octet_length({key of NEW}) > 7000 THEN '*' ELSE '[' || {key of NEW} || ']' END);
		END IF;
		IF TG_OP <> 'INSERT' THEN
			PERFORM pg_notify({channel}, CASE WHEN octet_length({key of OLD}) > 7000 THEN '*' ELSE '[' || {key of OLD} || ']' END);
		END IF;
	EXCEPTION WHEN OTHERS THEN
		-- A key column that was renamed or dropped since, for one.
		PERFORM pg_notify({channel}, '*');
	END;
	RETURN NULL;
END
