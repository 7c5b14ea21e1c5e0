package store_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// A device replays the system calls of a traced child. It holds the files below root as the calls have left them, and what a
// power cut may leave of these files. Data are durable after a successful fsync of their file, if the fsync began after the
// data were written. A name is durable after a successful fsync of its folder. Everything else may survive or not, although
// ext4 and XFS promise more.
type device struct {
	root    string
	rootHex string // start of an argument that names a path below root
	fds     map[int64]*handle
	names   map[string]*inode // files by absolute path, as a running program sees them
	durable map[string]*inode // files by absolute path, with only the names that are durable
	pending []nameChange      // changes of names that are not durable yet, in order
	inodes  int
	// ignoreSync reports whether the device ignores a sync. A test sets it to verify that the checks notice a missing sync.
	ignoreSync func(c *call, folder bool) bool
}

// A nameChange holds all names that one call changes. The journal of a file system keeps these changes together. The inode of a
// removed name is nil.
type nameChange struct {
	at  int
	set map[string]*inode
}

type handle struct {
	file    *inode
	pos     int64
	appends bool // whether the file was opened with O_APPEND
}

const pageSize = 4096

// An inode is a file or a folder.
type inode struct {
	id     int
	folder string // path of the folder; "" for a file
	data   []byte // content as a running program reads it
	safe   []byte // durable content
	// dirty has the pages that were written since the last sync. Its values are the times of their last writes, as line numbers
	// of the trace. The kernel forgets pages that it could not write, so a failed fsync moves all pages from dirty to lost. A
	// later fsync makes such a page durable only if the page is written again.
	dirty map[int64]int
	lost  map[int64]bool
	sized int // time of the last change of the size, as a line number of the trace
	// contents caches the results of afterCut. The index is the pageLeft that describes what a power cut leaves of each page.
	// The cache is cleared when the file changes.
	contents [pageModeCount]*leftFile
}

func newDevice(root string) *device {
	d := &device{root: root, fds: map[int64]*handle{}, names: map[string]*inode{}, durable: map[string]*inode{}}
	d.rootHex = `"`
	for _, b := range []byte(root) {
		d.rootHex += fmt.Sprintf(`\x%02x`, b)
	}
	top := d.inode()
	top.folder = root
	d.names[root], d.durable[root] = top, top
	return d
}

func (d *device) inode() *inode {
	d.inodes++
	return &inode{id: d.inodes, safe: []byte{}, dirty: map[int64]int{}, lost: map[int64]bool{}}
}

// addFile adds a file that is durable from the start.
func (d *device) addFile(path string, data []byte) {
	n := d.inode()
	n.data, n.safe = data, slices.Clone(data)
	d.names[path], d.durable[path] = n, n
}

func (n *inode) write(at int64, b []byte, when int) {
	n.forgetContents()
	if grown := at + int64(len(b)); grown > int64(len(n.data)) {
		n.data = append(n.data, make([]byte, grown-int64(len(n.data)))...)
		n.sized = when
	}
	copy(n.data[at:], b)
	for p := at / pageSize; p*pageSize < at+int64(len(b)); p++ {
		n.dirty[p] = when
		delete(n.lost, p)
	}
}

func (n *inode) truncate(size int64, when int) {
	n.forgetContents()
	for p := min(size, int64(len(n.data))) / pageSize; p*pageSize < max(size, int64(len(n.data))); p++ {
		n.dirty[p] = when
		delete(n.lost, p)
	}
	if size <= int64(len(n.data)) {
		n.data = n.data[:size:size]
	} else {
		n.data = append(n.data, make([]byte, size-int64(len(n.data)))...)
	}
	n.sized = when
}

// sync applies a successful fsync that began at startTime: the data and the size from before startTime become durable.
func (n *inode) sync(startTime int) {
	n.forgetContents()
	if n.sized < startTime {
		n.safe = resized(n.safe, len(n.data))
	}
	for p, at := range n.dirty {
		if at < startTime {
			n.keep(p)
			delete(n.dirty, p)
		}
	}
}

