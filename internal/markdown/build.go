package markdown

import (
	"strings"

	"github.com/yuin/goldmark/ast"
	extast "github.com/yuin/goldmark/extension/ast"
	"github.com/yuin/goldmark/util"
)

// maxElements is the maximum nesting depth of elements such as lists, paragraphs and emphasis. A deeper element is left out,
// and only its content is kept. Links, code, horizontal rules and the rows of tables are exceptions: they stay elements at
// any depth.
const maxElements = 64

// builder makes Nodes from goldmark's tree.
type builder struct {
	source []byte
}

// children returns the Nodes of n's children.
func (b *builder) children(n ast.Node, depth int) []Node {
	var nodes []Node
	for child := n.FirstChild(); child != nil; child = child.NextSibling() {
		for _, node := range b.build(child, depth) {
			// goldmark splits a text at each special character. Join the pieces.
			if last := len(nodes) - 1; node.Tag == "" && last >= 0 && nodes[last].Tag == "" {
				nodes[last].Text += node.Text
			} else {
				nodes = append(nodes, node)
			}
		}
	}
	return nodes
}

// build returns the Nodes of n.
func (b *builder) build(n ast.Node, depth int) []Node {
	element := func(tag string) []Node {
		if depth >= maxElements {
			return b.children(n, depth)
		}
		return []Node{{Tag: tag, Children: b.children(n, depth+1)}}
	}
	switch n := n.(type) {
	case *ast.Text:
		return b.text(n)
	case *ast.String:
		return []Node{{Text: string(n.Value)}}
	case *ast.TextBlock:
		return b.children(n, depth) // the text of a short list item, without a paragraph around it
	case *ast.Heading:
		// The title of the dialog that shows the answer is an h2. So the answer's headings begin at h3.
		return element([]string{"h3", "h4", "h5", "h6", "h6", "h6"}[n.Level-1])
	case *ast.ThematicBreak:
		return []Node{{Tag: "hr"}}
	case *ast.CodeBlock, *ast.FencedCodeBlock:
		return []Node{{Tag: "pre", Children: []Node{{Tag: "code", Children: texts(b.lines(n))}}}}
	case *ast.Blockquote:
		return element("blockquote")
	case *ast.List:
		if !n.IsOrdered() {
			return element("ul")
		}
		nodes := element("ol")
		if len(nodes) == 1 && nodes[0].Tag == "ol" && n.Start != 1 {
			nodes[0].Start = n.Start
		}
		return nodes
	case *ast.ListItem:
		return element("li")
	case *ast.Emphasis:
		return element([]string{"em", "strong"}[n.Level-1])
	case *ast.CodeSpan:
		return []Node{{Tag: "code", Children: texts(strings.ReplaceAll(b.plain(n), "\n", " "))}}
	case *ast.Link:
		return []Node{{Tag: "a", Href: unescape(n.Destination), Children: b.children(n, depth+1)}}
	case *ast.Image:
		// An image becomes a link. Otherwise, a vote could make the browser fetch an address.
		label := b.plain(n)
		if label == "" {
			label = unescape(n.Destination)
		}
		return []Node{{Tag: "a", Href: unescape(n.Destination), Children: texts("image: " + label)}}
	case *ast.AutoLink:
		return b.autoLink(n)
	case *extast.Strikethrough:
		return element("del")
	case *extast.Table:
		return element("table")
	case *extast.TableHeader:
		return []Node{{Tag: "thead", Children: []Node{{Tag: "tr", Children: b.cells(n, "th", depth)}}}}
	case *extast.TableRow:
		return []Node{{Tag: "tr", Children: b.cells(n, "td", depth)}}
	default:
		return element("p")
	}
}

func (b *builder) cells(row ast.Node, tag string, depth int) []Node {
	var cells []Node
	for cell := row.FirstChild(); cell != nil; cell = cell.NextSibling() {
		cells = append(cells, Node{Tag: tag, Children: b.children(cell, depth+1)})
	}
	return cells
}

func (b *builder) text(n *ast.Text) []Node {
	value := n.Segment.Value(b.source)
	text := string(value)
	if !n.IsRaw() {
		text = unescape(value)
	}
	switch {
	case n.HardLineBreak():
		return []Node{{Text: text}, {Tag: "br"}}
	case n.SoftLineBreak():
		text += "\n"
	}
	return texts(text)
}

func (b *builder) autoLink(n *ast.AutoLink) []Node {
	label := string(n.Label(b.source))
	href := string(n.URL(b.source))
	if n.AutoLinkType == ast.AutoLinkEmail && !strings.HasPrefix(strings.ToLower(href), "mailto:") {
		href = "mailto:" + href
	}
	return []Node{{Tag: "a", Href: href, Children: texts(label)}}
}

// lines returns the text of a code block.
func (b *builder) lines(n ast.Node) string {
	var text strings.Builder
	for i := range n.Lines().Len() {
		segment := n.Lines().At(i)
		text.Write(segment.Value(b.source))
	}
	return strings.TrimRight(text.String(), "\n")
}

// plain returns the text of n's descendants, without elements.
func (b *builder) plain(n ast.Node) string {
	var text strings.Builder
	_ = ast.Walk(n, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if t, ok := n.(*ast.Text); ok && entering {
			text.Write(t.Segment.Value(b.source))
			if t.SoftLineBreak() {
				text.WriteByte('\n')
			}
		}
		return ast.WalkContinue, nil
	})
	return text.String()
}

// texts returns a text as one Node, or no Node if the text is empty.
func texts(text string) []Node {
	if text == "" {
		return nil
	}
	return []Node{{Text: text}}
}

// unescape resolves the character references and backslash escapes of a text.
func unescape(value []byte) string {
	return string(util.UnescapePunctuations(util.ResolveEntityNames(util.ResolveNumericReferences(value))))
}
