package capture

import (
	"context"
	"time"

	"github.com/hashicorp/go-hclog"

	"capture/snapshot"
)

// memoryCheck is the time between checks of a Table's memory.
const memoryCheck = time.Second

// memoryMonitor logs when rows over the memory limit are spilled for the first time, and which rows are omitted. It sets a
// condition while rows cannot be spilled.
type memoryMonitor struct {
	table      *snapshot.Table
	conditions *conditions
	log        hclog.Logger

	spilled bool   // whether rows over the memory limit have been spilled
	stuck   bool   // whether rows could not be spilled at the last check
	omitted string // omitted rows at the last check
}

// run checks the memory until ctx ends.
func (m *memoryMonitor) run(ctx context.Context) error {
	tick := time.NewTicker(memoryCheck)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			m.checkOmitted()
			m.checkSpilling()
		}
	}
}

func (m *memoryMonitor) checkOmitted() {
	text := omittedRows(m.table.View())
	if text == m.omitted {
		return
	}
	if m.omitted = text; text != "" {
		m.log.Error("rows are omitted", "reason", text, "hint", "give capture more memory")
	} else {
		m.log.Info("no row is omitted any more")
	}
}

// checkSpilling logs the first spill of rows that exceed the memory limit. If spilling fails, rows stay in memory.
// checkSpilling logs that, and also logs when spilling works again. Without a memory limit, capture spills only rows that a
// large transaction has replaced or deleted. The first spill of such rows is not logged.
func (m *memoryMonitor) checkSpilling() {
	u := m.table.Usage()
	if !m.spilled && u.Limit > 0 && u.Spilled > 0 {
		m.spilled = true
		m.log.Info("the table exceeds the memory for rows; spilling to a file beside feedback.json", "resident_bytes", u.Resident, "limit_bytes", u.Limit)
	}
	text := ""
	if u.Err != nil {
		text = u.Err.Error()
	}
	changed := m.conditions.set("memory", text)
	was := m.stuck
	m.stuck = text != ""
	switch {
	case u.Limit > 0 && changed && m.stuck:
		m.log.Error("row memory limit exceeded, cannot spill to disk", "error", u.Err)
	case u.Limit > 0 && changed:
		m.log.Info("spilling to disk works again")
	case u.Limit == 0 && m.stuck && !was: // log this once, and not again when only the numbers in the text change
		m.log.Warn("old rows of a large transaction stay in memory, cannot spill to disk", "error", u.Err)
	case u.Limit == 0 && !m.stuck && was:
		m.log.Info("old rows no longer stay in memory")
	}
}
