package web

import (
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/chromedp/chromedp/kb"

	"capture/internal/pgserver"
	"capture/store/kept"
)

func TestPageFollowsTheTable(t *testing.T) {
	if testing.Short() {
		t.Skip("drives Chromium for seconds")
	}
	t.Parallel()
	l := runLive(t, pgserver.Database(t), createVotes, "votes", nil)
	l.insertVotes(400)
	l.waitReady()
	p := openTab(t, desktop, l.url())
	p.waitFor(`document.querySelector("#state").innerText === "Following"`)
	p.waitFor(`document.querySelectorAll("#votes li").length === 50`)
	p.waitFor(`document.querySelectorAll("#days button").length === 91 && document.querySelectorAll("#tags button").length > 3`)
	if got := p.text("#fact-rows"); got != "400" {
		t.Errorf("rows: %q", got)
	}

	// A new vote appears without a reload, and HTML in its texts is shown as text.
	evil := `<img src=x onerror="document.title='taken'"><script>document.title='taken'</script>`
	l.exec(`INSERT INTO votes (user_query, bot_response, feedback_tags, comment, citations) VALUES ($1, $2, '{Incorrect,<b>bold</b>}', $3, $4)`,
		"Is xyzzy "+evil, evil+"\n\n![p](http://evil.example/p.png) [l](javascript:alert(1)) **bold**", evil,
		`[{"title": "<i>x</i>", "url": "javascript:alert(1)"}, {"title": "good", "url": "https://good.example/"}]`)
	p.waitFor(`document.querySelector("#votes li .main-line")?.innerText.startsWith("Is xyzzy <img src=x")`)
	p.waitFor(`document.querySelector("#fact-rows").innerText === "401"`)
	p.screenshot("desktop-light")
	p.click("#votes li:first-child a")
	p.waitFor(`document.querySelector("#vote").open && document.querySelector(".answer .markdown")`)
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
	p.waitFor(`!document.querySelector("#vote").open && !location.hash.includes("vote=")`)
	if p.eval(`document.activeElement === document.querySelector("#votes li:first-child a")`) != true {
		t.Error("the focus is not back at the vote")
	}

	// Search for text that only one row on the page has.
	p.click("#q")
	p.write("XYZZY")
	p.waitFor(`document.querySelectorAll("#votes li").length === 1`)
	if got := p.text("mark"); got != "xyzzy" {
		t.Errorf("marked: %q", got)
	}
	if p.eval(`document.querySelector("#get-csv").getAttribute("href")`) != "api/votes.csv?q=XYZZY" {
		t.Error("the download does not follow the filter")
	}
	l.exec(`INSERT INTO votes (user_query) VALUES ('another xyzzy')`)
	p.waitFor(`!document.querySelector("#new-votes").hidden`)
	p.click("#new-votes")
	p.waitFor(`document.querySelectorAll("#votes li").length === 2`)
	p.click("#clear")
	p.waitFor(`document.querySelectorAll("#votes li").length === 50`)

	// Filter by a tag, then by a day.
	p.click(`#tags button[data-tag="Too long"]`)
	p.waitFor(`document.querySelectorAll("#votes li").length > 0 && [...document.querySelectorAll("#votes li")].every((li) => li.innerText.includes("Too long"))`)
	p.click("#clear")
	p.waitFor(`document.querySelectorAll("#votes li").length === 50`)
	p.eval(`document.querySelector('#days button[tabindex="0"]').focus()`)
	p.press(kb.ArrowLeft)
	p.press(kb.ArrowLeft)
	day := p.eval(`document.activeElement.dataset.day`)
	p.press(kb.Enter)
	p.waitFor(fmt.Sprintf(`document.querySelector("#from").value === %q && document.querySelectorAll("#votes li").length > 0 &&
		[...document.querySelectorAll("#votes time")].every((t) => t.innerText.startsWith(%q))`, day, day))
	p.click("#clear")
	p.waitFor(`document.querySelectorAll("#votes li").length === 50`)

	// Load a second page. Then edit and delete a vote.
	p.click("#more")
	p.waitFor(`document.querySelectorAll("#votes li").length === 100`)
	p.reload()
	p.waitFor(`document.querySelectorAll("#votes li").length === 50 && document.querySelector("#state").innerText === "Following"`)
	l.exec(`UPDATE votes SET comment = 'edited' WHERE vote_id = 402`)
	p.waitFor(`document.querySelector('#votes li[data-key="402"]').innerText.includes("edited")`)
	l.exec(`DELETE FROM votes WHERE vote_id = 402`)
	p.waitFor(`!document.querySelector('#votes li[data-key="402"]')`)
	if p.eval("document.title") != "Feedback in votes" {
		t.Errorf("title: %v", p.eval("document.title"))
	}
	p.check(l.host)
}

