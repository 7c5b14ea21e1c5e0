// Package pgoutput decodes the messages of pgoutput, the output plugin of Postgres' logical replication, in protocol
// version 1.
//
// A transaction arrives whole, after its commit: a Begin, the changes, and a [Commit]. A [Relation] describes a table. It
// arrives before the first change of the table, and again after the table's definition has changed. A [Change] is an Insert,
// Update or Delete. A [Truncate] names the tables that were emptied. Messages of other kinds (Origin, Type, Message) carry no
// rows.
//
// The Parse functions and methods check the whole message. Missing and surplus bytes are errors. The tuples of a Change alias
// the message, and are valid as long as the message is.
//
// The format is in the PostgreSQL documentation, "Logical Replication Message Formats".
package pgoutput

import (
	"errors"
	"time"

	"github.com/jackc/pglogrepl"
)

// Kinds of messages. A message's first byte is its kind.
const (
	KindBegin    = 'B'
	KindCommit   = 'C'
	KindRelation = 'R'
	KindInsert   = 'I'
	KindUpdate   = 'U'
	KindDelete   = 'D'
	KindTruncate = 'T'
)

// Errors for messages that violate the format. They never quote a message, because it contains values of the table.
var (
	ErrTruncated = errors.New("a pgoutput message is cut short")
	ErrTrailing  = errors.New("a pgoutput message has bytes after its end")
	ErrMalformed = errors.New("a pgoutput message has an unknown part")
)

// Kind returns the message's kind, or 0 for an empty message.
func Kind(msg []byte) byte {
	if len(msg) == 0 {
		return 0
	}
	return msg[0]
}

// Commit ends a transaction.
type Commit struct {
	EndLSN pglogrepl.LSN // end of the commit record, which is the position to confirm
	Time   time.Time
}

// ParseCommit decodes a Commit message.
func ParseCommit(msg []byte) (Commit, error) {
	r := messageReader{rest: msg}
	r.readByte()   // kind
	r.readByte()   // flags, unused
	r.readUint64() // start of the commit record
	c := Commit{EndLSN: pglogrepl.LSN(r.readUint64()), Time: serverTime(r.readUint64())}
	return c, r.checkEnd()
}

// serverTime converts a time of the protocol, in microseconds since 2000-01-01 UTC.
func serverTime(micros uint64) time.Time {
	return time.UnixMicro(int64(micros) + 946684800_000_000).UTC()
}

// Relation describes a table and its published columns.
type Relation struct {
	OID     uint32
	Schema  string
	Table   string
	Replica byte // replica identity, as in pg_class.relreplident
	Columns []Column
}

// Column is a published column.
type Column struct {
	Name    string
	TypeOID uint32
	Typmod  int32
}

// ParseRelation decodes a Relation message.
func ParseRelation(msg []byte) (Relation, error) {
	r := messageReader{rest: msg}
	r.readByte() // kind
	rel := Relation{OID: r.readUint32(), Schema: r.readString(), Table: r.readString()}
	rel.Replica = r.readByte()
	n := r.readUint16()
	for i := 0; i < n && !r.truncated; i++ {
		r.readByte() // flags: whether the column is part of the key
		rel.Columns = append(rel.Columns, Column{Name: r.readString(), TypeOID: r.readUint32(), Typmod: int32(r.readUint32())})
	}
	return rel, r.checkEnd()
}

// Truncate lists the tables that a TRUNCATE has emptied, including the tables that CASCADE added. The options CASCADE and
// RESTART IDENTITY are not decoded.
type Truncate struct{ OIDs []uint32 }

// ParseTruncate decodes a Truncate message.
func ParseTruncate(msg []byte) (Truncate, error) {
	r := messageReader{rest: msg}
	r.readByte() // kind
	n := r.readUint32()
	r.readByte() // options
	var t Truncate
	for i := uint32(0); i < n && !r.truncated; i++ {
		t.OIDs = append(t.OIDs, r.readUint32())
	}
	return t, r.checkEnd()
}

// Change is an Insert, Update or Delete message. One Change can hold one message after another: each call of Parse reuses
// the memory of Old and New.
type Change struct {
	Kind byte
	OID  uint32

	// Identity is the kind of Old: no tuple, the columns of the replica identity's key, or all columns. An Update has an old
	// tuple only if it changed the key or if the replica identity is FULL.
	Identity Identity
	Old      Tuple
	New      Tuple // empty for a Delete
}

// Identity is the kind of an old tuple.
type Identity byte

// The kinds of old tuples.
const (
	IdentityNone Identity = 0
	IdentityKey  Identity = 'K'
	IdentityFull Identity = 'O'
)

// Tuple is a row: a value for each column of the Relation.
type Tuple []Value

// Value is a column's value.
type Value struct {
	Kind ValueKind
	Text []byte // text form; nil unless Kind is Text
	Size int64  // length of the text form if Kind is Omitted
}

// ValueKind is the kind of a Value.
type ValueKind byte

// The kinds of values. In an old tuple of kind IdentityKey, columns outside of the key are Null, whatever their values were.
const (
	Null      ValueKind = 'n'
	Unchanged ValueKind = 'u' // a TOASTed value that the update did not change and the server did not send
	Text      ValueKind = 't'

	// Omitted is not part of the protocol. Package postgres puts it in place of a large value of a large row, followed by the
	// value's size in 8 bytes.
	Omitted ValueKind = 'o'
)

// ChangeOID returns the OID of the table that an Insert, Update or Delete message belongs to. It does not read the rows.
func ChangeOID(msg []byte) (uint32, error) {
	r := messageReader{rest: msg}
	r.readByte() // kind
	oid := r.readUint32()
	if r.truncated {
		return 0, ErrTruncated
	}
	return oid, nil
}

// Parse decodes an Insert, Update or Delete message into c.
func (c *Change) Parse(msg []byte) error {
	r := messageReader{rest: msg}
	*c = Change{Kind: r.readByte(), OID: r.readUint32(), Old: c.Old[:0], New: c.New[:0]}
	part := r.readByte()
	if identity := Identity(part); identity == IdentityKey || identity == IdentityFull {
		if c.Kind == KindInsert {
			return ErrMalformed
		}
		c.Identity = identity
		if err := r.readTuple(&c.Old); err != nil {
			return err
		}
		if c.Kind == KindDelete {
			return r.checkEnd()
		}
		part = r.readByte()
	}
	if r.truncated {
		return ErrTruncated
	}
	if part != 'N' || c.Kind == KindDelete {
		return ErrMalformed
	}
	if err := r.readTuple(&c.New); err != nil {
		return err
	}
	return r.checkEnd()
}
