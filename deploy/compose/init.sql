-- Run once by the postgres image, as the database's owner, when docker-compose.yml's database is made.
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

-- capture's role: it may connect, follow the stream and read this one table. It owns nothing and writes nothing.
CREATE ROLE capture LOGIN REPLICATION PASSWORD :'capture_password';
GRANT CONNECT ON DATABASE :"DBNAME" TO capture;
GRANT USAGE ON SCHEMA public TO capture;
GRANT SELECT ON votes TO capture;

-- Only a table's owner can publish it, so it is done here. The name is the one that capture looks for.
CREATE PUBLICATION capture_votes FOR TABLE votes
    WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true);
COMMENT ON PUBLICATION capture_votes IS 'for capture, which keeps feedback.json equal to votes';
