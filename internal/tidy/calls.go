// SPDX-License-Identifier: Apache-2.0

package tidy

import (
	"go/ast"
	"go/token"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// permitted is whether dir or file lies in a row of the table.
func permitted(permits []permit, name string) bool {
	for _, p := range permits {
		if within(name, p.path) {
			return true
		}
	}
	return false
}

// eachCode calls fn for every file of the product that is neither test nor generated.
func (r *Repo) eachCode(fn func(p *Package, f *File)) {
	for _, p := range r.Product() {
		for _, f := range p.Code() {
			fn(p, f)
		}
	}
}

// checkClock finds reads of the clock. time.Now may be named, not called, as the default of a Now.
func checkClock(r *Repo) (out []Problem) {
	r.eachCode(func(p *Package, f *File) {
		if permitted(r.tables.clocks, p.Dir) || p.TestKit() {
			return
		}
		defaults := map[ast.Expr]bool{}
		ast.Inspect(f.AST, func(n ast.Node) bool {
			switch x := n.(type) {
			case *ast.AssignStmt:
				for i, lhs := range x.Lhs {
					if sel, ok := lhs.(*ast.SelectorExpr); ok && isNow(sel.Sel) && i < len(x.Rhs) {
						defaults[x.Rhs[i]] = true
					}
				}
			case *ast.KeyValueExpr:
				if id, ok := x.Key.(*ast.Ident); ok && isNow(id) {
					defaults[x.Value] = true
				}
			case *ast.SelectorExpr:
				what, name := f.selector(x)
				if what != "time" || defaults[x] {
					break
				}
				if name == "Now" || name == "Since" || name == "Until" {
					out = append(out, r.problem(f, x.Pos(), "time.%s: take the time from Options.Now",
						name))
				}
				if name == "Sleep" || name == "Tick" {
					out = append(out, r.problem(f, x.Pos(), "time.%s cannot be stopped: wait for a "+
						"timer or the context", name))
				}
			}
			return true
		})
	})
	return out
}

func isNow(id *ast.Ident) bool { return strings.EqualFold(id.Name, "now") }

// checkSleep finds sleeping tests; in a file that uses testing/synctest sleeping costs nothing.
func checkSleep(r *Repo) (out []Problem) {
	for _, p := range r.Product() {
		for _, f := range p.Files {
			_, bubble := f.Imports["synctest"]
			if !f.Test && !p.TestKit() || bubble {
				continue
			}
			ast.Inspect(f.AST, func(n ast.Node) bool {
				if sel, ok := n.(*ast.SelectorExpr); ok {
					if what, name := f.selector(sel); what == "time" && name == "Sleep" {
						out = append(out, r.problem(f, n.Pos(), "time.Sleep outside a synctest bubble"))
					}
				}
				return true
			})
		}
	}
	return out
}

func checkBackground(r *Repo) (out []Problem) {
	r.eachCode(func(p *Package, f *File) {
		if p.Main() || p.TestKit() {
			return
		}
		ast.Inspect(f.AST, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok {
				what, name := f.selector(sel)
				if what == "context" && (name == "Background" || name == "TODO") {
					out = append(out, r.problem(f, n.Pos(), "context.%s: take the caller's", name))
				}
			}
			return true
		})
	})
	return out
}

// text is the literal that e begins with: of "x", "x" + y and fmt.Sprintf("x", y).
func text(e ast.Expr) (string, bool) {
	switch x := e.(type) {
	case *ast.BasicLit:
		if x.Kind == token.STRING {
			s, err := strconv.Unquote(x.Value)
			return s, err == nil
		}
	case *ast.BinaryExpr:
		return text(x.X)
	case *ast.CallExpr:
		if len(x.Args) > 0 {
			return text(x.Args[0])
		}
	}
	return "", false
}

// checkPanic finds panics that do not begin with "BUG: ", or the form the table allows.
func checkPanic(r *Repo) (out []Problem) {
	r.eachCode(func(p *Package, f *File) {
		if p.TestKit() {
			return
		}
		ast.Inspect(f.AST, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) != 1 {
				return true
			}
			if id, ok := call.Fun.(*ast.Ident); !ok || id.Name != "panic" {
				return true
			}
			said, _ := text(call.Args[0])
			allowed := strings.HasPrefix(said, "BUG: ")
			for _, form := range r.tables.panics {
				allowed = allowed || p.Dir == form.dir && strings.HasPrefix(said, form.prefix)
			}
			if !allowed {
				out = append(out, r.problem(f, n.Pos(), `panic without "BUG: ": return an error`))
			}
			return true
		})
	})
	return out
}

var badErrorText = regexp.MustCompile(
	`(?i)^(failed to|failure|unable to|could not|couldn't|cannot not|error |an error)`)

