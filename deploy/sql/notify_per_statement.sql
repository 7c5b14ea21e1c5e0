-- Sends the keys of the rows that a statement changed to {channel}: JSON arrays of keys, each an array of its columns' text
-- forms. A payload of * means that the whole table must be read again. It must never make the application's statement fail.
DECLARE
	keys text[];
	one text;
	part text := '';
BEGIN
	-- If the queue were full, the application's commit would fail. capture watches the queue, too, and reads the whole table
	-- until it empties.
	IF pg_notification_queue_usage() > 0.5 THEN
		RETURN NULL;
	END IF;
	BEGIN
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
	EXCEPTION WHEN OTHERS THEN
		-- For example, a key column has been renamed or dropped.
		PERFORM pg_notify({channel}, '*');
	END;
	RETURN NULL;
END
