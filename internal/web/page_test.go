package web

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"
	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"capture/capture"
	"capture/internal/pgserver"
	"capture/internal/postgres"
	"capture/store"
)

const createVotes = `CREATE TABLE votes (
	vote_id         serial PRIMARY KEY,
	user_query      text,
	bot_response    text,
	evaluation_json jsonb,
	feedback_tags   text[],
	comment         text,
	citations       jsonb,
	"timestamp"     timestamp DEFAULT CURRENT_TIMESTAMP
)`

// live is the whole of capture over a real table: the daemon, the file and the server.
type live struct {
	t    *testing.T
	host string
	db   *pgx.Conn
	log  *lockedBuffer
}

// runLive makes a table in the database, and runs capture on it until the test ends.
func runLive(t *testing.T, database, create, table string, change func(*Config)) *live {
	t.Helper()
	l := &live{t: t, log: &lockedBuffer{}}
	var err error
	if l.db, err = pgx.Connect(t.Context(), database); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.db.Close(context.Background()) })
	l.exec("SET TimeZone = 'UTC'")
	l.exec(create)

	path := filepath.Join(t.TempDir(), "feedback.json")
	file, err := store.Open(path, store.Owner{PID: os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	db, err := postgres.ParseConfig(database)
	if err != nil {
		t.Fatal(err)
	}
	logger := hclog.New(&hclog.LoggerOptions{Output: l.log, JSONFormat: true})
	reg := prometheus.NewRegistry()
	daemonConfig := capture.DefaultConfig()
	daemonConfig.Database, daemonConfig.Table, daemonConfig.FlushDelay = db, postgres.Name{Table: table}, 10*time.Millisecond
	daemonConfig.Version, daemonConfig.Logger, daemonConfig.Registry = "test", logger, reg
	d, err := capture.New(daemonConfig, file)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{View: d.View, Status: d.Status, Flush: d.Snapshot, Path: path, Registry: reg, Logger: logger, Version: "test"}
	if change != nil {
		change(&cfg)
	}
	server, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.host = listener.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- d.Run(ctx) }()
	go func() { ended <- server.Run(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Errorf("stop: %v", err)
			}
		}
		file.Close()
		if t.Failed() {
			t.Logf("log:\n%s", l.log)
		}
	})
	return l
}

func (l *live) exec(sql string, args ...any) {
	l.t.Helper()
	if _, err := l.db.Exec(l.t.Context(), sql, args...); err != nil {
		l.t.Fatalf("%s: %v", sql, err)
	}
}

func (l *live) url() string { return "http://" + l.host + "/" }

// ready waits until feedback.json follows the table.
func (l *live) ready() {
	l.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		resp, err := http.Get(l.url() + "readyz")
		if err != nil {
			l.t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode == 200 {
			return
		}
		if time.Now().After(deadline) {
			l.t.Fatal("never ready")
		}
	}
}

const niceAnswer = "To reset your password:\n\n1. Open **Settings → Security**.\n2. Choose *Reset password*.\n3. Follow the link in the e-mail; " +
	"it is valid for `30 minutes`.\n\n> Locked out entirely? Ask the service desk.\n\n```sh\nid reset --user me@example.org\n```\n\n" +
	"| Plan | Self-service |\n|---|---|\n| Free | yes |\n| Team | if the admin allows it |\n\nSee [the handbook](https://docs.example.org/password)."

