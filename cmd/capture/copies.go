package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"capture/capture"
	"capture/internal/foreign"
	"capture/internal/statefile"
	"capture/internal/volume"
	"capture/store/kept"
	"capture/store/manifest"
	"capture/store/remote"
)

// copyConfig sets the location of the copies off the machine.
type copyConfig struct {
	CopyTo string `placeholder:"URL" env:"CAPTURE_COPY_TO" help:"Keep copies off the machine, too: azblob://CONTAINER/PREFIX, s3://BUCKET/PREFIX or file:///FOLDER. Credentials come from the environment, under the names that Azure's and AWS' own tools use. See docs/copies.md."`
}

// location returns the location of the copies, or nil if none is configured.
func (c copyConfig) location() (*remote.Location, error) {
	if c.CopyTo == "" {
		return nil, nil
	}
	l, err := remote.Open(c.CopyTo, remote.Environ)
	if err != nil {
		name := "--copy-to"
		if c.CopyTo == os.Getenv("CAPTURE_COPY_TO") {
			name = "CAPTURE_COPY_TO (--copy-to)"
		}
		return nil, usageError{fmt.Errorf("%s: %w", name, err)}
	}
	return l, nil
}

// commandPatience is the time for which a command repeats a request that fails.
const commandPatience = 20 * time.Second

// fetchState downloads a state to a temporary folder. The URL and --at select the state. fetchState sets File to the path of
// the state's data, and prints which state was selected. The caller must call remove to delete the folder.
func (c *fileConfig) fetchState(ctx context.Context, std streams, command string) (remove func(), err error) {
	remove = func() {}
	place, name := splitStateURL(c.File)
	if name != "" && !c.At.IsZero() {
		return remove, usageError{errors.New("--at: the URL already names a state; leave one of the two out")}
	}
	l, err := remote.Open(place, remote.Environ)
	if err != nil {
		return remove, usageError{err}
	}
	l.Patience = commandPatience
	clusters, err := l.Clusters(ctx)
	if err != nil {
		return remove, err
	}
	state, all, err := c.selectState(ctx, l, clusters, name)
	if err != nil {
		return remove, err
	}
	fmt.Fprintf(std.err, "%s: reading the state of %s (%s old) of cluster %s, %s\n", command, timeText(state.Time), spanText(time.Since(state.Time)),
		foreign.Line(state.Cluster), foreign.Line(state.URL))
	if c.At.IsZero() && name == "" {
		noteLoss(ctx, std, command, l, state, all)
	}
	folder, err := os.MkdirTemp("", "capture-copy-")
	if err != nil {
		return remove, volume.WithTempHint(fmt.Errorf("create a folder for the copy: %w", err))
	}
	remove = func() { os.RemoveAll(folder) }
	c.fetchedFrom = state.URL
	if state.Loss {
		c.explainUnusable = func(err error) error {
			losses := kept.OpenLossesOf(lossesBefore(ctx, l, all[0], all))
			return withNextCommand(err, losses.HintWithout(state.Time), "capture history --copy-to "+foreign.ShellWord(l.String()))
		}
	}
	shown := newProgress(std.err, command)
	l.Progress = func(n int64) { shown.show(statefile.Progress{Doing: "downloading", Bytes: n, Total: state.Bytes}) }
	c.File, _, err = l.Download(ctx, state, folder)
	shown.clear()
	if ctx.Err() != nil {
		return remove, errors.New("interrupted; nothing has changed")
	}
	if c.explainUnusable != nil && errors.As(err, new(*remote.DamagedError)) {
		return remove, c.explainUnusable(err)
	}
	return remove, volume.WithTempHint(err)
}

// splitStateURL divides the URL of a state into the URL of its folder and the state's name. The name is "" if text is not the
// URL of a state.
func splitStateURL(text string) (place, name string) {
	base, query, _ := strings.Cut(text, "?")
	i := strings.LastIndex(base, "/")
	if !strings.HasSuffix(base, ".json.gz") || i < 0 {
		return text, ""
	}
	place, name = base[:i], base[i+1:]
	if query != "" {
		place += "?" + query
	}
	return place, name
}

