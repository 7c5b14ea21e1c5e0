// Package manifest describes feedback.json and its kept states: the table, the state of the table in the file, and the
// digest that distinguishes a complete file from a damaged one.
//
// A [Manifest] is a JSON file next to the file that it describes. [Path] returns its path. [Read] reads a manifest,
// [OpenRead] opens a file and reads its manifest, and a [Hasher] compares the two. Anybody may have written a manifest, so
// Read checks its content and limits its size.
package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pglogrepl"

	"capture/snapshot"
	"capture/snapshot/rowjson"
)

// Reason is the reason for which a file was written.
type Reason string

// formatVersion is the version of the manifest format that this package writes and reads.
const formatVersion = 1

// Manifest describes feedback.json: the table, the state of the table that the file holds, and a digest that verifies the file.
type Manifest struct {
	Format        int                   `json:"format"` // version of the format: 1
	Table         TableName             `json:"table"`
	TableOID      uint32                `json:"table_oid,omitempty"` // OID of the table; 0 if unknown
	Columns       []rowjson.Column      `json:"columns"`
	Key           []string              `json:"key"`                            // names of the key's columns, in the key's order
	KeyPeriod     bool                  `json:"key_without_overlaps,omitempty"` // whether the key's last column is WITHOUT OVERLAPS
	Partitioning  *rowjson.Partitioning `json:"partitioning,omitempty"`         // how the table is partitioned; nil if it is not
	Rows          int                   `json:"rows"`
	Bytes         int64                 `json:"bytes"`            // length of the file in bytes
	SHA256        string                `json:"sha256,omitempty"` // SHA-256 of the file, in lower-case hex; "" until [capture/store.File.Idle] has completed it
	Blocks        *Blocks               `json:"blocks,omitempty"` // digest of the file's blocks; nil if SHA256 is set
	Source        string                `json:"source,omitempty"`
	Database      string                `json:"database,omitempty"`
	SystemID      string                `json:"system_id,omitempty"`
	ServerVersion string                `json:"server_version,omitempty"`
	Reason        Reason                `json:"reason"`
	WrittenBy     string                `json:"written_by"`           // program and version, such as "capture 1.2.3"
	LSN           string                `json:"lsn,omitempty"`        // position in the WAL, such as "0/16B3748"; "" if the source does not know it
	Timeline      int                   `json:"timeline,omitempty"`   // timeline of the LSN; 0 if it is not known
	CommitTime    time.Time             `json:"commit_time,omitzero"` // commit time of the last transaction in the file; zero if unknown
	WrittenAt     time.Time             `json:"written_at"`           // time of the write, by this machine's clock
	AcceptedAt    time.Time             `json:"accepted_at,omitzero"` // time that [capture/store/retention.Clock] accepted at the write; zero if it equals WrittenAt
	Omitted       *Omitted              `json:"omitted,omitempty"`    // rows of the table that the file lacks; nil if there are none
	Horizon       *Horizon              `json:"horizon,omitempty"`    // horizon, so that a later run reads only rows that have changed; nil if there is none
	Kept          *Kept                 `json:"kept,omitempty"`       // facts about a kept state; nil for feedback.json itself

	// HigherCounts are the row counts of the last hour that are higher than Rows, oldest first. They let a run find a loss
	// that comes in small steps even if its first steps happened during an earlier run.
	HigherCounts []RowCount `json:"higher_counts,omitempty"`
}

// RowCount is the number of rows of a file.
type RowCount struct {
	At   time.Time `json:"at"` // time at which the file was written
	Rows int       `json:"rows"`
}

// Blocks is a digest that is cheap to update after a small change of the file. The file is divided into blocks. The digest
// is the SHA-256 of the concatenated binary SHA-256s of the blocks.
type Blocks struct {
	Bytes  int64  `json:"bytes"`  // length of a block in bytes; the last block may be shorter
	SHA256 string `json:"sha256"` // digest, in lower-case hex
}

// Omitted describes the rows of a table that its file lacks, because each of them is too large for capture's memory.
type Omitted struct {
	Rows int      `json:"rows"` // number of omitted rows
	Keys []string `json:"keys"` // keys of the first omitted rows, in readable form
}

const (
	omittedKeys    = 100 // maximum number of keys in a manifest
	longestKeyText = 200 // maximum length of a key in a manifest, in bytes
)

// OmittedRows returns the rows of the table that v lacks, or nil if there are none.
func OmittedRows(v *snapshot.View) *Omitted {
	if v.OmittedRows() == 0 {
		return nil
	}
	o := &Omitted{Rows: v.OmittedRows(), Keys: []string{}}
	for _, row := range v.Omitted(omittedKeys) {
		o.Keys = append(o.Keys, KeyText(v.Shape(), row.Key))
	}
	return o
}