// fill adds votes of the last ninety days, lively enough for a picture.
func (l *live) fill(n int) {
	l.t.Helper()
	questions := []string{"How do I reset my password?", "What is the notice period for suppliers?", "Which form do I need for travel costs?",
		"Can I carry over holidays into next year?", "Where do I find the network plan of building C?", "Who approves purchases above 5,000 €?",
		"How long are backups kept?", "Is the canteen open on Fridays?", "What does error 0x80070005 mean?", "Summarise the new data protection policy"}
	answers := []string{niceAnswer, "The notice period is **three months** to the end of a quarter, unless the contract says otherwise [1].",
		"Use form *R-17*. Attach the receipts, and hand it in within 30 days.", "Up to five days, until the end of March.",
		"Backups are kept for 35 days; monthly ones for two years."}
	good := []string{"Looks Good / Accurate & Clear"}
	tags := [][]string{good, good, good, good, good, good, {"Incorrect"},
		{"Incomplete"}, {"Citation missing", "Incomplete"}, {"Too long"}, {}}
	comments := []any{nil, nil, nil, "Exactly what I needed, thanks!", "The form has been R-18 since May.", "Half of the answer is about another product.",
		"Link leads nowhere."}
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(n int) int { return r.IntN(n) }
	// More on some days than on others, and the newest now.
	ages := make([]time.Duration, n)
	for i := range ages[1:] {
		week := 7 * 24 * time.Hour
		ages[i] = time.Duration(13*math.Pow(r.Float64(), 1.5))*week + time.Duration((r.Float64()+r.Float64())/2*float64(week))
		ages[i] = min(ages[i], 90*24*time.Hour)
	}
	slices.SortFunc(ages, func(a, b time.Duration) int { return cmp.Compare(b, a) })
	rows := make([][]any, n)
	for i, age := range ages {
		rows[i] = []any{questions[pick(len(questions))], answers[pick(len(answers))],
			map[string]any{"faithfulness": float64(pick(100)) / 100, "relevance": float64(pick(100)) / 100,
				"checks": []any{map[string]any{"name": "grounded", "passed": pick(5) > 0}, map[string]any{"name": "language", "passed": true}}},
			tags[pick(len(tags))], comments[pick(len(comments))],
			[]any{map[string]any{"title": "Employee handbook, chapter 4", "url": "https://docs.example.org/handbook#4", "page": 12},
				map[string]any{"title": "Service desk: passwords", "url": "https://desk.example.org/kb/17"}},
			time.Now().UTC().Add(-age).Truncate(time.Second)}
	}
	_, err := l.db.CopyFrom(l.t.Context(), pgx.Identifier{"votes"},
		[]string{"user_query", "bot_response", "evaluation_json", "feedback_tags", "comment", "citations", "timestamp"}, pgx.CopyFromRows(rows))
	if err != nil {
		l.t.Fatal(err)
	}
}

func TestPage(t *testing.T) {
	l := runLive(t, pgserver.Database(t), createVotes, "votes", nil)
	l.fill(400)
	l.ready()
	p := openTab(t, desktop, l.url())
	p.wait(`document.querySelector("#state").innerText === "Following"`)
	p.wait(`document.querySelectorAll("#votes li").length === 50`)
	p.wait(`document.querySelectorAll("#days button").length === 90 && document.querySelectorAll("#tags button").length > 3`)
	if got := p.text("#fact-rows"); got != "400" {
		t.Errorf("rows: %q", got)
	}

	// A vote appears by itself, and its texts stay texts.
	evil := `<img src=x onerror="document.title='taken'"><script>document.title='taken'</script>`
	l.exec(`INSERT INTO votes (user_query, bot_response, feedback_tags, comment, citations) VALUES ($1, $2, '{Incorrect,<b>bold</b>}', $3, $4)`,
		"Is xyzzy "+evil, evil+"\n\n![p](http://evil.example/p.png) [l](javascript:alert(1)) **bold**", evil,
		`[{"title": "<i>x</i>", "url": "javascript:alert(1)"}, {"title": "good", "url": "https://good.example/"}]`)
	p.wait(`document.querySelector("#votes li .main-line")?.innerText.startsWith("Is xyzzy <img src=x")`)
	p.wait(`document.querySelector("#fact-rows").innerText === "401"`)
	p.shoot("desktop-light")
	p.click("#votes li:first-child a")
	p.wait(`document.querySelector("#vote").open`)
	if got := p.text(".comment .plain"); got != evil {
		t.Errorf("the comment reads %q", got)
	}
	if got := p.text(".answer"); !strings.Contains(got, evil) || !strings.Contains(got, "image: p") {
		t.Errorf("the answer reads %q", got)
	}
	if n := p.eval(`document.querySelectorAll("#vote img, #vote script, #vote b, #vote i, #vote iframe").length`); n != 0.0 {
		t.Errorf("%v elements came out of texts", n)
	}
	if got := fmt.Sprint(p.eval(`[...document.querySelectorAll("#vote-body a")].map((a) => a.href + " " + a.rel)`)); got !=
		"[http://evil.example/p.png noopener noreferrer https://good.example/ noopener noreferrer]" {
		t.Errorf("links: %s", got)
	}
	p.press(kb.Escape)
	p.wait(`!document.querySelector("#vote").open && !location.hash.includes("vote=")`)
	if p.eval(`document.activeElement === document.querySelector("#votes li:first-child a")`) != true {
		t.Error("the focus is not back at the vote")
	}

	// Search, by what the page has no other row of.
	p.click("#q")
	p.write("XYZZY")
	p.wait(`document.querySelectorAll("#votes li").length === 1`)
	if got := p.text("mark"); got != "xyzzy" {
		t.Errorf("marked: %q", got)
	}
	if p.eval(`document.querySelector("#get-csv").getAttribute("href")`) != "/api/votes.csv?q=XYZZY" {
		t.Error("the download does not follow the filter")
	}
	l.exec(`INSERT INTO votes (user_query) VALUES ('another xyzzy')`)
	p.wait(`!document.querySelector("#new-votes").hidden`)
	p.click("#new-votes")
	p.wait(`document.querySelectorAll("#votes li").length === 2`)
	p.click("#clear")
	p.wait(`document.querySelectorAll("#votes li").length === 50`)

	// A tag and a day.
	p.click(`#tags button[data-tag="Too long"]`)
	p.wait(`document.querySelectorAll("#votes li").length > 0 && [...document.querySelectorAll("#votes li")].every((li) => li.innerText.includes("Too long"))`)
	p.click("#clear")
	p.wait(`document.querySelectorAll("#votes li").length === 50`)
	p.eval(`document.querySelector('#days button[tabindex="0"]').focus()`)
	p.press(kb.ArrowLeft)
	p.press(kb.ArrowLeft)
	day := p.eval(`document.activeElement.dataset.day`)
	p.press(kb.Enter)
	p.wait(fmt.Sprintf(`document.querySelector("#from").value === %q && document.querySelectorAll("#votes li").length > 0 &&
		[...document.querySelectorAll("#votes time")].every((t) => t.innerText.startsWith(%q))`, day, day))
	p.click("#clear")
	p.wait(`document.querySelectorAll("#votes li").length === 50`)

	// Pages, an edit, a delete.
	p.click("#more")
	p.wait(`document.querySelectorAll("#votes li").length === 100`)
	p.reload()
	p.wait(`document.querySelectorAll("#votes li").length === 50 && document.querySelector("#state").innerText === "Following"`)
	l.exec(`UPDATE votes SET comment = 'edited' WHERE vote_id = 402`)
	p.wait(`document.querySelector('#votes li[data-key="402"]').innerText.includes("edited")`)
	l.exec(`DELETE FROM votes WHERE vote_id = 402`)
	p.wait(`!document.querySelector('#votes li[data-key="402"]')`)
	if p.eval("document.title") != "Feedback in votes" {
		t.Errorf("title: %v", p.eval("document.title"))
	}
	p.check(l.host)
}