func TestPageFitsTheScreen(t *testing.T) {
	if testing.Short() {
		t.Skip("drives Chromium for seconds")
	}
	t.Parallel()
	l := runLive(t, pgserver.Database(t), createVotes, "votes", func(c *Config) { c.Title = "Feedback on the assistant" })
	l.insertVotes(900)
	l.exec(`UPDATE votes SET comment = 'Exactly what I needed, thanks!', bot_response = $1, user_query = 'How do I reset my password?' WHERE vote_id = 899`, markdownAnswer)
	l.waitReady()
	for size, screen := range map[string]viewport{"desktop": desktop, "phone": phone} {
		p := openTab(t, screen, l.url())
		p.waitFor(`document.querySelectorAll("#votes li").length === 50 && document.querySelectorAll("#days button").length === 91`)
		p.waitFor(`document.querySelector("#state").innerText === "Following"`)
		for _, dark := range []bool{false, true} {
			name := size + "-light"
			if dark {
				name = size + "-dark"
			}
			p.setScheme(dark)
			p.waitFor(fmt.Sprintf(`matchMedia("(prefers-color-scheme: dark)").matches === %t`, dark))
			if p.eval(fmt.Sprintf("document.documentElement.scrollWidth <= %d", screen.width)) != true {
				t.Errorf("%s: the page is wider than the screen", name)
			}
			p.screenshot(name)
			p.eval(`location.hash = "#vote=899"`)
			p.waitFor(`document.querySelector("#vote").open && document.querySelector("#vote table")`)
			if p.eval(`document.querySelector("#vote").scrollWidth <= document.querySelector("#vote").clientWidth`) != true {
				t.Errorf("%s: a vote is wider than its panel", name)
			}
			p.screenshot(name + "-vote")
			p.press(kb.Escape)
			p.waitFor(`!document.querySelector("#vote").open`)
			if bad, _ := p.eval(contrast).(string); bad != "" {
				t.Errorf("%s: too little contrast: %s", name, bad)
			}
			if bad, _ := p.eval(unnamed).(string); bad != "" {
				t.Errorf("%s: controls without a name: %s", name, bad)
			}
		}
		p.check(l.host)
	}
}

// contrast is a JavaScript expression that lists the page's texts with a contrast below 4.5 to 1 (WCAG 2, AA).
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

// unnamed lists the controls that have no name for a screen reader.
const unnamed = `[...document.querySelectorAll("a, button, input, select")].filter((e) => e.checkVisibility() &&
	!(e.innerText?.trim() || e.getAttribute("aria-label") || e.labels?.length)).map((e) => e.outerHTML).join(", ")`

