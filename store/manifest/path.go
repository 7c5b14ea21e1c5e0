package manifest

import (
	"strings"

	"capture/store/disk"
)

// Path returns the path of the manifest of the file at path: x.manifest.json for x.json. If path is a symbolic link, the manifest
// is next to the link's target.
func Path(path string) string {
	return strings.TrimSuffix(disk.FollowLink(path), ".json") + ".manifest.json"
}
