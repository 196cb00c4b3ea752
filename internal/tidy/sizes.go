// SPDX-License-Identifier: Apache-2.0

package tidy

import (
	"bytes"
	"fmt"
	"go/ast"
	"strings"
	"unicode/utf8"
)

// measure is one measured size: what it is, how large, and where to complain.
type measure struct {
	object string
	value  int
	at     Problem
}

// limit turns measures above most into problems, unless an exception allows exactly them.
func (r *Repo) limit(rule string, most int, unit string, measures []measure) (out []Problem) {
	for _, m := range measures {
		allowed := most
		for _, e := range r.tables.exceptions {
			if e.rule == rule && e.object == m.object {
				allowed = max(most, e.value)
			}
		}
		if m.value > allowed {
			m.at.Text = fmt.Sprintf("%s has %d %s, at most %d", m.object, m.value, unit, allowed)
			out = append(out, m.at)
		}
	}
	return out
}

func checkFunctions(r *Repo) []Problem {
	return r.limit("function", maxFunction, "lines", measureFunctions(r))
}

func checkFiles(r *Repo) []Problem { return r.limit("file", maxFile, "lines", measureFiles(r)) }

func checkPackages(r *Repo) []Problem {
	return r.limit("package", maxPackage, "lines", measurePackages(r))
}

func checkColumns(r *Repo) []Problem {
	return r.limit("columns", maxColumns, "columns", measureColumns(r))
}

func checkInterfaces(r *Repo) []Problem {
	return r.limit("interface", maxInterface, "methods", measureInterfaces(r))
}

// checkExceptions finds exceptions that are larger than needed (H2).
func checkExceptions(r *Repo) (out []Problem) {
	measured := map[string][]measure{
		"function": measureFunctions(r), "file": measureFiles(r), "package": measurePackages(r),
		"columns": measureColumns(r), "interface": measureInterfaces(r),
	}
	for _, e := range r.tables.exceptions {
		largest := 0
		for _, m := range measured[e.rule] {
			if m.object == e.object {
				largest = max(largest, m.value)
			}
		}
		if e.reason == "" || largest != e.value {
			out = append(out, Problem{File: "internal/tidy/tables.go", Text: fmt.Sprintf(
				"the exception of rule %s for %s says %d, measured is %d: shrink or remove it",
				e.rule, e.object, e.value, largest)})
		}
	}
	return out
}

func measureFunctions(r *Repo) (out []measure) {
	for _, p := range r.Product() {
		for _, f := range p.Code() {
			for _, decl := range f.AST.Decls {
				fn, ok := decl.(*ast.FuncDecl)
				if !ok {
					continue
				}
				lines := r.line(fn.End()) - r.line(fn.Pos()) + 1
				at := Problem{File: f.Path, Line: r.line(fn.Pos())}
				out = append(out, measure{p.Dir + "." + functionName(fn), lines, at})
			}
		}
	}
	return out
}

// functionName is "Type.Method" or "Function".
func functionName(fn *ast.FuncDecl) string {
	if fn.Recv == nil {
		return fn.Name.Name
	}
	e := fn.Recv.List[0].Type
	for {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.IndexListExpr:
			e = x.X
		case *ast.Ident:
			return x.Name + "." + fn.Name.Name
		default:
			return fn.Name.Name
		}
	}
}

func lines(source []byte) int {
	n := bytes.Count(source, []byte("\n"))
	if len(source) > 0 && source[len(source)-1] != '\n' {
		n++
	}
	return n
}

func measureFiles(r *Repo) (out []measure) {
	for _, p := range r.Product() {
		for _, f := range p.Code() {
			out = append(out, measure{f.Path, lines(f.Source), Problem{File: f.Path}})
		}
	}
	return out
}

func measurePackages(r *Repo) (out []measure) {
	for _, p := range r.Product() {
		n := 0
		for _, f := range p.Code() {
			n += lines(f.Source)
		}
		out = append(out, measure{p.Dir, n, Problem{File: p.Dir}})
	}
	return out
}

func measureColumns(r *Repo) (out []measure) {
	for _, p := range r.Product() {
		for _, f := range p.Code() {
			n := 0
			for line := range strings.SplitSeq(string(f.Source), "\n") {
				n++
				if columns := utf8.RuneCountInString(line); columns > maxColumns {
					out = append(out, measure{f.Path, columns, Problem{File: f.Path, Line: n}})
				}
			}
		}
	}
	return out
}

func measureInterfaces(r *Repo) (out []measure) {
	for _, p := range r.Product() {
		for _, f := range p.Code() {
			ast.Inspect(f.AST, func(n ast.Node) bool {
				spec, ok := n.(*ast.TypeSpec)
				if !ok {
					return true
				}
				if it, ok := spec.Type.(*ast.InterfaceType); ok {
					at := Problem{File: f.Path, Line: r.line(spec.Pos())}
					out = append(out, measure{p.Dir + "." + spec.Name.Name, methods(it), at})
				}
				return true
			})
		}
	}
	return out
}

// methods counts the methods of an interface, an embedded one as one.
func methods(it *ast.InterfaceType) (n int) {
	for _, field := range it.Methods.List {
		n += max(1, len(field.Names))
	}
	return n
}
