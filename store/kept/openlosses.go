package kept

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"capture/internal/foreign"
	"capture/store/loss"
)

// maxShownLosses is the maximum number of open losses that Texts describes.
const maxShownLosses = 3

// OpenLosses has the states before open losses. What to do about one loss depends on the others. For example, after two bad
// UPDATEs, the state before the second UPDATE has the values that the first UPDATE ruined.
type OpenLosses struct {
	states []State // newest first
	path   string  // path of the file that the losses belong to; "" if Shown need not compare the states with a file
}

// OpenLossesOf returns the open losses among states.
func OpenLossesOf(states []State) OpenLosses {
	open := slices.DeleteFunc(slices.Clone(states), func(s State) bool { return !s.HasOpenLoss() })
	slices.SortStableFunc(open, func(a, b State) int { return b.Time.Compare(a.Time) })
	return OpenLosses{states: open}
}

// ListOpenLosses returns the open losses of the file at path. [OpenLosses.Shown] leaves out a state that equals the file:
// either the Write that removes the rows has not replaced the file yet, or the rows are back.
func ListOpenLosses(path string) (OpenLosses, error) {
	states, err := List(path)
	open := OpenLossesOf(states)
	open.path = path
	return open, err
}

// Shown returns the states in the order in which a text should describe them. The first one is the state before the earliest
// loss of values that nobody has repaired: all later states have ruined values. The other states follow, newest first.
func (o OpenLosses) Shown() []State {
	shown := slices.Clone(o.states)
	for i, s := range slices.Backward(shown) {
		if s.Loss.RuinsValues() && !o.IsRepaired(s) {
			shown = slices.Insert(slices.Delete(shown, i, i+1), 0, s)
			break
		}
	}
	return slices.DeleteFunc(shown, func(s State) bool { return o.path != "" && s.equalsFile(o.path) })
}

// AreRepaired reports whether each of the losses either is a repair or has been repaired. Only then may a text suggest
// `capture history --ack`, which acknowledges all of them.
func (o OpenLosses) AreRepaired() bool {
	return !slices.ContainsFunc(o.states, func(s State) bool { return !s.Loss.IsRepair() && !o.IsRepaired(s) })
}

// IsRepaired reports whether a later change has repaired the loss after s.
func (o OpenLosses) IsRepaired(s State) bool { return o.repairOf(s) != nil }

// repairOf returns the state before the first repair of the loss after s, or nil if there is none. The manifest of a repair
// names one loss that it has repaired. Between that loss and the repair, another loss may have changed the same values once
// more. The repair has also repaired this other loss, unless the other loss changed more rows than the repair.
func (o OpenLosses) repairOf(s State) *State {
	for _, repair := range slices.Backward(o.states) {
		if !repair.Loss.IsRepair() || !repair.Loss.Found.After(s.Loss.Found) {
			continue
		}
		isRepair := s.Time.Equal(repair.Loss.RepairOf) || slices.ContainsFunc(o.states, func(first State) bool {
			return first.Time.Equal(repair.Loss.RepairOf) && s.Loss.Found.After(first.Loss.Found) &&
				s.Loss.RowsChanged <= repair.Loss.RowsChanged && loss.ChangesSameValues(s.Loss, first.Loss)
		})
		if isRepair {
			return &repair
		}
	}
	return nil
}

// Texts returns a text about each of the first maxShownLosses losses of Shown, and the number of the remaining losses. One
// command restores all lost values, and one command acknowledges all losses. To avoid repetition, only the first text that
// needs such a command contains the command.
func (o OpenLosses) Texts(acknowledge func(State) string) (texts []string, others int) {
	shown, said := o.Shown(), map[string]bool{}
	for _, s := range shown[:min(len(shown), maxShownLosses)] {
		texts = append(texts, o.text(s, acknowledge(s), said))
	}
	return texts, len(shown) - len(texts)
}

// Text returns a text for the operator about the loss after s: what is lost, where s is, what restores the rows, and the
// command that acknowledges the loss. In the commands, a space or the end of the text follows each path, so that people can
// copy the path.
func (o OpenLosses) Text(s State, acknowledge string) string {
	return o.text(s, acknowledge, map[string]bool{})
}

