package capture

import (
	"fmt"
	"strings"

	"capture/snapshot"
	"capture/store/manifest"
)

// omittedCheck is the name of the check that fails while a row does not fit into memory.
const omittedCheck = "omitted"

// omittedRows returns a text that tells the operator which rows of v do not fit into memory, or "" if all rows fit.
func omittedRows(v *snapshot.View) string {
	if v == nil || v.OmittedRows() == 0 {
		return ""
	}
	const named = 5
	var names []string
	for _, row := range v.Omitted(named) {
		names = append(names, fmt.Sprintf("%s (about %d MB)", manifest.KeyText(v.Shape(), row.Key), max(row.Bytes>>20, 1)))
	}
	if v.OmittedRows() > named {
		names = append(names, "…")
	}
	return fmt.Sprintf("%d rows do not fit into memory and are not in feedback.json: %s", v.OmittedRows(), strings.Join(names, ", "))
}
