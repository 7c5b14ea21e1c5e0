package web

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math/bits"
	"math/rand/v2"
	"slices"
	"unicode"
	"unicode/utf8"
)

const (
	summaryQuestions = 30

	maxComparedBytes = 4000 // maximum length of the part of a question's JSON that is compared with other questions, in bytes
	maxQuestionBytes = 300  // maximum length of a question's text in /api/summary, in bytes

	maxQuestionGroups  = 50_000  // maximum number of questions that the second pass counts
	maxQuestionBuckets = 1 << 22 // maximum number of buckets in the first pass, of 4 bytes each
	maxFullBuckets     = 10_000  // number of buckets whose questions the second pass counts; there are more if buckets have equal counts
)

// questionID identifies a question. Questions that appendComparedText makes equal have the same ID. An ID is half of a SHA-256
// and does not change, so links that contain an ID remain valid. The zero value identifies no question.
type questionID [sha256.Size / 2]byte

func (id questionID) String() string { return hex.EncodeToString(id[:]) }

func parseQuestionID(text string) (id questionID, ok bool) {
	if len(text) != hex.EncodedLen(len(id)) {
		return id, false
	}
	_, err := hex.Decode(id[:], []byte(text))
	return id, err == nil && id != (questionID{})
}

// questionOf returns the ID of a row's question, and the question's text as JSON. The text may be cut off after
// maxComparedBytes. questionOf returns false if the row has no question.
func (c *columnRoles) questionOf(line []byte) (id questionID, text []byte, ok bool) {
	if c.question < 0 {
		return id, nil, false
	}
	text = c.value(line, c.question)
	if len(text) <= len(`""`) || text[0] != '"' {
		return id, nil, false
	}
	text = cutJSONString(text, maxComparedBytes)
	var buf [512]byte
	compared := appendComparedText(buf[:0], unquoteJSON(text))
	if len(compared) == 0 {
		return id, nil, false
	}
	sum := sha256.Sum256(compared)
	return questionID(sum[:len(id)]), text, true
}

// cutJSONString returns a JSON string, or as much of it as fits into limit bytes. The result is a JSON string, too.
func cutJSONString(text []byte, limit int) []byte {
	if len(text) <= limit {
		return text
	}
	end := 1
	for end < limit-1 {
		size := 1
		switch {
		case text[end] == '\\' && text[end+1] == 'u':
			size = len(`\u0000`)
		case text[end] == '\\':
			size = 2
		case text[end] >= utf8.RuneSelf:
			_, size = utf8.DecodeRune(text[end:])
		}
		if end+size > limit-1 {
			break
		}
		end += size
	}
	return append(bytes.Clone(text[:end]), '"')
}

// appendComparedText appends the part of a question that is compared: in lower case, with single spaces, and without invisible
// characters and trailing punctuation. If a question consists only of punctuation, the punctuation is kept.
func appendComparedText(dst, text []byte) []byte {
	start, end := len(dst), len(dst) // end is the end of the last character that is not punctuation
	space := false
	for len(text) > 0 {
		c, size := rune(text[0]), 1
		if c >= utf8.RuneSelf {
			c, size = utf8.DecodeRune(text)
		}
		text = text[size:]
		switch {
		case unicode.IsSpace(c):
			space = true
			continue
		case c >= utf8.RuneSelf && unicode.Is(unicode.Cf, c): // such as a zero-width space, or a mark for right-to-left text
			continue
		}
		if space && len(dst) > start {
			dst = append(dst, ' ')
		}
		space = false
		dst = utf8.AppendRune(dst, unicode.ToLower(c))
		if !unicode.IsPunct(c) {
			end = len(dst)
		}
	}
	if end == start {
		return dst
	}
	return dst[:end]
}

// questionGroups finds the questions with the most negative votes in two passes over the rows. A table may have millions of
// different questions of any length, so the number of questions that are counted is bounded, and so is the text of each.
//
// The first pass counts the negative votes in buckets. Many questions may share a bucket, so a question has at most as many
// negative votes as its bucket. The second pass counts the votes of each question in the fullest buckets. A question in any
// other bucket has fewer negative votes than each of the fullest buckets.
type questionGroups struct {
	buckets []uint32
	shift   int    // the bits of a question's hash above the lowest shift bits are the index of its bucket
	factor  uint64 // random factor of the hash, so that nobody can fill a bucket on purpose

	threshold uint32 // the second pass counts the questions of the buckets with at least this number of negative votes
	complete  bool   // whether every question with a negative vote is counted
	groups    map[questionID]*questionGroup
}

