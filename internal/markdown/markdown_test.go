package markdown

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"capture/internal/busy"
)

// outline returns nodes as simplified HTML, which the tests compare. It writes only two attributes: the address of a link
// and the first number of a list.
func outline(nodes []Node) string {
	var text strings.Builder
	for _, n := range nodes {
		switch {
		case n.Tag == "":
			text.WriteString(n.Text)
		case n.Href != "":
			fmt.Fprintf(&text, "<a %s>%s</a>", n.Href, outline(n.Children))
		case n.Start != 0:
			fmt.Fprintf(&text, "<%s %d>%s</%s>", n.Tag, n.Start, outline(n.Children), n.Tag)
		default:
			fmt.Fprintf(&text, "<%s>%s</%s>", n.Tag, outline(n.Children), n.Tag)
		}
	}
	return text.String()
}

func TestParse(t *testing.T) {
	p := NewParser(hclog.NewNullLogger())
	defer p.Wait()
	for _, c := range []struct{ text, want string }{
		{"", ""},
		{"plain", "<p>plain</p>"},
		{"a\r\nb\n\nc", "<p>a\nb</p><p>c</p>"},
		{"a  \nb\\\nc", "<p>a<br></br>b<br></br>c</p>"},
		{"# One\n## Two ##\n####### no", "<h3>One</h3><h4>Two</h4><p>####### no</p>"},
		{"#### Four\n###### Six", "<h6>Four</h6><h6>Six</h6>"},
		{"Title\n===\nSub\n---\nx", "<h3>Title</h3><h4>Sub</h4><p>x</p>"},
		{"**b** *i* ***bi*** __b__ _i_ ~~s~~ `c`", "<p><strong>b</strong> <em>i</em> <em><strong>bi</strong></em> <strong>b</strong> <em>i</em> <del>s</del> <code>c</code></p>"},
		{"snake_case_name 2 * 3 * 4 **", "<p>snake_case_name 2 * 3 * 4 **</p>"},
		{`\*not\* \x &lt;&#65;`, `<p>*not* \x <A</p>`},
		{"`` a ` b `` `open", "<p><code>a ` b</code> `open</p>"},
		{"- a\n- b\n  - c\n- d", "<ul><li>a</li><li>b<ul><li>c</li></ul></li><li>d</li></ul>"},
		{"3. a\n4. b", `<ol 3><li>a</li><li>b</li></ol>`},
		{"1. a\n\n   more\n2. b", "<ol><li><p>a</p><p>more</p></li><li><p>b</p></li></ol>"},
		{"> q\n> > r", "<blockquote><p>q</p><blockquote><p>r</p></blockquote></blockquote>"},
		{"```go\nx := `a` <b>\n\n```\nafter", "<pre><code>x := `a` <b></code></pre><p>after</p>"},
		{"```\nopen", "<pre><code>open</code></pre>"},
		{"    indented\n\n***\na", "<pre><code>indented</code></pre><hr></hr><p>a</p>"},
		{"|a|b|\n|-|:-:|\n|1|`x`|\n|2|", `<table><thead><tr><th>a</th><th>b</th></tr></thead><tr><td>1</td><td><code>x</code></td></tr><tr><td>2</td><td></td></tr></table>`},
		{"[t](https://a.example/x_(y) \"title\")", `<p><a https://a.example/x_(y)>t</a></p>`},
		{"see https://a.example/b_c_d.", `<p>see <a https://a.example/b_c_d>https://a.example/b_c_d</a>.</p>`},
		{"<https://a.example/> <a@b.example>", `<p><a https://a.example/>https://a.example/</a> <a mailto:a@b.example>a@b.example</a></p>`},
		{"<script>alert(1)</script>\n\n<b onclick=x>t</b> <!-- c -->", "<p><script>alert(1)</script></p><p><b onclick=x>t</b> <!-- c --></p>"},
		{"![i *x*](https://a.example/i.png) ![](https://a.example/j.png)", `<p><a https://a.example/i.png>image: i x</a> <a https://a.example/j.png>image: https://a.example/j.png</a></p>`},
		// Usual Markdown hides a link reference definition such as [1]: /x. Parse keeps it as text, so that no part of a
		// vote disappears.
		{"[1] [doc2] [\n\n[1]: /x", "<p>[1] [doc2] [</p><p>[1]: /x</p>"},
	} {
		nodes, err := p.Parse(t.Context(), c.text)
		if got := outline(nodes); got != c.want || err != nil {
			t.Errorf("%q: error %v\n got %s\nwant %s", c.text, err, got, c.want)
		}
	}
}

// TestParseKeepsAddresses checks that Parse keeps every address as it is, even a javascript: address. Only the web page
// decides which addresses become links.
func TestParseKeepsAddresses(t *testing.T) {
	p := NewParser(hclog.NewNullLogger())
	defer p.Wait()
	nodes, err := p.Parse(t.Context(), "[x](javascript:alert(1)) [y](data:text/html,x)")
	if got := outline(nodes); err != nil || got != "<p><a javascript:alert(1)>x</a> <a data:text/html,x>y</a></p>" {
		t.Errorf("%s, error %v", got, err)
	}
}

