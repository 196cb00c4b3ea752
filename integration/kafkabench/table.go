// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math"
	"strings"
)

const perSecond = "/s"

// row is one figure. A rate is judged by Goal, which it must reach, or stay below, and by its ratio
// to another figure, which must be at least Least.
type row struct {
	Figure string  `json:"figure"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`
	Goal   float64 `json:"goal,omitempty"` // 0 is none
	Below  bool    `json:"below,omitempty"`
	Of     string  `json:"of,omitempty"` // what Ratio compares with
	Ratio  float64 `json:"ratio,omitempty"`
	Least  float64 `json:"least,omitempty"`
	Note   string  `json:"note,omitempty"`
	// CPU is the daemon's for each message, in microseconds. On a busy machine it says more than the
	// speed.
	CPU float64   `json:"cpu_us,omitempty"`
	All []float64 `json:"all,omitempty"` // of which Value is the median
}

// goal says what the figure should be, "" for one that is only compared with.
func (r row) goal() string {
	var words []string
	switch {
	case r.Goal > 0 && r.Below:
		words = append(words, "below "+number(r.Goal)+" ms")
	case r.Goal > 0:
		words = append(words, number(r.Goal)+r.Unit)
	}
	if r.Of != "" {
		words = append(words, fmt.Sprintf("%.0f %% of %s", 100*r.Least, r.Of))
	}
	return strings.Join(words, ", ")
}

// verdict is "met" or "missed", "" without a goal.
func (r row) verdict() string {
	switch {
	case r.Goal == 0 && r.Of == "":
		return ""
	case r.Goal > 0 && r.Below != (r.Value < r.Goal), r.Of != "" && r.Ratio < r.Least:
		return "missed"
	}
	return "met"
}

func (r row) measured() string {
	s := number(r.Value)
	switch {
	case r.Unit != perSecond:
		s += " " + r.Unit
	default:
		s += r.Unit
	}
	if r.Of != "" {
		s += fmt.Sprintf(" = %.0f %% of %s", 100*r.Ratio, r.Of)
	}
	if r.Note != "" {
		s += " (" + r.Note + ")"
	}
	if r.CPU > 0 {
		s += fmt.Sprintf(", %.1f us CPU", r.CPU)
	}
	return s
}

// number is rounded to three digits, with commas.
func number(v float64) string {
	if v < 1000 {
		return fmt.Sprintf("%.4g", v)
	}
	unit := math.Pow(10, math.Floor(math.Log10(v))-2)
	s := fmt.Sprintf("%.0f", math.Round(v/unit)*unit)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// table is the rows as Markdown.
func table(rows []row) string {
	cells := [][]string{{"figure", "goal", "measured", ""}}
	for _, r := range rows {
		cells = append(cells, []string{r.Figure, r.goal(), r.measured(), r.verdict()})
	}
	width := make([]int, len(cells[0]))
	for _, line := range cells {
		for i, c := range line {
			width[i] = max(width[i], len(c))
		}
	}
	var b strings.Builder
	for n, line := range cells {
		for i, c := range line {
			fmt.Fprintf(&b, "| %-*s ", width[i], c)
		}
		b.WriteString("|\n")
		if n == 0 {
			for _, w := range width {
				b.WriteString("|" + strings.Repeat("-", w+2))
			}
			b.WriteString("|\n")
		}
	}
	return b.String()
}
