package capture

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"

	"capture/internal/foreign"
	"capture/internal/postgres"
	"capture/store"
	"capture/store/manifest"
	"capture/store/remote"
)

// fetcher writes feedback.json from the newest copy that is kept off the machine. It is used if capture starts with an empty
// folder while the database is unreachable.
type fetcher struct {
	copies     *copyFinder
	table      postgres.Name
	file       *store.File
	tracker    *fileTracker
	conditions *conditions
	log        hclog.Logger
}

// fetchedCondition is the name of the condition that is set while the file is a downloaded copy and no newer state is known.
const fetchedCondition = "fetched"

// fetch writes feedback.json from the newest intact copy that is kept off the machine, and returns the copy's manifest. It
// reports false if there is no intact copy, or if a file was written in the meantime.
func (f *fetcher) fetch(ctx context.Context) (m manifest.Manifest, fetched bool, err error) {
	clusters, err := f.copies.location.Clusters(ctx)
	if err != nil && !remote.IsMissing(err) {
		return m, false, err
	}
	for {
		s, m, err := f.copies.newest(ctx, clusters)
		if remote.IsMissing(err) {
			return m, false, nil
		}
		if err != nil {
			return m, false, err
		}
		fetched, err := f.fetchState(ctx, s, m)
		if f.copies.isDamaged(s, err) {
			continue
		}
		return m, fetched, err
	}
}

// fetchState writes feedback.json from one copy. It reports false if a file was written in the meantime.
func (f *fetcher) fetchState(ctx context.Context, s remote.State, m manifest.Manifest) (fetched bool, err error) {
	start := time.Now()
	if m.Table.Name != f.table.Table || f.table.Schema != "" && m.Table.Schema != f.table.Schema {
		return false, fmt.Errorf("%s is of table %s.%s", s.URL, foreign.Text(m.Table.Schema), foreign.Text(m.Table.Name))
	}
	r := f.copies.location.JSON(ctx, s, m)
	defer r.Close()
	if fetched, err = f.file.Adopt(m, r); err != nil || !fetched {
		return false, err
	}
	f.tracker.recordAdopted(&m)
	age := time.Since(m.WrittenAt).Round(time.Second)
	f.conditions.set(fetchedCondition, fmt.Sprintf("feedback.json is the copy %s, of cluster %s, %s old; the database has not been reached yet", s.URL, s.Cluster, age))
	f.log.Info("the newest copy off the machine is feedback.json until the database is reachable", "state", s.URL, "cluster", s.Cluster,
		"age", age.String(), "rows", m.Rows, "lsn", m.LSN, "ms", millis(time.Since(start)))
	return true, nil
}

// copyFinder finds the newest copy that is not damaged. A damaged copy must not prevent capture from serving an older copy or
// from making a new copy.
type copyFinder struct {
	location *remote.Location
	log      hclog.Logger
	damaged  map[string]bool // URLs of the copies that are damaged
}

func newCopyFinder(l *remote.Location, log hclog.Logger) *copyFinder {
	return &copyFinder{l, log, map[string]bool{}}
}

// newest chooses the cluster that has the latest undamaged state. It returns the newest undamaged state of this cluster. If all
// states are damaged, or if there are no states, it returns an error for which remote.IsMissing reports true.
func (f *copyFinder) newest(ctx context.Context, clusters []remote.Cluster) (remote.State, manifest.Manifest, error) {
	for {
		var states []remote.State
		for _, c := range clusters {
			list := slices.DeleteFunc(slices.Clone(c.States), func(s remote.State) bool { return f.damaged[s.URL] })
			if len(list) > 0 && (len(states) == 0 || list[0].Time.After(states[0].Time)) {
				states = list
			}
		}
		s, m, err := f.location.Newest(ctx, states)
		if !f.isDamaged(s, err) {
			return s, m, err
		}
	}
}

// isDamaged reports whether err means that the copy s is damaged. If so, it logs the damage and remembers the copy.
func (f *copyFinder) isDamaged(s remote.State, err error) bool {
	damaged := (*remote.DamagedError)(nil)
	if !errors.As(err, &damaged) {
		return false
	}
	f.damaged[s.URL] = true
	f.log.Error("copy off the machine is damaged; looking for an older one", "state", s.URL, "reason", damaged.Error())
	return true
}
