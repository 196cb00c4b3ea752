// SPDX-License-Identifier: Apache-2.0

package exam

import (
	"fmt"
	"slices"
	"strings"
)

// cellMost bounds what a cell quotes.
const cellMost = 160

// Document is docs/guarantees.md.
func Document(findings []Finding) string {
	var b strings.Builder
	b.WriteString(preface)
	for _, part := range [...]struct{ letter, title, words string }{
		{"R", "The rules", "What keeps the parts of the product together."},
		{"S", "The promises", "What the outside may rely on."},
		{"D", "The causes of duplicates", "What makes other systems deliver twice."},
		{"V", "Who may do what", "What a token with target patterns can see and change."},
	} {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n", part.title, part.words)
		b.WriteString("| | what it says | taken out | guarded by | what happened then |\n")
		b.WriteString("|---|---|---|---|---|\n")
		for _, r := range Rules() {
			if strings.HasPrefix(r.ID, part.letter) {
				writeRule(&b, &r, findings)
			}
		}
	}
	writeFaults(&b)
	return b.String()
}

// writeFaults writes what happens from outside, and the mistakes by hand that break no rule above.
func writeFaults(b *strings.Builder) {
	b.WriteString("\n## Faults\n\nWhat happens from outside, by its number in the matrix of " +
		"faults, and further guards.\n\n| | guarded by | tried " +
		"| without the protection |\n|---|---|---|---|\n")
	for _, f := range Faults() {
		guards := make([]string, len(f.Guards))
		for i, g := range f.Guards {
			guards[i] = cell(g)
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s |\n", quoted(f.IDs), strings.Join(guards, ", "),
			quoted(f.Counts), quoted(f.Said))
	}
	b.WriteString("\n| | taken out by hand | guarded by | what happened then |\n|---|---|---|---|\n")
	rules := Rules()
	for _, m := range Mutations() {
		if !slices.ContainsFunc(rules, func(r Rule) bool { return breaks(m.Rules, r.ID) }) {
			fmt.Fprintf(b, "| %s | `%s`: %s | %s | %s |\n", m.Rules, m.File, quoted(m.What),
				cell(m.Guard), quoted(m.Said))
		}
	}
}

const preface = `<!-- Generated from internal/exam by make guarantees. Do not edit. -->
# Guarantees

Which test guards which guarantee, and what that test did when the protection was taken out.

` + "`make exam`" + ` plants the mistakes below in the product, one at a time, and runs what guards
the rule. With the mistake it must fail, and without it succeed. *sim* is the simulation with the
profile named: one of 2,000 seeds must break a promise; the number is that of the first which did.
Other entries are a test and the directory of its package. A file in the third column says that the
mistake was made by hand. What nobody took out is a guard in addition.

A change of the product changes which history a seed plays: the numbers are good for the commit that
wrote them.
`

// row is a line of a table but for the rule.
type row struct{ taken, guard, said string }

func writeRule(b *strings.Builder, r *Rule, findings []Finding) {
	id, words := r.ID, r.Words
	rows := rowsOf(r, findings)
	if len(rows) == 0 {
		rows = append(rows, row{})
	}
	for i, row := range rows {
		if i > 0 {
			id, words = "", ""
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s |\n", id, words, row.taken, row.guard, row.said)
	}
}

func rowsOf(r *Rule, findings []Finding) (rows []row) {
	if r.Note != "" {
		rows = append(rows, row{taken: r.Note})
	}
	for _, m := range Mistakes() {
		if !breaks(m.Rules, r.ID) {
			continue
		}
		for _, g := range m.Guards {
			rows = append(rows, row{m.Bug.String(), cell(g), said(&m, g, findings)})
		}
	}
	for _, m := range Mutations() {
		if breaks(m.Rules, r.ID) {
			rows = append(rows, row{"`" + m.File + "`: " + quoted(m.What), cell(m.Guard), quoted(m.Said)})
		}
	}
	for _, g := range r.Also {
		rows = append(rows, row{"", cell(g), ""})
	}
	return rows
}

func said(m *Mistake, g Guard, findings []Finding) string {
	i := slices.IndexFunc(findings, func(f Finding) bool {
		return f.Mistake == m.Bug.String() && f.Guard == g
	})
	switch {
	case i < 0:
		return "not tried"
	case findings[i].Said == "":
		return "**not found**"
	case findings[i].Seed > 0:
		return fmt.Sprintf("seed %d: %s", findings[i].Seed, quoted(findings[i].Said))
	default:
		return quoted(findings[i].Said)
	}
}

// cell names a guard.
func cell(g Guard) string {
	if profile, ok := g.Profile(); ok {
		if profile == "" {
			return "*sim*"
		}
		return "*sim* " + profile
	}
	dir, name := g.Test()
	return fmt.Sprintf("`%s` `%s`", name, dir)
}

// quoted makes s fit for a cell.
func quoted(s string) string {
	s, _, _ = strings.Cut(s, " Diff: ")
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > cellMost {
		s = strings.ToValidUTF8(s[:cellMost], "") + " …"
	}
	return strings.NewReplacer("|", `\|`, "<", "&lt;", "*", `\*`).Replace(s)
}
