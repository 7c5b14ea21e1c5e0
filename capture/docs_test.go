package capture

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDocsNameRealTests checks that every test named in the documents exists.
func TestDocsNameRealTests(t *testing.T) {
	t.Parallel()
	test := regexp.MustCompile("`([a-z/]+)\\.((?:Test|Fuzz)[A-Za-z0-9_]+)`")
	sources := map[string]string{} // text of the test files, by folder
	for doc, atLeast := range map[string]int{"reliability.md": 50, "design.md": 20, "security.md": 25} {
		page, err := os.ReadFile(filepath.Join("..", "docs", doc))
		if err != nil {
			t.Fatal(err)
		}
		named := test.FindAllStringSubmatch(string(page), -1)
		if len(named) < atLeast {
			t.Errorf("docs/%s names %d tests, want at least %d", doc, len(named), atLeast)
		}
		for _, n := range named {
			folder, name := n[1], n[2]
			if _, ok := sources[folder]; !ok {
				sources[folder] = readTestFiles(t, filepath.Join("..", filepath.FromSlash(folder)))
			}
			if !strings.Contains(sources[folder], "func "+name+"(") {
				t.Errorf("docs/%s: there is no %s in %s", doc, name, folder)
			}
		}
	}
}

// TestCommentsNameRealFiles checks that every Go file named in a package's doc comment exists.
func TestCommentsNameRealFiles(t *testing.T) {
	t.Parallel()
	docComment := regexp.MustCompile(`(?m)^(//.*\n)+package `)
	file := regexp.MustCompile(`\b(?:[a-z]+/)*[a-z0-9_]+\.go\b`)
	named := 0
	err := filepath.WalkDir("..", func(path string, entry os.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".go" {
			return err
		}
		code, err := os.ReadFile(path)
		for _, name := range file.FindAllString(docComment.FindString(string(code)), -1) {
			named++
			folder := filepath.Dir(path)
			if strings.Contains(name, "/") {
				folder = ".."
			}
			if _, err := os.Stat(filepath.Join(folder, filepath.FromSlash(name))); err != nil {
				t.Errorf("%s names %s, which does not exist", path, name)
			}
		}
		return err
	})
	if err != nil || named < 250 {
		t.Errorf("%d files are named: %v", named, err)
	}
}

// TestDocsNameRealFiles checks that every Go file named in the documents exists.
func TestDocsNameRealFiles(t *testing.T) {
	t.Parallel()
	var files strings.Builder // the paths of all Go files, each with a newline
	err := filepath.WalkDir("..", func(path string, _ os.DirEntry, err error) error {
		if filepath.Ext(path) == ".go" {
			files.WriteString(filepath.ToSlash(path) + "\n")
		}
		return err
	})
	docs, globErr := filepath.Glob("../docs/*.md")
	if err != nil || globErr != nil {
		t.Fatal(err, globErr)
	}
	file := regexp.MustCompile("`((?:[a-z]+/)*[a-z0-9_]+\\.go)`")
	named := 0
	for _, doc := range append(docs, "../README.md") {
		page, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range file.FindAllStringSubmatch(string(page), -1) {
			named++
			if !strings.Contains(files.String(), "/"+n[1]+"\n") {
				t.Errorf("%s names %s, which does not exist", doc, n[1])
			}
		}
	}
	if named < 20 {
		t.Errorf("%d files are named, want at least 20", named)
	}
}

// readTestFiles returns the text of a folder's test files.
func readTestFiles(t *testing.T, folder string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*_test.go"))
	if err != nil || files == nil {
		t.Fatalf("no tests in %s: %v", folder, err)
	}
	var all strings.Builder
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(b)
	}
	return all.String()
}