func TestPageWhilePostgresIsStopped(t *testing.T) {
	t.Parallel()
	server := pgserver.ForTest(t, pgserver.Options{})
	l := runLive(t, server.URL("postgres"), createVotes, "votes", nil)
	l.insertVotes(60)
	l.waitReady()
	p := openTab(t, desktop, l.url())
	p.waitFor(`document.querySelectorAll("#votes li").length === 50`)
	p.waitFor(`document.querySelector("#banner").hidden`)
	if err := server.Stop("immediate"); err != nil {
		t.Fatal(err)
	}
	p.waitFor(`!document.querySelector("#banner").hidden && document.querySelector("#banner").innerText.includes("Not live")`)
	p.screenshot("not-live")
	// While Postgres is stopped, the page can still search and show votes.
	p.click("#q")
	p.write("password")
	p.waitFor(`document.querySelectorAll("#votes li").length > 0 && [...document.querySelectorAll("#votes li")].every((li) => li.querySelector("mark"))`)
	p.click("#votes li:first-child a")
	p.waitFor(`document.querySelector("#vote").open`)
	p.press(kb.Escape)
	if err := server.StartAgain(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.waitFor(`document.querySelector("#banner").hidden && document.querySelector("#state").innerText === "Following"`)
	p.check(l.host)
}

// TestPageShowsLoss empties the table. It checks that the page shows the loss and the command that restores the rows, until
// the loss is acknowledged.
func TestPageShowsLoss(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a browser")
	}
	t.Parallel()
	l := runLive(t, pgserver.Database(t), createVotes, "votes", nil)
	l.insertVotes(60)
	l.waitReady()
	p := openTab(t, desktop, l.url())
	p.waitFor(`document.querySelectorAll("#votes li").length === 50 && document.querySelector("#banner").hidden`)
	l.exec("DELETE FROM votes")
	p.waitFor(`document.querySelector("#banner").innerText.includes("The table has lost rows or values.")`)
	p.waitFor(`document.querySelector("#banner").innerText.includes("capture restore --on-conflict skip ")`)
	p.waitFor(`document.querySelector("#state").innerText === "Following"`)
	p.screenshot("loss")
	states, err := kept.List(l.path)
	if err != nil || len(states) != 1 {
		t.Fatalf("the kept states are %+v, %v", states, err)
	}
	if err := states[0].Acknowledge(); err != nil {
		t.Fatal(err)
	}
	p.waitFor(`document.querySelector("#banner").hidden`)
	p.check(l.host)
}

func TestPageWithToken(t *testing.T) {
	if testing.Short() {
		t.Skip("drives Chromium for seconds")
	}
	t.Parallel()
	l := runLive(t, pgserver.Database(t), createVotes, "votes", func(c *Config) { c.TokenFile = writeToken(t) })
	l.insertVotes(60)
	l.waitReady()
	p := openTab(t, phone.darkMode(), l.url())
	p.waitFor(`document.querySelector("#token").open`)
	p.screenshot("token")
	p.click("#token-input")
	p.write("wrong")
	p.press(kb.Enter)
	p.waitFor(`document.querySelector("#token").open && !document.querySelector("#token-error").hidden`)
	p.click("#token-input")
	p.write("abc")
	p.press(kb.Enter)
	p.waitFor(`document.querySelectorAll("#votes li").length === 50 && !document.querySelector("#token").open`)
	l.exec(`INSERT INTO votes (user_query) VALUES ('live, with a token')`)
	p.waitFor(`document.querySelector("#votes li").innerText.includes("live, with a token")`)
	p.reload()
	p.waitFor(`document.querySelectorAll("#votes li").length === 50 && !document.querySelector("#token").open`)
	p.check(l.host, "401")
	if strings.Contains(l.log.String(), "abc") {
		t.Error("the token is in the log")
	}
}

// TestPageOfAnotherTable: the page also shows a table that has none of the columns of a table of votes.
func TestPageOfAnotherTable(t *testing.T) {
	if testing.Short() {
		t.Skip("drives Chromium for seconds")
	}
	t.Parallel()
	l := runLive(t, pgserver.Database(t), `CREATE TABLE "Odd Things" (
		code text, part int, weight numeric, big bigint, made timestamptz, flag boolean, doc jsonb, blob bytea, PRIMARY KEY (code, part))`, "Odd Things", nil)
	l.exec(`INSERT INTO "Odd Things" VALUES ('a/b "c"', 1, 12345678901234567890.0123456789, 9007199254740993, '2026-01-01 10:00+02', true, '{"a": [1, {"b": null}]}', '\xff00')`)
	l.exec(`INSERT INTO "Odd Things" VALUES ('plain', 2, 'NaN', -1, 'infinity', NULL, '[]', NULL)`)
	l.waitReady()
	p := openTab(t, desktop, l.url())
	p.waitFor(`document.querySelectorAll("#votes li").length === 2`)
	p.screenshot("other-table")
	p.click("#votes li:last-child a")
	p.waitFor(`document.querySelector("#vote").open`)
	body := p.text("#vote")
	for _, want := range []string{"12345678901234567890.0123456789", "9007199254740993", "2026-01-01 08:00:00 UTC", `\xff00`, "b: null"} {
		if !strings.Contains(body, want) {
			t.Errorf("the row lacks %s:\n%s", want, body)
		}
	}
	p.screenshot("other-table-row")
	p.reload() // the page must find the key in the address
	p.waitFor(`document.querySelector("#vote").open && document.querySelector("#vote-body").innerText.includes("9007199254740993")`)
	p.check(l.host)
}

