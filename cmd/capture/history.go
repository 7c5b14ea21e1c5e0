package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"capture/internal/foreign"
	"capture/store/kept"
	"capture/store/remote"
)

type historyCmd struct {
	outputConfig
	copyConfig
	Ack  bool   `help:"Acknowledge all losses: they were meant, or are dealt with. The alert ends, and the states before them no longer hold their room."`
	Drop string `placeholder:"PATH|URL|all" help:"Delete the state at PATH or URL, or all states, here and off the machine."`
	Yes  bool   `short:"y" help:"Delete without asking for confirmation."`
	JSON bool   `name:"json" help:"Print the states as JSON."`
}

func (historyCmd) Help() string {
	return "Lists the kept states of feedback.json, newest first: the earlier states that lie beside it, and the states from before " +
		"a loss of rows. It reads the folder of --output and, if --copy-to is set, what is there; it needs neither daemon nor database. " +
		"Restore one with capture restore PATH, capture restore URL or capture restore --at TIME."
}

func (historyCmd) Examples() string {
	return `
	capture history
	capture history --copy-to s3://bucket/feedback
	capture history --json | jq -r '.states[] | select(.reason == "loss") | .where'
	capture history --ack
	capture history --drop data/fallback/feedback-20261123T160000Z.json.gz
	capture history --drop all --yes`
}

func (c historyCmd) Run(ctx context.Context, std streams) error {
	path, err := c.filePath()
	if err != nil {
		return err
	}
	if c.Ack && c.Drop != "" {
		return usageError{errors.New("--ack and --drop: give one of them")}
	}
	location, err := c.location()
	if err != nil {
		return err
	}
	h := historyLists{path: path, location: location}
	if err := h.load(ctx); err != nil {
		return err
	}
	switch {
	case c.Ack:
		err = c.acknowledge(ctx, std, &h)
	case c.Drop != "":
		err = c.drop(ctx, std, &h)
	case !c.JSON:
		_, err = io.WriteString(std.out, h.text(paletteFor(std.out), time.Now()))
	}
	if err == nil && (c.Ack || c.Drop != "") && c.JSON {
		err = h.load(ctx)
	}
	if err == nil && c.JSON {
		err = printJSON(std.out, h.json(), "")
	}
	if err == nil {
		err = h.remoteErr
	}
	return err
}

// historyLists holds the kept states on this machine and the copies off the machine.
type historyLists struct {
	path      string
	location  *remote.Location // location of the copies; nil without --copy-to
	kept      []kept.State
	copies    []copiedState
	remoteErr error // error that occurred when the copies were listed; the states on this machine are shown anyway
}

func (h *historyLists) load(ctx context.Context) (err error) {
	if h.kept, err = kept.List(h.path); err != nil || h.location == nil {
		return err
	}
	h.location.Patience = commandPatience
	h.copies, h.remoteErr = listCopies(ctx, h.location)
	return nil
}

// acknowledge marks all open losses as acknowledged, and reports each of them.
func (c historyCmd) acknowledge(ctx context.Context, std streams, h *historyLists) error {
	n := 0
	for _, s := range h.kept {
		if !s.HasOpenLoss() {
			continue
		}
		if err := s.Acknowledge(); err != nil {
			return err
		}
		n++
		c.report(std, "acknowledged the loss of %s: %s", timeText(s.Loss.Found), s.Loss)
	}
	for _, s := range h.copies {
		if !s.Loss || s.Acknowledged {
			continue
		}
		if err := h.location.Acknowledge(ctx, s.State); err != nil {
			return err
		}
		n++
		c.report(std, "acknowledged the loss after %s: %s", s.URL, foreign.Text(s.lossText()))
	}
	if n == 0 {
		c.report(std, "there is no loss to acknowledge")
	}
	return nil
}

