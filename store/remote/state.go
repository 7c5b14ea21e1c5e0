package remote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pglogrepl"

	"capture/internal/foreign"
	"capture/store/manifest"
)

// State is a state of the table in object storage.
type State struct {
	Cluster      string        // system identifier of the cluster, or "unknown"
	Time         time.Time     // time of the state, as in its name
	LSN          pglogrepl.LSN // position in the WAL; 0 if it was not known
	Rows         int
	Loss         bool  // whether it is the state before a loss
	Acknowledged bool  // whether that loss is acknowledged or has ended
	Bytes        int64 // length of its compressed data
	URL          string

	folder string // folder of its objects; "" or a path that ends with "/"
}

// stateTime is the layout of the time in the name of a state. The time is in UTC. The files of kept states beside
// feedback.json have the time in their names in the same layout.
const stateTime = "20060102T150405Z"

// stem returns the beginning of the names of the state's objects.
func (s *State) stem() string {
	name := fmt.Sprintf("%sfeedback-%s-%016X-%d", s.folder, s.Time.UTC().Format(stateTime), uint64(s.LSN), s.Rows)
	if s.Loss {
		name += "-loss"
	}
	return name
}

func (s *State) data() string         { return s.stem() + ".json.gz" }
func (s *State) manifest() string     { return s.stem() + ".manifest.json" }
func (s *State) acknowledged() string { return s.stem() + ".acknowledged" }

var stateName = regexp.MustCompile(`^feedback-(\d{8}T\d{6}Z)-([0-9A-F]{16})-(\d{1,18})(-loss)?\.(json\.gz|manifest\.json|acknowledged)$`)

// parseName parses the name of an object in a folder. It reports false if no object of a state can have this name.
func parseName(folder, name string) (s State, suffix string, ok bool) {
	match := stateName.FindStringSubmatch(strings.TrimPrefix(name, folder))
	if match == nil {
		return State{}, "", false
	}
	t, err := time.Parse(stateTime, match[1])
	lsn, lerr := strconv.ParseUint(match[2], 16, 64)
	rows, rerr := strconv.Atoi(match[3])
	s = State{Time: t, LSN: pglogrepl.LSN(lsn), Rows: rows, Loss: match[4] != "", folder: folder}
	if err != nil || lerr != nil || rerr != nil || strings.TrimSuffix(s.stem(), "-loss") != strings.TrimSuffix(strings.TrimSuffix(name, "."+match[5]), "-loss") {
		return State{}, "", false // for example, a number in the name has leading zeros
	}
	return s, match[5], true
}

// Cluster is a database cluster with its states.
type Cluster struct {
	SystemID string  // system identifier, or "unknown"
	URL      string  // URL of its folder
	States   []State // newest first, by time
}

// UnknownCluster is the name of the folder for a cluster whose system identifier the database role may not read.
const UnknownCluster = "unknown"

var clusterName = regexp.MustCompile(`^(\d{1,20}|unknown)$`)

// Clusters returns the clusters at the location, with their states. The location's URL may also name the folder of one
// cluster.
func (l *Location) Clusters(ctx context.Context) ([]Cluster, error) {
	objects, folders, err := l.list(ctx, l.prefix)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", l, err)
	}
	var clusters []Cluster
	if c := l.newCluster(path.Base("/"+strings.TrimSuffix(l.prefix, "/")), l.prefix, objects); len(c.States) > 0 {
		c.URL = l.url
		clusters = append(clusters, c)
	}
	for _, folder := range folders {
		id := path.Base(folder)
		// Some tools create an object with the name of its folder, so the folder l.prefix may be in its own list.
		if !clusterName.MatchString(id) || folder == l.prefix {
			continue
		}
		objects, _, err := l.list(ctx, folder)
		if err != nil {
			return nil, fmt.Errorf("list %s/%s: %w", l, id, err)
		}
		if c := l.newCluster(id, folder, objects); len(c.States) > 0 {
			clusters = append(clusters, c)
		}
	}
	return clusters, nil
}

func (l *Location) list(ctx context.Context, folder string) (objects []object, folders []string, err error) {
	err = l.retry(ctx, func() (err error) {
		objects, folders, err = l.service.list(ctx, folder)
		return err
	})
	return objects, folders, err
}

// newCluster returns a cluster with the states whose data and manifest are among the objects.
func (l *Location) newCluster(id, folder string, objects []object) Cluster {
	if f, ok := l.service.(folderService); ok && id == "/" {
		id = path.Base(f.root)
	}
	c := Cluster{SystemID: id, URL: l.url + "/" + id}
	names := map[string]object{}
	for _, o := range objects {
		names[o.name] = o
	}
	for _, o := range objects {
		s, suffix, ok := parseName(folder, o.name)
		if _, hasManifest := names[s.manifest()]; !ok || suffix != "json.gz" || !hasManifest {
			continue
		}
		_, s.Acknowledged = names[s.acknowledged()]
		s.Cluster, s.Bytes, s.URL = id, o.size, c.URL+"/"+path.Base(o.name)
		if folder == l.prefix {
			s.URL = l.url + "/" + path.Base(o.name)
		}
		c.States = append(c.States, s)
	}
	slices.SortFunc(c.States, func(a, b State) int {
		return cmp.Or(b.Time.Compare(a.Time), cmp.Compare(b.LSN, a.LSN))
	})
	return c
}

// Folder returns the cluster's folder at the location. An empty systemID stands for a cluster whose identifier is not known.
func (l *Location) Folder(systemID string) *Folder {
	if systemID == "" {
		systemID = UnknownCluster
	}
	return &Folder{Location: l, cluster: systemID, name: l.prefix + systemID + "/"}
}