func TestPageLooks(t *testing.T) {
	l := runLive(t, pgserver.Database(t), createVotes, "votes", func(c *Config) { c.Title = "Feedback on the assistant" })
	l.fill(900)
	l.exec(`UPDATE votes SET comment = 'Exactly what I needed, thanks!', bot_response = $1, user_query = 'How do I reset my password?' WHERE vote_id = 899`, niceAnswer)
	l.ready()
	for name, lk := range map[string]look{"desktop-light": desktop, "desktop-dark": desktop.night(), "phone-light": phone, "phone-dark": phone.night()} {
		p := openTab(t, lk, l.url())
		p.wait(`document.querySelectorAll("#votes li").length === 50 && document.querySelectorAll("#days button").length === 90`)
		p.wait(`document.querySelector("#state").innerText === "Following"`)
		fits := fmt.Sprintf("document.documentElement.scrollWidth <= %d", lk.width)
		if p.eval(fits) != true {
			t.Errorf("%s: the page is wider than the screen", name)
		}
		p.shoot(name)
		p.eval(`location.hash = "#vote=899"`)
		p.wait(`document.querySelector("#vote").open && document.querySelector("#vote table")`)
		if p.eval(`document.querySelector("#vote").scrollWidth <= document.querySelector("#vote").clientWidth`) != true {
			t.Errorf("%s: a vote is wider than its panel", name)
		}
		p.shoot(name + "-vote")
		p.press(kb.Escape)
		p.wait(`!document.querySelector("#vote").open`)
		if bad, _ := p.eval(contrast).(string); bad != "" {
			t.Errorf("%s: too little contrast: %s", name, bad)
		}
		if bad, _ := p.eval(unnamed).(string); bad != "" {
			t.Errorf("%s: controls without a name: %s", name, bad)
		}
		p.check(l.host)
	}
}

