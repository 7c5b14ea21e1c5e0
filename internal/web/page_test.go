package web

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp/kb"

	"capture/internal/pgserver"
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
	p.waitFor(`document.querySelectorAll("#days button").length === 90 && document.querySelectorAll("#tags button").length > 3`)
	if got := p.text("#fact-rows"); got != "400" {
		t.Errorf("rows: %q", got)
	}

	// A vote appears by itself, and its texts stay texts.
	evil := `<img src=x onerror="document.title='taken'"><script>document.title='taken'</script>`
	l.exec(`INSERT INTO votes (user_query, bot_response, feedback_tags, comment, citations) VALUES ($1, $2, '{Incorrect,<b>bold</b>}', $3, $4)`,
		"Is xyzzy "+evil, evil+"\n\n![p](http://evil.example/p.png) [l](javascript:alert(1)) **bold**", evil,
		`[{"title": "<i>x</i>", "url": "javascript:alert(1)"}, {"title": "good", "url": "https://good.example/"}]`)
	p.waitFor(`document.querySelector("#votes li .main-line")?.innerText.startsWith("Is xyzzy <img src=x")`)
	p.waitFor(`document.querySelector("#fact-rows").innerText === "401"`)
	p.screenshot("desktop-light")
	p.click("#votes li:first-child a")
	p.waitFor(`document.querySelector("#vote").open`)
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

	// Search, by what the page has no other row of.
	p.click("#q")
	p.write("XYZZY")
	p.waitFor(`document.querySelectorAll("#votes li").length === 1`)
	if got := p.text("mark"); got != "xyzzy" {
		t.Errorf("marked: %q", got)
	}
	if p.eval(`document.querySelector("#get-csv").getAttribute("href")`) != "/api/votes.csv?q=XYZZY" {
		t.Error("the download does not follow the filter")
	}
	l.exec(`INSERT INTO votes (user_query) VALUES ('another xyzzy')`)
	p.waitFor(`!document.querySelector("#new-votes").hidden`)
	p.click("#new-votes")
	p.waitFor(`document.querySelectorAll("#votes li").length === 2`)
	p.click("#clear")
	p.waitFor(`document.querySelectorAll("#votes li").length === 50`)

	// A tag and a day.
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

	// Pages, an edit, a delete.
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
	for name, screen := range map[string]viewport{"desktop-light": desktop, "desktop-dark": desktop.darkMode(), "phone-light": phone, "phone-dark": phone.darkMode()} {
		p := openTab(t, screen, l.url())
		p.waitFor(`document.querySelectorAll("#votes li").length === 50 && document.querySelectorAll("#days button").length === 90`)
		p.waitFor(`document.querySelector("#state").innerText === "Following"`)
		fits := fmt.Sprintf("document.documentElement.scrollWidth <= %d", screen.width)
		if p.eval(fits) != true {
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
	// All of it still works.
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

// A table that has nothing of the votes' is shown by what it has.
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
	p.reload() // the key comes back out of the address
	p.waitFor(`document.querySelector("#vote").open && document.querySelector("#vote-body").innerText.includes("9007199254740993")`)
	p.check(l.host)
}

func TestMarkdown(t *testing.T) {
	t.Parallel()
	h := newTableHarness(t, fiveVotes(t), nil)
	addr := h.serve(t)
	p := openTab(t, desktop, "http://"+addr+"/")
	p.waitFor(`document.querySelectorAll("#votes li").length === 5`)
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
