package postgres

import (
	"slices"
	"strings"

	"capture/snapshot/rowjson"
)

// referenceOIDs are the types whose values are OIDs of database objects, but print as the objects' names: regproc,
// regprocedure, regoper, regoperator, regclass, regtype, regconfig, regdictionary, regnamespace, regrole, regcollation,
// regdatabase.
var referenceOIDs = []uint32{24, 2202, 2203, 2204, 2205, 2206, 3734, 3769, 4089, 4096, 4191, 6490}

const oidOID = 26 // also the base type of lo, a domain that the extension lo creates

// checkColumns warns about columns whose values in the file may be stale (names of objects) or incomplete (large objects).
func (d *doctor) checkColumns() {
	if names := d.columnsOf(referenceOIDs...); names != "" {
		d.addFinding("names of objects", Warn, "columns "+names+" show the names of tables, roles or other objects",
			"if such an object is renamed or dropped, no row of the table changes, so the file shows the old name until the daily comparison (--verify-interval)", "")
	}
	if names := d.columnsOf(oidOID); names != "" {
		d.addFinding("large objects", Warn, "columns "+names+" hold OIDs, perhaps of large objects",
			"the file has the number, not the large object's content, so restore cannot bring it back", "store such contents as bytea, or back them up with pg_dump")
	}
}

// columnsOf returns the names of the columns whose type is or contains one of the given types.
func (d *doctor) columnsOf(oids ...uint32) string {
	var names []string
	for _, c := range d.table.Columns {
		if containsType(&c.Type, oids) {
			names = append(names, displayIdentifier(c.Name))
		}
	}
	return strings.Join(names, ", ")
}

func containsType(t *rowjson.Type, oids []uint32) bool {
	if slices.Contains(oids, t.OID) || t.Elem != nil && containsType(t.Elem, oids) {
		return true
	}
	return slices.ContainsFunc(t.Fields, func(f rowjson.Field) bool { return containsType(&f.Type, oids) })
}
