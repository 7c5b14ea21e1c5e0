-- The postgres image runs this once, as the owner of the database, when it creates docker-compose.yml's database.
\set ON_ERROR_STOP on
\getenv capture_password CAPTURE_DB_PASSWORD

CREATE TABLE votes (
    vote_id         serial PRIMARY KEY,
    user_query      text,
    bot_response    text,
    evaluation_json jsonb,
    feedback_tags   text[],
    comment         text,
    citations       jsonb,
    "timestamp"     timestamp DEFAULT CURRENT_TIMESTAMP
);

-- capture's role may connect, replicate and read this table. It cannot write.
CREATE ROLE capture LOGIN REPLICATION PASSWORD :'capture_password';
GRANT CONNECT ON DATABASE :"DBNAME" TO capture;
GRANT USAGE ON SCHEMA public TO capture;
GRANT SELECT ON votes TO capture;

-- Only the owner of a table can publish it. capture looks for a publication of this name.
CREATE PUBLICATION capture_votes FOR TABLE votes
    WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true);
-- As its owner, capture can withdraw the publication if it would make the application's UPDATE and DELETE fail.
ALTER PUBLICATION capture_votes OWNER TO capture;
COMMENT ON PUBLICATION capture_votes IS 'for capture, which keeps feedback.json equal to votes';
