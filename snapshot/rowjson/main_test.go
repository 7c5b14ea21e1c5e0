package rowjson

import (
	"os"
	"testing"

	"capture/internal/pgserver"
)

func TestMain(m *testing.M) { os.Exit(pgserver.Main(m.Run)) }
