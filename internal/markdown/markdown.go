// Package markdown parses Markdown, as chat models write it, into a tree of elements. The feedback page builds its own
// elements from this tree. No HTML is generated at any point: HTML in the text stays text, and an image becomes a link.
//
// The texts come from users and models. For some texts, the time that goldmark needs grows faster than their length: it
// needs minutes for nested quotes, nested lists and wide tables. So [Parser.Parse] does not parse a text that exceeds
// certain limits, and returns [ErrTooComplex]. The page then shows the text as it is.
package markdown

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/parser"
	"github.com/yuin/goldmark/text"
	"github.com/yuin/goldmark/util"
	"golang.org/x/sync/semaphore"

	"capture/internal/guard"
)

// Node is a text, or an element with its children.
type Node struct {
	Text     string `json:"text,omitempty"`
	Tag      string `json:"tag,omitempty"`   // name of an HTML element; "" for a text
	Href     string `json:"href,omitempty"`  // address of an "a", not checked: it may have any scheme or none
	Start    int    `json:"start,omitempty"` // first number of an "ol", if it is not 1
	Children []Node `json:"children,omitempty"`
}

// ErrTooComplex is returned for a text that is not parsed because parsing could take too long.
var ErrTooComplex = errors.New("text too long or nested too deeply to be parsed as Markdown")

// parseTimeout is the maximum time that a request waits for its turn and for the parser. To parse a text within the limits
// takes some tens of milliseconds.
const parseTimeout = 2 * time.Second

// Parser parses one text at a time, so that hostile texts occupy at most one processor.
type Parser struct {
	log     hclog.Logger
	turn    *semaphore.Weighted
	timeout time.Duration  // parseTimeout, or a longer time in tests with the race detector
	work    sync.WaitGroup // goroutines that parse a text; they may outlive the request
}

// NewParser returns a Parser. The caller calls Wait when nobody uses the Parser any more.
func NewParser(log hclog.Logger) *Parser {
	return &Parser{log: log, turn: semaphore.NewWeighted(1), timeout: parseTimeout}
}

// Wait waits until no text is being parsed. Parsing may take longer than the request that asked for it.
func (p *Parser) Wait() { p.work.Wait() }

// Parse returns the elements of a text. It returns ErrTooComplex for a text that it does not parse, and the context's error if
// ctx ends or parseTimeout passes before the text is parsed.
func (p *Parser) Parse(ctx context.Context, source string) ([]Node, error) {
	source = strings.ReplaceAll(source, "\r\n", "\n")
	if !isSimple(source) {
		return nil, ErrTooComplex
	}
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	if err := p.turn.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	type result struct {
		nodes []Node
		err   error
	}
	parsed := make(chan result, 1)
	p.work.Go(func() {
		defer p.turn.Release(1)
		var r result
		r.err = guard.Run(p.log, "parse Markdown", func() error {
			r.nodes = parse(source)
			return nil
		})
		parsed <- r
	})
	select {
	case r := <-parsed:
		return r.nodes, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// dialect is CommonMark with tables, strikethrough and bare addresses. The parsers of HTML are left out, so tags are text.
// The parser of link reference definitions is left out, too, because a definition would vanish from the text.
var dialect = goldmark.New(goldmark.WithParser(parser.NewParser(
	parser.WithBlockParsers(
		util.Prioritized(parser.NewSetextHeadingParser(), 100),
		util.Prioritized(parser.NewThematicBreakParser(), 200),
		util.Prioritized(parser.NewListParser(), 300),
		util.Prioritized(parser.NewListItemParser(), 400),
		util.Prioritized(parser.NewCodeBlockParser(), 500),
		util.Prioritized(parser.NewATXHeadingParser(), 600),
		util.Prioritized(parser.NewFencedCodeBlockParser(), 700),
		util.Prioritized(parser.NewBlockquoteParser(), 800),
		util.Prioritized(parser.NewParagraphParser(), 1000),
	),
	parser.WithInlineParsers(
		util.Prioritized(parser.NewCodeSpanParser(), 100),
		util.Prioritized(parser.NewLinkParser(), 200),
		util.Prioritized(parser.NewAutoLinkParser(), 300),
		util.Prioritized(parser.NewEmphasisParser(), 500),
	),
)), goldmark.WithExtensions(extension.Table, extension.Strikethrough, extension.Linkify)).Parser()

func parse(source string) []Node {
	b := builder{source: []byte(source)}
	return b.children(dialect.Parse(text.NewReader(b.source)), 0)
}
