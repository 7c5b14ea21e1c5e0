package disk

import "io/fs"

// OwnerRead is the bit of a mode that lets the owner of a file read it.
const OwnerRead fs.FileMode = 0o400

// AddMode sets the given bits in the mode of the regular file at path, if the mode lacks one of them. It changes nothing if
// capture has no right to change the mode, because the file belongs to another user.
func AddMode(path string, bits fs.FileMode) { addMode(path, bits) }
