package manifest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	"capture/snapshot"
	"capture/snapshot/rowjson"
)

// Horizon is the horizon of the rows in a file. A run that loads the file reads from the database only the rows that have
// changed since the horizon. If the horizon were too high for the rows, the run would miss changes. Therefore a digest in
// the manifest binds the horizon to one state of the file. The digest detects mistakes, such as a manifest that somebody
// edited or made from two other manifests. It does not detect forgery, because anybody can compute the digest.
type Horizon struct {
	snapshot.Horizon
	RowFormat int    `json:"row_format"` // value of [rowjson.FormatVersion] when the file was written
	Seal      string `json:"seal"`       // digest of the horizon and of other fields of the manifest, in hex
}

// NewHorizon returns the horizon of the rows of v. It returns nil if v has no horizon, or if rows were omitted from v. A later
// run would not find an omitted row in the file, and would not read it from the database if it has not changed.
func NewHorizon(v *snapshot.View) *Horizon {
	h := v.Horizon()
	if h == nil || v.OmittedRows() > 0 {
		return nil
	}
	return &Horizon{Horizon: *h, RowFormat: rowjson.FormatVersion}
}

// sealedHorizon returns the horizon with its seal, or nil if there is none.
func (m *Manifest) sealedHorizon() *Horizon {
	if m.Horizon == nil {
		return nil
	}
	h := *m.Horizon
	h.Seal = m.seal()
	return &h
}

// seal returns the digest that binds the horizon to the file.
func (m *Manifest) seal() string {
	h := *m.Horizon
	h.Seal = ""
	data, err := json.Marshal(struct {
		Horizon                                                  *Horizon
		Source, Database, SystemID, LSN, SHA256, Blocks, Written string
		Table                                                    TableName
		TableOID                                                 uint32
		Rows                                                     int
		Bytes                                                    int64
	}{
		&h, m.Source, m.Database, m.SystemID, m.LSN, m.SHA256, m.blocksSHA256(), m.WrittenAt.UTC().Format(timeFormat),
		m.Table, m.TableOID, m.Rows, m.Bytes,
	})
	if err != nil {
		return "" // never happens: all of this can be encoded
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:16])
}

func (m *Manifest) blocksSHA256() string {
	if m.Blocks == nil {
		return ""
	}
	return m.Blocks.SHA256
}