// selectState returns the state that a URL or --at selects, and all states of the same cluster. name is the state's name in the
// URL, or "" if the URL names no state.
func (c *fileConfig) selectState(ctx context.Context, l *remote.Location, clusters []remote.Cluster, name string) (remote.State, []remote.State, error) {
	if len(clusters) == 0 {
		return remote.State{}, nil, fmt.Errorf("there are no copies at %s", l)
	}
	if name != "" {
		for _, cluster := range clusters {
			for _, s := range cluster.States {
				if strings.HasSuffix(s.URL, "/"+name) {
					return s, cluster.States, nil
				}
			}
		}
		return remote.State{}, nil, fmt.Errorf("%s/%s is not there, or has no manifest; capture history --copy-to lists the copies", l, name)
	}
	if !c.At.IsZero() {
		return c.selectAt(l, clusters)
	}
	if len(clusters) == 1 {
		s, _, err := l.Newest(ctx, clusters[0].States)
		if errors.As(err, new(*remote.DamagedError)) {
			err = fmt.Errorf("%w; capture history --copy-to lists the copies, and --at or the URL of a copy selects another one", err)
		}
		return s, clusters[0].States, err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "there are copies of %d database clusters; name one of these URLs, or a time with --at:", len(clusters))
	for _, cluster := range clusters {
		s := cluster.States[0]
		fmt.Fprintf(&b, "\n  %s: %s, the newest of %s with %s", cluster.URL, copiesText(len(cluster.States)), timeText(s.Time), rowsText(s.Rows))
	}
	return remote.State{}, nil, usageError{linesError{errors.New(b.String())}}
}

// selectAt looks for the states that are not newer than --at, in all clusters. It returns the newest of them, and all states of
// its cluster.
func (c *fileConfig) selectAt(l *remote.Location, clusters []remote.Cluster) (best remote.State, states []remote.State, err error) {
	oldest := clusters[0].States[0].Time
	for _, cluster := range clusters {
		if s, ok := remote.At(cluster.States, c.At.Time); ok && s.Time.After(best.Time) {
			best, states = s, cluster.States
		}
		if last := cluster.States[len(cluster.States)-1].Time; last.Before(oldest) {
			oldest = last
		}
	}
	if best.Time.IsZero() {
		return best, nil, fmt.Errorf("--at: no copy at %s is from %s or earlier; the oldest is from %s", l, timeText(c.At.Time), timeText(oldest))
	}
	return best, states, nil
}

// noteLoss prints a note if the newest state follows a loss that nobody has acknowledged. The note contains the value of
// --at that selects the state before the loss, and a command that adds the lost rows and values to the newest state. Of
// several losses, the note describes the one that [kept.OpenLosses] shows first. If the state before that loss is damaged,
// the note refers to the documentation instead, because the command refuses a damaged state.
func noteLoss(ctx context.Context, std streams, command string, l *remote.Location, newest remote.State, all []remote.State) {
	before := lossesBefore(ctx, l, newest, all)
	if len(before) == 0 {
		return
	}
	losses := kept.OpenLossesOf(before)
	s := losses.Shown()[0]
	hint := s.RestoreHint()
	if s.Damaged == "" {
		hint = fmt.Sprintf("--at %s. To keep later rows, too, restore this state, and then run: %s", s.Time.UTC().Format(time.RFC3339), losses.RestoreHint(s))
	}
	fmt.Fprintf(std.err, "%s: this state follows a loss that nobody has acknowledged: %s. The state before it has %s: %s\n",
		command, foreign.Text(s.Loss.String()), rowsText(s.Rows), foreign.Line(hint))
}

