// SPDX-License-Identifier: Apache-2.0

package tidy

import (
	"go/ast"
	"path"
	"slices"
	"strings"
)

// floorOf is the row with the longest prefix of dir, or nil.
func (r *Repo) floorOf(dir string) *floor {
	var best *floor
	for i := range r.tables.floors {
		f := &r.tables.floors[i]
		if within(dir, f.dir) && (best == nil || len(f.dir) > len(best.dir)) {
			best = f
		}
	}
	return best
}

func checkFloors(r *Repo) (out []Problem) {
	for _, p := range r.Product() {
		from := r.floorOf(p.Dir)
		if from == nil {
			out = append(out, Problem{File: p.Dir, Text: "the package has no floor: add it to " +
				"houseFloors with a reason"})
			continue
		}
		for _, f := range p.Files {
			if f.Test || f.Generated {
				continue
			}
			for _, spec := range f.AST.Imports {
				dir, ours := strings.CutPrefix(importPath(spec), Module+"/")
				if !ours {
					continue
				}
				to := r.floorOf(dir)
				if to == nil || to.number < from.number || sameTree(from, to, dir) {
					continue
				}
				out = append(out, r.problem(f, spec.Pos(),
					"%s (floor %d: %s) imports %s (floor %d: %s): imports point down",
					p.Dir, from.number, from.reason, dir, to.number, to.reason))
			}
		}
	}
	return out
}

// sameTree allows a package to import one below its own directory that has no row of its own.
func sameTree(from, to *floor, dir string) bool { return from == to && dir != from.dir }

// ownerOf is the row with the longest prefix of an import path, or nil.
func (r *Repo) ownerOf(importPath string) *owner {
	var best *owner
	for i := range r.tables.owners {
		o := &r.tables.owners[i]
		if within(importPath, o.path) && (best == nil || len(o.path) > len(best.path)) {
			best = o
		}
	}
	return best
}

func isStd(importPath string) bool {
	first, _, _ := strings.Cut(importPath, "/")
	return !strings.Contains(first, ".")
}

func isOurs(importPath string) bool { return within(importPath, Module) }

// testModules may be imported by tests and test kits only.
func testModule(importPath string) bool {
	return within(importPath, "github.com/stretchr/testify") ||
		within(importPath, "pgregory.net/rapid") || within(importPath, "go.uber.org/goleak")
}

func checkModules(r *Repo) (out []Problem) {
	for _, p := range r.Product() {
		for _, f := range p.Files {
			for _, spec := range f.AST.Imports {
				what := importPath(spec)
				if isStd(what) || isOurs(what) {
					continue
				}
				if testModule(what) {
					if !f.Test && !p.TestKit() {
						out = append(out, r.problem(f, spec.Pos(), "%s is for tests only", what))
					}
					continue
				}
				o := r.ownerOf(what)
				switch {
				case o == nil:
					out = append(out, r.problem(f, spec.Pos(),
						"%s has no owner: add it to houseOwners with a reason", what))
				case f.Test && o.tests:
				case o.dirs != nil && !slices.ContainsFunc(o.dirs, func(dir string) bool {
					return within(p.Dir, dir)
				}):
					out = append(out, r.problem(f, spec.Pos(), "%s belongs to %s: %s", what,
						strings.Join(o.dirs, ", "), o.reason))
				}
			}
		}
	}
	return out
}

// checkSignatures finds types of owned libraries in exported declarations. Below an internal/ of
// the owner they may stand: nobody else can import it.
func checkSignatures(r *Repo) (out []Problem) {
	for _, p := range r.Product() {
		if p.Main() || p.TestKit() {
			continue
		}
		for _, f := range p.Code() {
			for _, decl := range f.AST.Decls {
				for _, e := range exportedTypes(decl) {
					out = append(out, r.foreignTypes(f, e)...)
				}
			}
		}
	}
	return out
}

func (r *Repo) foreignTypes(f *File, e ast.Node) (out []Problem) {
	ast.Inspect(e, func(n ast.Node) bool {
		x, ok := n.(ast.Expr)
		if !ok {
			return true
		}
		what, name := f.selector(x)
		if what == "" || isStd(what) || isOurs(what) {
			return true
		}
		o := r.ownerOf(what)
		if o == nil || o.dirs == nil || path.Base(o.path) == "vfs" {
			return true // vfs.FS is a seam: the one library type that Open takes
		}
		if slices.ContainsFunc(o.dirs, func(dir string) bool {
			return within(path.Dir(f.Path), dir+"/internal")
		}) {
			return true
		}
		out = append(out, r.problem(f, n.Pos(), "%s.%s is in an exported signature", what, name))
		return true
	})
	return out
}

// exportedTypes is the type expressions that users of the package see in decl.
func exportedTypes(decl ast.Decl) (out []ast.Node) {
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && (d.Recv == nil || exportedReceiver(d.Recv)) {
			out = append(out, d.Type)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.ValueSpec:
				if s.Type != nil && s.Names[0].IsExported() {
					out = append(out, s.Type)
				}
			case *ast.TypeSpec:
				if s.Name.IsExported() {
					out = append(out, visibleParts(s.Type)...)
				}
			}
		}
	}
	return out
}

func exportedReceiver(recv *ast.FieldList) bool {
	e := recv.List[0].Type
	for {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.IndexListExpr:
			e = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			return true
		}
	}
}

// visibleParts leaves out the unexported fields of a struct.
func visibleParts(t ast.Expr) (out []ast.Node) {
	s, ok := t.(*ast.StructType)
	if !ok {
		return []ast.Node{t}
	}
	for _, field := range s.Fields.List {
		if len(field.Names) == 0 || field.Names[0].IsExported() {
			out = append(out, field.Type)
		}
	}
	return out
}
