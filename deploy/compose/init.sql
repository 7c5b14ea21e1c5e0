-- The postgres image runs this once, as the superuser, when it creates docker-compose.yml's database.
\set ON_ERROR_STOP on

-- The application's role owns the database and what it creates there. It is no superuser.
CREATE ROLE rag LOGIN;
ALTER DATABASE :"DBNAME" OWNER TO rag;
-- capture's role may connect, replicate and read one table. It cannot write.
CREATE ROLE capture LOGIN REPLICATION;
\i /compose/passwords.sql

SET ROLE rag;
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

GRANT CONNECT ON DATABASE :"DBNAME" TO capture;
GRANT USAGE ON SCHEMA public TO capture;
GRANT SELECT ON votes TO capture;

-- Only the owner of a table can publish it. capture looks for a publication of this name.
CREATE PUBLICATION capture_votes FOR TABLE votes
    WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true);
RESET ROLE;
-- As its owner, capture can withdraw the publication if it would make the application's UPDATE and DELETE fail.
ALTER PUBLICATION capture_votes OWNER TO capture;
COMMENT ON PUBLICATION capture_votes IS 'for capture, which keeps feedback.json equal to votes';
