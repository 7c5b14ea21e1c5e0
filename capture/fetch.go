package capture

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/klauspost/compress/gzip"

	"capture/internal/postgres"
	"capture/store"
	"capture/store/manifest"
	"capture/store/remote"
)

// fetcher downloads the newest copy off the machine, which becomes the file. It is for a start on an empty machine while the
// database is unreachable.
type fetcher struct {
	location   *remote.Location
	table      postgres.Name
	file       *store.File
	tracker    *fileTracker
	conditions *conditions
	log        hclog.Logger
}

// fetchedCondition is the name of the condition that the file is a downloaded copy, and nothing newer is known.
const fetchedCondition = "fetched"

// fetch makes the newest copy off the machine the file, and returns its manifest. It reports false if there is no copy, or if a
// file was written in the meantime.
func (f *fetcher) fetch(ctx context.Context) (m manifest.Manifest, fetched bool, err error) {
	start := time.Now()
	s, m, err := newestCopy(ctx, f.location)
	if remote.IsMissing(err) {
		return m, false, nil
	}
	if err != nil {
		return m, false, err
	}
	if m.Table.Name != f.table.Table || f.table.Schema != "" && m.Table.Schema != f.table.Schema {
		return m, false, fmt.Errorf("%s is of table %s.%s", s.URL, m.Table.Schema, m.Table.Name)
	}
	r := f.location.Reader(ctx, s)
	defer r.Close()
	z, err := gzip.NewReader(r)
	if err == nil {
		fetched, err = f.file.Adopt(m, z)
	}
	if err != nil || !fetched {
		return m, false, err
	}
	f.tracker.recordAdopted(&m)
	age := time.Since(m.WrittenAt).Round(time.Second)
	f.conditions.set(fetchedCondition, fmt.Sprintf("feedback.json is the copy %s, of cluster %s, %s old; the database has not been reached yet", s.URL, s.Cluster, age))
	f.log.Info("the newest copy off the machine is feedback.json until the database is reachable", "state", s.URL, "cluster", s.Cluster,
		"age", age.String(), "rows", m.Rows, "lsn", m.LSN, "ms", millis(time.Since(start)))
	return m, true, nil
}

// newestCopy returns the newest state of the cluster with the latest copy. If there is no copy, remote.IsMissing reports true
// for the error.
func newestCopy(ctx context.Context, l *remote.Location) (remote.State, manifest.Manifest, error) {
	clusters, err := l.Clusters(ctx)
	if err != nil {
		return remote.State{}, manifest.Manifest{}, err
	}
	var states []remote.State
	for _, c := range clusters {
		if len(states) == 0 || c.States[0].Time.After(states[0].Time) {
			states = c.States
		}
	}
	return l.Newest(ctx, states)
}
