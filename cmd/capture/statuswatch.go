package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// watch shows the status each second until ctx ends. On a terminal, each status replaces the previous one. If the daemon does
// not answer, watch waits for it.
func (c statusCmd) watch(ctx context.Context, path string, std streams) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	inPlace := isSmartTerminal(std.out) && !c.JSON
	if inPlace {
		fmt.Fprint(std.out, "\x1b[2J")
	}
	for {
		text, err := c.fetchText(ctx, path, std)
		if ctx.Err() != nil {
			return nil
		}
		if reported := (reportedError{}); err != nil && !errors.As(err, &reported) {
			text = fmt.Sprintf("capture status: %s\n", errorText(err, nil))
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
				fmt.Fprintln(std.out) // the prompt begins on a new line after the ^C that the terminal shows
			}
			return nil
		case <-tick.C:
		}
	}
}

// replaceScreen adds escape sequences to the text, so that the text replaces the content of the terminal, from the upper
// left corner. The text first overwrites the old content. Only then do the sequences erase what is left of it: the rest of
// each line, and the lines below the text. If the sequences erased the screen first, it would be empty for a moment and
// flicker.
func replaceScreen(text string) string {
	return "\x1b[H" + strings.ReplaceAll(text, "\n", "\x1b[K\n") + "\x1b[J"
}
