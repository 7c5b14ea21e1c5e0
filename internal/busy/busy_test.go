package busy_test

import (
	"testing"
	"time"

	"capture/internal/busy"
)

func TestLimit(t *testing.T) {
	if limit := busy.Limit(time.Second); limit < time.Second || limit > 10*time.Second {
		t.Errorf("the limit for a second is %s", limit)
	}
}