func TestComplexTextIsRefused(t *testing.T) {
	p := NewParser(hclog.NewNullLogger())
	defer p.Wait()
	p.timeout = busy.Limit(30 * time.Second)
	var nested strings.Builder // 40 lines, each a list item one level deeper than the line before
	for i := range 40 {
		fmt.Fprintf(&nested, "%s- a\n", strings.Repeat("  ", i))
	}
	for name, text := range map[string]string{
		"long":                 strings.Repeat("a", maxBytes+1),
		"quotes":               strings.Repeat(">", 17) + " a",
		"quotes with spaces":   strings.Repeat("> ", 17) + "a",
		"lists on a line":      strings.Repeat("- ", 17) + "a",
		"numbers on a line":    strings.Repeat("1. ", 17) + "a",
		"lists below others":   nested.String(),
		"quotes, then lists":   strings.Repeat("> - ", 9) + "a",
		"table of many cells":  strings.Repeat("|a", 200) + "\n" + strings.Repeat("|-", 200) + "\n" + strings.Repeat("a\n", 200),
		"quotes after 30 kB":   strings.Repeat("a\n", 15<<10) + strings.Repeat("> ", 17),
		"open brackets":        strings.Repeat("[a](", 3000),
		"tabs between markers": strings.Repeat("-\t", 17) + "a",
	} {
		if nodes, err := p.Parse(t.Context(), text); !errors.Is(err, ErrTooComplex) || nodes != nil {
			t.Errorf("%s: %d nodes, error %v", name, len(nodes), err)
		}
	}
	for name, text := range map[string]string{
		"quotes":      strings.Repeat("> ", 16) + "a",
		"long list":   strings.Repeat("- a\n  - b\n    - c\n", 1000),
		"rule":        strings.Repeat("-", 100),
		"large table": strings.Repeat("|a|b|c|d|e|\n", 20) + strings.Repeat("|-", 5) + "|\n" + strings.Repeat("|1|2|3|4|5|\n", 1000),
		"code":        "```\n" + strings.Repeat("\tif a > b || c {\n", 500) + "```\n",
	} {
		if _, err := p.Parse(t.Context(), text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestHostileTextsAreParsedInTime checks that a hostile text cannot occupy the server for long: Parse either parses it
// before the timeout or returns ErrTooComplex.
func TestHostileTextsAreParsedInTime(t *testing.T) {
	p := NewParser(hclog.NewNullLogger())
	defer p.Wait()
	p.timeout = busy.Limit(30 * time.Second) // long, because the race detector makes the parser ten times slower; without Parse's limits, some texts take minutes
	units := []string{"*a ", "**a", "[", "![", "[a](", "`", "`a``", "_a", "> ", "- ", "  - ", "1. ", "|", "~~", "<http://", "\\", "***", "**a **",
		"* ", "\n\n- a\n", "[](", "(((", "http://", "https://a)", "www.a.", "a@b.", "&#", "&amp", "<a", "`` ` ", "a**b", "_*~", "]]", "[a][", "|-|\n", "\t- a\n",
		"> a\n", "- a\n\n", "a|b\n", "#", "=\n", "-\n", "1) a\n\n\n", "![a](b)", "[![", "**[a](b)**", "\\\n", "~~~\n", "<!--", "<?", "(https://a"}
	texts := []string{}
	for _, unit := range units {
		texts = append(texts, strings.Repeat(unit, maxBytes/len(unit)))
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 10 {
		var text strings.Builder
		for i, n := 0, 1+random.IntN(4); text.Len() < maxBytes-200; i++ {
			text.WriteString(strings.Repeat(units[random.IntN(len(units))], 1+random.IntN(1<<random.IntN(8))))
			if i%n == 0 {
				text.WriteByte('\n')
			}
		}
		texts = append(texts, text.String()[:min(text.Len(), maxBytes)])
	}
	longest, slowest := time.Duration(0), ""
	for _, text := range texts {
		start := time.Now()
		nodes, err := p.Parse(t.Context(), text)
		if err != nil && !errors.Is(err, ErrTooComplex) {
			t.Errorf("%.20q…: %v", text, err)
		}
		if _, err := json.Marshal(nodes); err != nil {
			t.Errorf("%.20q…: %v", text, err)
		}
		if took := time.Since(start); took > longest {
			longest, slowest = took, fmt.Sprintf("%.20q", text)
		}
	}
	t.Logf("the slowest of %d texts, %s…, took %v", len(texts), slowest, longest)
}

// TestParseEndsWithItsContext checks that Parse does not wait for its turn if its context has already ended.
func TestParseEndsWithItsContext(t *testing.T) {
	p := NewParser(hclog.NewNullLogger())
	defer p.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.turn.Acquire(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Parse(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	p.turn.Release(1)
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{"# a\n- b\n  1. c\n> d", "|a|\n|-|\n|b", "*a **b* c**", "[a](b)![c](d)<e:f>", "```\na"} {
		f.Add(text)
	}
	p := NewParser(hclog.NewNullLogger())
	f.Fuzz(func(t *testing.T, text string) {
		nodes, err := p.Parse(t.Context(), text)
		if err != nil {
			if !errors.Is(err, ErrTooComplex) {
				t.Fatal(err)
			}
			return
		}
		if _, err := json.Marshal(nodes); err != nil {
			t.Fatal(err)
		}
	})
}
