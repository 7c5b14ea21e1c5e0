package capture

import (
	"maps"
	"slices"
	"sync"
)

// Check is the result of a check of readiness, or a condition that an operator should know about.
type Check struct {
	Name   string `json:"name"` // following, file, logs, …
	OK     bool   `json:"ok"`
	Detail string `json:"detail"` // text for the operator: the state and, if it is not OK, what to do
}

// conditions are problems that the daemon's parts report to the operator. None of them stops capture. A source's own
// conditions are in its [source.Progress], and end when the source ends.
type conditions struct {
	mu    sync.Mutex
	texts map[string]string // texts of the conditions, by name
}

func newConditions() *conditions { return &conditions{texts: map[string]string{}} }

// set sets a condition, or clears it if the text is empty. It reports whether the text is new.
func (c *conditions) set(name, text string) (changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	changed = c.texts[name] != text
	if text == "" {
		delete(c.texts, name)
	} else {
		c.texts[name] = text
	}
	return changed
}

func (c *conditions) clone() map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.texts)
}

// conditionChecks returns a failing check for each condition, ordered by name.
func conditionChecks(conditions ...map[string]string) []Check {
	all := map[string]string{}
	for _, c := range conditions {
		maps.Copy(all, c)
	}
	var checks []Check
	for _, name := range slices.Sorted(maps.Keys(all)) {
		checks = append(checks, Check{Name: name, Detail: all[name]})
	}
	return checks
}
