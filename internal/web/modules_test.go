package web

import (
	"fmt"
	"strings"
	"testing"
)

// TestPageModules tests the pure functions of the page's modules. Each case is an expression and the expected value as JSON.
// In the expression, m is the module.
func TestPageModules(t *testing.T) {
	if testing.Short() {
		t.Skip("drives Chromium for seconds")
	}
	t.Parallel()
	h := newTableHarness(t, fiveVotes(t), nil)
	addr := h.serve(t)
	p := openTab(t, desktop, "http://"+addr+"/")
	for module, cases := range map[string][]struct{ expression, want string }{
		"listmodel.js": {
			{`m.firstPage([{key: "2"}], "2")`, `{"rows":[{"key":"2"}],"next":"2","extended":false}`},
			{`m.appendPage(m.firstPage([{key: "3"}, {key: "2"}], "2"), {rows: [{key: "2"}, {key: "1"}], next: null})`,
				`{"rows":[{"key":"3"},{"key":"2"},{"key":"1"}],"next":null,"extended":true}`},
			{`m.prependArrived(m.firstPage([{key: "1", row: "old"}], null), [{key: "2"}, {key: "1", row: "new"}])`,
				`{"rows":[{"key":"2"},{"key":"1","row":"new"}],"next":null,"extended":false}`},
			{`(() => { const list = m.prependArrived(m.firstPage(Array.from({length: 499}, (_, i) => ({key: i})), 498), [{key: "b"}, {key: "a"}]);
				return [list.rows.length, list.rows[0].key, list.next]; })()`, `[500,"b",497]`},
			{`m.prependArrived(m.appendPage(m.emptyList, {rows: Array.from({length: 500}, (_, i) => ({key: i})), next: 499}), [{key: "a"}]).rows.length`, `501`},
			{`(() => { const list = m.prependArrived(m.firstPage(Array.from({length: 500}, (_, i) => ({key: i, next: "t" + i})), "t499"), [{key: "b", next: "tb"}]);
				return [list.rows.length, list.next]; })()`, `[500,"t498"]`},
			{`m.prependArrived(m.firstPage([{key: "1"}], null), [{key: "9", next: "t9"}, {key: "8", next: "t8"}], true)`,
				`{"rows":[{"key":"9","next":"t9"},{"key":"8","next":"t8"}],"next":"t8","extended":false}`},
			{`m.neighborsOf(m.firstPage([{key: "3"}, {key: "2"}, {key: "1"}], null), "2")`, `{"newer":{"key":"3"},"older":{"key":"1"}}`},
			{`m.neighborsOf(m.firstPage([{key: "3"}], null), "3")`, `{}`},
			{`m.neighborsOf(m.emptyList, "3")`, `{}`},
		},
		"format.js": {
			{`[0, 0.05, 0.3, 1, 89, 90, 5400, 7200, 129600].map(m.formatDuration)`, `["none","none","300 ms","1 s","89 s","2 min","2 h","2 h","2 days"]`},
			{`[m.formatQuantity(0, "vote"), m.formatQuantity(1, "vote"), m.formatQuantity(1204, "vote")]`, `["0 votes","1 vote","1,204 votes"]`},
			{`["2026-01-02T03:04:05.67", "2026-01-02T03:04:05+00:00", "2026-01-02T03:04:05+02:00", "2026-01-02", "12026-01-02T03:04:05", "infinity", null, 7].map((v) => m.formatTimestamp(v))`,
				`["2026-01-02 03:04","2026-01-02 03:04 UTC","2026-01-02 03:04+02:00","2026-01-02","12026-01-02 03:04","infinity","","1970-01-01 00:00 UTC"]`},
			{`[1750179480, 1750179480123, 1750179480123456, 1e300].map((v) => m.formatTimestamp(v, true))`,
				`["2025-06-17 16:58:00.000 UTC","2025-06-17 16:58:00.123 UTC","2025-06-17 16:58:00.123 UTC",""]`},
			{`m.formatTimestamp("2026-01-02T03:04:05.67+00:00", true)`, `"2026-01-02 03:04:05.67 UTC"`},
			{`m.weeksOf(Array.from({length: 9}, (_, i) => ({day: "2026-01-0" + (i + 1), positive: i, negative: 1})))`,
				`[{"first":"2026-01-01","last":"2026-01-02","positive":1,"tagged":3},{"first":"2026-01-03","last":"2026-01-09","positive":35,"tagged":42}]`},
			{`m.weeksOf([])`, `[]`},
			{`[null, "a", ["a", ["b", null], 3]].map(m.tagsOf)`, `[[],["a"],["a","b","3"]]`},
			{`["Looks Good", "looks good - fast", "Looks", "Incorrect"].map(m.isPositive)`, `[true,true,false,false]`},
			{`["bot_response", "evaluation_json", "json", "ID"].map(m.titleOf)`, `["Bot response","Evaluation","json","ID"]`},
			{`m.excerpt("a\n b  c ", [])`, `"a b c"`},
			{`m.excerpt("x".repeat(50) + " needle " + "y".repeat(50), ["needle"], 20)`, `"` + strings.Repeat("x", 20) + ` …"`},
			{`m.excerpt("x".repeat(200) + " NEEDLE " + "y".repeat(50), ["missing", "needle"], 70)`, `"… ` + strings.Repeat("x", 59) + ` NEEDLE yyy …"`},
			{`m.withoutMarkdown("# Title\n> a **b** __c__ *d* 2*3\n` + "```go\\n`x`" + `")`, `"Title\na b c d 2*3\n\nx"`},
			{`m.matchesOf("Foo bar FOOBAR", ["foo", "foobar"])`, `[[0,3],[8,14]]`},
			{`m.matchesOf("aaa", ["aa", ""])`, `[[0,2]]`},
			{`m.matchesOf("İx", ["x"])`, `[]`},
			{`m.matchesOf("abc", [])`, `[]`},
		},
		"address.js": {
			{`m.parseFragment("#q=a+b&tag=T%26&vote=%281%2Cx%29&other=1")`, `{"filter":{"q":"a b","tag":"T&","question":"","from":"","to":""},"vote":"(1,x)"}`},
			{`m.fragmentOf(m.parseFragment("#q=a+b&tag=T%26").filter, "7")`, `"#q=a+b&tag=T%26&vote=7"`},
			{`m.fragmentOf(m.parseFragment("#question=0a&tag=T").filter, "")`, `"#tag=T&question=0a"`},
			{`m.fragmentOf(m.parseFragment("").filter, "")`, `"#"`},
			{`m.queryOf(m.parseFragment("#q=é&vote=7").filter, {limit: 50, after: "0"})`, `"?q=%C3%A9&limit=50&after=0"`},
			{`m.queryOf(m.parseFragment("").filter)`, `""`},
			{`["#token=a%2Bb", "#q=x&token=", ""].map(m.tokenOf)`, `["a+b","",""]`},
			{`m.wordsOf({q: "  a  b "})`, `["a","b"]`},
			{`[m.isFiltered({}), m.isFiltered({to: "2026-01-01"})]`, `[false,true]`},
		},
		"json.js": {
			{`String(m.parseJSON("[12345678901234567890, 1.10, 1e400, 7]"))`, `"12345678901234567890,1.10,1e400,7"`},
			{`m.parseJSON("[12345678901234567890, 7, {}, [], null]").map(m.isNested)`, `[false,false,true,true,false]`},
			// A deeply nested value changes no number in other rows, whether each row is on a line of its own or all rows
			// are on one line.
			{`["", "\n"].map((end) => { const rows = ['{"a":"]}\\"{[","n":[12345678901234567890]}', '{"deep":' + "[".repeat(20000) + "]".repeat(20000) + "}", '{"n":1.10}'];
				const answer = m.parseJSON('{"next":"\\"rows\\":[","rows":[' + end + rows.join("," + end) + end + '],"more":[]}');
				return [answer.rows[0].a, String(answer.rows[0].n), Array.isArray(answer.rows[1].deep[0]), String(answer.rows[2].n), answer.next, answer.more].join(" "); })`,
				`["]}\"{[ 12345678901234567890 true 1.10 \"rows\":[ ","]}\"{[ 12345678901234567890 true 1.10 \"rows\":[ "]`},
		},
		"api.js": {
			{`m.splitEvents("event: status\ndata: {}\n\ndata: 1\ndata: 2\n\nevent: vo")`,
				`{"events":[{"name":"status","data":"{}"},{"name":"message","data":"12"}],"rest":"event: vo"}`},
		},
		"citations.js": {
			{`m.citationList([])`, `null`},
			{`m.citationList({docs: ["a"]}).outerHTML`, `"<ol class=\"citation-list\"><li><span class=\"string\">a</span></li></ol>"`},
			{`m.citationList([{URL: "https://a.example/", "null": "x", page: 3}]).textContent`, `"https://a.example/null: x · page: 3"`},
			{`m.citationList([{title: "T", url: "https://a.example/"}]).querySelector("a").outerHTML`,
				`"<a href=\"https://a.example/\" target=\"_blank\" rel=\"noopener noreferrer\">T</a>"`},
			{`m.citationList([{title: "T", url: "javascript:alert(1)"}]).querySelector("li").innerHTML`, `"<span><span>T</span></span>"`},
		},
		"voterows.js": {
			// If the columns become known only after the votes, the list shows the votes again, with the text column.
			{`(() => { const list = document.createElement("ol"), rows = new m.VoteRows(list), votes = [{key: "1", row: {a: "text"}}];
				return [[], [{name: "a", role: "question"}]].map((columns) => { rows.show(votes, columns, {q: ""}); return list.textContent; }); })()`,
				`["#1no text","#1text"]`},
			{`(() => { const list = document.createElement("ol"), rows = new m.VoteRows(list), show = (...votes) => rows.show(votes, [], {q: ""});
				const one = {key: "1", row: {}}; show(one); const node = list.firstChild;
				show({key: "2", row: {}}, one); return [list.children.length, list.lastChild === node]; })()`, `[2,true]`},
		},
		"status.js": {
			{`m.summaryOf({status: {ready: true, state: "following"}, lastContact: null, unreachableSince: null, streamError: ""}, 0)`,
				`{"pill":{"text":"Following","kind":"good"},"banner":{"head":"","text":""}}`},
			{`m.summaryOf({status: {ready: true, state: "following", checks: [{name: "columns", ok: false, detail: "No column x."}]}, unreachableSince: null, streamError: ""}, 0).banner`,
				`{"head":"A column for this page is missing.","text":"No column x."}`},
			{`m.summaryOf({status: {ready: true, state: "following", checks: [{name: "columns", ok: false, detail: "No column x."},
				{name: "loss", ok: false, detail: "To bring rows back: capture restore x – or, if it was meant: capture history --ack"}]}, unreachableSince: null, streamError: ""}, 0)`,
				`{"pill":{"text":"Following","kind":"good"},"banner":{"head":"The table has lost rows or values.","text":"To bring rows back: capture restore x – or, if it was meant: capture history --ack"}}`},
			{`m.summaryOf({status: {ready: false, state: "following", checks: [{ok: false, detail: "Disk full."}, {ok: true, detail: "x"}]}, unreachableSince: null}, 0)`,
				`{"pill":{"text":"Following, with problems","kind":"warn"},"banner":{"head":"capture reports a problem.","text":"Disk full."}}`},
			{`m.summaryOf({status: {ready: false, state: "waiting", file: {}, error: "refused"}, lastContact: null, unreachableSince: null}, 0)`,
				`{"pill":{"text":"Not following","kind":"bad"},"banner":{"head":"No votes to show yet.","text":"refused"}}`},
			{`m.summaryOf({status: {ready: false, state: "waiting", file: {}}, lastContact: "2026-01-01T00:00:00Z", unreachableSince: null}, Date.parse("2026-01-01T00:10:00Z")).banner.head.split("(")[0]`,
				`"Not live: showing votes as of the last contact with the database, 10 min ago "`},
			{`m.summaryOf({status: null, unreachableSince: null}, 0)`, `{}`},
			{`m.summaryOf({status: null, unreachableSince: 0}, 0).pill`, `{"text":"No answer","kind":"bad"}`},
		},
	} {
		for _, c := range cases {
			got := p.eval(fmt.Sprintf(`import("/static/%s").then((m) => JSON.stringify(%s))`, module, c.expression))
			if got != c.want {
				t.Errorf("%s: %s\n got %v\nwant %s", module, c.expression, got, c.want)
			}
		}
	}
	p.check(addr)
}
