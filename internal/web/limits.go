package web

import "time"

// What a client may send.
const (
	maxHeaderBytes = 16 << 10
	maxBodyBytes   = 4 << 10 // no request needs a body
	maxQueryBytes  = 400     // of the parameter q
	maxQueryWords  = 12
	maxTokenBytes  = 4 << 10
	minTokenLength = 16 // characters; a shorter token is accepted with a warning

	headerTimeout = 5 * time.Second
	readTimeout   = 10 * time.Second // for headers and body
	idleTimeout   = 60 * time.Second
)

// How slowly a client may read an answer.
const (
	pieceTimeout = 30 * time.Second // for one piece of the answer
	minRate      = 8 << 10          // bytes per second on average, after rateGrace
	rateGrace    = 2 * time.Minute
)

// How much runs at a time.
const (
	maxConnections = 512 // beyond them the longest idle one is closed: the file descriptors are for writing feedback.json first
	maxRequests    = 64  // that read votes or the disk
	maxCompressors = 4   // further downloads are sent uncompressed, to leave the processor to the daemon
	maxSearches    = 4   // further ones wait
	maxExports     = 4   // each keeps a state of the table in memory until it ends
	maxStreams     = 32
	maxScrapes     = 8 // of /metrics
)

// How long capture works on one request.
const (
	searchTimeout   = 250 * time.Millisecond
	snapshotTimeout = 5 * time.Minute        // far more than writing the file takes
	stopTimeout     = 700 * time.Millisecond // for requests in progress at a stop; the process has two seconds in all
	wrongTokenDelay = time.Second            // before the answer to a wrong token
)

// How much one answer holds.
const (
	defaultPageRows = 50
	maxPageRows     = 500
	maxPageBytes    = 8 << 20 // a single larger row is still sent
	maxEventRows    = 50
	maxEventBytes   = 1 << 20
)
