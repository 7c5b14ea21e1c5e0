package source

import (
	"cmp"
	"time"

	"capture/internal/postgres"
)

// Timeouts are the intervals after which a source checks something or gives up. Only tests set them.
type Timeouts struct {
	Idle  time.Duration // a connection counts as dead if the server has sent nothing for this time
	Ping  time.Duration // interval at which a server that sends nothing is asked for a reply
	Check time.Duration // time between regular checks, which find what the received changes do not show, such as a new definition of the table
	Stop  time.Duration // time limit of each step that the source takes when capture stops, to prepare the resync of the next run

	// In the fields below, zero means the default. Each field's comment refers to the package that defines the default.
	RowCount     time.Duration // interval at which the table's rows are counted; see package logical
	FrozenClient time.Duration // time after which the server ends the sessions that create the slot or copy the table, if this process is frozen; see tablecopy.FrozenClientTimeout
	Marker       time.Duration // longest wait for a marker, after which the whole table is read; see package notify
}

const (
	pingInterval = 10 * time.Second       // default of Ping
	stopTimeout  = 800 * time.Millisecond // default of Stop; long enough for the server's WAL writer, which by default flushes an asynchronous commit within 600 ms
)

// WithDefaults returns t with the defaults of Idle, Ping, Check and Stop in place of zeros.
func (t Timeouts) WithDefaults() Timeouts {
	t.Idle = cmp.Or(t.Idle, postgres.DefaultIdleTimeout)
	t.Ping = cmp.Or(t.Ping, pingInterval)
	t.Check = cmp.Or(t.Check, checkInterval)
	t.Stop = cmp.Or(t.Stop, stopTimeout)
	return t
}