// lossesBefore returns, for each open loss that happened before the newest state, the state before the loss. It leaves out a
// state that equals the newest state: the lost rows are back, or the machine was lost before it uploaded a state without
// them.
func lossesBefore(ctx context.Context, l *remote.Location, newest remote.State, all []remote.State) (before []kept.State) {
	open := slices.DeleteFunc(slices.Clone(all), func(s remote.State) bool {
		return !s.Loss || s.Acknowledged || s.Time.After(newest.Time) || s.URL == newest.URL
	})
	if len(open) == 0 {
		return nil
	}
	restored, _ := l.Manifest(ctx, newest) // after an error, this manifest has no SHA-256, so it matches no state
	for _, s := range open {
		m, err := l.Manifest(ctx, s)
		if err == nil && m.SHA256 == restored.SHA256 {
			continue
		}
		state := (&copiedState{State: s, manifest: m, err: err}).kept()
		if err != nil && !errors.As(err, new(*remote.DamagedError)) {
			state.Damaged = "" // the manifest could not be read, so nobody knows of any damage
		}
		before = append(before, state)
	}
	return before
}

func copiesText(n int) string {
	if n == 1 {
		return "1 copy"
	}
	return countText(n) + " copies"
}

// listCopies returns the states of all clusters at the location, in one list from the newest to the oldest. If the manifest of
// a state cannot be read, the state's field err holds the reason.
func listCopies(ctx context.Context, l *remote.Location) ([]copiedState, error) {
	clusters, err := l.Clusters(ctx)
	if err != nil {
		return nil, err
	}
	var all []copiedState
	for _, cluster := range clusters {
		for _, s := range cluster.States {
			m, err := l.Manifest(ctx, s)
			if err != nil && ctx.Err() != nil {
				return nil, err
			}
			all = append(all, copiedState{State: s, manifest: m, err: err})
		}
	}
	slices.SortStableFunc(all, func(a, b copiedState) int { return b.Time.Compare(a.Time) })
	return all, nil
}

// copiedState is a state off the machine, and the manifest of this state.
type copiedState struct {
	remote.State
	manifest manifest.Manifest
	err      error // error of reading the manifest
}

// reason returns the reason why the state was kept, as the list shows it.
func (s *copiedState) reason() string {
	if s.Loss {
		return "loss"
	}
	return string(s.manifest.Reason)
}

// damaged returns a description of the state's damage, or "" if no damage is known.
func (s *copiedState) damaged() string {
	switch {
	case s.err != nil:
		return s.err.Error()
	case s.manifest.Kept != nil:
		return s.manifest.Kept.Damaged
	}
	return ""
}

// kept returns the copy as a kept state. Its path is the URL of the copy.
func (s *copiedState) kept() kept.State {
	k := kept.State{Time: s.Time, Rows: s.Rows, Path: s.URL, Remote: true, Acknowledged: s.Acknowledged, Damaged: s.damaged()}
	switch {
	case !s.Loss:
	case s.manifest.Kept != nil && s.manifest.Kept.Loss != nil:
		k.Loss = s.manifest.Kept.Loss
	default:
		k.Loss = &manifest.Loss{} // the manifest does not describe the loss
	}
	return k
}

// lossText returns a description of the loss that made capture keep the state, or "" if it was kept for another reason.
func (s *copiedState) lossText() string {
	if l := s.kept().Loss; l != nil {
		return l.String()
	}
	return ""
}

// copiesStatusText returns where the copies off the machine are, and how old the newest copy is. It returns "" without
// --copy-to.
func copiesStatusText(c *capture.CopiesStatus, now time.Time) string {
	if c == nil {
		return ""
	}
	uploading := ""
	if up := c.Uploading; up != nil {
		uploading = "uploading" + progressText(statefile.Progress{Bytes: up.Bytes, Total: up.Total}, now.Sub(up.Began))
	}
	if c.Copied == nil {
		return joinNonEmpty(", ", c.URL, "none yet in this run", uploading)
	}
	text := fmt.Sprintf("%s, %s, %s of gzip", c.URL, rowsText(c.Rows), bytesText(c.Bytes))
	return joinNonEmpty(", ", text, timeAgo("copied", c.Copied, now), timeAgo("read back", c.Proven, now), uploading)
}
