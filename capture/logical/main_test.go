package logical

import (
	"os"
	"testing"

	"capture/capture/source"
	"capture/capture/sourcetest"
	"capture/internal/pgserver"
)

func TestMain(m *testing.M) { os.Exit(pgserver.Main(m.Run)) }

func newEnv(t testing.TB, url string) *source.Env { return sourcetest.NewEnv(t, "logical", url) }
