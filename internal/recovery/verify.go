package recovery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"

	"github.com/jackc/pgx/v5"

	"capture/internal/postgres"
	"capture/snapshot/rowjson"
	"capture/store"
)

// VerifyOptions are what Verify looks at.
type VerifyOptions struct {
	Path     string          // of feedback.json, plain or gzipped; "-" reads Stdin
	Stdin    io.Reader       // for "-"
	Database *pgx.ConnConfig // nil looks at the file alone
	Table    postgres.Name   // zero for the one in the manifest
	// Barrier has the daemon that keeps the file write all that is committed by now. nil where none keeps it.
	Barrier  func(context.Context) error
	Progress func(Progress) // may be nil
}

// Report is what Verify found.
type Report struct {
	OK         bool        `json:"ok"`
	File       string      `json:"file"`
	Rows       int         `json:"rows"`
	Bytes      int64       `json:"bytes"`
	SHA256     string      `json:"sha256,omitempty"`   // "" where the file could not be read to its end
	Manifest   bool        `json:"manifest"`           // there is one, to which the file was held
	Problems   []string    `json:"problems,omitempty"` // of the file itself: sentences
	Table      string      `json:"table,omitempty"`    // "" where the file alone was looked at
	Difference *Difference `json:"difference,omitempty"`
	Notes      []string    `json:"notes,omitempty"` // what was not looked at, and why: sentences
}

// fileProblem is something that is wrong with the file, as opposed to what keeps Verify from looking.
type fileProblem struct{ error }

func (p fileProblem) Unwrap() error { return p.error }

// Verify checks the file: size, SHA-256 and rows against the manifest, that it is JSON, and the order of its keys; and where
// there is a database, each row against the table's. What it finds is in the report; the error says why it could not look.
func Verify(ctx context.Context, o VerifyOptions) (Report, error) {
	for attempts := 1; ; attempts++ {
		v := &verification{o: o}
		err := v.run(ctx)
		replaced := v.replaced()
		v.close()
		var problem fileProblem
		switch {
		case err == nil:
		case errors.As(err, &problem) && replaced && attempts < 5:
			continue // a flush put another manifest in place while the file was read
		case errors.As(err, &problem):
			v.report.Problems = append(v.report.Problems, problem.Error())
		default:
			return Report{}, fmt.Errorf("verify %s: %w", v.name(), err)
		}
		r := v.report
		r.OK = len(r.Problems) == 0 && (r.Difference == nil || r.Difference.None())
		return r, nil
	}
}

// verification is one attempt of Verify.
type verification struct {
	o      VerifyOptions
	in     *input
	keyer  *keyer
	report Report
}

func (v *verification) name() string {
	if v.o.Path == "-" {
		return "standard input"
	}
	return v.o.Path
}

func (v *verification) close() {
	if v.in != nil {
		v.in.close()
	}
}

// replaced says whether another file has the name by now.
func (v *verification) replaced() bool {
	if v.in == nil || v.in.file == nil {
		return false
	}
	mine, err := v.in.file.Stat()
	now, err2 := os.Stat(v.o.Path)
	return err == nil && err2 == nil && !os.SameFile(mine, now)
}

// open opens the file as it stands now, after the barrier.
func (v *verification) open(ctx context.Context) error {
	v.close()
	if v.o.Barrier != nil {
		if err := v.o.Barrier(ctx); err != nil {
			return err
		}
	}
	in, err := openInput(v.o.Path, v.o.Stdin)
	if err != nil {
		return err
	}
	v.in = in
	return nil
}