// drop deletes the states that --drop names.
func (c historyCmd) drop(ctx context.Context, std streams, h *historyLists) error {
	if h.remoteErr != nil {
		// Without the list of copies, drop would delete a state only on this machine.
		return fmt.Errorf("drop %s: %w", c.Drop, h.remoteErr)
	}
	chosen, copies := h.kept, h.copies
	if c.Drop != "all" {
		chosen, copies = findState(h.kept, c.Drop), nil
		for i, s := range h.copies {
			if s.URL == c.Drop {
				chosen, copies = nil, h.copies[i:i+1]
			}
		}
		if len(chosen)+len(copies) == 0 {
			return fmt.Errorf("drop %s: it is not a kept state of %s; capture history lists them", c.Drop, c.Output)
		}
	}
	if len(chosen)+len(copies) == 0 {
		c.report(std, "there are no kept states to delete")
		return nil
	}
	if !c.Yes {
		question := fmt.Sprintf("delete %s for good", statesText(len(chosen)+len(copies)))
		switch {
		case c.Drop == "all" && len(copies) > 0:
			question = fmt.Sprintf("delete %s and %s at %s for good", statesText(len(chosen)), copiesText(len(copies)), h.location)
		case c.Drop != "all" && len(copies) > 0:
			question = fmt.Sprintf("delete %s (%s) for good", copies[0].URL, rowsText(copies[0].Rows))
		case c.Drop != "all":
			question = fmt.Sprintf("delete %s (%s) for good", chosen[0].Path, rowsText(chosen[0].Rows))
		}
		if err := confirm(ctx, std, "capture history", question, "Use --yes to do so"); err != nil {
			return err
		}
	}
	for _, s := range chosen {
		if err := s.Drop(); err != nil {
			return err
		}
		c.report(std, "deleted %s", s.Path)
	}
	for _, s := range copies {
		if err := h.location.Drop(ctx, s.State); err != nil {
			return err
		}
		c.report(std, "deleted %s", s.URL)
	}
	return nil
}

// report prints what the command has done, unless the result is JSON.
func (c historyCmd) report(std streams, format string, args ...any) {
	if !c.JSON {
		fmt.Fprintln(std.out, foreign.Line(fmt.Sprintf(format, args...)))
	}
}

// findState returns the state at path as a slice with one element, or an empty slice if there is no such state. It also
// finds a state that has been compressed since the user noted its path.
func findState(states []kept.State, path string) []kept.State {
	stem := func(path string) string {
		if full, err := filepath.Abs(path); err == nil {
			path = full
		}
		name := strings.TrimPrefix(filepath.Base(path), ".")
		return filepath.Join(filepath.Dir(path), strings.TrimSuffix(strings.TrimSuffix(name, ".gz"), ".json"))
	}
	for i, s := range states {
		if stem(s.Path) == stem(path) {
			return states[i : i+1]
		}
	}
	return nil
}

// history is the JSON form of the kept states.
type history struct {
	States []historyState `json:"states"` // states, newest first
}

type historyState struct {
	Time         time.Time `json:"time"`
	Reason       string    `json:"reason"`
	Rows         int       `json:"rows"`
	Bytes        int64     `json:"bytes"`
	SHA256       string    `json:"sha256"` // hash of the state; "" if the state has not been compressed yet
	Where        string    `json:"where"`  // path of the state's data
	Loss         string    `json:"loss,omitempty"`
	Acknowledged bool      `json:"acknowledged,omitempty"`
	Damaged      string    `json:"damaged,omitempty"`
}

func (h *historyLists) json() history {
	list := history{States: []historyState{}}
	for _, s := range h.kept {
		j := historyState{Time: s.Time, Reason: s.Reason, Rows: s.Rows, Bytes: s.Bytes, SHA256: s.SHA256, Where: s.Path, Acknowledged: s.Acknowledged, Damaged: s.Damaged}
		if s.Loss != nil {
			j.Loss = s.Loss.String()
		}
		list.States = append(list.States, j)
	}
	for _, s := range h.copies {
		list.States = append(list.States, historyState{
			Time: s.Time, Reason: s.reason(), Rows: s.Rows, Bytes: s.manifest.Bytes, SHA256: s.manifest.SHA256, Where: s.URL, Acknowledged: s.Acknowledged,
			Damaged: s.damaged(), Loss: s.lossText(),
		})
	}
	slices.SortStableFunc(list.States, func(a, b historyState) int { return b.Time.Compare(a.Time) })
	return list
}

// text returns the states as text.
func (h *historyLists) text(p palette, now time.Time) string {
	text := historyText(h.path, h.kept, p, now)
	if h.location == nil || h.remoteErr != nil {
		return text
	}
	var states []kept.State
	for _, s := range h.copies {
		states = append(states, s.kept())
	}
	losses, said := kept.OpenLossesOf(states), map[string]bool{}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%s at %s\n", text, copiesText(len(h.copies)), foreign.Line(h.location.String()))
	for _, s := range h.copies {
		fmt.Fprintf(&b, "%s  %-8s  %s  %s  %s\n", timeText(s.Time), foreign.Text(s.reason()), rowsText(s.Rows), bytesText(s.Bytes), foreign.Line(s.URL))
		if damaged := s.damaged(); damaged != "" {
			fmt.Fprintf(&b, "  %sdamaged: %s%s\n", p.dim, foreign.Text(damaged), p.off)
		}
		if loss := s.lossText(); loss != "" {
			if s.Acknowledged {
				loss += "; over: acknowledged, or the rows are back"
			}
			fmt.Fprintf(&b, "  %sthe state before a loss: %s%s\n", p.dim, foreign.Text(loss), p.off)
			if before := s.kept(); before.HasOpenLoss() {
				for _, note := range lossAdvice(losses, before, "capture history --ack --copy-to "+foreign.ShellWord(h.location.String()), said) {
					fmt.Fprintf(&b, "  %s%s%s\n", p.dim, foreign.Line(note), p.off)
				}
			}
		}
	}
	return b.String()
}

