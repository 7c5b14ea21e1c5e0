package manifest

import (
	"encoding/json"
	"strings"
	"testing"

	"capture/internal/foreign"
)

// FuzzManifest parses random and hostile manifests. Parse must refuse a manifest that no table in Postgres can have, for
// example with two columns of the same name. If Parse accepts a manifest and its result is encoded again, Parse must
// also accept the new encoding.
func FuzzManifest(f *testing.F) {
	const honest = `{"format":1,"table":{"schema":"public","name":"votes"},"columns":[{"name":"id","type":"integer","not_null":true,"default":"nextval('x')"},
		{"name":"g","type":"numeric(10,2)","generated":"s","identity":""}],"key":["id"],"rows":3,"bytes":40,
		"sha256":"0000000000000000000000000000000000000000000000000000000000000000","lsn":"0/16B3748","commit_time":"2026-11-23T16:00:00Z","written_at":"2026-11-23T16:00:00Z"}`
	f.Add([]byte(honest))
	for _, change := range [][2]string{{`"id"`, `""`}, {`["id"]`, `["id","id"]`}, {`["id"]`, `["x"]`}, {`"s"`, `"x"`}, {`"identity":""`, `"identity":"z"`}, {`votes`, "\\u0000"}, {`3`, `-3`},
		{`"format":1`, `"format":2`}, {`0/16B3748`, "\\u001b[2J"}, {`"g"`, `"id"`}, {`40`, `1e400`}, {`2026`, `99999`}, {`integer`, "text); DROP TABLE votes; --"}} {
		f.Add([]byte(strings.Replace(honest, change[0], change[1], 1)))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Parse(data)
		if err != nil {
			if text := err.Error(); foreign.Text(text) != text {
				t.Fatalf("the error for %q is not fit to be shown: %q", data, text)
			}
			return
		}
		if len(m.Columns) > 1600 || m.Rows < 0 || m.Bytes < 0 {
			t.Fatalf("took %q", data)
		}
		names := map[string]bool{}
		for _, c := range m.Columns {
			if c.Name == "" || names[c.Name] || strings.Contains(c.Name, "\x00") || len(c.Identity) > 1 || len(c.Generated) > 1 {
				t.Fatalf("took the column %+v of %q", c, data)
			}
			names[c.Name] = true
		}
		for _, k := range m.Key {
			if !names[k] {
				t.Fatalf("took the key %q of %q", m.Key, data)
			}
		}
		again, err := json.Marshal(m)
		if err != nil {
			if m.WrittenAt.Year() > 9999 || m.CommitTime.Year() > 9999 || m.AcceptedAt.Year() > 9999 {
				return
			}
			t.Fatalf("%q cannot be written again: %v", data, err)
		}
		if _, err := Parse(again); err != nil {
			t.Fatalf("%q became %q, which is refused: %v", data, again, err)
		}
	})
}
