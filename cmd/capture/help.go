package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/alecthomas/kong"
)

// printHelp is kong's help with the command's examples, which its text formatting would fold, as they are written.
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

// describeFlag is a flag's help text with its default and environment variables.
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

// unsetEmpty removes the environment variables of the flags that are set to nothing: compose files and unit files
// pass on "" for what the user left out, and that means the default.
func unsetEmpty(node *kong.Node) {
	for _, flag := range node.Flags {
		for _, name := range flag.Tag.Envs {
			if value, ok := os.LookupEnv(name); ok && value == "" {
				_ = os.Unsetenv(name) // fails for malformed names only
			}
		}
	}
	for _, child := range node.Children {
		unsetEmpty(child)
	}
}
