package web

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/semaphore"

	"capture/internal/foldlog"
)

// exportHandler serves all votes that match a filter, as a download.
type exportHandler struct {
	tables  *tables
	exports *semaphore.Weighted
	done    *foldlog.Logger
	log     hclog.Logger

	failures logLimiter
}

func newExportHandler(t *tables, log hclog.Logger) *exportHandler {
	return &exportHandler{tables: t, exports: semaphore.NewWeighted(maxExports), done: foldlog.New(log, "export"), log: log}
}

// exportFormat is the file format of a download. The function in the field write writes the file to w. It gets the rows by
// calling rows with a callback, put, which receives the line of each row.
type exportFormat struct {
	name        string // name of the format, which is also the extension of the file name
	contentType string
	write       func(w io.Writer, t tableView, rows func(put func(line []byte) error) error) error
}

// serveJSON answers with the votes in the form of feedback.json.
func (h *exportHandler) serveJSON(w http.ResponseWriter, r *http.Request) {
	h.serveExport(w, r, exportFormat{"json", "application/json", writeExportJSON})
}

// serveCSV answers with the votes as CSV.
func (h *exportHandler) serveCSV(w http.ResponseWriter, r *http.Request) {
	h.serveExport(w, r, exportFormat{"csv", "text/csv; charset=utf-8", writeExportCSV})
}

// serveLines answers with the votes as JSON lines.
func (h *exportHandler) serveLines(w http.ResponseWriter, r *http.Request) {
	h.serveExport(w, r, exportFormat{"jsonl", "application/jsonl", writeExportLines})
}

// serveExport sends the matching rows of one committed state in ascending key order, as fast as the client reads them.
func (h *exportHandler) serveExport(w http.ResponseWriter, r *http.Request, format exportFormat) {
	t, ok := h.tables.current(w)
	if !ok {
		return
	}
	var f filter
	query, err := parseQuery(r)
	if err == nil {
		f, err = parseFilter(query, t.columnRoles)
	}
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	if !h.exports.TryAcquire(1) {
		writeUnavailable(w, 5, "other downloads are in progress; try again in a moment")
		return
	}
	defer h.exports.Release(1)
	rw := recorded(w)
	rw.Header().Set("Content-Type", format.contentType)
	rw.Header().Set("Cache-Control", noStore)
	rw.Header().Set("Content-Disposition", `attachment; filename="feedback-`+time.Now().UTC().Format("20060102-150405")+"."+format.name+`"`)
	if r.Method == http.MethodHead {
		return
	}
	count := 0
	err = format.write(rw, t, func(put func(line []byte) error) error {
		return h.eachMatch(r.Context(), t, &f, func(line []byte) error {
			count++
			return put(line)
		})
	})
	h.done.Add(remoteHost(r), rw.bytes, "kind", format.name, "filtered", !f.isEmpty(), "rows", count, "whole", err == nil,
		"milliseconds", rw.elapsedMilliseconds())
	if err != nil {
		panic(http.ErrAbortHandler) // a regular end would make the answer look complete
	}
}

// eachMatch calls put with the line of each row that the filter selects.
func (h *exportHandler) eachMatch(ctx context.Context, t tableView, f *filter, put func(line []byte) error) error {
	scanned := 0
	for row, err := range t.From(nil) {
		if err != nil {
			if skipped, ok := h.failures.allow(); ok {
				h.log.Error("export cut off: rows can't be read back", "error", err, "more_left_out", skipped)
			}
			return err
		}
		if scanned++; scanned%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if f.matches(t.columnRoles, row.Line) {
			if err := put(row.Line); err != nil {
				return err
			}
		}
	}
	return nil
}

func writeExportJSON(w io.Writer, _ tableView, rows func(put func(line []byte) error) error) error {
	b := bufio.NewWriterSize(w, 64<<10)
	separator := "[\n"
	err := rows(func(line []byte) error {
		b.WriteString(separator)
		separator = ",\n"
		_, err := b.Write(line)
		return err
	})
	if err != nil {
		return err
	}
	if separator == "[\n" {
		b.WriteString("[]\n")
	} else {
		b.WriteString("\n]\n")
	}
	return b.Flush()
}

func writeExportLines(w io.Writer, _ tableView, rows func(put func(line []byte) error) error) error {
	b := bufio.NewWriterSize(w, 64<<10)
	err := rows(func(line []byte) error {
		b.Write(line) // if this write fails, WriteByte returns the error
		return b.WriteByte('\n')
	})
	if err != nil {
		return err
	}
	return b.Flush()
}