// questionGroup counts the votes for one question.
type questionGroup struct {
	text     string // text of the question in the first negative vote
	negative int
	positive int
	lastDay  int // index of the day of the last negative vote
}

// newQuestionGroups returns groups for a table of the given number of rows.
func newQuestionGroups(rows int) questionGroups {
	n := min(bits.Len(uint(rows))+1, bits.Len(maxQuestionBuckets)-1)
	return questionGroups{buckets: make([]uint32, 1<<n), shift: 64 - n, factor: rand.Uint64() | 1}
}

func (g *questionGroups) bucket(id questionID) *uint32 {
	return &g.buckets[binary.LittleEndian.Uint64(id[:])*g.factor>>g.shift]
}

// prepare counts a negative vote in the first pass.
func (g *questionGroups) prepare(id questionID) { *g.bucket(id)++ }

// selectCandidates ends the first pass. It returns false if there is no negative vote.
func (g *questionGroups) selectCandidates() bool {
	var counts []uint32
	for _, n := range g.buckets {
		if n > 0 {
			counts = append(counts, n)
		}
	}
	g.threshold, g.complete = 1, true
	if len(counts) > maxFullBuckets {
		slices.Sort(counts)
		g.threshold = counts[len(counts)-maxFullBuckets]
		g.complete = g.threshold == 1
	}
	g.groups = map[questionID]*questionGroup{}
	return len(counts) > 0
}

func (g *questionGroups) isCandidate(id questionID) bool { return *g.bucket(id) >= g.threshold }

// add counts a vote in the second pass. question is JSON. dayIndex is the index of the vote's day.
func (g *questionGroups) add(id questionID, question []byte, positive bool, dayIndex int) {
	group := g.groups[id]
	if group == nil {
		limit := maxQuestionGroups
		if *g.bucket(id) == g.threshold {
			limit /= 2 // very many buckets may be exactly at the threshold, so their questions get only half of the room
		}
		if len(g.groups) >= limit {
			g.complete = false
			return
		}
		group = &questionGroup{}
		g.groups[id] = group
	}
	if positive {
		group.positive++
		return
	}
	if group.negative++; group.negative == 1 {
		const ellipsis = " …"
		if len(question) <= maxQuestionBytes {
			group.text = string(unquoteJSON(question))
		} else {
			group.text = string(unquoteJSON(cutJSONString(question, maxQuestionBytes-len(ellipsis)))) + ellipsis
		}
	}
	group.lastDay = max(group.lastDay, dayIndex)
}

// questionCount counts the votes for one question, in the form of /api/summary.
type questionCount struct {
	ID       string `json:"id"`
	Text     string `json:"text"` // text of the question, shortened to at most maxQuestionBytes bytes
	Negative int    `json:"negative"`
	Positive int    `json:"positive"`
	Last     string `json:"last,omitempty"` // day of the last negative vote; empty if the table has no times

	lastDay int // index of the day of the last negative vote
}

// worst returns the questions with the most negative votes, the worst first.
func (g *questionGroups) worst() []questionCount {
	// If not all questions were counted, chance decides which of the questions with few negative votes were counted. The list
	// therefore leaves out questions with a single negative vote, of which there may be millions. All other counted questions
	// stay in the list, although some uncounted questions may have as many negative votes.
	minimum := 1
	if !g.complete {
		minimum = 2
	}
	ids := make([]questionID, 0, len(g.groups))
	for id, group := range g.groups {
		if group.negative >= minimum {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b questionID) int {
		x, y := g.groups[a], g.groups[b]
		return cmp.Or(cmp.Compare(y.negative, x.negative), cmp.Compare(x.positive, y.positive), cmp.Compare(y.lastDay, x.lastDay), bytes.Compare(a[:], b[:]))
	})
	worst := []questionCount{}
	for _, id := range ids[:min(len(ids), summaryQuestions)] {
		group := g.groups[id]
		worst = append(worst, questionCount{ID: id.String(), Text: group.text, Negative: group.negative, Positive: group.positive, lastDay: group.lastDay})
	}
	return worst
}
