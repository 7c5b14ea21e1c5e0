-- Sends the keys of the rows that a statement changed to {channel}: JSON arrays of keys, each an array of its columns' text
-- forms. A payload of * means that the whole table must be read again. It must never make the application's statement fail.
DECLARE
	keys text[];
	one text;
	part text := '';
	has_room boolean := false;
BEGIN
	-- If the queue were full, the application's commit would fail. capture watches the queue, too, and reads the whole table
	-- until it empties. The literal is a float8, so the next line calls no cast, but only the two functions whose rights
	-- capture checks: see LoadNotificationQueue.
	has_room := pg_notification_queue_usage() <= float8 '0.5';
	IF NOT has_room THEN
		RETURN NULL;
	END IF;
	IF TG_OP = 'INSERT' THEN
		SELECT array_agg(k) INTO keys FROM (SELECT {key of r} AS k FROM new_rows r LIMIT 501) s;
	ELSIF TG_OP = 'DELETE' THEN
		SELECT array_agg(k) INTO keys FROM (SELECT {key of r} AS k FROM old_rows r LIMIT 501) s;
	ELSIF TG_OP = 'UPDATE' THEN
		SELECT array_agg(k) INTO keys FROM (
			SELECT {key of r} AS k FROM new_rows r UNION SELECT {key of r} FROM old_rows r LIMIT 501) s;
	ELSE
		PERFORM pg_notify({channel}, '*');
	END IF;
	IF cardinality(keys) > 500 THEN
		PERFORM pg_notify({channel}, '*');
	ELSIF keys IS NOT NULL THEN
		FOREACH one IN ARRAY keys LOOP
			IF octet_length(one) > 7000 THEN
				PERFORM pg_notify({channel}, '*');
				RETURN NULL;
			ELSIF part = '' THEN
				part := one;
			ELSIF octet_length(part) + octet_length(one) > 7000 THEN
				PERFORM pg_notify({channel}, '[' || part || ']');
				part := one;
			ELSE
				part := part || ',' || one;
			END IF;
		END LOOP;
		PERFORM pg_notify({channel}, '[' || part || ']');
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
