// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"net/url"
	"strings"

	"github.com/spf13/cobra"
)

// filterFlags are the selectors of ls, count and purge; the daemon checks their values.
type filterFlags struct {
	values map[string]*string // by the API's name
}

var filterHelp = []struct{ name, help string }{
	{"target", "only messages to this target, such as pull:orders"},
	{"state", "scheduled, claimed, delivered, cancelled, expired, dead or suppressed"},
	{"tier", "hot, warm or cold"},
	{"due_from", "due at or after: RFC 3339 with offset, or epoch milliseconds"},
	{"due_to", "due before"},
	{"id_prefix", "ids that begin with this"},
	{"kind", "message, schedule or guarded"},
}

func addFilter(cmd *cobra.Command) *filterFlags {
	f := &filterFlags{values: make(map[string]*string)}
	for _, h := range filterHelp {
		flag := strings.ReplaceAll(h.name, "_", "-")
		f.values[h.name] = cmd.Flags().String(flag, "", h.help)
	}
	return f
}

func (f *filterFlags) query() url.Values {
	q := url.Values{}
	for name, v := range f.values {
		if *v != "" {
			q.Set(name, *v)
		}
	}
	return q
}

func (f *filterFlags) object() map[string]any {
	m := make(map[string]any)
	for name, v := range f.values {
		if *v != "" {
			m[name] = *v
		}
	}
	return m
}
