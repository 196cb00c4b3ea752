// SPDX-License-Identifier: Apache-2.0

package exam

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
)

// Finding is what one guard said of one mistake.
type Finding struct {
	Mistake string  `json:"mistake"` // its words
	Guard   Guard   `json:"guard"`
	Seed    uint64  `json:"seed,omitempty"` // of the simulation
	Said    string  `json:"said"`           // empty: the mistake was not found
	Seconds float64 `json:"seconds"`
}

// Load reads findings. A file that is not there has none.
func Load(path string) ([]Finding, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read findings: %w", err)
	}
	var list []Finding
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&list); err != nil {
		return nil, fmt.Errorf("read findings: %s: %w", path, err)
	}
	return list, nil
}

// Save writes findings, one a line.
func Save(path string, list []Finding) error {
	var b bytes.Buffer
	for i := range list {
		b.WriteString([...]string{",\n", "[\n"}[min(1, max(0, 1-i))])
		line, err := line(&list[i])
		if err != nil {
			return fmt.Errorf("write findings: %w", err)
		}
		b.Write(line)
	}
	b.WriteString("\n]\n")
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write findings: %w", err)
	}
	return nil
}

// line encodes without the escapes of HTML.
func line(f *Finding) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(f)
	return bytes.TrimSpace(b.Bytes()), err
}

// Merge replaces of old what fresh says anew, and leaves out what Mistakes does not know any more.
// The result is in the order of Mistakes.
func Merge(old, fresh []Finding) (out []Finding) {
	for _, m := range Mistakes() {
		for _, g := range m.Guards {
			same := func(f Finding) bool { return f.Mistake == m.Bug.String() && f.Guard == g }
			list := fresh
			i := slices.IndexFunc(list, same)
			if i < 0 {
				list = old
				i = slices.IndexFunc(list, same)
			}
			if i >= 0 {
				out = append(out, list[i])
			}
		}
	}
	return out
}
