package kept_test

import (
	"strings"
	"testing"
	"time"

	"capture/store/kept"
	"capture/store/manifest"
)

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