// historyText returns the kept states of the file at path as text.
func historyText(path string, states []kept.State, p palette, now time.Time) string {
	if len(states) == 0 {
		return fmt.Sprintf("there are no kept states of %s\n", foreign.Line(path))
	}
	rowsWidth, bytesWidth := 0, 0
	for _, s := range states {
		rowsWidth = max(rowsWidth, len(rowsText(s.Rows)))
		bytesWidth = max(bytesWidth, len(bytesText(s.Bytes)))
	}
	losses, said := kept.OpenLossesOf(states), map[string]bool{}
	acknowledge := "capture history --ack --output " + foreign.ShellPath(path)
	var b strings.Builder
	for _, s := range states {
		fmt.Fprintf(&b, "%s  %-8s  %*s  %*s  %s\n", timeText(s.Time), foreign.Text(s.Reason), rowsWidth, rowsText(s.Rows), bytesWidth, bytesText(s.Bytes), foreign.Line(s.Path))
		for _, note := range stateNotes(losses, s, acknowledge, said) {
			fmt.Fprintf(&b, "  %s%s%s\n", p.dim, foreign.Line(note), p.off)
		}
	}
	fmt.Fprintln(&b, listedText(states, now))
	return b.String()
}

// stateNotes returns notes about a state's damage and about the loss after the state. The notes say what to do. acknowledge is
// the command that acknowledges the losses. The notes leave out the advice that is already in said. stateNotes adds the advice
// of its notes to said.
func stateNotes(losses kept.OpenLosses, s kept.State, acknowledge string, said map[string]bool) []string {
	var notes []string
	if s.Damaged != "" {
		notes = append(notes, foreign.Text("damaged: "+s.Damaged))
	}
	switch {
	case s.Loss == nil:
	case s.RowsBack:
		notes = append(notes, "the state before a loss: "+s.Loss.String()+"; over: the rows are back")
	case s.Acknowledged:
		notes = append(notes, "the state before a loss: "+s.Loss.String()+"; acknowledged")
	default:
		notes = append(append(notes, "the state before a loss: "+s.Loss.String()), lossAdvice(losses, s, acknowledge, said)...)
	}
	return notes
}

// lossAdvice returns notes about the open loss after s: how to restore what was lost, and how to end the alert. If the loss
// is probably a repair, the note about the alert comes first. But as long as other losses are not repaired, the only note is
// to repair them first. Several losses of values share one command, and one command acknowledges all losses. Therefore said
// holds the commands of the earlier notes. lossAdvice leaves out notes with these commands, and adds the commands of its
// notes to said.
func lossAdvice(losses kept.OpenLosses, s kept.State, acknowledge string, said map[string]bool) (notes []string) {
	add := func(note, command string) {
		if !said[command] {
			notes = append(notes, note+command)
		}
		said[command] = true
	}
	hint := losses.RestoreHint(s)
	switch {
	case losses.IsRepaired(s):
		return []string{"a later change has repaired it; to compare: " + hint}
	case !s.Loss.IsRepair() && said[hint]:
		return []string{"the commands above restore this state, too"}
	case !s.Loss.IsRepair():
		add("bring the rows back: ", hint)
		add("or end the alert, if "+losses.MeantText()+": ", acknowledge)
	case losses.AreRepaired():
		add("end the alert, if it was a repair: ", acknowledge)
		add("or undo it: ", s.RestoreHint())
	default:
		add("", "other losses are still open: repair them before you acknowledge any")
	}
	return notes
}

// listedText returns the number and size of the states and the age of the oldest. There must be at least one state.
func listedText(states []kept.State, now time.Time) string {
	var onDisk int64
	for _, s := range states {
		onDisk += s.DiskBytes
	}
	return keptText(len(states), onDisk, &states[len(states)-1].Time, now)
}

// keptText returns the number and size of n kept states and the age of the oldest, or "" if n is 0.
func keptText(n int, onDisk int64, oldest *time.Time, now time.Time) string {
	if n == 0 || oldest == nil {
		return ""
	}
	takes := "take"
	if n == 1 {
		takes = "takes"
	}
	return fmt.Sprintf("%s %s %s; the oldest is %s old", statesText(n), takes, bytesText(onDisk), spanText(now.Sub(*oldest)))
}

func statesText(n int) string {
	if n == 1 {
		return "1 kept state"
	}
	return countText(n) + " kept states"
}
