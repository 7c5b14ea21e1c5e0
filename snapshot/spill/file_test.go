package spill

import (
	"bytes"
	"math/rand/v2"
	"os"
	"runtime"
	"testing"
	"time"
)

func openFile(t *testing.T, onDamage func(error)) *File {
	t.Helper()
	f, err := Open(t.TempDir(), onDamage)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestExtents writes data of random sizes, drops some of the Extents, and reads the others back. It also checks that the
// file takes no space after all Extents are dropped.
func TestExtents(t *testing.T) {
	t.Parallel()
	f := openFile(t, func(err error) { t.Error(err) })
	r := rand.New(rand.NewPCG(1, 2))
	type stored struct {
		e    *Extent
		data []byte
		head int
	}
	var list []stored
	for i := range 2000 {
		data := bytes.Repeat([]byte{byte(i)}, 1+r.IntN(20_000))
		head := r.IntN(len(data) + 1)
		e, err := f.Write(data, head)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, stored{e, bytes.Clone(data), head})
		if len(list) > 50 {
			k := r.IntN(len(list))
			list[k] = list[len(list)-1]
			list[len(list)-1] = stored{}
			list = list[:len(list)-1]
		}
		if i%100 == 0 {
			runtime.GC()
			time.Sleep(time.Millisecond) // lets the cleanups run
		}
		s := list[r.IntN(len(list))]
		if data, err := s.e.Read(); err != nil || !bytes.Equal(data, s.data) {
			t.Fatalf("read %d bytes of %d: %v", len(data), len(s.data), err)
		}
		if head, err := s.e.AppendHead([]byte("x")); err != nil || !bytes.Equal(head[1:], s.data[:s.head]) {
			t.Fatalf("read a head of %d bytes of %d: %v", len(head)-1, s.head, err)
		}
	}
	clear(list)
	list = nil
	for until := time.Now().Add(time.Minute); ; {
		runtime.GC()
		info, err := f.file.Stat()
		if err == nil && info.Size() == 0 && f.Size() == 0 {
			break
		}
		if time.Now().After(until) {
			t.Fatalf("%d bytes in use for nothing, %v", f.Size(), err)
		}
		time.Sleep(time.Millisecond)
	}
}

// TestDamage checks that a read of damaged data returns an error, and that only the first such error is passed to onDamage.
func TestDamage(t *testing.T) {
	t.Parallel()
	data := []byte("head and the rest")
	for name, c := range map[string]struct {
		spoil      func(f *os.File) error
		headIsGood bool
	}{
		"head changed": {spoil: func(f *os.File) error { _, err := f.WriteAt([]byte("x"), 1); return err }},
		"rest changed": {spoil: func(f *os.File) error { _, err := f.WriteAt([]byte("x"), 10); return err }, headIsGood: true},
		"cut short":    {spoil: func(f *os.File) error { return f.Truncate(0) }},
		"unreadable":   {spoil: func(f *os.File) error { return f.Close() }},
	} {
		t.Run(name, func(t *testing.T) {
			reports := 0
			f := openFile(t, func(error) { reports++ })
			e, err := f.Write(data, len("head"))
			if err != nil {
				t.Fatal(err)
			}
			if err := c.spoil(f.file); err != nil {
				t.Fatal(err)
			}
			if got, err := e.AppendHead([]byte("before")); (err == nil) != c.headIsGood || err != nil && string(got) != "before" {
				t.Errorf("AppendHead = %q, %v", got, err)
			}
			for range 2 {
				if got, err := e.Read(); err == nil {
					t.Errorf("Read = %q", got)
				}
			}
			if reports != 1 || !f.Damaged() || !e.Damaged() {
				t.Errorf("reported %d times, Damaged = %v", reports, f.Damaged())
			}
		})
	}
}
