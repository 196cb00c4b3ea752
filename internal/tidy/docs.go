// SPDX-License-Identifier: Apache-2.0

package tidy

import (
	"fmt"
	"go/ast"
	"regexp"
	"slices"
	"strings"
)

const licenseLine = "// SPDX-License-Identifier: Apache-2.0\n\n"

func checkLicense(r *Repo) (out []Problem) {
	for _, p := range r.Packages {
		for _, f := range p.Files {
			if !f.Generated && !strings.HasPrefix(string(f.Source), licenseLine) {
				out = append(out, Problem{File: f.Path, Line: 1,
					Text: "begin with " + strings.TrimSpace(licenseLine) + " and a blank line"})
			}
		}
	}
	return out
}

// The blocks of imports, in their order.
const (
	blockStd = iota
	blockThird
	blockOurs
)

var blockNames = [...]string{"std", "third party", "ours"}

func blockOf(importPath string) int {
	switch {
	case isOurs(importPath):
		return blockOurs
	case isStd(importPath):
		return blockStd
	default:
		return blockThird
	}
}

func checkImports(r *Repo) (out []Problem) {
	for _, p := range r.Packages {
		for _, f := range p.Files {
			if f.Generated {
				continue
			}
			for _, decl := range f.AST.Decls {
				if gen, ok := decl.(*ast.GenDecl); ok && gen.Lparen.IsValid() {
					out = append(out, r.importBlocks(f, gen)...)
				}
			}
		}
	}
	return out
}

// importBlocks checks that blocks are pure, in order, and that there is one of each.
func (r *Repo) importBlocks(f *File, gen *ast.GenDecl) []Problem {
	last, lastLine := -1, 0
	for _, s := range gen.Specs {
		spec, ok := s.(*ast.ImportSpec)
		if !ok {
			return nil
		}
		first := spec.Pos()
		if spec.Doc != nil {
			first = spec.Doc.Pos()
		}
		block, apart := blockOf(importPath(spec)), r.line(first) > lastLine+1
		lastLine = r.line(spec.End())
		if last >= 0 && (apart != (block != last) || block < last) {
			return []Problem{r.problem(f, spec.Pos(), "%s (%s) after %s: three blocks, std, third "+
				"party, ours, with one blank line between", importPath(spec), blockNames[block],
				blockNames[last])}
		}
		last = block
	}
	return nil
}

// packageDoc is the package comment of p, and the file it is in.
func (p *Package) packageDoc() (string, *File) {
	for _, f := range p.Files {
		if !f.Test && f.AST.Doc != nil {
			return f.AST.Doc.Text(), f
		}
	}
	return "", nil
}

func checkPackageDocs(r *Repo) (out []Problem) {
	for _, p := range r.Packages {
		if len(p.Code()) == 0 {
			continue
		}
		first := p.Code()[0]
		want := "Package " + first.AST.Name.Name + " "
		if p.Main() {
			want = "Command "
		}
		if doc, _ := p.packageDoc(); !strings.HasPrefix(doc, want) {
			out = append(out, Problem{File: first.Path, Line: 1,
				Text: fmt.Sprintf("the package comment does not begin with %q", want)})
		}
	}
	return out
}

var (
	invariantForm = regexp.MustCompile(`(?m)^\t([A-Z][0-9]+)  `)
	diagramForm   = regexp.MustCompile(`(?m)^\t.*(--|\|)`)
	storyForms    = []struct {
		what string
		form *regexp.Regexp
	}{
		{"a diagram", diagramForm},
		{"numbered invariants", regexp.MustCompile(`(?s)# Invariants.*\n\t[A-Z][0-9]+  `)},
		{"a section Concurrency", regexp.MustCompile(`(?m)^# Concurrency$`)},
		{"a section Failure", regexp.MustCompile(`(?m)^# Failure$`)},
		{"a line See also", regexp.MustCompile(`(?m)^See also `)},
	}
)

// checkMainDocs checks the story of the main packages, and in every package that every invariant
// is cited somewhere else: one that nobody cites is not kept. An interface's invariants may be
// cited by what implements it, in a directory below.
func checkMainDocs(r *Repo) (out []Problem) {
	for _, p := range r.Product() {
		doc, in := p.packageDoc()
		if in == nil {
			continue
		}
		if slices.Contains(r.tables.main, p.Dir) {
			if !strings.HasSuffix(in.Path, "/doc.go") {
				out = append(out, Problem{File: in.Path, Text: "the package comment belongs in doc.go"})
			}
			for _, s := range storyForms {
				if !s.form.MatchString(doc) {
					out = append(out, Problem{File: in.Path, Text: "the package comment lacks " + s.what})
				}
			}
		}
		for _, m := range invariantForm.FindAllStringSubmatch(doc, -1) {
			if !r.cited(p.Dir, m[1], in, doc) {
				out = append(out, Problem{File: in.Path,
					Text: "invariant " + m[1] + " is cited nowhere in or below the package: test it"})
			}
		}
	}
	return out
}

// cited reports whether a file in or below dir names the invariant, or one elsewhere with the name
// of the package, as in "objstore O1"; the package comment itself does not count.
func (r *Repo) cited(dir, number string, in *File, doc string) bool {
	near := regexp.MustCompile(`\b` + number + `\b`)
	far := regexp.MustCompile(`\b` + in.AST.Name.Name + `'?s? ` + number + `\b`)
	for _, p := range r.Packages {
		form := far
		if within(p.Dir, dir) {
			form = near
		}
		for _, f := range p.Files {
			n := len(form.FindAll(f.Source, -1))
			if f == in {
				n -= len(form.FindAllString(doc, -1))
			}
			if n > 0 {
				return true
			}
		}
	}
	return false
}
