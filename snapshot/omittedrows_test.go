package snapshot

import (
	"fmt"
	"testing"

	"capture/snapshot/rowjson"
)

// TestOmittedRows checks that a Commit keeps the records of omitted rows, and that a Rollback drops the records of its
// transaction. It also checks that a Put, a Delete, a Truncate and a Load each remove the record of an omitted row.
func TestOmittedRows(t *testing.T) {
	tab := NewTestTable(256, 4)
	shape := &rowjson.Shape{Fingerprint: "f"}
	key := func(i int) rowjson.Key { return rowjson.Key(fmt.Sprintf("key%03d", i)) }
	line := []byte(`{"a":1}`)
	omit := func(i int) { tab.Omit(key(i), []int64{1, int64(i)}) }
	commit := func() {
		t.Helper()
		if err := tab.Commit(Position{}); err != nil {
			t.Fatal(err)
		}
	}
	check := func(rows int, want ...int) {
		t.Helper()
		v := tab.View()
		got := v.Omitted(100)
		if v.Rows() != rows || v.OmittedRows() != len(want) || len(got) != len(want) {
			t.Fatalf("%d rows and %d omitted (%v); want %d and %v", v.Rows(), v.OmittedRows(), got, rows, want)
		}
		for i, n := range want {
			if string(got[i].Key) != string(key(n)) || got[i].Bytes != int64(n)+1 || !v.IsOmitted(key(n)) {
				t.Errorf("omitted row %d is %v; want key %d", i, got[i], n)
			}
		}
	}
	for _, reload := range []bool{false, true} {
		tab.Load(shape, Origin{})
		for i := range 50 {
			if i%10 == 3 {
				omit(i)
			} else {
				tab.Put(key(i), line)
			}
		}
		commit()
		check(45, 3, 13, 23, 33, 43)
		first := tab.View()

		omit(7)
		tab.Put(key(3), line)
		tab.Delete(key(13))
		if _, omitted := tab.OmittedSizes(key(7)); !omitted {
			t.Error("the open transaction does not see the row that it omits")
		}
		if _, omitted := tab.OmittedSizes(key(3)); omitted {
			t.Error("the open transaction sees a row as omitted that it has put")
		}
		check(45, 3, 13, 23, 33, 43) // the transaction is not committed yet
		if !reload {
			tab.Rollback()
			check(45, 3, 13, 23, 33, 43)
			continue
		}
		commit()
		check(45, 7, 23, 33, 43)
		if got := first.OmittedRows(); got != 5 || !first.IsOmitted(key(3)) {
			t.Errorf("the View before has %d omitted rows; want 5", got)
		}
		if got := tab.View().Omitted(2); len(got) != 2 || string(got[1].Key) != string(key(23)) {
			t.Errorf("the first two omitted rows are %v", got)
		}
		tab.Truncate()
		omit(5)
		commit()
		check(0, 5)
	}
}

// TestLargeLineIsNotBuffered checks that a line larger than the transaction buffer is not copied into the buffer.
func TestLargeLineIsNotBuffered(t *testing.T) {
	tab := NewTable()
	tab.Put(rowjson.Key("a"), make([]byte, maxBufferedBytes+1))
	if n := cap(tab.buffer.data); n > 0 || !tab.inPlace() {
		t.Errorf("the buffer has %d bytes; want the row in its page only", n)
	}
	if err := tab.Commit(Position{}); err != nil || tab.View().Rows() != 1 {
		t.Errorf("Commit: %v, %d rows; want 1", err, tab.View().Rows())
	}
}
