// SPDX-License-Identifier: Apache-2.0

package tidy

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// scan reports every match of form in the text files that pick takes.
func (r *Repo) scan(form *regexp.Regexp, pick func(name string) bool, advice string) []Problem {
	var out []Problem
	for _, name := range slices.Sorted(maps.Keys(r.Texts)) {
		if !pick(name) {
			continue
		}
		n := 0
		for line := range strings.SplitSeq(string(r.Texts[name]), "\n") {
			n++
			if found := form.FindString(line); found != "" {
				out = append(out, Problem{name, n, fmt.Sprintf("%q: %s", found, advice)})
			}
		}
	}
	return out
}

var todoForm = regexp.MustCompile(`\b(TODO|FIXME|XXX|HACK)\b`)

// checkTodo finds notes of unfinished work: in comments of Go files, anywhere in others.
func checkTodo(r *Repo) (out []Problem) {
	const advice = "finish it, or write an issue"
	for _, p := range r.Packages {
		for _, f := range p.Files {
			if f.Generated {
				continue
			}
			for _, group := range f.AST.Comments {
				for _, c := range group.List {
					if found := todoForm.FindString(c.Text); found != "" {
						out = append(out, r.problem(f, c.Pos(), "%q: %s", found, advice))
					}
				}
			}
		}
	}
	return append(out, r.scan(todoForm, func(name string) bool {
		return !strings.HasSuffix(name, ".go") && name != "go.sum" && name != "LICENSE"
	}, advice)...)
}

func anyFile(string) bool { return true }

// hostForm matches the hosts that packages and images come from. Classes of one dot keep this line
// from matching itself.
var hostForm = regexp.MustCompile(`(proxy|sum|goproxy)[.](golang[.]org|io|cn)|` +
	`\b(docker|ghcr|quay|gcr)[.]io\b|registry[.][a-z0-9-]+[.][a-z]+|` +
	`\b(deb[.]debian|archive[.]ubuntu|pypi|files[.]pythonhosted)[.](org|com)\b|[.]pkg[.]dev\b`)

func checkHosts(r *Repo) []Problem {
	named := func(name string) bool {
		return !slices.ContainsFunc(r.tables.registries, func(p permit) bool { return p.path == name })
	}
	return r.scan(hostForm, named, "name no registry: the machine that builds chooses it")
}

var pathForm = regexp.MustCompile(
	`(^|[^A-Za-z0-9_.~/$}>-])/(root|work|Users|home/[a-z])[/ "'\x60)]|[.][.]/shared\b`)

func checkPaths(r *Repo) []Problem {
	return r.scan(pathForm, anyFile, "a path of one machine, or one outside the clone")
}

var citationForm = regexp.MustCompile(`\b[Rr]ules? R([0-9]+)|[(,] ?R([0-9]+)\b|\bkeeps R([0-9]+)`)

// checkCitations finds citations of rules that do not exist.
func checkCitations(r *Repo) (out []Problem) {
	for _, name := range slices.Sorted(maps.Keys(r.Texts)) {
		n := 0
		for line := range strings.SplitSeq(string(r.Texts[name]), "\n") {
			n++
			for _, m := range citationForm.FindAllStringSubmatch(line, -1) {
				number, err := strconv.Atoi(m[1] + m[2] + m[3])
				if err == nil && (number < 1 || number > maxRule) {
					out = append(out, Problem{name, n, "there is no rule R" + strconv.Itoa(number)})
				}
			}
		}
	}
	return out
}

var (
	linkForm    = regexp.MustCompile(`\]\(([^()\s]+)(?:\s+"[^"]*")?\)`)
	codeForm    = regexp.MustCompile("`[^`]*`")
	headingForm = regexp.MustCompile(`^#{1,6}\s+(.*?)\s*#*$`)
)

// checkLinks follows the relative links of Markdown files, headings included.
func checkLinks(r *Repo) (out []Problem) {
	for _, name := range slices.Sorted(maps.Keys(r.Texts)) {
		if !strings.HasSuffix(name, ".md") {
			continue
		}
		eachProse(r.Texts[name], func(n int, line string) {
			line = codeForm.ReplaceAllString(line, "")
			for _, m := range linkForm.FindAllStringSubmatch(line, -1) {
				if why := r.broken(name, m[1]); why != "" {
					out = append(out, Problem{name, n, fmt.Sprintf("link %s: %s", m[1], why)})
				}
			}
		})
	}
	return out
}

// eachProse calls fn for the lines outside fenced code, numbered from 1.
func eachProse(text Text, fn func(n int, line string)) {
	n, fenced := 0, false
	for line := range strings.SplitSeq(string(text), "\n") {
		n++
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			fenced = !fenced
			continue
		}
		if !fenced {
			fn(n, line)
		}
	}
}

// broken says why a link in file from leads nowhere, or "".
func (r *Repo) broken(from, link string) string {
	if strings.Contains(link, "://") || strings.HasPrefix(link, "mailto:") {
		return ""
	}
	target, anchor, _ := strings.Cut(link, "#")
	file := from
	if target != "" {
		file = path.Join(path.Dir(from), target)
	}
	if !r.Dirs[file] {
		return "no such file"
	}
	if anchor == "" || !strings.HasSuffix(file, ".md") {
		return ""
	}
	found := false
	eachProse(r.Texts[file], func(_ int, line string) {
		if m := headingForm.FindStringSubmatch(line); m != nil && slug(m[1]) == anchor {
			found = true
		}
	})
	if !found {
		return "no such heading"
	}
	return ""
}

// slug is the anchor of a heading.
func slug(heading string) string {
	var b strings.Builder
	for _, c := range strings.ToLower(heading) {
		switch {
		case c == ' ':
			b.WriteByte('-')
		case c == '-' || c == '_' || unicode.IsLetter(c) || unicode.IsDigit(c):
			b.WriteRune(c)
		}
	}
	return b.String()
}
