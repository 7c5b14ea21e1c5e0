package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"capture/internal/cgroup"
	"capture/internal/foreign"
	"capture/internal/postgres"
	"capture/store"
	"capture/store/disk"
	"capture/store/kept"
)

type doctorCmd struct {
	databaseConfig
	outputConfig
	logFiles
	JSON bool `name:"json" help:"Print the result as JSON."`
}

func (doctorCmd) Help() string {
	return "Checks everything that capture depends on and changes nothing. For each problem it prints why it matters and the " +
		"SQL or the setting that solves it. It names the source that --source auto will use. Exit code 1 means that capture " +
		"would not work."
}

func (doctorCmd) Examples() string {
	return `
	capture doctor --database-url postgres://capture@db/app
	capture doctor --json | jq '.findings[] | select(.level != "ok")'`
}

func (c doctorCmd) Run(ctx context.Context, std streams) error {
	database, err := c.connConfig()
	if err != nil {
		return err
	}
	path, err := c.filePath()
	if err != nil {
		return err
	}
	c.warnAboutPassword(std)
	diagnosis := postgres.Diagnose(ctx, database, c.Table.Name, postgres.LocalResources{
		Memory: availableMemory(),
		Disk:   freeSpace(path),
	})
	if ctx.Err() != nil {
		return ctx.Err() // the findings would wrongly blame the database
	}
	if c.DatabaseAuth == "azure" {
		connected := !slices.ContainsFunc(diagnosis.Findings, func(f postgres.Finding) bool { return f.Name == "connection" && f.Level == postgres.Fail })
		diagnosis.Findings = slices.Insert(diagnosis.Findings, 0, postgres.AzureIdentityFinding(ctx, database, c.Table.Name, connected))
	}
	diagnosis.Findings = append(diagnosis.Findings,
		folderFinding("output folder", path, postgres.Fail, "feedback.json cannot be written"),
		fileSystemFinding(path),
		keptFinding(path),
		folderFinding("usage log", c.UsageLog, postgres.Warn, "capture would work, but without a record of what it did"),
		folderFinding("error log", c.ErrorLog, postgres.Warn, "capture would work, but errors would go to stderr only"),
	)
	works := diagnosis.Source != ""
	for _, f := range diagnosis.Findings {
		works = works && f.Level != postgres.Fail
	}
	if c.JSON {
		err = printJSON(std.out, diagnosis, "  ")
	} else {
		_, err = io.WriteString(std.out, diagnosisText(diagnosis, works, paletteFor(std.out)))
	}
	if err == nil && !works {
		err = reportedError{errors.New("capture would not work")}
	}
	return err
}

// diagnosisText returns the diagnosis as text.
func diagnosisText(d postgres.Diagnosis, works bool, p palette) string {
	marks := map[postgres.Level]string{
		postgres.OK: p.checkMark(true), postgres.Warn: p.bold + "!" + p.off, postgres.Fail: p.checkMark(false),
	}
	width := 0
	for _, f := range d.Findings {
		width = max(width, len(f.Name))
	}
	margin := strings.Repeat(" ", width+4)
	var b strings.Builder
	for _, f := range d.Findings {
		fmt.Fprintf(&b, "%s %-*s  %s\n", marks[f.Level], width, f.Name, foreign.Line(f.Found))
		if f.Reason != "" {
			fmt.Fprintf(&b, "%s%s%s%s\n", margin, p.dim, foreign.Line(f.Reason), p.off)
		}
		for i, line := range strings.Split(foreign.Lines(f.Hint), "\n") {
			if f.Hint != "" {
				fmt.Fprintf(&b, "%s%s %s\n", margin, []string{"→", " "}[min(i, 1)], line)
			}
		}
	}
	if works {
		fmt.Fprintf(&b, "\ncapture works here; --source auto uses: %s%s%s\n", p.bold, d.Source, p.off)
		switch d.Source {
		case "logical":
			fmt.Fprintf(&b, "next: capture run\n")
		case "notify":
			fmt.Fprintf(&b, "next: capture run; it changes to logical, the best source, within an hour after somebody solves what is marked %s!%s\n", p.bold, p.off)
		default:
			fmt.Fprintf(&b, "next: capture run; it reads the table at each --poll-interval. To follow each change, one of two is enough: logical replication, "+
				"which is better, or the triggers. Solve what is marked %s!%s for one of them; capture changes to it within an hour, or when you restart it\n", p.bold, p.off)
		}
	} else {
		fmt.Fprintf(&b, "\ncapture does not work here yet: solve what is marked %s\n", p.checkMark(false))
	}
	return b.String()
}

