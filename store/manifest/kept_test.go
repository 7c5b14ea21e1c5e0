package manifest_test

import (
	"testing"

	"capture/store/manifest"
)

func TestLossNamesItsRows(t *testing.T) {
	t.Parallel()
	for want, l := range map[string]manifest.Loss{
		"the table went from 1 row to 0":        {RowsBefore: 1, RowsLost: 1},
		"the table went from 2,000 rows to 1":   {RowsBefore: 2000, RowsAfter: 1, RowsLost: 1999},
		"the table went from 1,000 rows to 890": {RowsBefore: 891, RowsAfter: 890, HourHighest: 1000},
		"rows or values were lost; which ones is unknown, because the manifest of the state before does not say": {},
	} {
		if got := l.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
