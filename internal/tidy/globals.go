// SPDX-License-Identifier: Apache-2.0

package tidy

import (
	"errors"
	"go/ast"
	"go/token"
	"go/types"
	"path"
)

func checkInit(r *Repo) (out []Problem) {
	r.eachCode(func(_ *Package, f *File) {
		for _, decl := range f.AST.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				out = append(out, r.problem(f, fn.Pos(), "init function: build it where it is used"))
			}
		}
	})
	return out
}

// checkGlobals finds package variables that can change: without a value, of a type that is made to
// change, or written anywhere. Tables and sentinel errors are constants in all but name.
func checkGlobals(r *Repo) (out []Problem) {
	for _, p := range r.Product() {
		files := p.Code()
		if len(files) == 0 {
			continue
		}
		info := r.resolve(p, files)
		globals := map[types.Object]bool{}
		for _, f := range files {
			for _, decl := range f.AST.Decls {
				gen, ok := decl.(*ast.GenDecl)
				if !ok || gen.Tok != token.VAR {
					continue
				}
				for _, spec := range gen.Specs {
					if s, ok := spec.(*ast.ValueSpec); ok {
						out = append(out, r.mutableVar(f, gen, s)...)
						for _, name := range s.Names {
							globals[info.Defs[name]] = true
						}
					}
				}
			}
		}
		for _, f := range files {
			out = append(out, r.writes(f, func(id *ast.Ident) bool { return globals[info.Uses[id]] })...)
		}
	}
	return out
}

// resolve finds what identifiers mean. Imports are left unknown: only our own names matter.
func (r *Repo) resolve(p *Package, files []*File) *types.Info {
	info := &types.Info{Defs: map[*ast.Ident]types.Object{}, Uses: map[*ast.Ident]types.Object{}}
	var parsed []*ast.File
	for _, f := range files {
		parsed = append(parsed, f.AST)
	}
	conf := types.Config{Importer: nothing{}, Error: func(error) {}, FakeImportC: true}
	if _, err := conf.Check(p.Dir, r.fset, parsed, info); err != nil {
		return info // of course: nothing could be imported
	}
	return info
}

// nothing imports no package.
type nothing struct{}

var errNothing = errors.New("imports are not looked at")

// Import refuses.
func (nothing) Import(string) (*types.Package, error) { return nil, errNothing }

// mutableVar judges a declaration.
func (r *Repo) mutableVar(f *File, gen *ast.GenDecl, s *ast.ValueSpec) []Problem {
	if s.Names[0].Name == "_" {
		return nil // an assertion that a type implements an interface
	}
	embedded := false
	for _, doc := range []*ast.CommentGroup{gen.Doc, s.Doc} {
		if doc != nil {
			for _, c := range doc.List {
				embedded = embedded || len(c.Text) > 10 && c.Text[:10] == "//go:embed"
			}
		}
	}
	if embedded {
		return nil
	}
	if len(s.Values) == 0 {
		return []Problem{r.problem(f, s.Pos(), "package variable %s has no value, so it must change",
			s.Names[0].Name)}
	}
	changes := false
	for _, e := range append([]ast.Expr{s.Type}, s.Values...) {
		changes = changes || f.madeToChange(e)
	}
	if changes {
		return []Problem{r.problem(f, s.Pos(), "package variable %s is made to change: put it in a "+
			"value that is passed", s.Names[0].Name)}
	}
	return nil
}

// madeToChange reports whether e holds a channel, or names a type of sync, sync/atomic or a timer.
func (f *File) madeToChange(e ast.Expr) (found bool) {
	if e == nil {
		return false
	}
	ast.Inspect(e, func(n ast.Node) bool {
		switch x := n.(type) {
		case *ast.FuncLit:
			return false
		case *ast.ChanType:
			found = true
		case *ast.SelectorExpr:
			what, name := f.selector(x)
			switch {
			case what == "sync" && name != "OnceValue" && name != "OnceValues" && name != "OnceFunc":
				found = true
			case what == "sync/atomic", what == "time" && path.Base(name) == "NewTimer",
				what == "time" && (name == "NewTicker" || name == "Timer" || name == "Ticker"):
				found = true
			}
		}
		return !found
	})
	return found
}

// writes finds assignments to package variables, to their elements and fields, and their addresses.
func (r *Repo) writes(f *File, global func(*ast.Ident) bool) (out []Problem) {
	complain := func(e ast.Expr) {
		if id := root(e); id != nil && global(id) {
			out = append(out, r.problem(f, e.Pos(), "package variable %s is written", id.Name))
		}
	}
	ast.Inspect(f.AST, func(n ast.Node) bool {
		switch x := n.(type) {
		case *ast.AssignStmt:
			if x.Tok != token.DEFINE {
				for _, lhs := range x.Lhs {
					complain(lhs)
				}
			}
		case *ast.IncDecStmt:
			complain(x.X)
		case *ast.UnaryExpr:
			if x.Op == token.AND {
				complain(x.X)
			}
		case *ast.RangeStmt:
			if x.Tok == token.ASSIGN {
				complain(x.Key)
			}
		case *ast.CallExpr:
			id, ok := x.Fun.(*ast.Ident)
			if ok && len(x.Args) > 0 && (id.Name == "delete" || id.Name == "clear") {
				complain(x.Args[0])
			}
		}
		return true
	})
	return out
}

// root is the variable that an expression like v.f[i] belongs to.
func root(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.SelectorExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		default:
			return nil
		}
	}
}
