package capture

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"capture/internal/statefile"
	"capture/snapshot"
	"capture/store/kept"
	"capture/store/loss"
	"capture/store/manifest"
	"capture/store/remote"
)

// lossCheck is the pause before uploadLosses runs again. It must run again after it has found an open loss that is recorded
// only in the copies, or if it could not check all losses.
const lossCheck = time.Minute

// errNotOpened means that a kept state could not be opened: it was dropped in the meantime, or cannot be read.
var errNotOpened = errors.New("kept state not opened")

// uploadLosses uploads the states before losses, unless the service has them already. It marks the copies whose losses have
// been acknowledged on this machine. It also finds the open losses that only the copies show, for example because this machine
// has lost its folder.
func (u *uploader) uploadLosses(ctx context.Context) error {
	clusters, err := u.location.Clusters(ctx)
	if err != nil {
		return err
	}
	states := map[string][]remote.State{}
	for _, c := range clusters {
		states[c.SystemID] = c.States
	}
	known := map[string]bool{} // URLs of copies whose states are also kept on this machine
	missed := false            // whether a kept state could not be opened
	for _, local := range u.kept() {
		if local.Loss == nil {
			continue
		}
		there, err := u.uploadLoss(ctx, &local, states)
		switch {
		case errors.Is(err, errNotOpened):
			missed = true
		case err != nil:
			return err
		case there != nil:
			known[there.URL] = true
		}
	}
	u.lossesDue, u.lossesAt = false, time.Time{}
	if err := u.findOpenLosses(ctx, states, known); err != nil {
		return err
	}
	if missed {
		u.lossesAt = time.Now().Add(lossCheck)
	}
	return nil
}

// newestTimeout is the longest wait for a View that is newer than a loss. The wait is short, because the uploader uploads
// nothing during the wait.
const newestTimeout = 10 * time.Second

// awaitNewestView returns a View that contains everything committed before the call, or nil if there is none within
// newestTimeout.
func (u *uploader) awaitNewestView(ctx context.Context) *snapshot.View {
	ctx, cancel := context.WithTimeout(ctx, newestTimeout)
	defer cancel()
	v, err := u.newestView(ctx)
	if err != nil {
		return nil // the next check tries again
	}
	return v
}

// findOpenLosses finds the open losses that only the copies show: nobody has acknowledged the loss, and the state before the
// loss is not kept on this machine. It acknowledges a loss if the lost rows are back.
//
// The current View alone does not prove that the rows are back. If another capture found the loss, this View may be older
// than the loss, for example because this capture is not connected. If the current View contains the lost rows,
// findOpenLosses therefore waits for a newer View and checks the rows again.
func (u *uploader) findOpenLosses(ctx context.Context, states map[string][]remote.State, known map[string]bool) error {
	v := u.view()
	if v == nil { // the rows of the table are not known yet, so no loss can be checked
		u.lossesAt = time.Now().Add(lossCheck)
		return nil
	}
	newest := sync.OnceValue(func() *snapshot.View { return u.awaitNewestView(ctx) })
	var open []kept.State
	for _, list := range states {
		for _, s := range list {
			if !s.Loss || s.Acknowledged || known[s.URL] {
				continue
			}
			m, err := u.location.Manifest(ctx, s)
			if err != nil {
				return err
			}
			if m.Kept == nil || m.Kept.Loss == nil || m.Table.Name != v.Shape().Table {
				continue
			}
			back, err := loss.IsBack(m.Kept.Loss, v)
			if err == nil && back {
				if now := newest(); now != nil {
					back, err = loss.IsBack(m.Kept.Loss, now)
				} else {
					back = false
				}
			}
			if err == nil && back {
				err = u.location.Acknowledge(ctx, s)
			}
			if err != nil {
				return err
			}
			if back {
				u.log.Info("the lost rows are back", "state", s.URL)
				continue
			}
			open = append(open, kept.State{Time: s.Time, Path: s.URL, Remote: true, Loss: m.Kept.Loss, Damaged: m.Kept.Damaged})
		}
	}
	slices.SortFunc(open, func(a, b kept.State) int { return strings.Compare(a.Path, b.Path) })
	u.openLosses.Store(&open)
	if len(open) > 0 {
		u.lossesAt = time.Now().Add(lossCheck)
	}
	return nil
}

// remoteLosses returns the states before those open losses that only the uploaded copies show, not the states on this
// machine.
func (u *uploader) remoteLosses() []kept.State {
	if open := u.openLosses.Load(); open != nil {
		return *open
	}
	return nil
}