func (v *verification) run(ctx context.Context) error {
	if v.o.Database == nil {
		if err := v.open(ctx); err != nil {
			return err
		}
		v.keyer = keyerOf(v.in.manifest)
		return v.read(func(rowjson.Key, []byte) error { return nil })
	}
	name := v.o.Table
	if name.Table == "" {
		in, err := openInput(v.o.Path, bytes.NewReader(nil))
		if err != nil {
			return err
		}
		name = targetOf(name, in.manifest)
		in.close()
	}
	d, err := Compare(ctx, Comparison{
		Database: v.o.Database, Table: name, Live: v.o.Barrier != nil, Progress: v.o.Progress,
		State: func(ctx context.Context, table *postgres.Table) (Rows, error) {
			if err := v.open(ctx); err != nil {
				return nil, err
			}
			v.report.Table = table.Name().String()
			enc, err := rowjson.NewEncoder(table.Shape, false)
			v.keyer = &keyer{shape: table.Shape, enc: enc}
			return v.read, err
		},
	})
	if err == nil {
		v.report.Difference = &d
	}
	return err
}

// read reads the file to its end, checks all that can be seen from it alone, and yields its rows.
func (v *verification) read(yield func(key rowjson.Key, line []byte) error) error {
	v.report.File, v.report.Manifest = v.name(), v.in.manifest != nil
	rows, order := newReader(v.in), orderCheck{}
	v.report.Notes = nil
	err := v.rows(rows, &order, yield)
	v.report.Rows, v.report.Bytes = rows.rows, v.in.sums.Bytes()
	if order.unknown != "" {
		v.report.Notes = append(v.report.Notes, order.unknown)
	}
	var problem fileProblem
	if err != nil && !errors.As(err, &problem) {
		return err
	}
	if !v.report.Manifest && v.in.path != "-" {
		v.report.Notes = append(v.report.Notes, "it has no manifest beside it, so that a change that leaves it valid JSON would not show")
	}
	// A bad row in a file that is not the one that was written is damage: that is the first thing to say.
	if v.in.drain() == nil {
		count := rows.rows
		if err != nil && v.in.manifest != nil {
			count = v.in.manifest.Rows
		}
		if why := v.in.whole(count); why != nil {
			if err != nil {
				why = fmt.Errorf("%w; found at: %w", why, err)
			}
			return fileProblem{why}
		}
		v.report.SHA256 = v.in.sums.SHA256()
	}
	return err
}

func (v *verification) rows(from *reader, order *orderCheck, yield func(rowjson.Key, []byte) error) error {
	var ms []member
	for {
		at, err := from.next()
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return fileProblem{fmt.Errorf("%w%s", err, order.behind(v.keyer))}
		}
		if ms, err = members(ms[:0], at.text); err != nil {
			return fileProblem{fmt.Errorf("line %d: %w%s", at.line, err, order.behind(v.keyer))}
		}
		key, err := v.keyer.key(ms)
		switch {
		case errors.Is(err, errNoKeyer):
			order.unknown = v.keyer.whyNot
			key = nil
		case err != nil:
			return fileProblem{fmt.Errorf("line %d: %w%s", at.line, err, order.behind(v.keyer))}
		default:
			if err := order.next(v.keyer, key); err != nil {
				return fileProblem{fmt.Errorf("line %d: %w", at.line, err)}
			}
		}
		if err := yield(key, at.text); err != nil {
			return err
		}
		if v.o.Progress != nil && from.rows%10_000 == 0 {
			p := Progress{Doing: "reading the file", Rows: from.rows, Bytes: v.in.sums.Bytes()}
			if v.in.manifest != nil {
				p.Total = v.in.manifest.Bytes
			}
			v.o.Progress(p)
		}
	}
}

// orderCheck sees to it that keys go up.
type orderCheck struct {
	last    []byte
	unknown string
}

func (o *orderCheck) next(k *keyer, key []byte) error {
	if o.last != nil {
		switch c := bytes.Compare(key, o.last); {
		case c == 0:
			return fmt.Errorf("the key %s is in the file twice", k.shape.KeyString(key))
		case c < 0:
			return fmt.Errorf("not in the order of the key: %s comes after %s", k.shape.KeyString(key), k.shape.KeyString(o.last))
		}
	}
	o.last = append(o.last[:0], key...)
	return nil
}

