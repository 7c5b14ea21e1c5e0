package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/alecthomas/kong"
)

// printHelp prints kong's help and then the command's examples. It prints the examples itself because kong would wrap them
// like prose.
func printHelp(options kong.HelpOptions, ctx *kong.Context) error {
	if err := kong.DefaultHelpPrinter(options, ctx); err != nil {
		return err
	}
	node := ctx.Selected()
	if node == nil {
		return nil
	}
	examples, ok := node.Target.Addr().Interface().(interface{ Examples() string })
	if !ok {
		return nil
	}
	fmt.Fprintln(ctx.Stdout, "\nExamples:")
	for line := range strings.SplitSeq(strings.TrimSpace(examples.Examples()), "\n") {
		fmt.Fprintln(ctx.Stdout, strings.TrimRight("  "+strings.TrimSpace(line), " "))
	}
	return nil
}

// describeFlag returns the help text of a flag, with its default and its environment variables.
func describeFlag(v *kong.Value) string {
	var notes []string
	if v.HasDefault && v.Default != "" {
		notes = append(notes, "default "+v.Default)
	}
	for _, env := range v.Tag.Envs {
		notes = append(notes, "$"+env)
	}
	if len(notes) == 0 {
		return v.Help
	}
	return v.Help + " [" + strings.Join(notes, ", ") + "]"
}

// unsetEmpty unsets the flags' environment variables that are empty, so that the defaults apply. Compose files and unit files
// set variables to "" if the user has not set them.
func unsetEmpty(node *kong.Node) {
	for _, flag := range node.Flags {
		for _, name := range flag.Tag.Envs {
			if value, ok := os.LookupEnv(name); ok && value == "" {
				_ = os.Unsetenv(name) // fails only for malformed names
			}
		}
	}
	for _, child := range node.Children {
		unsetEmpty(child)
	}
}
