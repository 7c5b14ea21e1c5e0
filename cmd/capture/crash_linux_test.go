package main

import (
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestUnitRestartsAfterCrash checks that systemd starts capture again after an unrecovered panic. After a panic, Go's runtime
// exits with a code of its own, which no unit file may exclude from restarts. To learn this code, the test sends SIGQUIT, which
// makes the runtime exit with the same code.
func TestUnitRestartsAfterCrash(t *testing.T) {
	t.Parallel()
	d := start(t, "postgres://capture@127.0.0.1:1/app")
	d.address()
	d.signal(syscall.SIGQUIT)
	code := strconv.Itoa(d.wait(waitTimeout))
	if !strings.Contains(d.stderr.String(), "goroutine ") {
		t.Fatalf("not Go's exit, but %s", code)
	}
	if restart := unitSetting(t, "Restart"); restart != "always" {
		t.Errorf("Restart=%s", restart)
	}
	for _, path := range []string{"../../deploy/capture.service", "../../deploy/capture@.service"} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^RestartPreventExitStatus=(.*)$`).FindAllStringSubmatch(string(text), -1) {
			if slices.Contains(strings.Fields(m[1]), code) {
				t.Errorf("%s does not start capture again after Go's exit code %s", path, code)
			}
		}
	}
}
