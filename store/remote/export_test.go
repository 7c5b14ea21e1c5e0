package remote

// SetPartBytes sets the length of the parts of an upload.
func SetPartBytes(n int) { partBytes = n }

// ReadLimited is readLimited.
var ReadLimited = readLimited
