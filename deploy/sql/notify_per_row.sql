-- Sends the key of a changed row to {channel}: a JSON array of keys, each an array of its columns' text forms. A payload of *
-- means that the whole table must be read again; it is also sent for each row of a transaction after the first 500. The
-- trigger fires once per row, because a write to a partition by its own name fires no other trigger. It must never make the
-- application's statement fail.
DECLARE
	sent text;
	has_room boolean := false;
BEGIN
	-- If the queue were full, the application's commit would fail. capture watches the queue, too, and reads the whole table
	-- until it empties. The literal is a float8, so the next line calls no cast, but only the two functions whose rights
	-- capture checks: see LoadNotificationQueue.
	has_room := pg_notification_queue_usage() <= float8 '0.5';
	IF NOT has_room THEN
		RETURN NULL;
	END IF;
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
	RETURN NULL;
EXCEPTION WHEN OTHERS THEN
	-- For example, a key column has been renamed or dropped, or the writer has no right to execute pg_notify. The command
	-- NOTIFY needs no right. If the writer may not ask whether the queue has room, the trigger sends nothing, and capture
	-- reads the whole table regularly.
	IF has_room THEN
		BEGIN
			NOTIFY {channel identifier}, '*';
		EXCEPTION WHEN OTHERS THEN
			NULL;
		END;
	END IF;
	RETURN NULL;
END
