// SPDX-License-Identifier: Apache-2.0

package tidy

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Module is the path of the product's module.
const Module = "github.com/cicadamq/cicada"

// maxTextBytes bounds the files that are read as text: larger ones are data.
const maxTextBytes = 4 << 20

// Problem is one violation of a rule.
type Problem struct {
	File string // relative to the root
	Line int    // 0 is the whole file
	Text string
}

// String is "file:line: text".
func (p Problem) String() string { return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Text) }

// Repo is a parsed source tree.
type Repo struct {
	Packages []*Package      // by directory
	Texts    map[string]Text // every text file but generated Go, by path
	Dirs     map[string]bool // every directory and file, for links
	fset     *token.FileSet
	tables   tables
}

// Text is the content of a file.
type Text string

// Package is the Go files of one directory, tests included.
type Package struct {
	Dir         string // relative to the root, "." for the root
	Integration bool   // belongs to the module integration/
	Files       []*File
}

// File is one parsed Go file.
type File struct {
	Path      string
	Source    []byte
	AST       *ast.File
	Test      bool // _test.go
	Generated bool
	Imports   map[string]string // local name -> import path
}

// Load parses the tree at fsys. Hidden directories but .ci are left out, as is what git ignores
// by name in the root's .gitignore.
func Load(fsys fs.FS) (*Repo, error) {
	r := &Repo{
		Texts: map[string]Text{}, Dirs: map[string]bool{}, fset: token.NewFileSet(), tables: house(),
	}
	packages := map[string]*Package{}
	ignored := ignoredNames(fsys)
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := d.Name()
		if d.IsDir() {
			if name != "." && (base[0] == '.' && base != ".ci" || ignored(name, true)) {
				return fs.SkipDir
			}
			r.Dirs[name] = true
			return nil
		}
		if !d.Type().IsRegular() || ignored(name, false) {
			return nil
		}
		r.Dirs[name] = true
		return r.load(fsys, name, packages)
	})
	if err != nil {
		return nil, err
	}
	for _, p := range packages {
		r.Packages = append(r.Packages, p)
	}
	slices.SortFunc(r.Packages, func(a, b *Package) int { return strings.Compare(a.Dir, b.Dir) })
	return r, nil
}

func (r *Repo) load(fsys fs.FS, name string, packages map[string]*Package) error {
	source, err := fs.ReadFile(fsys, name)
	if err != nil {
		return err
	}
	isGo := strings.HasSuffix(name, ".go") && !strings.Contains("/"+name, "/testdata/")
	generated := isGo && generatedForm.Match(source)
	if !generated && len(source) <= maxTextBytes && bytes.IndexByte(source, 0) < 0 {
		r.Texts[name] = Text(source)
	}
	if !isGo {
		return nil
	}
	parsed, err := parser.ParseFile(r.fset, name, source, parser.ParseComments)
	if err != nil {
		return err
	}
	dir := path.Dir(name)
	p := packages[dir]
	if p == nil {
		p = &Package{Dir: dir, Integration: strings.HasPrefix(name, "integration/")}
		packages[dir] = p
	}
	p.Files = append(p.Files, &File{
		Path: name, Source: source, AST: parsed, Generated: generated,
		Test: strings.HasSuffix(name, "_test.go"), Imports: importNames(parsed),
	})
	return nil
}

var (
	generatedForm = regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)
	versionForm   = regexp.MustCompile(`^v[0-9]+$`)
)

// importNames maps the local name of every import to its path. The name of an import without one
// is guessed from its path, which is right for every module that we use.
func importNames(f *ast.File) map[string]string {
	names := map[string]string{}
	for _, spec := range f.Imports {
		p := importPath(spec)
		name := path.Base(p)
		if versionForm.MatchString(name) {
			name = path.Base(path.Dir(p))
		}
		if spec.Name != nil {
			name = spec.Name.Name
		}
		names[name] = p
	}
	return names
}

func importPath(spec *ast.ImportSpec) string { return strings.Trim(spec.Path.Value, "`\"") }

// ignoredNames reads the root's .gitignore: names, /names and *.suffixes, the forms we use.
func ignoredNames(fsys fs.FS) func(name string, dir bool) bool {
	source, err := fs.ReadFile(fsys, ".gitignore")
	if err != nil {
		source = nil
	}
	lines := strings.Fields(string(source))
	return func(name string, dir bool) bool {
		for _, line := range lines {
			pattern, onlyDir := strings.CutSuffix(line, "/")
			if onlyDir && !dir {
				continue
			}
			subject := path.Base(name)
			if rest, rooted := strings.CutPrefix(pattern, "/"); rooted {
				pattern, subject = rest, name
			}
			if ok, err := path.Match(pattern, subject); ok && err == nil {
				return true
			}
		}
		return false
	}
}

// Product is the packages of the product's module.
func (r *Repo) Product() []*Package {
	return slices.DeleteFunc(slices.Clone(r.Packages), func(p *Package) bool { return p.Integration })
}

// Code is the files of p that are neither tests nor generated.
func (p *Package) Code() []*File {
	return slices.DeleteFunc(slices.Clone(p.Files), func(f *File) bool {
		return f.Test || f.Generated
	})
}

// TestKit reports whether p exists for tests of other packages: conformance suites.
func (p *Package) TestKit() bool { return strings.HasSuffix(p.Dir, "test") }

// Main reports whether p is a command.
func (p *Package) Main() bool { return len(p.Files) > 0 && p.Files[0].AST.Name.Name == "main" }

// within reports whether dir is prefix or below it.
func within(dir, prefix string) bool {
	return dir == prefix || strings.HasPrefix(dir, prefix+"/")
}

func (r *Repo) line(pos token.Pos) int { return r.fset.Position(pos).Line }

func (r *Repo) problem(f *File, pos token.Pos, format string, args ...any) Problem {
	return Problem{File: f.Path, Line: r.line(pos), Text: fmt.Sprintf(format, args...)}
}

// selector is the import path and the name of an expression like time.Now, or "", "".
func (f *File) selector(e ast.Expr) (importPath, name string) {
	sel, ok := e.(*ast.SelectorExpr)
	if !ok {
		return "", ""
	}
	id, ok := sel.X.(*ast.Ident)
	if !ok {
		return "", ""
	}
	p, ok := f.Imports[id.Name]
	if !ok {
		return "", ""
	}
	return p, sel.Sel.Name
}