// TestAnswersAppearAsMarkdown: an answer in Markdown appears as elements. HTML in the answer stays text, and only harmless
// addresses become links.
func TestAnswersAppearAsMarkdown(t *testing.T) {
	if testing.Short() {
		t.Skip("drives Chromium for seconds")
	}
	t.Parallel()
	l := runLive(t, pgserver.Database(t), createVotes, "votes", nil)
	answer := "# Title\n\n1. **b** <script>x</script>\n\n|a|\n|-|\n|`c`|\n\n[x](javascript:alert(1)) [y](https://a.example/) ![i](https://a.example/i.png)"
	l.exec(`INSERT INTO votes (bot_response) VALUES ($1), (repeat('> ', 100) || 'deep')`, answer)
	l.waitReady()
	p := openTab(t, desktop, l.url()+"#vote=1")
	p.waitFor(`document.querySelector("#vote .markdown")`)
	const link = `target="_blank" rel="noopener noreferrer"`
	want := `<h3>Title</h3><ol><li><strong>b</strong> &lt;script&gt;x&lt;/script&gt;</li></ol>` +
		`<div class="table"><table><thead><tr><th>a</th></tr></thead><tr><td><code>c</code></td></tr></table></div>` +
		`<p><span>x</span> <a href="https://a.example/" ` + link + `>y</a> <a href="https://a.example/i.png" ` + link + `>image: i</a></p>`
	if got := p.eval(`document.querySelector("#vote .markdown").innerHTML`); got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
	// An answer that is nested too deeply to be parsed is shown as it is.
	p.press(kb.Escape)
	p.click("#votes li:first-child a")
	p.waitFor(`document.querySelector(".answer .plain")?.innerText.startsWith("> > > >")`)
	p.check(l.host)
}

// TestOddVotesHideNoOthers checks that a vote that a browser cannot show completely does not hide other votes, and does not
// change the digits of numbers in other votes.
func TestOddVotesHideNoOthers(t *testing.T) {
	if testing.Short() {
		t.Skip("drives Chromium for seconds")
	}
	t.Parallel()
	l := runLive(t, pgserver.Database(t), `CREATE TABLE odd (id int PRIMARY KEY, "constructor" jsonb, "toString" jsonb, "__proto__" jsonb, tags jsonb, n numeric)`,
		"odd", func(c *Config) { c.TagsColumn = "tags" })
	// 5,000 levels of nesting are within the server's limit, which depends on max_stack_depth, but too deep for a JSON reviver.
	l.exec(`INSERT INTO odd VALUES (1, '1', '2', '3', '[]', 12345678901234567890.10),
		(2, (repeat('[', 5000) || repeat(']', 5000))::jsonb, (repeat('{"a":', 4000) || '1' || repeat('}', 4000))::jsonb, '{"toString": 1}', '[{"toString": 1, "valueOf": 2}]', 7),
		(3, '{"toString": null}', '{"constructor": {"prototype": []}}', '{"__proto__": 1}', (repeat('[', 5000) || repeat(']', 5000))::jsonb, 0.10)`)
	l.waitReady()
	p := openTab(t, desktop, l.url())
	p.waitFor(`document.querySelectorAll("#votes li").length === 3`)
	if text := p.text("#votes"); !strings.Contains(text, "12345678901234567890.10") || !strings.Contains(text, "0.10") {
		t.Errorf("the list reads %s", text)
	}
	for _, key := range []string{"1", "2", "3"} {
		p.click(fmt.Sprintf(`#votes li[data-key="%s"] a`, key))
		p.waitFor(fmt.Sprintf(`document.querySelector("#vote").open && document.querySelector("#vote-title").innerText === "id %s"`, key))
		if text := strings.ToLower(p.text("#vote-body")); !strings.Contains(text, "constructor") || !strings.Contains(text, "tostring") {
			t.Errorf("vote %s reads %s", key, text)
		}
		p.press(kb.Escape)
		p.waitFor(`!document.querySelector("#vote").open`)
	}
	// While the page shows the earlier votes, another vote arrives. The page must show this vote, too.
	l.exec(`INSERT INTO odd VALUES (4, '{}', '{}', '{}', (repeat('[', 5000) || repeat(']', 5000))::jsonb, 1)`)
	p.waitFor(`document.querySelectorAll("#votes li").length === 4`)
	p.check(l.host)
}

