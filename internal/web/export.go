package web

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"net/http"
	"time"

	"capture/snapshot/rowjson"
)

// maxExports is how many exports run at a time: each keeps one state of the table in memory until it is done.
const maxExports = 4

// exportJSON answers with all rows that the filter wants, in the form of feedback.json.
func (s *Server) exportJSON(w http.ResponseWriter, r *http.Request) {
	s.export(w, r, "json", "application/json", func(t table, rows func(func(line []byte) error) error) error {
		b := bufio.NewWriterSize(w, 64<<10)
		before := "[\n"
		err := rows(func(line []byte) error {
			b.WriteString(before)
			before = ",\n"
			_, err := b.Write(line)
			return err
		})
		if err != nil {
			return err
		}
		if before == "[\n" {
			b.WriteString("[]\n")
		} else {
			b.WriteString("\n]\n")
		}
		return b.Flush()
	})
}

// exportCSV answers with the same rows as a table with a header: texts as they are, NULL as nothing, the rest as JSON.
func (s *Server) exportCSV(w http.ResponseWriter, r *http.Request) {
	s.export(w, r, "csv", "text/csv; charset=utf-8", func(t table, rows func(func(line []byte) error) error) error {
		cw := csv.NewWriter(w)
		cw.UseCRLF = true
		record := make([]string, len(t.shape.Columns))
		for i := range record {
			record[i] = inert(t.shape.Columns[i].Name)
		}
		cw.Write(record)
		err := rows(func(line []byte) error {
			for i := range record {
				record[i] = cell(t.field(line, i), t.shape.Columns[i].Type.Kind)
			}
			return cw.Write(record)
		})
		if err != nil {
			return err
		}
		cw.Flush()
		return cw.Error()
	})
}

func cell(value []byte, kind rowjson.Kind) string {
	switch {
	case bytes.Equal(value, []byte("null")):
		return ""
	case len(value) > 1 && value[0] == '"' && kind != rowjson.JSON:
		text := string(unquote(value))
		if kind == rowjson.Number {
			return text // -Infinity
		}
		return inert(text)
	}
	return string(value)
}

// inert keeps a spreadsheet from taking a user's text for a formula and running it.
func inert(text string) string {
	if text != "" {
		switch text[0] {
		case '=', '+', '-', '@', '\t', '\r':
			return "'" + text
		}
	}
	return text
}

// export sends rows from one state of the table, oldest key first, as fast as the client takes them.
func (s *Server) export(w http.ResponseWriter, r *http.Request, kind, contentType string,
	write func(t table, rows func(func(line []byte) error) error) error) {
	begun := time.Now()
	t, ok := s.table(w)
	if !ok {
		return
	}
	f, err := parseFilter(r.URL.Query(), t.layout)
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	select {
	case s.exports <- struct{}{}:
		defer func() { <-s.exports }()
	default:
		w.Header().Set("Retry-After", "5")
		fail(w, http.StatusServiceUnavailable, "other downloads are under way; try again in a moment")
		return
	}
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Disposition", `attachment; filename="feedback-`+begun.UTC().Format("20060102-150405")+"."+kind+`"`)
	if r.Method == http.MethodHead {
		return
	}
	seen, count := 0, 0
	err = write(t, func(put func(line []byte) error) error {
		for row, err := range t.From(nil) {
			if err != nil {
				s.log.Error("an export could not be ended", "error", err)
				return err
			}
			if seen++; seen%1024 == 0 && r.Context().Err() != nil {
				return r.Context().Err()
			}
			if !f.match(t.layout, row.Line) {
				continue
			}
			count++
			if err := put(row.Line); err != nil {
				return err
			}
		}
		return nil
	})
	rw := w.(*response)
	s.log.Info("export", "kind", kind, "filtered", !f.empty(), "rows", count, "bytes", rw.bytes, "whole", err == nil,
		"remote", remoteHost(r), "milliseconds", milliseconds(begun))
	if err != nil {
		panic(http.ErrAbortHandler) // an answer that ends in the regular way would pass for whole
	}
}