// KeyText returns a key in readable form, shortened if it is long.
func KeyText(s *rowjson.Shape, key rowjson.Key) string {
	text := s.KeyString(key)
	if len(text) > longestKeyText {
		text = strings.ToValidUTF8(text[:longestKeyText], "") + "…"
	}
	return text
}

// TableName is the name of a table, unquoted, as in the catalog.
type TableName struct {
	Schema string `json:"schema"`
	Name   string `json:"name"`
}

// DescribeTable returns the name of the table and, if it is known, its OID. The OID distinguishes two tables with the same
// name.
func (m *Manifest) DescribeTable() string {
	name := m.Table.Schema + "." + m.Table.Name
	if m.TableOID != 0 {
		name += fmt.Sprintf(" (OID %d)", m.TableOID)
	}
	return name
}

// HasTableOf reports whether m and other describe states of the same table. Within one database, the OID distinguishes tables
// of the same name. In another database, such as a restored one, the same table may have another OID, so only the name counts.
func (m *Manifest) HasTableOf(other *Manifest) bool {
	if m.Table != other.Table {
		return false
	}
	if m.SystemID != other.SystemID || m.Database != other.Database {
		return true
	}
	return m.TableOID == 0 || other.TableOID == 0 || m.TableOID == other.TableOID
}

// IsLaterThan reports whether m describes a later state of the table than other. In one cluster, a state is later if it has a
// later timeline, or the same timeline and a higher position. Positions of different timelines cannot be compared. An unknown
// timeline counts as the same timeline. If the positions are equal or unknown, or the clusters differ, the time of the write
// decides.
func (m *Manifest) IsLaterThan(other *Manifest) bool {
	if m.SystemID != other.SystemID {
		return m.WrittenAt.After(other.WrittenAt)
	}
	if m.Timeline > 0 && other.Timeline > 0 && m.Timeline != other.Timeline {
		return m.Timeline > other.Timeline
	}
	this, err := pglogrepl.ParseLSN(m.LSN)
	that, err2 := pglogrepl.ParseLSN(other.LSN)
	if err == nil && err2 == nil && this != that {
		return this > that
	}
	return m.WrittenAt.After(other.WrittenAt)
}

// timeFormat always has six decimals, so that times have the same length and sort as text.
const timeFormat = "2006-01-02T15:04:05.000000Z07:00"

// MarshalJSON encodes m with its times in UTC, to the microsecond.
func (m Manifest) MarshalJSON() ([]byte, error) { return json.Marshal(m.jsonForm()) }

type plainManifest Manifest

// jsonManifest is the JSON form of a Manifest. Its time fields replace the time fields of plainManifest.
type jsonManifest struct {
	plainManifest
	CommitTime string `json:"commit_time,omitempty"`
	WrittenAt  string `json:"written_at"`
	AcceptedAt string `json:"accepted_at,omitempty"`
}

func (m Manifest) jsonForm() jsonManifest {
	m.Horizon = m.sealedHorizon()
	j := jsonManifest{plainManifest: plainManifest(m), WrittenAt: m.WrittenAt.UTC().Format(timeFormat)}
	if !m.CommitTime.IsZero() {
		j.CommitTime = m.CommitTime.UTC().Format(timeFormat)
	}
	if !m.AcceptedAt.IsZero() {
		j.AcceptedAt = m.AcceptedAt.UTC().Format(timeFormat)
	}
	return j
}

// New returns the manifest of v. The caller adds the length and the digest of the file.
func New(v *snapshot.View, reason Reason, captureVersion string) Manifest {
	shape, origin, position := v.Shape(), v.Origin(), v.Position()
	m := Manifest{
		Format: formatVersion,
		Table:  TableName{Schema: shape.Schema, Name: shape.Table}, TableOID: shape.OID,
		Columns: shape.Columns, KeyPeriod: shape.KeyPeriod, Partitioning: shape.Partitioning,
		Key:    make([]string, len(shape.Key)),
		Rows:   v.Rows(),
		Source: origin.Source, Database: origin.Database, SystemID: origin.SystemID, Timeline: origin.Timeline, ServerVersion: origin.ServerVersion,
		Reason: reason, WrittenBy: "capture " + captureVersion,
		WrittenAt: time.Now().UTC().Truncate(time.Microsecond),
	}
	for i, c := range shape.Key {
		m.Key[i] = shape.Columns[c].Name
	}
	m.Omitted = OmittedRows(v)
	m.SetPosition(position)
	return m
}

// SetPosition sets the position in the WAL and the commit time of the state that the file holds.
func (m *Manifest) SetPosition(p snapshot.Position) {
	m.LSN, m.CommitTime = "", p.CommitTime.UTC().Truncate(time.Microsecond)
	if p.LSN != 0 {
		m.LSN = p.LSN.String()
	}
}

// Encode returns the manifest in the form that is written to disk.
func (m Manifest) Encode() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // so that people can read the defaults and type names in the manifest
	e.SetIndent("", "  ")
	err := e.Encode(m.jsonForm())
	return b.Bytes(), err
}