func (n *inode) keep(p int64) {
	from, to := p*pageSize, min((p+1)*pageSize, int64(len(n.data)), int64(len(n.safe)))
	if from < to {
		copy(n.safe[from:to], n.data[from:to])
	}
}

// failSync does what a failed fsync does: the pages count as clean, and may be on disk or not.
func (n *inode) failSync() {
	n.forgetContents()
	for p := range n.dirty {
		n.lost[p] = true
	}
	clear(n.dirty)
}

func (n *inode) forgetContents() { clear(n.contents[:]) }

func resized(b []byte, size int) []byte {
	out := make([]byte, size)
	copy(out, b)
	return out
}

// path returns the path that a call names with two arguments. Argument i is an absolute path, or a path relative to the
// folder whose descriptor is argument i-1. For a path outside root, path returns "".
func (d *device) path(c *call, i int) string {
	path := string(c.text(i))
	if !filepath.IsAbs(path) {
		h := d.fds[c.arg(i-1)]
		if h == nil || h.file.folder == "" {
			return ""
		}
		path = filepath.Join(h.file.folder, path)
	}
	if path != d.root && !strings.HasPrefix(path, d.root+"/") {
		return ""
	}
	return filepath.Clean(path)
}

// apply applies the effect of the call to the device, and reports whether the device changed. It knows each call that Go and
// this package make on files. Any other call is an error, because it might change the device without the replay's knowledge.
func (d *device) apply(c *call) (changed bool, err error) {
	if h := d.fds[c.arg(0)]; h != nil {
		if changed, known := d.applyTo(h, c); known {
			return changed, nil
		}
	}
	var path string
	switch c.name {
	case "open", "unlink", "rmdir", "mkdir":
		c.args = append([]string{"AT_FDCWD"}, c.args...)
		c.name += "at"
	case "rename", "link":
		c.args = []string{"AT_FDCWD", c.args[0], "AT_FDCWD", c.args[1]}
		c.name += "at"
	}
	switch c.name {
	case "openat", "unlinkat", "rmdirat", "mkdirat", "renameat", "renameat2", "linkat", "openat2", "symlinkat", "mknodat":
		if path = d.path(c, 1); path == "" {
			return false, nil
		}
	case "mmap":
		if d.fds[c.arg(4)] != nil && strings.Contains(c.args[3], "MAP_SHARED") && strings.Contains(c.args[2], "PROT_WRITE") {
			return false, fmt.Errorf("a file is written by a mapping: %s", c)
		}
		return false, nil
	default:
		if !d.concerns(c) || slices.Contains(harmless, c.name) {
			return false, nil
		}
		return false, fmt.Errorf("a call that the replay does not know: %s", c)
	}
	if c.ret < 0 {
		return false, nil
	}
	return d.applyToNames(c, path)
}

var harmless = []string{
	"fstat", "newfstatat", "stat", "lstat", "statx", "statfs", "fstatfs", "fcntl", "epoll_ctl", "getdents64", "readlinkat",
	"flock", "read", "pread64", "lseek", "access", "faccessat", "faccessat2", "fchmod", "fchmodat", "fchown", "fchownat",
	"sync_file_range", "fadvise64", "execve", "epoll_pwait", "utimensat",
}

// concerns reports whether the call names anything on the device.
func (d *device) concerns(c *call) bool {
	if d.fds[c.arg(0)] != nil {
		return true
	}
	return slices.ContainsFunc(c.args, func(arg string) bool { return strings.HasPrefix(arg, d.rootHex) })
}

