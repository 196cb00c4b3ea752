// SPDX-License-Identifier: Apache-2.0

package exam

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/internal/sim/swarm"
)

const root = "../.."

// A mistake that no row plants proves nothing, and one in two rows is tried twice.
func TestEveryMistakeIsInTheTable(t *testing.T) {
	bug := planted.None
	for _, m := range Mistakes() {
		bug++
		require.Equal(t, bug.String(), m.Bug.String(), "the table is in the order of planted.Bug")
		require.NotEmpty(t, m.Guards, m.Bug)
	}
	require.Equal(t, planted.Bugs, bug+1, "mistakes are missing in the table")
}

// A mistake without a place in the product cannot be found, and a name for two cannot be told.
func TestEveryMistakeIsPlanted(t *testing.T) {
	planting := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") ||
			strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, after := range strings.Split(string(text), "planted.Is(planted.")[1:] {
			name, _, _ := strings.Cut(after, ")")
			planting[name] = true
		}
		return err
	})
	require.NoError(t, err)
	names := constants(t)
	require.Len(t, names, int(planted.Bugs)+1)
	for _, name := range names[1 : len(names)-1] {
		require.True(t, planting[name], "%s is planted nowhere", name)
	}
	seen := map[string]bool{}
	for bug := range planted.Bugs {
		require.NotEmpty(t, bug.String())
		require.False(t, seen[bug.String()], "two mistakes are called %q", bug)
		seen[bug.String()] = true
	}
}

// constants are the names of planted.Bug, in their order.
func constants(t *testing.T) (names []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), root+"/internal/planted/planted.go", nil, 0)
	require.NoError(t, err)
	for _, decl := range file.Decls {
		gen, ok := decl.(*ast.GenDecl)
		if !ok || gen.Tok != token.CONST {
			continue
		}
		for _, spec := range gen.Specs {
			names = append(names, spec.(*ast.ValueSpec).Names[0].Name)
		}
	}
	return names
}

// A rule of which nothing is known, or that a row misspells, would look guarded.
func TestEveryRuleHasARow(t *testing.T) {
	var want []string
	for _, part := range []struct {
		letter string
		last   int
	}{{"R", 22}, {"S", 10}, {"D", 13}} {
		for n := 1; n <= part.last; n++ {
			want = append(want, part.letter+strconv.Itoa(n))
		}
	}
	want = append(want, "V1", "V2", "V6", "V9")
	var ids []string
	for _, r := range Rules() {
		ids = append(ids, r.ID)
		guarded := len(r.Also) > 0 || r.Note != ""
		for _, m := range Mistakes() {
			guarded = guarded || breaks(m.Rules, r.ID)
		}
		for _, m := range Mutations() {
			guarded = guarded || breaks(m.Rules, r.ID)
		}
		require.True(t, guarded, "%s has no guard", r.ID)
	}
	require.Equal(t, want, ids)
	for _, m := range Mistakes() {
		requireIDs(t, ids, m.Rules)
	}
}

func requireIDs(t *testing.T, ids []string, rules string) {
	t.Helper()
	require.NotEmpty(t, rules)
	for id := range strings.FieldsSeq(rules) {
		require.Contains(t, ids, id)
	}
}

// A test that was renamed guards nothing.
func TestGuardsExist(t *testing.T) {
	tests := map[string][]string{}
	check := func(g Guard) {
		if profile, sim := g.Profile(); sim {
			require.Contains(t, swarm.Profiles(), swarm.Profile(profile))
			return
		}
		dir, name := g.Test()
		if tests[dir] == nil {
			tests[dir] = testsOf(t, dir)
		}
		name, _, _ = strings.Cut(name, "/")
		require.Contains(t, tests[dir], name, "%s %s", dir, name)
	}
	for _, m := range Mistakes() {
		for _, g := range m.Guards {
			check(g)
		}
	}
	for _, m := range Mutations() {
		check(m.Guard)
		require.FileExists(t, filepath.Join(root, m.File))
	}
	for _, r := range Rules() {
		for _, g := range r.Also {
			check(g)
		}
	}
	for _, f := range Faults() {
		require.NotEmpty(t, f.Guards)
		for _, g := range f.Guards {
			check(g)
		}
	}
}

// testsOf are the functions of the test files in dir.
func testsOf(t *testing.T, dir string) []string {
	t.Helper()
	names := []string{}
	files, err := filepath.Glob(filepath.Join(root, dir, "*_test.go"))
	require.NoError(t, err)
	for _, path := range files {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, decl := range file.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil {
				names = append(names, fn.Name.Name)
			}
		}
	}
	return names
}

// A document that says something else than the last exam would be believed.
func TestDocument(t *testing.T) {
	findings, err := Load("testdata/exam.json")
	require.NoError(t, err)
	for _, m := range Mistakes() {
		for _, g := range m.Guards {
			i := slices.IndexFunc(findings, func(f Finding) bool {
				return f.Mistake == m.Bug.String() && f.Guard == g
			})
			require.GreaterOrEqual(t, i, 0, "%v was not tried with %s: make exam", m.Bug, g)
			require.NotEmpty(t, findings[i].Said, "%v was not found by %s", m.Bug, g)
		}
	}
	text, err := os.ReadFile(root + "/docs/guarantees.md")
	require.NoError(t, err)
	require.Equal(t, Document(findings), string(text), "make guarantees writes it")
}

// What is written is what is read, and findings of mistakes that are gone go too.
func TestFindings(t *testing.T) {
	path := filepath.Join(t.TempDir(), "exam.json")
	none, err := Load(path)
	require.NoError(t, err)
	require.Empty(t, none)
	m := Mistakes()[0]
	first := Finding{Mistake: m.Bug.String(), Guard: m.Guards[0], Seed: 3, Said: "<a & b>", Seconds: 1.5}
	gone := Finding{Mistake: "gone", Guard: "sim", Said: "x"}
	require.NoError(t, Save(path, []Finding{first, gone}))
	list, err := Load(path)
	require.NoError(t, err)
	require.Equal(t, []Finding{first, gone}, list)
	again := first
	again.Seed = 4
	require.Equal(t, []Finding{again}, Merge(list, []Finding{again}))
	require.Equal(t, []Finding{first}, Merge(list, nil))
}

// The exam believes what it reads of a guard's output: it must not read a success as a finding.
func TestReasons(t *testing.T) {
	seed, said := seedOf("=== RUN\n    exam_test.go:49: found by seed 97: message 0: accepted twice\n")
	require.Equal(t, uint64(97), seed)
	require.Equal(t, "message 0: accepted twice", said)
	_, said = seedOf("--- FAIL: not found in 2000 seeds")
	require.Empty(t, said)
	require.Equal(t, "Not equal: expected: 1 actual : 2: of the books", reason("--- FAIL: TestX\n"+
		"    x_test.go:1: \n\tError Trace:\tx\n\tError:  \tNot equal: \n\t\texpected: 1\n\t\tactual  : 2\n"+
		"\tTest: \tTestX\n\tMessages: \tof the books\n"))
	require.Equal(t, "panic: BUG: x", reason("panic: BUG: x\n\ngoroutine 1"))
}