// folderFinding checks that this user can write to the folder of the file at path, and that other users cannot. If the
// folder does not exist, folderFinding checks the nearest parent that exists. If this user cannot write there, the finding
// has the level failLevel and the reason failReason.
func folderFinding(name, path string, failLevel postgres.Level, failReason string) postgres.Finding {
	folder := existingFolder(path)
	err := unix.Access(folder, unix.W_OK|unix.X_OK)
	if err == nil && disk.OthersMayWrite(folder) {
		return postgres.Finding{
			Name: name, Level: postgres.Warn, Found: folder + " is writable for every user of this machine",
			Reason: "others may put their files in the place of capture's", Hint: "chmod o-w " + foreign.ShellPath(folder),
		}
	}
	if err == nil {
		return postgres.Finding{Name: name, Level: postgres.OK, Found: folder + " is writable"}
	}
	return postgres.Finding{
		Name: name, Level: failLevel, Reason: failReason,
		Found: fmt.Sprintf("%s is not writable for user %d: %v", folder, os.Getuid(), err),
		Hint:  fmt.Sprintf("chown %d %s, or choose another folder", os.Getuid(), foreign.ShellPath(folder)),
	}
}

// fileSystemFinding names the file system of the output folder, or of the nearest parent that exists, and its effect on writes. If
// this user can create files there, fileSystemFinding also tests locks and the replacement of open files.
func fileSystemFinding(path string) postgres.Finding {
	folder := existingFolder(path)
	fs, err := store.ProbeFileSystem(folder)
	f := postgres.Finding{Name: "file system", Level: postgres.OK, Found: fs.Name + ", on this machine"}
	switch {
	case fs.Name == "ext4" || fs.Name == "XFS":
		f.Reason = "a change is written into a copy of a large file, so it costs what changed"
	case fs.IsLocal:
		f.Reason = "each change writes the whole file; on ext4 and XFS it would cost what changed"
	default:
		f.Found = fs.Name + ", a network share or unknown"
		f.Reason = "each change writes the whole file; on ext4 and XFS of this machine it would cost what changed"
	}
	if err != nil { // folderFinding reports the reason
		return f
	}
	if !fs.LocksHold {
		f.Level, f.Found = postgres.Warn, f.Found+"; locks do not hold there"
		f.Reason = "if a second capture is started on this folder, it takes the file over, and the first one stops writing"
		f.Hint = "mount it with locks (SMB: without nobrl; NFS: without nolock), or make sure that only one capture runs"
	}
	if !fs.ReplacesOpenFiles {
		f.Level, f.Found = postgres.Warn, f.Found+"; a file that is open can't be replaced"
		f.Reason = joinNonEmpty("; ", f.Reason, "a reader that keeps the file open keeps it from being written")
		f.Hint = joinNonEmpty("\n", f.Hint, "let readers read the file in one go and close it, or fetch it by GET /feedback.json")
	}
	return f
}

// keptFinding returns the size of the kept states of the file at path, and the age of the oldest state.
func keptFinding(path string) postgres.Finding {
	f := postgres.Finding{Name: "kept states", Level: postgres.OK, Found: "none yet"}
	states, err := kept.List(path)
	switch {
	case err != nil:
		f.Level, f.Found, f.Reason = postgres.Warn, err.Error(), "earlier states of the file can neither be kept nor restored"
	case len(states) > 0:
		f.Found = listedText(states, time.Now())
	}
	return f
}

// existingFolder returns the folder of the file at path. If the folder does not exist, it returns the nearest parent that
// exists.
func existingFolder(path string) string {
	if full, err := filepath.Abs(path); err == nil {
		path = full
	}
	for {
		above := filepath.Dir(path)
		if info, err := os.Stat(above); err == nil && info.IsDir() || above == path {
			return above
		}
		path = above
	}
}

// freeSpace returns the number of bytes that this user can still write to the file system of path, or 0 if unknown.
func freeSpace(path string) int64 {
	var fs unix.Statfs_t
	if err := unix.Statfs(existingFolder(path), &fs); err != nil {
		return 0
	}
	return int64(fs.Bavail) * int64(fs.Bsize)
}

// availableMemory returns the number of bytes that this process can use: the memory of the machine, or the limit of the
// control group if this limit is lower. It returns 0 if neither is known.
func availableMemory() int64 {
	total := int64(math.MaxInt64)
	if content, err := os.ReadFile("/proc/meminfo"); err == nil {
		for line := range strings.Lines(string(content)) {
			if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "MemTotal:" {
				if kB, err := strconv.ParseInt(fields[1], 10, 64); err == nil {
					total = kB << 10
				}
			}
		}
	}
	if total = min(total, cgroup.MemoryLimit()); total == math.MaxInt64 {
		return 0
	}
	return total
}
