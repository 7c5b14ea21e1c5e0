package web

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"capture/capture"
	"capture/internal/foreign"
	"capture/internal/postgres"
	"capture/snapshot"
	"capture/snapshot/rowjson"
)

// columnCheck is the name of the Check for the columns that the operator has named.
const columnCheck = "columns"

// describeNamedColumns returns what is wrong with the columns that --time-column and --tags-column name, or "" if both are
// right.
func (t *tables) describeNamedColumns(shape *rowjson.Shape) string {
	var wrong []string
	for _, named := range []struct {
		flag, column, what string
		fits               func(*rowjson.Type) bool
	}{
		{"--time-column", t.timeColumn, "times", holdsTimes},
		{"--tags-column", t.tagsColumn, "tags", holdsTags},
	} {
		if named.column == "" {
			continue
		}
		i := slices.IndexFunc(shape.Columns, func(c rowjson.Column) bool { return c.Name == named.column })
		switch {
		case i < 0:
			wrong = append(wrong, fmt.Sprintf("%s names column %s, which the table does not have; it has %s",
				named.flag, postgres.QuoteIdentifier(named.column), listFitting(shape, named.fits)))
		case !named.fits(&shape.Columns[i].Type):
			wrong = append(wrong, fmt.Sprintf("%s names column %s of type %s, which holds no %s", named.flag, postgres.QuoteIdentifier(named.column), shape.Columns[i].TypeName, named.what))
		}
	}
	return foreign.Text(strings.Join(wrong, "; "))
}

// listFitting lists the quoted names of the columns whose types fit, for a message.
func listFitting(shape *rowjson.Shape, fits func(*rowjson.Type) bool) string {
	var names []string
	for i := range shape.Columns {
		if fits(&shape.Columns[i].Type) {
			names = append(names, postgres.QuoteIdentifier(shape.Columns[i].Name))
		}
	}
	if names == nil {
		return "none of a suitable type"
	}
	return strings.Join(names, ", ")
}

// columnChecker adds a Check to the status if a column that the operator has named is missing or unsuitable. Without the Check,
// the page would have no times or tags, and nobody would know why.
type columnChecker struct {
	status func() capture.Status
	view   func() *snapshot.View
	tables *tables
	log    hclog.Logger

	mu     sync.Mutex
	logged string // text that was logged last
}

// checkedStatus returns the status. It adds the Check if a named column is missing or unsuitable.
func (c *columnChecker) checkedStatus() capture.Status {
	st := c.status()
	view := c.view()
	if view == nil {
		return st
	}
	wrong := c.tables.describeNamedColumns(view.Shape())
	c.mu.Lock()
	isNews := wrong != c.logged
	c.logged = wrong
	c.mu.Unlock()
	if isNews && wrong != "" {
		c.log.Warn("column for the page not usable", "reason", wrong)
	}
	if wrong != "" {
		st.Checks = append(slices.Clone(st.Checks), capture.Check{Name: columnCheck, Detail: wrong})
	}
	return st
}

// awaitTable waits for the first copy of the table, and then checks the columns. A problem is therefore logged even if nobody
// requests the status.
func (c *columnChecker) awaitTable(stopping <-chan struct{}) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for c.view() == nil {
		select {
		case <-stopping:
			return
		case <-tick.C:
		}
	}
	c.checkedStatus()
}
