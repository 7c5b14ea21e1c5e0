//go:build !linux

package capture

import "errors"

func mountSmall(string) error { return errors.ErrUnsupported }

func remount(dir, how string) error { return errors.ErrUnsupported }