// TestPageBelowAPath checks that the page works if a proxy serves it below a path.
func TestPageBelowAPath(t *testing.T) {
	if testing.Short() {
		t.Skip("drives Chromium for seconds")
	}
	t.Parallel()
	l := runLive(t, pgserver.Database(t), createVotes, "votes", func(c *Config) { c.TokenFile = writeToken(t) })
	l.insertVotes(60)
	l.waitReady()
	target, err := url.Parse(l.url())
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target); r.SetXForwarded() }}
	front := httptest.NewServer(http.StripPrefix("/tools/capture", proxy))
	defer front.Close()
	defer front.CloseClientConnections() // otherwise Close waits for the page's stream of events
	p := openTab(t, desktop, front.URL+"/tools/capture/")
	p.waitFor(`document.querySelector("#token").open`)
	p.click("#token-input")
	p.write("abc")
	p.press(kb.Enter)
	p.waitFor(`document.querySelectorAll("#votes li").length === 50 && document.querySelector("#state").innerText === "Following"`)
	// The click is repeated, because the page ignores a click while the list loads.
	p.waitFor(`document.querySelector("#more").click() || document.querySelectorAll("#votes li").length === 60`)
	p.click("#votes li:first-child a")
	p.waitFor(`document.querySelector("#vote").open`)
	if href := p.eval(`document.querySelector("#get-csv").href`); href != front.URL+"/tools/capture/api/votes.csv" {
		t.Errorf("the CSV is at %v", href)
	}
	l.exec(`INSERT INTO votes (comment) VALUES ('below a path')`)
	p.waitFor(`document.querySelector("#votes").innerText.includes("below a path")`)
	p.check(strings.TrimPrefix(front.URL, "http://"), "401")
}

// TestColorsAreFarEnoughApart checks that the contrast is at least 3 to 1 (WCAG 2.1, 1.4.11) between the bars for positive
// and negative votes, between each bar and its card, and between the borders of inputs and their background.
func TestColorsAreFarEnoughApart(t *testing.T) {
	style, err := staticFiles.ReadFile("static/style.css")
	if err != nil {
		t.Fatal(err)
	}
	themes := regexp.MustCompile(`:root \{([^}]*)\}`).FindAllSubmatch(style, -1)
	if len(themes) != 2 {
		t.Fatalf("%d themes", len(themes))
	}
	for _, theme := range themes {
		light := map[string]float64{}
		for _, m := range regexp.MustCompile(`--([a-z-]+): #([0-9a-f]{6});`).FindAllSubmatch(theme[1], -1) {
			light[string(m[1])] = luminance(t, string(m[2]))
		}
		for _, pair := range [][2]string{{"good-bar", "bad-bar"}, {"good-bar", "card"}, {"bad-bar", "card"}, {"none-bar", "card"}, {"edge", "card"}, {"edge", "ground"}} {
			a, b := light[pair[0]], light[pair[1]]
			if contrast := (max(a, b) + .05) / (min(a, b) + .05); contrast < 3 {
				t.Errorf("%s against %s: %.2f:1", pair[0], pair[1], contrast)
			}
		}
	}
}

// luminance returns the relative luminance of a color, as WCAG 2.1 defines it.
func luminance(t *testing.T, color string) float64 {
	n, err := strconv.ParseUint(color, 16, 32)
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for i, weight := range []float64{.0722, .7152, .2126} {
		v := float64(n>>(8*i)&0xff) / 255
		if v <= .03928 {
			v /= 12.92
		} else {
			v = math.Pow((v+.055)/1.055, 2.4)
		}
		sum += weight * v
	}
	return sum
}
