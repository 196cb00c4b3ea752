// SPDX-License-Identifier: Apache-2.0

package tidy

import (
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

// The repository keeps every house rule.
func TestRepository(t *testing.T) {
	repo, err := Load(os.DirFS("../.."))
	require.NoError(t, err)
	require.Greater(t, len(repo.Packages), 2, "the tree was not found")
	for _, rule := range Rules() {
		t.Run(rule.Name, func(t *testing.T) {
			for _, p := range rule.Check(repo) {
				t.Errorf("%s\n\t(%s: %s)", p, rule.Name, rule.Reason)
			}
		})
	}
}

const head = "// SPDX-License-Identifier: Apache-2.0\n\n"

// plant is a small tree: path to content. Go files get the licence line.
func plant(t *testing.T, files map[string]string) *Repo {
	t.Helper()
	tree := fstest.MapFS{}
	for name, content := range files {
		if strings.HasSuffix(name, ".go") {
			if !strings.HasPrefix(content, "bare:") {
				content = head + content
			}
			content = strings.TrimPrefix(content, "bare:")
		}
		tree[name] = &fstest.MapFile{Data: []byte(content)}
	}
	repo, err := Load(tree)
	require.NoError(t, err)
	return repo
}

func long(line string, n int) string { return strings.Repeat(line+"\n", n) }

// one is a tree of one file of package scheduler.
func one(code string) map[string]string { return map[string]string{"scheduler/a.go": code} }

// planted is, for every rule, a tree that breaks it and one that is close to that but does not.
var planted = []struct {
	rule      string
	bad, good map[string]string
}{
	{
		"floors",
		map[string]string{"delay/a.go": "package delay\nimport _ \"" + Module + "/scheduler\"\n"},
		map[string]string{"scheduler/a.go": "package scheduler\nimport _ \"" + Module + "/delay\"\n"},
	},
	{ // siblings
		"floors",
		map[string]string{"broker/nats/a.go": "package nats\nimport _ \"" + Module + "/broker/kafka\"\n"},
		map[string]string{"broker/nats/a_test.go": "package nats\nimport _ \"" + Module + "/broker/kafka\"\n"},
	},
	{ // unknown packages
		"floors",
		map[string]string{"newcomer/a.go": "package newcomer\n"},
		map[string]string{"integration/a.go": "package integration\n"},
	},
	{ // packages below one row may import each other and be imported by it, but not import it
		"floors",
		map[string]string{"internal/ctl/client/a.go": "package client\nimport _ \"" + Module + "/internal/ctl\"\n"},
		map[string]string{
			"internal/ctl/a.go":       "package ctl\nimport _ \"" + Module + "/internal/ctl/client\"\n",
			"internal/ctl/bench/a.go": "package bench\nimport _ \"" + Module + "/internal/ctl/client\"\n",
		},
	},
	{
		"modules",
		one("package scheduler\nimport _ \"github.com/cockroachdb/pebble/v2\"\n"),
		map[string]string{"localstore/a.go": "package localstore\nimport _ \"github.com/cockroachdb/pebble/v2\"\n"},
	},
	{ // the longest prefix decides
		"modules",
		map[string]string{"internal/sim/a.go": "package sim\nimport _ \"github.com/cockroachdb/pebble/v2\"\n"},
		map[string]string{
			"internal/sim/a.go":   "package sim\nimport _ \"github.com/cockroachdb/pebble/v2/vfs\"\n",
			"scheduler/a_test.go": "package scheduler\nimport _ \"github.com/cockroachdb/pebble/v2/vfs\"\n",
		},
	},
	{ // nobody's module
		"modules",
		one("package scheduler\nimport _ \"example.com/left-pad\"\n"),
		one("package scheduler\nimport _ \"go.uber.org/zap\"\n"),
	},
	{ // test modules
		"modules",
		one("package scheduler\nimport _ \"pgregory.net/rapid\"\n"),
		map[string]string{
			"scheduler/a_test.go":    "package scheduler\nimport _ \"pgregory.net/rapid\"\n",
			"broker/brokertest/a.go": "package brokertest\nimport _ \"pgregory.net/rapid\"\n",
		},
	},
	{
		"signatures",
		map[string]string{"localstore/a.go": "package localstore\nimport \"github.com/cockroachdb/pebble/v2\"\n" +
			"type S struct{ DB *pebble.DB }\n"},
		map[string]string{"localstore/a.go": "package localstore\nimport \"github.com/cockroachdb/pebble/v2\"\n" +
			"type S struct{ db *pebble.DB }\nfunc (s S) open(o *pebble.Options) {}\n"},
	},
	{
		"signatures",
		map[string]string{"localstore/a.go": "package localstore\nimport \"github.com/cockroachdb/pebble/v2\"\n" +
			"func (s *S[T]) Open(o *pebble.Options) {}\n"},
		map[string]string{"localstore/a.go": "package localstore\nimport \"github.com/cockroachdb/pebble/v2/vfs\"\n" +
			"func Open(fs vfs.FS) {}\n"},
	},
	{ // below an internal/ of the owner nobody else sees them
		"signatures",
		map[string]string{"broker/kafka/source/a.go": "package source\n" +
			"import \"github.com/twmb/franz-go/pkg/kgo\"\nfunc Open() *kgo.Client { return nil }\n"},
		map[string]string{"broker/kafka/internal/client/a.go": "package client\n" +
			"import \"github.com/twmb/franz-go/pkg/kgo\"\nfunc Open() *kgo.Client { return nil }\n"},
	},
	{
		"function",
		one("package scheduler\nfunc f() {\n" + long("\t_ = 1", maxFunction) + "}\n"),
		one("package scheduler\nfunc f() {\n" + long("\t_ = 1", maxFunction-2) + "}\n"),
	},
	{ // tests and generated code are free of it (H3)
		"function",
		one("package scheduler\nfunc (s *T) f() {\n" + long("\t_ = 1", maxFunction) + "}\n"),
		map[string]string{
			"scheduler/a_test.go": "package scheduler\nfunc f() {\n" + long("\t_ = 1", 99) + "}\n",
			"scheduler/b.go": "// Code generated by x. DO NOT EDIT.\n\npackage scheduler\nfunc f() {\n" +
				long("\t_ = 1", 99) + "}\n",
		},
	},
	{
		"file",
		one("package scheduler\n" + long("", maxFile)),
		one("package scheduler\n" + long("", maxFile-3)),
	},
	{
		"package",
		map[string]string{
			"scheduler/a.go": "package scheduler\n" + long("", maxPackage/2),
			"scheduler/b.go": "package scheduler\n" + long("", maxPackage/2),
		},
		map[string]string{
			"scheduler/a.go":      "package scheduler\n" + long("", maxPackage/2),
			"scheduler/b_test.go": "package scheduler\n" + long("", maxPackage/2),
		},
	},
	{
		"columns",
		one("package scheduler\n// " + strings.Repeat("x", maxColumns-2)),
		one("package scheduler\n// " + strings.Repeat("é", maxColumns-3)),
	},
	{
		"interface",
		one("package scheduler\ntype I interface { A(); B(); C(); D(); E(); F(); G() }\n"),
		one("package scheduler\ntype I interface { A(); B(); C(); D(); E(); F() }\n"),
	},
	{
		"clock",
		one("package scheduler\nimport \"time\"\nvar x = time.Now()\n"),
		one("package scheduler\nimport \"time\"\nfunc f(o *O) { o.Now = time.Now; _ = O{Now: time.Now} }\n"),
	},
	{
		"clock",
		one("package scheduler\nimport clock \"time\"\nfunc f(t clock.Time) { clock.Since(t) }\n"),
		map[string]string{"cmd/cicada/a.go": "package main\nimport \"time\"\nvar x = time.Now()\n"},
	},
	{
		"sleep",
		map[string]string{"scheduler/a_test.go": "package scheduler\nimport \"time\"\nfunc f() { time.Sleep(1) }\n"},
		map[string]string{"scheduler/a_test.go": "package scheduler\nimport (\n\"time\"\n_ \"testing/synctest\"\n)\n" +
			"func f() { }\n"},
	},
	{
		"background",
		one("package scheduler\nimport \"context\"\nvar x = context.Background()\n"),
		map[string]string{
			"cmd/cicada/a.go":     "package main\nimport \"context\"\nvar x = context.Background()\n",
			"scheduler/a_test.go": "package scheduler\nimport \"context\"\nvar x = context.Background()\n",
		},
	},
	{
		"panic",
		one("package scheduler\nfunc f() { panic(\"oh\") }\n"),
		one("package scheduler\nfunc f() { panic(\"BUG: oh\"); panic(fmt.Sprintf(\"BUG: %d\", 1)); panic(\"BUG: \" + x) }\n"),
	},
	{
		"panic",
		one("package scheduler\nfunc f() { panic(err) }\n"),
		map[string]string{"localstore/a.go": "package localstore\nfunc f() { panic(\"FATAL: \" + err.Error()) }\n"},
	},
	{
		"errors",
		one("package scheduler\nimport \"fmt\"\nfunc f() { fmt.Errorf(\"failed to open: %w\", err) }\n"),
		one("package scheduler\nimport \"fmt\"\nfunc f() { fmt.Errorf(\"open %s: %w\", name, err) }\n"),
	},
	{
		"globals",
		one("package scheduler\nvar count int\n"),
		one("package scheduler\nimport \"errors\"\nvar errX = errors.New(\"x\")\nvar table = []int{1}\nvar _ I = T{}\n"),
	},
	{
		"globals",
		one("package scheduler\nvar count = 1\nfunc f() { count++ }\n"),
		one("package scheduler\nvar count = 1\nfunc f() { count := 2; count++ }\n"),
	},
	{ // across files, and elements of a table
		"globals",
		map[string]string{
			"scheduler/a.go": "package scheduler\nvar table = map[string]int{}\n",
			"scheduler/b.go": "package scheduler\nfunc f() { table[\"a\"] = 1 }\n",
		},
		map[string]string{
			"scheduler/a.go": "package scheduler\nvar table = map[string]int{}\n",
			"scheduler/b.go": "package scheduler\nfunc f() { _ = table[\"a\"] }\n",
		},
	},
	{
		"globals",
		one("package scheduler\nvar wake = make(chan int)\n"),
		one("package scheduler\nimport \"sync\"\nvar once = sync.OnceValue(f)\n"),
	},
	{
		"globals",
		one("package scheduler\nimport \"sync\"\nvar pool = sync.Pool{New: nil}\n"),
		one("package scheduler\nimport _ \"embed\"\n//go:embed a.txt\nvar text string\n"),
	},
	{
		"init",
		one("package scheduler\nfunc init() {}\n"),
		one("package scheduler\nfunc (s S) init() {}\n"),
	},
	{
		"atomics",
		one("package scheduler\nimport \"sync/atomic\"\nfunc f() { atomic.AddInt64(&x, 1) }\n"),
		one("package scheduler\nimport \"sync/atomic\"\ntype T struct { n atomic.Int64; p atomic.Pointer[T] }\n"),
	},
	{
		"goroutines",
		one("package scheduler\nfunc f() { go f() }\n"),
		map[string]string{"scheduler/a_test.go": "package scheduler\nfunc f() { go f() }\n"},
	},
	{
		"logs",
		one("package scheduler\nimport \"go.uber.org/zap\"\nfunc f(l *zap.Logger) { l.Info(\"Hello\") }\n"),
		one("package scheduler\nimport \"go.uber.org/zap\"\nfunc f(l *zap.Logger) { l.Info(\"hello\", zap.Int(\"n\", 1)) }\n"),
	},
	{
		"logs",
		one("package scheduler\nimport \"go.uber.org/zap\"\nfunc f(s *S) { s.log.Warn(\"n \" + x) }\n"),
		one("package scheduler\nimport (\n\"net/http\"\n\n\"go.uber.org/zap\"\n)\nfunc f() { http.Error(w, \"No\"); err.Error() }\n"),
	},
	{
		"logs",
		one("package scheduler\nimport \"go.uber.org/zap\"\nfunc f() { zap.L() }\n"),
		one("package scheduler\nimport \"go.uber.org/zap\"\nconst m = \"x\"\nfunc f() { zap.NewNop().Info(m) }\n"),
	},
	{
		"testing",
		one("package scheduler\nimport _ \"testing\"\n"),
		map[string]string{"tiered/objstore/objstoretest/a.go": "package objstoretest\nimport _ \"testing\"\n"},
	},
	{
		"assert",
		map[string]string{"scheduler/a_test.go": "package scheduler\nimport _ \"github.com/stretchr/testify/assert\"\n"},
		map[string]string{"scheduler/a_test.go": "package scheduler\nimport _ \"github.com/stretchr/testify/require\"\n"},
	},
	{
		"license",
		one("bare:package scheduler\n"),
		one("package scheduler\n"),
	},
	{
		"imports",
		one("package scheduler\nimport (\n\"fmt\"\n\"go.uber.org/zap\"\n)\n"),
		one("package scheduler\nimport (\n\"fmt\"\n\n\"go.uber.org/zap\"\n\n\"" + Module + "/delay\"\n)\n"),
	},
	{
		"imports",
		one("package scheduler\nimport (\n\"" + Module + "/delay\"\n\n\"fmt\"\n)\n"),
		one("package scheduler\nimport (\n\"fmt\"\n// why\n\"io\"\n)\n"),
	},
	{
		"docs",
		one("// Scheduler schedules.\npackage scheduler\n"),
		one("// Package scheduler schedules.\npackage scheduler\n"),
	},
	{
		"docs",
		map[string]string{"cmd/cicada/a.go": "package main\n"},
		map[string]string{"cmd/cicada/a.go": "// Command cicada runs.\npackage main\n"},
	},
	{
		"invariants",
		map[string]string{"scheduler/doc.go": "// Package scheduler schedules.\npackage scheduler\n"},
		map[string]string{
			"scheduler/doc.go": "// Package scheduler schedules.\n//\n//\ta --> b\n//\n// # Invariants\n//\n" +
				"//\tS1  One.\n//\n// # Concurrency\n//\n// # Failure\n//\n// See also x.\npackage scheduler\n",
			"scheduler/a_test.go": "package scheduler\n// Keeps S1.\n",
		},
	},
	{ // an invariant that nobody cites
		"invariants",
		map[string]string{"broker/doc.go": "// Package broker x.\n//\n//\tB1  One.\npackage broker\n"},
		map[string]string{"broker/doc.go": "// Package broker x.\n//\n//\tB1  One.\npackage broker\n\n// B1\nvar x = 1\n"},
	},
	{ // another package must name the one whose invariant it cites
		"invariants",
		map[string]string{
			"broker/doc.go": "// Package broker x.\n//\n//\tB1  One.\npackage broker\n",
			"delay/a.go":    "package delay\n\n// Keeps B1.\n",
		},
		map[string]string{
			"broker/doc.go": "// Package broker x.\n//\n//\tB1  One.\npackage broker\n",
			"tiered/a.go":   "package tiered\n\n// Keeps broker B1.\nvar x = 1\n",
		},
	},
	{
		"todo",
		one("package scheduler\n// TODO: later\n"),
		one("package scheduler\nvar x = context.TODO\n// A todo list.\n"),
	},
	{
		"todo",
		map[string]string{"Makefile": "# FIXME\n"},
		map[string]string{"docs/x.md": "Todo lists.\n"},
	},
	{
		"links",
		map[string]string{"README.md": "[a](docs/missing.md)\n"},
		map[string]string{"README.md": "[a](docs/x.md#one-two) `[b](no)` [c](#d)\n\n## D\n", "docs/x.md": "# One, two\n"},
	},
	{
		"links",
		map[string]string{"README.md": "[a](docs/x.md#three)\n", "docs/x.md": "# One\n"},
		map[string]string{"docs/x.md": "[a](../LICENSE) [b](y.md)\n```\n[c](z.md)\n```\n", "docs/y.md": "", "LICENSE": ""},
	},
	{
		"hosts",
		map[string]string{"Dockerfile": "FROM docker" + ".io/library/golang\n"},
		map[string]string{"Dockerfile": "FROM golang:1.26\n"},
	},
	{
		"hosts",
		map[string]string{"compose.yml": "image: quay" + ".io/a/b:1\n"},
		map[string]string{"docker-compose.yml": "image: quay" + ".io/a/b:1\n"},
	},
	{
		"hosts",
		map[string]string{".ci/run": "GOPROXY=https://proxy" + ".golang.org\n"},
		map[string]string{".ci/run": "go test ./...\n"},
	},
	{
		"paths",
		map[string]string{"docs/x.md": "see /wo" + "rk/main\n"},
		map[string]string{"docs/x.md": "how it /works/, docs/work/x, https://example.com/root/x\n"},
	},
	{
		"paths",
		map[string]string{"Makefile": "include .." + "/shared/x\n"},
		map[string]string{"Makefile": "include ../x\n"},
	},
	{
		"citations",
		one("package scheduler\n// keeps R" + "23\n"),
		one("package scheduler\n// keeps R22 and rule R1\n"),
	},
}

// Every rule must find its planted violations, and only those (H1).
func TestPlanted(t *testing.T) {
	tried := map[string]bool{"exceptions": true} // TestExceptions
	for _, c := range planted {
		tried[c.rule] = true
		t.Run(c.rule, func(t *testing.T) {
			for _, rule := range Rules() {
				if rule.Name == c.rule {
					found := rule.Check(plant(t, c.bad))
					require.NotEmpty(t, found)
					require.NotContains(t, found[0].String(), "%!")
					require.Empty(t, rule.Check(plant(t, c.good)))
				}
			}
		})
	}
	for _, rule := range Rules() {
		require.True(t, tried[rule.Name], "rule %s is not tried", rule.Name)
		require.NotEmpty(t, rule.Reason)
	}
}

// An exception allows exactly what it says and is refused when it allows too much (H2).
func TestExceptions(t *testing.T) {
	code := "package scheduler\nfunc f() {\n" + long("\t_ = 1", maxFunction) + "}\n"
	for value, want := range map[int]struct{ function, exceptions int }{
		maxFunction + 1: {1, 1}, // too small
		maxFunction + 2: {0, 0}, // exact
		maxFunction + 3: {0, 1}, // too large
	} {
		repo := plant(t, one(code))
		repo.tables.exceptions = []exception{{"function", "scheduler.f", value, "a test"}}
		require.Len(t, checkFunctions(repo), want.function, "value %d", value)
		require.Len(t, checkExceptions(repo), want.exceptions, "value %d", value)
	}
	repo := plant(t, one("package scheduler\n"))
	repo.tables.exceptions = []exception{{"function", "scheduler.f", 99, "a test"}}
	require.Len(t, checkExceptions(repo), 1, "the function is gone")
	repo = plant(t, one(code))
	repo.tables.exceptions = []exception{{"function", "scheduler.f", maxFunction + 2, ""}}
	require.Len(t, checkExceptions(repo), 1, "no reason")
}

// The permitted files and directories must be exempt, their namesakes not.
func TestPermits(t *testing.T) {
	repo := plant(t, one("package scheduler\nfunc f() { go f() }\n"))
	repo.tables.goroutines = []permit{{"scheduler/a.go", "a test"}}
	require.Empty(t, checkGoroutines(repo))
	repo.tables.goroutines = []permit{{"scheduler/a", "a test"}}
	require.Len(t, checkGoroutines(repo), 1)
}

// Every row of every table must give its reason, and none may stand twice.
func TestTables(t *testing.T) {
	h := house()
	seen := map[string]bool{}
	row := func(table, key, reason string) {
		require.NotEmpty(t, reason, "%s %s", table, key)
		require.False(t, seen[table+" "+key], "%s %s stands twice", table, key)
		seen[table+" "+key] = true
	}
	for _, f := range h.floors {
		row("floor", f.dir, f.reason)
	}
	for _, o := range h.owners {
		row("owner", o.path, o.reason)
	}
	for _, p := range h.goroutines {
		row("goroutine", p.path, p.reason)
	}
	for _, p := range h.clocks {
		row("clock", p.path, p.reason)
	}
	for _, p := range h.panics {
		row("panic", p.dir, p.reason)
	}
	for _, e := range h.exceptions {
		row("exception", e.rule+" "+e.object, e.reason)
	}
}

// What git ignores is not checked; other files are.
func TestIgnored(t *testing.T) {
	repo := plant(t, map[string]string{
		".gitignore": "/cicada\n/data/\n*.out\n", "data/x.md": "", "sub/data/x.md": "", "cicada": "",
		"a.out": "", ".git/config": "", ".ci/run": "", "cmd/cicada/main.go": "package main\n",
	})
	for name, want := range map[string]bool{
		"data/x.md": false, "sub/data/x.md": true, "cicada": false, "a.out": false,
		".git/config": false, ".ci/run": true, "cmd/cicada/main.go": true,
	} {
		require.Equal(t, want, repo.Dirs[name], name)
	}
}