// checkErrorTexts finds errors that say that they are errors.
func checkErrorTexts(r *Repo) (out []Problem) {
	r.eachCode(func(_ *Package, f *File) {
		ast.Inspect(f.AST, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) == 0 {
				return true
			}
			what, name := f.selector(call.Fun)
			if what+"."+name != "fmt.Errorf" && what+"."+name != "errors.New" {
				return true
			}
			if said, _ := text(call.Args[0]); badErrorText.MatchString(said) {
				out = append(out, r.problem(f, n.Pos(), "%q: say operation object: cause", said))
			}
			return true
		})
	})
	return out
}

var untypedAtomic = regexp.MustCompile(
	`^(Add|And|CompareAndSwap|Load|Or|Store|Swap)(U?[Ii]nt|Pointer)`)

func checkAtomics(r *Repo) (out []Problem) {
	r.eachCode(func(_ *Package, f *File) {
		ast.Inspect(f.AST, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok {
				what, name := f.selector(sel)
				if what == "sync/atomic" && untypedAtomic.MatchString(name) {
					out = append(out, r.problem(f, n.Pos(), "atomic.%s: use a typed atomic", name))
				}
			}
			return true
		})
	})
	return out
}

// checkGoroutines finds go statements outside the files of the table.
func checkGoroutines(r *Repo) (out []Problem) {
	r.eachCode(func(p *Package, f *File) {
		if p.TestKit() || permitted(r.tables.goroutines, f.Path) {
			return
		}
		ast.Inspect(f.AST, func(n ast.Node) bool {
			if _, ok := n.(*ast.GoStmt); ok {
				out = append(out, r.problem(f, n.Pos(), "go statement: use WaitGroup.Go or an errgroup "+
					"in the method that waits, or list the file in houseGoroutines with a reason"))
			}
			return true
		})
	})
	return out
}

var logMethods = map[string]bool{
	"Debug": true, "Info": true, "Warn": true, "Error": true, "DPanic": true, "Panic": true,
	"Fatal": true,
}

// checkLogs finds messages that are not constant or not lower-case, and the global logger.
func checkLogs(r *Repo) (out []Problem) {
	r.eachCode(func(p *Package, f *File) {
		if f.Imports["zap"] != "go.uber.org/zap" {
			return
		}
		constants := p.constants()
		ast.Inspect(f.AST, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			what, name := f.selector(call.Fun)
			if what == "go.uber.org/zap" && (name == "L" || name == "S" || name == "ReplaceGlobals") {
				out = append(out, r.problem(f, n.Pos(), "zap.%s: loggers are passed in", name))
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || what != "" || !logMethods[sel.Sel.Name] || len(call.Args) == 0 {
				return true
			}
			message := call.Args[0]
			if id, ok := message.(*ast.Ident); ok && constants[id.Name] != nil {
				message = constants[id.Name]
			}
			out = append(out, r.logMessage(f, message)...)
			return true
		})
	})
	return out
}

// constants is the values of the package's constants, by name.
func (p *Package) constants() map[string]ast.Expr {
	values := map[string]ast.Expr{}
	for _, f := range p.Code() {
		for _, decl := range f.AST.Decls {
			gen, ok := decl.(*ast.GenDecl)
			if !ok || gen.Tok != token.CONST {
				continue
			}
			for _, spec := range gen.Specs {
				s, ok := spec.(*ast.ValueSpec)
				if !ok {
					continue
				}
				for i, value := range s.Values {
					values[s.Names[i].Name] = value
				}
			}
		}
	}
	return values
}

func (r *Repo) logMessage(f *File, e ast.Expr) []Problem {
	lit, ok := e.(*ast.BasicLit)
	if !ok {
		return []Problem{r.problem(f, e.Pos(), "the log message is not a literal: put data in fields")}
	}
	said, _ := text(lit)
	if first, _ := utf8.DecodeRuneInString(said); unicode.IsUpper(first) {
		return []Problem{r.problem(f, e.Pos(), "log message %q does not begin in lower case", said)}
	}
	return nil
}

func checkTesting(r *Repo) (out []Problem) {
	r.eachCode(func(p *Package, f *File) {
		for _, spec := range f.AST.Imports {
			if what := importPath(spec); within(what, "testing") && !p.TestKit() {
				out = append(out, r.problem(f, spec.Pos(), "%s outside tests", what))
			}
		}
	})
	return out
}

func checkAssert(r *Repo) (out []Problem) {
	for _, p := range r.Packages {
		for _, f := range p.Files {
			for _, spec := range f.AST.Imports {
				if importPath(spec) == "github.com/stretchr/testify/assert" {
					out = append(out, r.problem(f, spec.Pos(), "use testify/require"))
				}
			}
		}
	}
	return out
}