// applyTo applies a call on an open file.
func (d *device) applyTo(h *handle, c *call) (changed, known bool) {
	n := h.file
	switch c.name {
	case "close":
		delete(d.fds, c.arg(0))
		return false, true
	case "write", "writev":
		if c.ret > 0 {
			at := h.pos
			if h.appends {
				at = int64(len(n.data))
			}
			n.write(at, c.buffer()[:c.ret], c.ended)
			h.pos = at + c.ret
		}
	case "pwrite64", "pwritev":
		if c.ret > 0 {
			n.write(c.arg(3), c.buffer()[:c.ret], c.ended)
		}
	case "copy_file_range": // arguments: from, its offset or NULL, to, its offset or NULL, …
		to := d.fds[c.arg(2)]
		if to == nil || c.args[1] != "NULL" || c.args[3] != "NULL" {
			return false, false
		}
		if c.ret > 0 {
			to.file.write(to.pos, slices.Clone(n.data[h.pos:h.pos+c.ret]), c.ended)
			h.pos, to.pos = h.pos+c.ret, to.pos+c.ret
		}
	case "read":
		h.pos += max(c.ret, 0)
		return false, true
	case "lseek":
		h.pos = max(c.ret, 0)
		return false, true
	case "ioctl": // ioctl(destination, FICLONE, source)
		from := d.fds[c.arg(2)]
		if from == nil || !strings.Contains(c.args[1], "CLONE") {
			return false, false
		}
		if c.ret == 0 {
			n.truncate(0, c.ended)
			n.write(0, slices.Clone(from.file.data), c.ended)
		}
	case "ftruncate":
		if c.ret == 0 {
			n.truncate(c.arg(1), c.ended)
		}
	case "fallocate":
		if c.args[1] != "0" {
			return false, false
		}
		if size := c.arg(2) + c.arg(3); c.ret == 0 && size > int64(len(n.data)) {
			n.truncate(size, c.ended)
		}
	case "fsync", "fdatasync":
		d.sync(n, c)
	default:
		return false, false
	}
	return true, true
}

func (d *device) sync(n *inode, c *call) {
	switch {
	case d.ignoreSync != nil && d.ignoreSync(c, n.folder != ""):
	case n.folder == "" && c.ret == 0:
		n.sync(c.began)
	case n.folder == "":
		n.failSync()
	case c.ret == 0:
		d.syncNames(n.folder, c.began)
	}
}

func (d *device) syncNames(folder string, began int) {
	var rest []nameChange
	for _, p := range d.pending {
		left := map[string]*inode{}
		for path, n := range p.set {
			if p.at < began && filepath.Dir(path) == folder {
				set(d.durable, path, n)
			} else {
				left[path] = n
			}
		}
		if len(left) > 0 {
			rest = append(rest, nameChange{p.at, left})
		}
	}
	d.pending = rest
}

func set(names map[string]*inode, path string, n *inode) {
	if n == nil {
		delete(names, path)
	} else {
		names[path] = n
	}
}

func (d *device) applyToNames(c *call, path string) (changed bool, err error) {
	set := map[string]*inode{}
	switch c.name {
	case "openat":
		n := d.names[path]
		flags := c.args[2]
		if n == nil {
			n = d.inode()
			set[path] = n
		}
		if strings.Contains(flags, "O_TRUNC") {
			n.truncate(0, c.ended)
		}
		d.fds[c.ret] = &handle{file: n, appends: strings.Contains(flags, "O_APPEND")}
	case "mkdirat":
		n := d.inode()
		n.folder = path
		set[path] = n
	case "unlinkat", "rmdirat":
		set[path] = nil
	case "renameat", "renameat2":
		to := d.path(c, 3)
		if to == "" || d.names[path] == nil || d.names[path].folder != "" {
			return false, fmt.Errorf("a rename that the replay does not know: %s", c)
		}
		set[path], set[to] = nil, d.names[path]
		if len(c.args) > 4 && strings.Contains(c.args[4], "RENAME_EXCHANGE") {
			set[path] = d.names[to]
		}
	case "linkat":
		set[d.path(c, 3)] = d.names[path]
	default:
		return false, fmt.Errorf("a call that the replay does not know: %s", c)
	}
	if len(set) > 0 {
		d.name(nameChange{c.ended, set})
	}
	return len(set) > 0, nil
}

func (d *device) name(n nameChange) {
	for path, file := range n.set {
		set(d.names, path, file)
	}
	d.pending = append(d.pending, n)
}