// text is like Text, but does not repeat the commands and sentences in usedParts, because an earlier text contains them. It
// adds its own commands and sentences to usedParts.
func (o OpenLosses) text(s State, acknowledge string, usedParts map[string]bool) string {
	place := "kept"
	if s.Remote {
		place = "off the machine"
	}
	text := fmt.Sprintf("%s. The state before is %s", s.Loss, place)
	isNew := func(part string) bool {
		was := usedParts[part]
		usedParts[part] = true
		return !was
	}
	const othersOpen = "Other losses are still open: repair them before you acknowledge any"
	switch hint := o.RestoreHint(s); {
	case o.IsRepaired(s):
		text += fmt.Sprintf(". To compare: %s – a later change has repaired it", hint)
	case !s.Loss.IsRepair() && !isNew(hint):
		text += ". The commands above restore this state, too"
	case !s.Loss.IsRepair() && isNew(acknowledge):
		text += fmt.Sprintf(". To bring rows back: %s – or, if %s: %s", hint, o.MeantText(), acknowledge)
	case !s.Loss.IsRepair():
		text += fmt.Sprintf(". Then run: %s – it brings these rows back, too", hint)
	case o.AreRepaired() && isNew(acknowledge):
		text += fmt.Sprintf(". If it was a repair: %s – or, to undo it: %s", acknowledge, s.RestoreHint())
	case o.AreRepaired():
		text += fmt.Sprintf(". To undo it: %s – if it was no repair", s.RestoreHint())
	case isNew(othersOpen):
		text += ". " + othersOpen
	}
	if s.Loss.Found.IsZero() { // the manifest cannot be read, so the time of the loss is not known
		return text
	}
	return s.Loss.Found.UTC().Format(time.RFC3339) + ": " + text
}

// MeantText returns the condition under which a text suggests `capture history --ack`, which acknowledges all open losses.
func (o OpenLosses) MeantText() string {
	if len(o.states) > 1 {
		return "all losses were meant or are repaired"
	}
	return "it was meant"
}

// RestoreHint is like [State.RestoreHint]. But if values were lost, the command restores the states before all losses of
// values, the earliest state last. So each row gets the value that it had before the first loss. Rows that were added later
// get their values from a later state.
//
// If the loss after a state was repaired before the earliest of the other states was written, the command leaves this state
// out. The other states have its values, and also the changes that users have made since the repair. If the loss after s
// itself is repaired, the command only compares s with the table.
//
// If nothing is known about the loss after s, the command inserts missing rows, but changes no value: users may have made
// changes since, and perhaps nobody has ruined any value. The hint then continues with commands that compare the values and
// restore them.
func (o OpenLosses) RestoreHint(s State) string {
	switch {
	case o.IsRepaired(s):
		return "capture verify " + foreign.ShellPath(s.Path)
	case s.isRefused():
		return s.RestoreHint()
	case s.Loss.IsUnknown():
		return fmt.Sprintf("%s – perhaps values were lost, too; to compare them: capture verify %s – if the table's values are wrong: %s",
			s.RestoreHint(), foreign.ShellPath(s.Path), o.valuesHint(s))
	case !s.canRestoreValues():
		return s.RestoreHint()
	}
	return o.valuesHint(s)
}

// valuesHint returns the command that restores s and the states before all losses of values, the earliest state last.
func (o OpenLosses) valuesHint(s State) string {
	var commands []string
	var earliest time.Time // time of the earliest state in commands
	for _, state := range o.states {
		repair := o.repairOf(state)
		switch {
		case state.Path == s.Path:
		case !state.canRestoreValues(), repair != nil && (commands == nil || !earliest.Before(repair.Time)):
			continue
		}
		commands, earliest = append(commands, state.overwriteHint()), state.Time
	}
	return strings.Join(commands, " && ")
}

// HintWithout returns the command to run after a restore of the state of the given time has failed, because this state is damaged
// or gone. It is the command of RestoreHint without this state. HintWithout returns "" if the loss after this state was only a loss
// of rows. It also returns "" if no earlier state before a loss of values is left, because all others may have ruined values.
func (o OpenLosses) HintWithout(at time.Time) string {
	o.states = slices.Clone(o.states)
	for i, s := range o.states {
		switch {
		case !s.Time.Equal(at):
		case s.Loss.RuinsValues(), s.Loss.IsUnknown():
			o.states[i].Damaged = "a restore has failed"
		default:
			return ""
		}
	}
	for _, s := range o.states {
		if s.Time.Before(at) && s.canRestoreValues() && !o.IsRepaired(s) {
			return o.valuesHint(s)
		}
	}
	return ""
}

// canRestoreValues reports whether s has values that an open loss has ruined, and whether `capture restore` accepts s.
func (s State) canRestoreValues() bool {
	return s.HasOpenLoss() && s.Loss.RuinsValues() && !s.isRefused()
}