// uploadLoss uploads one state before a loss (local), if the service does not have it yet. It looks for the state in states,
// which holds the uploaded copies by cluster. uploadLoss returns the copy of the state, or nil if the state cannot be
// copied.
func (u *uploader) uploadLoss(ctx context.Context, local *kept.State, states map[string][]remote.State) (*remote.State, error) {
	m, err := local.Manifest()
	switch ioErr := (*fs.PathError)(nil); {
	case errors.As(err, &ioErr) && !errors.Is(err, fs.ErrNotExist):
		return nil, errNotOpened // a later attempt may be able to read the manifest
	case err != nil:
		return nil, nil // the manifest is missing or invalid, so nobody could find or check the state
	}
	m.Kept = &manifest.Kept{Loss: local.Loss, Damaged: local.Damaged, Other: local.Other}
	there := remote.FindUpload(states[clusterOf(m.SystemID)], m, local.Time) // compares only names, because the data may be unreadable
	if there == nil {
		if there, err = u.copyLoss(ctx, local, m, states); there == nil || err != nil {
			return nil, err
		}
	}
	if local.Acknowledged && !there.Acknowledged {
		return there, u.location.Acknowledge(ctx, *there)
	}
	return there, nil
}

// copyLoss uploads a state before a loss. m is the manifest of the state. The result is nil if the state is damaged.
func (u *uploader) copyLoss(ctx context.Context, local *kept.State, m manifest.Manifest, states map[string][]remote.State) (*remote.State, error) {
	file, err := statefile.Open(ctx, local.Path, nil)
	if errors.Is(err, fs.ErrNotExist) { // the state was compressed in the meantime
		file, err = statefile.Open(ctx, local.CompressedPath(), nil)
	}
	if err != nil {
		return nil, errNotOpened // the keeper already reports states that cannot be read
	}
	defer file.Close()
	f := u.folder
	if f == nil || u.systemID != m.SystemID || u.refused != "" {
		if list := states[clusterOf(m.SystemID)]; len(list) > 0 {
			if err := u.checkOwner(ctx, list, m.Table, m.Database); err != nil {
				return nil, err
			}
		}
		f = u.location.Folder(m.SystemID)
		if _, err := f.Probe(ctx); err != nil {
			return nil, err
		}
	}
	start := time.Now()
	state, _, err := u.upload(ctx, f, remote.Source{Manifest: m, Time: local.Time, Data: readerData{file}}, m.Bytes)
	if damaged := (*remote.DamagedError)(nil); errors.As(err, &damaged) {
		u.log.Error("state before a loss is damaged and not copied off the machine", "file", local.Path, "reason", damaged.Error())
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	u.log.Info("copied the state before a loss off the machine", "state", state.URL, "rows", m.Rows, "bytes_sent", state.Bytes, "ms", millis(time.Since(start)))
	states[clusterOf(m.SystemID)] = append(states[clusterOf(m.SystemID)], state)
	return &state, nil
}

// clusterOf returns the name of the folder that contains the states of a cluster.
func clusterOf(systemID string) string { return cmp.Or(systemID, remote.UnknownCluster) }

// compareNewest looks for a loss between the newest intact copy and the first View of a run that began without a file. If there
// is a loss, it keeps the copy as the state before the loss.
func (u *uploader) compareNewest(ctx context.Context, v *snapshot.View) error {
	clusters, err := u.location.Clusters(ctx)
	if err != nil {
		return err
	}
	for {
		s, m, err := u.copies.newest(ctx, clusters)
		if remote.IsMissing(err) || err == nil && (s.Loss || m.Table != manifest.TableName{Schema: v.Shape().Schema, Name: v.Shape().Table}) {
			return nil
		}
		if err != nil {
			return err
		}
		c := loss.NewComparison(&m, v.Shape())
		c.Fail(errors.New("the rows of the copy are not compared")) // without the rows, only the row counts and the columns can show a loss
		found := c.Loss(v, 0, 0)
		if found == nil {
			return nil
		}
		if err := u.keepCopy(ctx, s, m, found, v); !u.copies.isDamaged(s, err) {
			return err
		}
	}
}

// keepCopy uploads the copy s again, this time as the state before a loss. m is the manifest of s. foundLoss describes
// the loss, and v shows the table after the loss.
func (u *uploader) keepCopy(ctx context.Context, s remote.State, m manifest.Manifest, foundLoss *manifest.Loss, v *snapshot.View) error {
	r := u.location.JSON(ctx, s, m)
	defer r.Close()
	m.Kept = &manifest.Kept{Loss: foundLoss, Other: m.SystemID != v.Origin().SystemID}
	f := u.folder
	if s.Cluster != clusterOf(u.systemID) {
		f = u.location.Folder(s.Cluster)
		if _, err := f.Probe(ctx); err != nil {
			return err
		}
	}
	before, _, err := u.upload(ctx, f, remote.Source{Manifest: m, Time: s.Time, Data: readerData{r}}, m.Bytes)
	if err != nil {
		return err
	}
	u.metrics.losses.Inc()
	u.lossesDue = true
	u.log.Warn("the table has lost rows or columns since the newest copy off the machine; that state is kept there", "state", before.URL,
		"rows_before", foundLoss.RowsBefore, "rows_after", foundLoss.RowsAfter, "columns_dropped", strings.Join(foundLoss.Dropped, ","))
	return nil
}

// readerData is an io.WriterTo that writes all bytes of a reader.
type readerData struct{ reader io.Reader }

func (d readerData) WriteTo(w io.Writer) (int64, error) {
	return io.CopyBuffer(w, struct{ io.Reader }{d.reader}, make([]byte, 256<<10))
}
