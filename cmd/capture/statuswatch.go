package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"capture/internal/foreign"
)

// watch shows the status each second until ctx ends. On a terminal, each status replaces the one before. If the daemon does not
// answer, watch waits for it.
func (c statusCmd) watch(ctx context.Context, path string, std streams) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	inPlace := isSmartTerminal(std.out) && !c.JSON
	if inPlace {
		fmt.Fprint(std.out, "\x1b[2J")
	}
	for {
		text, err := c.text(ctx, path, std)
		if ctx.Err() != nil {
			return nil
		}
		if reported := (reportedError{}); err != nil && !errors.As(err, &reported) {
			text = fmt.Sprintf("capture status: %s\n", foreign.Lines(err.Error()))
			if !inPlace {
				fmt.Fprint(std.err, text)
				text = ""
			}
		}
		if inPlace {
			text = replaceScreen(screenOf(std.out).clip(text))
		}
		if _, err := io.WriteString(std.out, text); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			if inPlace {
				fmt.Fprintln(std.out) // the terminal shows ^C
			}
			return nil
		case <-tick.C:
		}
	}
}

// replaceScreen returns the text with the escape sequences that put it in the place of what the terminal shows: to the upper
// left corner, and erase what is left of each line and below the text. Nothing is erased before, so the screen does not flicker.
func replaceScreen(text string) string {
	return "\x1b[H" + strings.ReplaceAll(text, "\n", "\x1b[K\n") + "\x1b[J"
}
