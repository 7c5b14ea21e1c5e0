package web

import (
	"fmt"
	"strings"
	"testing"

	"capture/internal/pgserver"
)

// TestPageSkipsNoVote checks that in a table with random keys, the page shows the newest votes by their time, and skips no
// vote after a burst of new votes.
func TestPageSkipsNoVote(t *testing.T) {
	if testing.Short() {
		t.Skip("drives Chromium for seconds")
	}
	t.Parallel()
	l := runLive(t, pgserver.Database(t), "CREATE TABLE feedback (id uuid PRIMARY KEY, created_at timestamptz NOT NULL, comment text)", "feedback", nil)
	insert := func(n int) {
		l.exec(`INSERT INTO feedback SELECT gen_random_uuid(), '2026-01-01'::timestamptz + (SELECT count(*) FROM feedback) * interval '1 minute' + i / 3 * interval '1 second',
			'vote ' || i FROM generate_series(1, $1::int) i`, n)
	}
	newest := func(n int) string {
		var keys string
		if err := l.db.QueryRow(t.Context(), "SELECT string_agg(id::text, ' ') FROM (SELECT id FROM feedback ORDER BY created_at DESC, id DESC LIMIT $1) n", n).Scan(&keys); err != nil {
			t.Fatal(err)
		}
		return keys
	}
	const shown = `[...document.querySelectorAll("#votes li")].map((li) => li.dataset.key).join(" ")`
	shows := func(n int) string { return fmt.Sprintf("%s === %q", shown, newest(n)) }
	insert(120)
	l.waitReady()
	p := openTab(t, desktop, l.url())
	p.waitFor(shows(50))
	insert(1)
	p.waitFor(fmt.Sprintf(`document.querySelector("#votes li").dataset.key === %q`, newest(1)))
	insert(70) // more votes than an event contains
	p.waitFor(shows(50))
	p.click("#more")
	p.waitFor(shows(100))
	insert(1)
	p.waitFor(shows(101))
	insert(60)
	p.waitFor(`!document.querySelector("#new-votes").hidden`)
	if text := p.text("#new-votes"); !strings.HasPrefix(text, "60") {
		t.Errorf("after a burst the page says %q", text)
	}
	p.click("#new-votes")
	p.waitFor(shows(50))
	for _, n := range []int{100, 150, 200, 250, 252} {
		p.click("#more")
		p.waitFor(shows(n))
	}
	p.check(l.host)
}

// TestMoreDuringRefresh checks that a click on "more" takes effect even while the page loads its first votes again.
func TestMoreDuringRefresh(t *testing.T) {
	if testing.Short() {
		t.Skip("drives Chromium for seconds")
	}
	t.Parallel()
	l := runLive(t, pgserver.Database(t), "CREATE TABLE feedback (id int PRIMARY KEY, comment text)", "feedback", nil)
	l.exec("INSERT INTO feedback SELECT i, 'vote ' || i FROM generate_series(1, 120) i")
	l.waitReady()
	p := openTab(t, desktop, l.url())
	const shown = `document.querySelectorAll("#votes li").length`
	p.waitFor(shown + " === 50")
	p.eval(`(() => {
		const real = window.fetch;
		window.held = [];
		window.fetch = (url, options) => /api\/votes\?(?!.*after=)/.test(url) ? new Promise((go) => held.push(go)).then(() => real(url, options)) : real(url, options);
	})()`)
	l.exec("UPDATE feedback SET comment = 'edited' WHERE id = 1")
	p.waitFor("held.length > 0")
	p.click("#more")
	p.eval("held.forEach((go) => go())")
	p.waitFor(shown + " === 100")
	p.check(l.host)
}
