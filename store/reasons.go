package store

import "capture/store/manifest"

// Reasons for which a file is written.
const (
	ReasonStart    manifest.Reason = "start"    // the first copy of the table is complete
	ReasonChange   manifest.Reason = "change"   // the table changed
	ReasonInterval manifest.Reason = "interval" // a new flush interval began
	ReasonForced   manifest.Reason = "forced"   // somebody asked the daemon to write the file
	ReasonStop     manifest.Reason = "stop"     // the daemon stops
	ReasonExport   manifest.Reason = "export"   // somebody asked for a file while no daemon runs
)