// behind says what the last row was before something went wrong.
func (o *orderCheck) behind(k *keyer) string {
	if o.last == nil {
		return ""
	}
	return fmt.Sprintf("; the last good row has the key %s", k.shape.KeyString(o.last))
}

// keyer makes the keys of a file's rows.
type keyer struct {
	shape  *rowjson.Shape
	enc    *rowjson.Encoder
	exact  map[int]bool // nil where the types are the database's; else the columns whose type the manifest names
	whyNot string       // why there are no keys
	values [][]byte
	text   []byte
	dst    []byte
}

var errNoKeyer = errors.New("no key")

// builtin are the types whose order is not that of their text.
var builtin = map[string]uint32{
	"smallint": 21, "integer": 23, "bigint": 20, "oid": 26, "numeric": 1700, "real": 700, "double precision": 701,
	"date": 1082, "timestamp without time zone": 1114, "timestamp with time zone": 1184,
}

var modifier = regexp.MustCompile(`\([^)]*\)`)

// keyerOf makes keys by the names of types in a manifest. A type that it does not know (a domain, say) sorts by its text where
// its values are strings; else there is no telling.
func keyerOf(m *store.Manifest) *keyer {
	if m == nil {
		return &keyer{whyNot: "it has no manifest beside it, which would say what its key is: its order was not looked at"}
	}
	k := &keyer{shape: &rowjson.Shape{Table: m.Table.Name}, exact: map[int]bool{}}
	for i, c := range m.Columns {
		oid, known := builtin[modifier.ReplaceAllString(c.TypeName, "")]
		c.Type = rowjson.Type{OID: oid, Kind: rowjson.Text}
		switch oid {
		case 1114:
			c.Type.Kind = rowjson.Timestamp
		case 1184:
			c.Type.Kind = rowjson.TimestampTZ
		}
		k.exact[i] = known
		k.shape.Columns = append(k.shape.Columns, c)
	}
	for _, name := range m.Key {
		i := slices.IndexFunc(m.Columns, func(c rowjson.Column) bool { return c.Name == name })
		k.shape.Key = append(k.shape.Key, i)
	}
	enc, err := rowjson.NewEncoder(k.shape, false)
	if err != nil {
		return &keyer{whyNot: "the manifest's key can't be used (" + err.Error() + "): the order was not looked at"}
	}
	k.enc = enc
	return k
}

// key is the key of a row, valid until the next call.
func (k *keyer) key(ms []member) (rowjson.Key, error) {
	if k.enc == nil {
		return nil, errNoKeyer
	}
	if k.values == nil {
		k.values = make([][]byte, len(k.shape.Columns))
		k.text = []byte{} // an empty value is not nil
	}
	k.text = k.text[:0]
	for _, i := range k.shape.Key {
		c := &k.shape.Columns[i]
		value := find(ms, c.Name, i)
		switch {
		case value == nil:
			return nil, fmt.Errorf("it lacks column %s of the key", postgres.QuoteIdentifier(c.Name))
		case isNull(value):
			return nil, fmt.Errorf("column %s of the key is null", postgres.QuoteIdentifier(c.Name))
		case k.exact != nil && !k.exact[i] && value[0] != '"':
			k.enc = nil
			k.whyNot = fmt.Sprintf("the key's type %s is known to the database only: the order was not looked at", c.TypeName)
			return nil, errNoKeyer
		}
		start := len(k.text)
		text, err := rowjson.AppendText(k.text, &c.Type, value)
		if err != nil {
			return nil, fmt.Errorf("column %s of the key: %w", postgres.QuoteIdentifier(c.Name), err)
		}
		k.text = text
		k.values[i] = text[start:len(text):len(text)]
	}
	var err error
	if k.dst, err = k.enc.AppendKey(k.dst[:0], k.values); err != nil {
		return nil, err
	}
	return k.dst, nil
}
