package pgserver

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// VotesTable is the statement that creates the application's table votes. The demo, the benchmarks and the tests run it.
const VotesTable = `CREATE TABLE votes (
	vote_id         serial PRIMARY KEY,
	user_query      text,
	bot_response    text,
	evaluation_json jsonb,
	feedback_tags   text[],
	comment         text,
	citations       jsonb,
	"timestamp"     timestamp DEFAULT CURRENT_TIMESTAMP
)`

// FillVotes inserts the votes with the numbers first to last into the votes table. The votes have a realistic size, about 3 kB
// of JSON each. The content of a vote depends only on its number.
func FillVotes(ctx context.Context, conn *pgx.Conn, first, last int) error {
	_, err := conn.Exec(ctx, fmt.Sprintf(`INSERT INTO votes (user_query, bot_response, evaluation_json, feedback_tags, comment, citations)
	SELECT 'How do I ' || md5(i::text) || '?', (SELECT string_agg(md5((i * 100 + j)::text), ' ') FROM generate_series(1, 60) j),
		jsonb_build_object('relevance', mod(i, 5), 'groundedness', 0.5, 'model', 'gpt'), ARRAY['Looks Good / Accurate & Clear'],
		CASE WHEN mod(i, 3) = 0 THEN 'a comment ' || i END,
		(SELECT jsonb_agg(jsonb_build_object('title', md5(j::text), 'url', 'https://example.com/' || j, 'score', j)) FROM generate_series(1, 5) j)
	FROM generate_series(%d, %d) i`, first, last))
	if err != nil {
		return fmt.Errorf("insert votes %d to %d: %w", first, last, err)
	}
	return nil
}
