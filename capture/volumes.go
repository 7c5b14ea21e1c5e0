package capture

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"capture/internal/volume"
)

// volumesEvery is how often the volumes are measured; a variable for the tests.
var volumesEvery = 15 * time.Second

// calmer is by how many percent a volume must fall below the mark before it counts as well again.
const calmer = 2

// Folder is one of the folders that capture writes to.
type Folder struct{ Name, Path string }

// watchVolumes measures the folders regularly until ctx ends, and says once when one fills and once when that is over.
func (d *Daemon) watchVolumes(ctx context.Context) error {
	tick := time.NewTicker(volumesEvery)
	defer tick.Stop()
	full := map[string]bool{}
	for {
		volumes := make([]volume.Usage, 0, len(d.cfg.Folders))
		for _, f := range d.cfg.Folders {
			v, err := volume.Measure(f.Name, f.Path)
			if err != nil {
				d.log.Debug("a volume can't be measured", "volume", f.Name, "error", err)
				continue
			}
			volumes = append(volumes, v)
			d.judgeVolume(&v, full)
		}
		d.state.update(func(st *Status) { st.Volumes = volumes })
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (d *Daemon) judgeVolume(v *volume.Usage, full map[string]bool) {
	mark := float64(d.cfg.VolumeWarn)
	if mark == 0 {
		return
	}
	used := v.UsedPercent()
	switch {
	case used >= mark:
		d.state.note("volume "+v.Name, fmt.Sprintf("%s is %.0f %% full (%d bytes and %d inodes free; capture's files take %d bytes): make room, or a larger volume",
			v.Path, used, v.Free, v.FreeInodes, v.Bytes))
		if !full[v.Name] {
			full[v.Name] = true
			d.log.Warn("a volume fills", "volume", v.Name, "path", v.Path, "used_percent", int(used), "free_bytes", v.Free, "free_inodes", v.FreeInodes)
		}
	case full[v.Name] && used < mark-calmer:
		delete(full, v.Name)
		d.state.note("volume "+v.Name, "")
		d.log.Warn("a volume has room again", "volume", v.Name, "path", v.Path, "used_percent", int(used), "free_bytes", v.Free)
	}
}

// volumeMetrics are the volumes as they were last measured.
type volumeMetrics struct{ d *Daemon }

var (
	volumeBytesDesc      = prometheus.NewDesc("capture_volume_files_bytes", "Bytes of capture's files in the folder.", []string{"volume"}, nil)
	volumeSizeDesc       = prometheus.NewDesc("capture_volume_size_bytes", "Size of the file system under the folder, in bytes.", []string{"volume"}, nil)
	volumeFreeDesc       = prometheus.NewDesc("capture_volume_free_bytes", "Bytes of the file system that are free to capture.", []string{"volume"}, nil)
	volumeFreeInodesDesc = prometheus.NewDesc("capture_volume_free_inodes", "Inodes of the file system that are free.", []string{"volume"}, nil)
)

func (volumeMetrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- volumeBytesDesc
	ch <- volumeSizeDesc
	ch <- volumeFreeDesc
	ch <- volumeFreeInodesDesc
}

func (m volumeMetrics) Collect(ch chan<- prometheus.Metric) {
	for _, v := range m.d.Status().Volumes {
		for desc, value := range map[*prometheus.Desc]int64{
			volumeBytesDesc: v.Bytes, volumeSizeDesc: v.Size, volumeFreeDesc: v.Free, volumeFreeInodesDesc: v.FreeInodes,
		} {
			ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(value), v.Name)
		}
	}
}
