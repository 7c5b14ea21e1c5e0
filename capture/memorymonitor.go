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
}

// run checks the memory until ctx ends.
func (m *memoryMonitor) run(ctx context.Context) error {
	tick := time.NewTicker(memoryCheck)
	defer tick.Stop()
	spilled, omitted := false, ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if text := omittedRows(m.table.View()); text != omitted {
			if omitted = text; text != "" {
				m.log.Error("rows are omitted", "reason", text, "hint", "give capture more memory")
			} else {
				m.log.Info("no row is omitted any more")
			}
		}
		u := m.table.Usage()
		if !spilled && u.Limit > 0 && u.Spilled > 0 {
			spilled = true
			m.log.Info("the table exceeds the memory for rows; spilling to a file beside feedback.json", "resident_bytes", u.Resident, "limit_bytes", u.Limit)
		}
		text := ""
		if u.Err != nil {
			text = u.Err.Error()
		}
		switch changed := m.conditions.set("memory", text); {
		case changed && text != "":
			m.log.Error("row memory limit exceeded, cannot spill to disk", "error", u.Err)
		case changed:
			m.log.Info("spilling to disk works again")
		}
	}
}
