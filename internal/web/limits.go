package web

import "time"

// Limits on what a client may send.
const (
	maxHeaderBytes = 16 << 10
	maxBodyBytes   = 4 << 10 // no request needs a body
	maxQueryBytes  = 400     // length of the parameter q in bytes
	maxQueryWords  = 12
	maxTokenBytes  = 4 << 10
	minTokenLength = 16 // characters; a shorter token is accepted with a warning

	headerTimeout = 5 * time.Second
	readTimeout   = 10 * time.Second // time to send the headers and the body
	idleTimeout   = 60 * time.Second
)

// Limits on how slowly a client may read an answer.
const (
	pieceTimeout = 30 * time.Second // time for one write of the answer
	minRate      = 8 << 10          // minimum average since the answer began, in bytes per second
	rateGrace    = 2 * time.Minute  // time that an answer may take in addition to its time at minRate
)

// Limits on how much runs at the same time.
const (
	maxConnections = 512 // above this number, the connection that has waited longest is closed: writing feedback.json needs file descriptors, too
	maxRequests    = 64  // requests that read votes or the disk
	maxCompressors = 4   // downloads that are compressed; further ones are sent uncompressed, to leave processor time to the daemon
	maxSearches    = 4   // searches in progress; further searches wait
	maxExports     = 4   // exports in progress; few, because each export keeps a state of the table in memory until it ends
	maxStreams     = 32
	maxScrapes     = 8 // requests for /metrics
)

// Limits on the time that capture spends on one request.
const (
	searchTimeout   = 250 * time.Millisecond
	snapshotTimeout = 5 * time.Minute        // far longer than writing the file takes
	stopTimeout     = 700 * time.Millisecond // time for requests in progress when the server stops; the whole process stops within two seconds
	wrongTokenDelay = time.Second            // time before the answer to a wrong token
)

// Limits on the size of one answer.
const (
	defaultPageRows = 50
	maxPageRows     = 500
	maxPageBytes    = 8 << 20 // size in bytes at which a page ends; the row that exceeds this size is still sent
	maxEventRows    = 50
	maxEventBytes   = 1 << 20
)