// Folder is the folder of one cluster. Only one goroutine at a time may call its methods.
type Folder struct {
	*Location
	cluster string
	name    string // name of the folder, which ends with "/"
	limits  Limits // limits that Probe has found; zero before Probe has run
}

// States returns the states in the folder, newest first.
func (f *Folder) States(ctx context.Context) ([]State, error) {
	objects, _, err := f.list(ctx, f.name)
	if err != nil {
		return nil, fmt.Errorf("list %s/%s: %w", f.Location, f.cluster, err)
	}
	return f.newCluster(f.cluster, f.name, objects).States, nil
}

// Newest returns the newest of the states of one cluster, and its manifest. The latest time alone does not decide, because
// clocks may differ, and a capture that was paused for hours may upload an old state once more. So of two states of the same
// timeline, the state with the higher position in the WAL is newer. But a state of a later timeline is newer than every
// state of an earlier timeline, even at a lower position, for example after a restore from a backup. If a capture of the old
// server still uploads, both the latest time and the highest position may belong to the old timeline. So Newest also reads
// latest.json, in which MoveLatest never replaces a later timeline by an earlier one.
//
// If there is no state, IsMissing reports true for the error. If a manifest is damaged, the error wraps a [*DamagedError], and
// Newest returns the state to which this manifest belongs.
func (l *Location) Newest(ctx context.Context, states []State) (State, manifest.Manifest, error) {
	if len(states) == 0 {
		return State{}, manifest.Manifest{}, fmt.Errorf("%s has no states: %w", l, errMissing)
	}
	newest, highest := candidates(states)
	m, err := l.Manifest(ctx, newest)
	if err != nil {
		return newest, m, err
	}
	others := []State{highest}
	named, _, err := (&Folder{Location: l, name: newest.folder}).readLatest(ctx)
	if err != nil && !errors.Is(err, errMissing) {
		return newest, m, fmt.Errorf("read %s of %s: %w", latestName, l, err)
	}
	for _, s := range states {
		if path.Base(s.data()) == named.State {
			others = append(others, s)
		}
	}
	for _, s := range others {
		if s == newest {
			continue
		}
		other, err := l.Manifest(ctx, s)
		if err != nil {
			return s, other, err
		}
		if isLaterTimeline(other, m) || !isLaterTimeline(m, other) && s.LSN > newest.LSN {
			newest, m = s, other
		}
	}
	return newest, m, nil
}

// isLaterTimeline reports whether the timeline of a is later than the timeline of b. It reports false if one of these timelines
// is not known.
func isLaterTimeline(a, b manifest.Manifest) bool {
	return a.Timeline > b.Timeline && b.Timeline > 0
}

// candidates returns the two states that may be the newest. newest is the state with the latest time. highest is the state
// with the highest position. It is equal to newest if no other state has a higher position. states must not be empty, and
// must be sorted from the newest to the oldest state.
func candidates(states []State) (newest, highest State) {
	newest = states[0]
	highest = slices.MaxFunc(states, func(a, b State) int { return cmp.Compare(a.LSN, b.LSN) })
	if highest.LSN <= newest.LSN {
		highest = newest
	}
	return newest, highest
}

// At returns the newest state that is not newer than t. It reports false if there is none. states must be newest first.
func At(states []State, t time.Time) (State, bool) {
	for _, s := range states {
		if !s.Time.After(t) {
			return s, true
		}
	}
	return State{}, false
}

// Manifest reads and checks the manifest of a state. It does not trust the manifest, because anybody might have written it. If
// the manifest does not belong to the state, the error wraps a [*DamagedError].
func (l *Location) Manifest(ctx context.Context, s State) (manifest.Manifest, error) {
	data, _, err := l.read(ctx, s.manifest(), manifest.MaxBytes)
	var m manifest.Manifest
	switch {
	case errors.Is(err, errTooLarge):
		err = &DamagedError{"its manifest is too large"}
	case err == nil:
		if m, err = manifest.Parse(data); err != nil {
			err = &DamagedError{"its manifest: " + foreign.Text(err.Error())}
		} else if m.SHA256 == "" || m.Rows != s.Rows {
			err = &DamagedError{"its manifest does not describe the state of its name"}
		}
	}
	if err != nil {
		return manifest.Manifest{}, fmt.Errorf("read the manifest of %s: %w", s.URL, err)
	}
	return m, nil
}

// Acknowledge marks the loss after a state as acknowledged: somebody intended the loss, or has dealt with it.
func (l *Location) Acknowledge(ctx context.Context, s State) error {
	if _, err := l.put(ctx, s.acknowledged(), []byte("acknowledged\n"), condition{}); err != nil {
		return fmt.Errorf("acknowledge the loss after %s: %w", s.URL, err)
	}
	return nil
}

// Drop removes a state permanently.
func (l *Location) Drop(ctx context.Context, s State) error {
	// Without its manifest, a state no longer exists. Therefore the manifest is removed first.
	for _, name := range []string{s.manifest(), s.data(), s.acknowledged()} {
		if err := l.remove(ctx, name); err != nil {
			return fmt.Errorf("remove %s: %w", s.URL, err)
		}
	}
	return nil
}

func (l *Location) remove(ctx context.Context, name string) error {
	err := l.retry(ctx, func() error { return l.service.remove(ctx, name) })
	if errors.Is(err, errMissing) {
		return nil
	}
	return err
}
