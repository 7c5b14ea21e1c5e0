package capture

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"capture/internal/volume"
	"capture/store"
)

// volumeCheckInterval is the time between measurements of the volumes.
const volumeCheckInterval = 15 * time.Second

// A warning ends once the percentage in use is more than volumeHysteresis points below the warning level.
const volumeHysteresis = 2

// volumeMonitor measures the volumes that capture writes to.
type volumeMonitor struct {
	dirs       []WatchedDir
	warn       int // percentage in use at which a warning begins; 0 turns warnings off
	interval   time.Duration
	conditions *conditions
	log        hclog.Logger
	written    chan struct{}                  // receives a value after the first write of the file, which changes the volume's usage most
	warned     map[string]bool                // names of the volumes with a warning that has not ended
	measured   atomic.Pointer[[]volume.Usage] // last measurements; nil before the first measurement
}

func newVolumeMonitor(cfg *Config, file *store.File, conditions *conditions) *volumeMonitor {
	dirs := slices.Clone(cfg.WatchedDirs)
	for i := range dirs {
		if dirs[i].Bytes == nil {
			dirs[i].Bytes = file.DiskBytes
		}
	}
	return &volumeMonitor{
		dirs: dirs, warn: cfg.VolumeWarn, interval: cfg.intervals.volumeCheck, conditions: conditions,
		log: cfg.Logger, written: make(chan struct{}, 1), warned: map[string]bool{},
	}
}

// lastUsages returns the last measurement of each volume.
func (m *volumeMonitor) lastUsages() []volume.Usage {
	if measured := m.measured.Load(); measured != nil {
		return *measured
	}
	return nil
}

// run measures the volumes until ctx ends.
func (m *volumeMonitor) run(ctx context.Context) error {
	tick := time.NewTicker(m.interval)
	defer tick.Stop()
	for {
		usages := m.measureAll()
		m.measured.Store(&usages)
		select {
		case <-ctx.Done():
			return nil
		case <-m.written:
		case <-tick.C:
		}
	}
}

// measureAll measures all volumes. The result does not contain volumes that cannot be measured.
func (m *volumeMonitor) measureAll() []volume.Usage {
	usages := make([]volume.Usage, 0, len(m.dirs))
	for _, d := range m.dirs {
		v, err := volume.Measure(d.Path)
		if err != nil {
			m.log.Debug("cannot measure volume", "volume", d.Name, "error", err)
			continue
		}
		v.Name, v.Bytes = d.Name, d.Bytes()
		usages = append(usages, v)
		m.checkUsage(&v)
	}
	return usages
}

// checkUsage sets or clears the condition of a volume, and logs when its warning begins and ends.
func (m *volumeMonitor) checkUsage(v *volume.Usage) {
	if m.warn == 0 {
		return
	}
	used, condition := v.UsedPercent(), "volume "+v.Name
	switch {
	case used >= float64(m.warn):
		m.conditions.set(condition, fmt.Sprintf("%s is %.0f %% full (%d bytes and %d inodes free; capture's files take %d bytes): free some space, or use a larger volume",
			v.Path, used, v.Free, v.FreeInodes, v.Bytes))
		if !m.warned[v.Name] {
			m.warned[v.Name] = true
			m.log.Warn("volume is filling up", "volume", v.Name, "path", v.Path, "used_percent", int(used), "free_bytes", v.Free, "free_inodes", v.FreeInodes)
		}
	case m.warned[v.Name] && used < float64(m.warn-volumeHysteresis):
		delete(m.warned, v.Name)
		m.conditions.set(condition, "")
		m.log.Warn("volume has room again", "volume", v.Name, "path", v.Path, "used_percent", int(used), "free_bytes", v.Free)
	}
}
