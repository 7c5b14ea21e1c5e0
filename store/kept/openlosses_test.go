package kept_test

import (
	"strings"
	"testing"
	"time"

	"capture/store/kept"
	"capture/store/manifest"
)

// TestUnknownLoss: the manifest of the state before a loss is missing or does not describe the loss. The text says that
// values may be lost. Its first command adds rows but changes no value. Its last command restores the values, with the
// earliest state last.
func TestUnknownLoss(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 23, 16, 0, 0, 0, time.UTC)
	ruined := &manifest.Loss{Found: at, RowsBefore: 60, RowsAfter: 60, RowsChanged: 60, Column: "comment"}
	earlier := kept.State{Time: at, Path: "K1", Loss: ruined}
	unknown := kept.State{Time: at.Add(time.Hour), Path: "K2", Loss: &manifest.Loss{}, Damaged: "its manifest is missing"}
	later := kept.State{Time: at.Add(2 * time.Hour), Path: "K3", Loss: ruined}
	for name, test := range map[string]struct {
		states []kept.State
		values string // command that restores the values
		known  string // command for the other losses
	}{
		"alone":             {[]kept.State{unknown}, "K2", ""},
		"before the others": {[]kept.State{later, unknown}, "K3 && K2", "K3"},
		"between":           {[]kept.State{later, unknown, earlier}, "K3 && K2 && K1", "K3 && K1"},
	} {
		overwrite := func(list string) string {
			return strings.ReplaceAll(list, "K", "capture restore --on-conflict overwrite K")
		}
		losses := kept.OpenLossesOf(test.states)
		text := losses.Text(unknown, "ACK")
		if want := "To bring rows back: capture restore --on-conflict skip K2 – perhaps values were lost, too; to compare them: capture verify K2 – " +
			"if the table's values are wrong: " + overwrite(test.values) + " – or, if "; !strings.HasPrefix(text, "rows or values were lost; which ones is unknown") || !strings.Contains(text, want) {
			t.Errorf("%s: %s", name, text)
		}
		if hint := losses.RestoreHint(later); test.known != "" && hint != overwrite(test.known) {
			t.Errorf("%s: the command for the other losses is %s", name, hint)
		}
	}
}

// TestEachCommandOnce makes more losses than the texts describe. The texts contain each command only once.
func TestEachCommandOnce(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 23, 16, 0, 0, 0, time.UTC)
	var states []kept.State
	for i, path := range []string{"K1", "K2", "K3", "K4", "K5"} {
		found := at.Add(time.Duration(i) * time.Hour)
		l := &manifest.Loss{Found: found, RowsBefore: 60, RowsAfter: 60, RowsChanged: 60, Column: "comment"}
		if path == "K4" {
			l = &manifest.Loss{Found: found, RowsBefore: 60, RowsLost: 60}
		}
		states = append(states, kept.State{Time: found, Path: path, Loss: l})
	}
	texts, others := kept.OpenLossesOf(states).Texts(func(kept.State) string { return "ACK" })
	text := strings.Join(texts, "\n")
	if len(texts) != 3 || others != 2 || strings.Count(text, "restore --on-conflict overwrite K1") != 1 || strings.Count(text, "ACK") != 1 ||
		!strings.HasSuffix(texts[1], "The commands above restore this state, too") ||
		!strings.HasSuffix(texts[2], "Then run: capture restore --on-conflict skip K4 – it brings these rows back, too") {
		t.Errorf("%d others, and:\n%s", others, text)
	}
}
