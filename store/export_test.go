package store

// SetAtRename has fn called between the two renames of a Write.
func SetAtRename(fn func()) { atRename = fn }
