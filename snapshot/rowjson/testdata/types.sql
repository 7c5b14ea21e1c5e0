-- The types that types.tsv has values of, besides the built-in ones and those of extensions.
CREATE TABLE "Odd ""name""', t" (a int);
CREATE TYPE textrange AS RANGE (subtype = text);
CREATE TYPE mood AS ENUM ('sad', 'so "so"', 'NULL', '', 'a,b');
CREATE DOMAIN posint AS int CHECK (VALUE > 0);
CREATE DOMAIN smallposint AS posint CHECK (VALUE < 100);
CREATE DOMAIN stamp AS timestamp;
CREATE DOMAIN jsondoc AS json;
CREATE DOMAIN words AS text[];
CREATE TYPE pair AS (n int, "the ""text"", \" text);
CREATE DOMAIN pairs AS pair;
CREATE TYPE one AS (yes bool);
CREATE TYPE nothing AS ();
CREATE TYPE shrunk AS (a int, gone text, b int);
ALTER TYPE shrunk DROP ATTRIBUTE gone;
CREATE TYPE deep AS (ints int[], p pair, ps pair[], j json, t stamp, b bool[], v int2vector, boxes box[], ts timestamptz[]);
-- A cast to json of its own makes any type one that only the server can write, hstore or not.
CREATE TYPE shade AS ENUM ('dark', 'light');
CREATE FUNCTION shade_json(shade) RETURNS json LANGUAGE sql IMMUTABLE AS $$ SELECT json_build_object('shade', $1::text) $$;
CREATE CAST (shade AS json) WITH FUNCTION shade_json(shade);