// contrast names the texts with a contrast below 4.5 to 1 (WCAG 2, AA).
const contrast = `(() => {
	const parse = (c) => { const m = c.match(/[\d.]+/g).map(Number); return m.length < 4 ? [...m, 1] : m; };
	const light = ([r, g, b]) => { const f = (v) => { v /= 255; return v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; };
		return .2126 * f(r) + .7152 * f(g) + .0722 * f(b); };
	const behind = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c[3] > .99) return c; } return [255, 255, 255]; };
	const bad = new Set();
	for (const e of document.querySelectorAll("body *")) {
		if (![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) || !e.checkVisibility() || e.closest("dialog, noscript, .skip")) continue;
		const a = light(parse(getComputedStyle(e).color)), b = light(behind(e));
		const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
		if (ratio < 4.5) bad.add(e.tagName + "." + e.className + " " + ratio.toFixed(2));
	}
	return [...bad].join(", ");
})()`

// unnamed names the controls that a screen reader can't.
const unnamed = `[...document.querySelectorAll("a, button, input, select")].filter((e) => e.checkVisibility() &&
	!(e.innerText?.trim() || e.getAttribute("aria-label") || e.labels?.length)).map((e) => e.outerHTML).join(", ")`

func TestPageWhilePostgresIsStopped(t *testing.T) {
	server := pgserver.ForTest(t, pgserver.Options{})
	l := runLive(t, server.URL("postgres"), createVotes, "votes", nil)
	l.fill(60)
	l.ready()
	p := openTab(t, desktop, l.url())
	p.wait(`document.querySelectorAll("#votes li").length === 50`)
	p.wait(`document.querySelector("#banner").hidden`)
	if err := server.Stop("immediate"); err != nil {
		t.Fatal(err)
	}
	p.wait(`!document.querySelector("#banner").hidden && document.querySelector("#banner").innerText.includes("Not live")`)
	p.shoot("not-live")
	// All of it still works.
	p.click("#q")
	p.write("password")
	p.wait(`document.querySelectorAll("#votes li").length > 0 && [...document.querySelectorAll("#votes li")].every((li) => li.querySelector("mark"))`)
	p.click("#votes li:first-child a")
	p.wait(`document.querySelector("#vote").open`)
	p.press(kb.Escape)
	if err := server.StartAgain(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.wait(`document.querySelector("#banner").hidden && document.querySelector("#state").innerText === "Following"`)
	p.check(l.host)
}

func TestPageWithToken(t *testing.T) {
	l := runLive(t, pgserver.Database(t), createVotes, "votes", func(c *Config) { c.TokenFile = tokenOf(t) })
	l.fill(60)
	l.ready()
	p := openTab(t, phone.night(), l.url())
	p.wait(`document.querySelector("#token").open`)
	p.shoot("token")
	p.click("#token-input")
	p.write("wrong")
	p.press(kb.Enter)
	p.wait(`document.querySelector("#token").open && !document.querySelector("#token-error").hidden`)
	p.click("#token-input")
	p.write("abc")
	p.press(kb.Enter)
	p.wait(`document.querySelectorAll("#votes li").length === 50 && !document.querySelector("#token").open`)
	l.exec(`INSERT INTO votes (user_query) VALUES ('live, with a token')`)
	p.wait(`document.querySelector("#votes li").innerText.includes("live, with a token")`)
	p.reload()
	p.wait(`document.querySelectorAll("#votes li").length === 50 && !document.querySelector("#token").open`)
	p.check(l.host, "401")
	if strings.Contains(l.log.String(), "abc") {
		t.Error("the token is in the log")
	}
}

// A table that has nothing of the votes' is shown by what it has.
func TestPageOfAnotherTable(t *testing.T) {
	l := runLive(t, pgserver.Database(t), `CREATE TABLE "Odd Things" (
		code text, part int, weight numeric, big bigint, made timestamptz, flag boolean, doc jsonb, blob bytea, PRIMARY KEY (code, part))`, "Odd Things", nil)
	l.exec(`INSERT INTO "Odd Things" VALUES ('a/b "c"', 1, 12345678901234567890.0123456789, 9007199254740993, '2026-01-01 10:00+02', true, '{"a": [1, {"b": null}]}', '\xff00')`)
	l.exec(`INSERT INTO "Odd Things" VALUES ('plain', 2, 'NaN', -1, 'infinity', NULL, '[]', NULL)`)
	l.ready()
	p := openTab(t, desktop, l.url())
	p.wait(`document.querySelectorAll("#votes li").length === 2`)
	p.shoot("other-table")
	p.click("#votes li:last-child a")
	p.wait(`document.querySelector("#vote").open`)
	body := p.text("#vote")
	for _, want := range []string{"12345678901234567890.0123456789", "9007199254740993", "2026-01-01 08:00:00 UTC", `\xff00`, "b: null"} {
		if !strings.Contains(body, want) {
			t.Errorf("the row lacks %s:\n%s", want, body)
		}
	}
	p.shoot("other-table-row")
	p.reload() // the key comes back out of the address
	p.wait(`document.querySelector("#vote").open && document.querySelector("#vote-body").innerText.includes("9007199254740993")`)
	p.check(l.host)
}

func TestMarkdown(t *testing.T) {
	h := harnessOf(t, someVotes(t), nil)
	addr := h.serve(t)
	p := openTab(t, desktop, "http://"+addr+"/")
	p.wait(`document.querySelectorAll("#votes li").length === 5`)
	for _, c := range []struct{ text, want string }{
		{"plain", "<p>plain</p>"},
		{"a\nb\n\nc", "<p>a\nb</p><p>c</p>"},
		{"# One\n## Two ##\n####### no", "<h3>One</h3><h4>Two</h4><p>####### no</p>"},
		{"Title\n===\nSub\n---\nx", "<h3>Title</h3><h4>Sub</h4><p>x</p>"},
		{"**b** *i* ***bi*** __b__ _i_ ~~s~~ `c`", "<p><strong>b</strong> <em>i</em> <strong><em>bi</em></strong> <strong>b</strong> <em>i</em> <del>s</del> <code>c</code></p>"},
		{"snake_case_name 2 * 3 * 4 **", "<p>snake_case_name 2 * 3 * 4 **</p>"},
		{`\*not\* \x`, `<p>*not* \x</p>`},
		{"`` a ` b `` `open", "<p><code>a ` b</code> `open</p>"},
		{"- a\n- b\n  - c\n- d", "<ul><li>a</li><li>b<ul><li>c</li></ul></li><li>d</li></ul>"},
		{"3. a\n4. b", `<ol start="3"><li>a</li><li>b</li></ol>`},
		{"1. a\n\n   more\n2. b", "<ol><li><p>a</p><p>more</p></li><li>b</li></ol>"},
		{"> q\n> > r", "<blockquote><p>q</p><blockquote><p>r</p></blockquote></blockquote>"},
		{"```go\nx := `a` <b>\n```\nafter", "<pre><code>x := `a` &lt;b&gt;</code></pre><p>after</p>"},
		{"```\nopen", "<pre><code>open</code></pre>"},
		{"***\na", "<hr><p>a</p>"},
		{"|a|b|\n|-|:-:|\n|1|`x`|\n|2|", `<div class="table"><table><thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td>1</td><td><code>x</code></td></tr><tr><td>2</td><td></td></tr></tbody></table></div>`},
		{"[t](https://a.example/x_(y))", `<p><a href="https://a.example/x_(y)" target="_blank" rel="noopener noreferrer">t</a></p>`},
		{"see https://a.example/b_c_d.", `<p>see <a href="https://a.example/b_c_d" target="_blank" rel="noopener noreferrer">https://a.example/b_c_d</a>.</p>`},
		{"[x](javascript:alert(1)) [y](data:text/html,x) [z](/local)", "<p><span>x</span> <span>y</span> <span>z</span></p>"},
		{"<script>alert(1)</script> <b onclick=x>", "<p>&lt;script&gt;alert(1)&lt;/script&gt; &lt;b onclick=x&gt;</p>"},
		{"![i](https://a.example/i.png)", `<p><a href="https://a.example/i.png" target="_blank" rel="noopener noreferrer">image: i</a></p>`},
		{"[1] [doc2] [", "<p>[1] [doc2] [</p>"},
	} {
		got := p.eval(fmt.Sprintf(`import("/static/markdown.js").then((m) => m.markdown(%q).innerHTML)`, c.text))
		if got != c.want {
			t.Errorf("%q:\n got %s\nwant %s", c.text, got, c.want)
		}
	}
	// Texts made to take long: the page must stay alive. The work is bounded by the text's length.
	for _, unit := range []string{"*a ", "**a", "[", "![", "[a](", "`", "`a``", "_a", "> ", "- ", "  - ", "1. ", "|", "~~", "<http://", "\\", "***", "**a **", "* ", "\n\n- a\n", "[](", "(((", "http://"} {
		p.eval(fmt.Sprintf(`import("/static/markdown.js").then((m) => m.markdown(%q.repeat(200000 / %d)).textContent.length)`, unit, len(unit)))
	}
	p.check(addr)
}
