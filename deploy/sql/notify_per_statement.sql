-- Sends the keys of the rows that a statement changed to {channel}: JSON arrays of keys, each an array of its columns'
-- text forms; or * where the whole table should be read again. It must never make the statement fail.
DECLARE
	keys text[];
	one text;
	part text := '';
BEGIN
	-- A full queue would fail the commit. capture watches the queue as well, and reads the whole table meanwhile.
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
		-- A key column that was renamed or dropped since, for one.
		PERFORM pg_notify({channel}, '*');
	END;
	RETURN NULL;
END
