// SPDX-License-Identifier: Apache-2.0

package server

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/internal/server/access"
	"github.com/cicadamq/cicada/internal/server/audit"
)

// A change that an operator made must be in the audit with who, what and the answer, however it
// came; what a producer does is no entry, or the audit would be as long as the traffic (W8).
func TestAudit(t *testing.T) {
	var got []string
	note := func(e audit.Entry) {
		require.False(t, e.At.IsZero())
		require.NotEmpty(t, e.From)
		got = append(got, strings.Join(strings.Fields(fmt.Sprint(e.Who, " ", e.Action, " ", e.ID, " ",
			e.Target, " ", e.Filter, " ", e.Count, " ", e.Answer)), " "))
	}
	s := New(newEstate(), Options{Audit: note, Tier: fakeTier, Gate: access.NewGate(access.Credentials{
		Tokens: []access.Token{
			access.NewToken("ops", "ops", access.Admin), access.NewToken("app", "app", access.Send|access.Read),
		}}, nil)})
	for _, c := range []struct{ method, path, body, token, want string }{
		{"POST", "/v1/pending/purge", `{"target":"pull:own","id_prefix":"a"}`, "ops",
			"token ops purge pull:own id_prefix=a 1 ok"},
		{"POST", "/v1/pending/purge", `{"target":"pull:own","dry_run":true}`, "ops", ""},
		{"POST", "/v1/pending/purge", `{"x":1}`, "ops", "token ops purge 0 invalid_argument"},
		{"POST", "/v1/pending/purge", `{}`, "app", "token app purge 0 permission_denied"},
		{"POST", "/v1/pending/purge", `{}`, "nobody", ""},
		{"POST", "/v1/targets/pause", `{"target":"pull:own"}`, "ops", "token ops pause pull:own 0 ok"},
		{"POST", "/v1/targets/resume", `{"target":"pull:own"}`, "ops", "token ops resume pull:own 0 ok"},
		{"POST", "/v1/targets/limit", `{"target":"pull:own","rate":5}`, "ops",
			"token ops limit pull:own 0 ok"},
		{"POST", "/v1/dead-letters/own-dead/retry", "", "ops", "token ops retry_dead_letter own-dead 0 ok"},
		{"DELETE", "/v1/dead-letters/nobody", "", "ops", "token ops delete_dead_letter nobody 0 not_found"},
		{"POST", "/v1/clock/confirm", "", "ops", "token ops confirm_clock 0 ok"},
		{"DELETE", "/v1/messages/own", "", "ops", "token ops cancel own 0 CANCELLED"},
		{"DELETE", "/v1/messages/absent", "", "ops", "token ops cancel absent 0 NOT_FOUND"},
		{"PATCH", "/v1/messages/own", `{"delay":1}`, "ops", "token ops reschedule own 0 CANCELLED"},
		{"POST", "/v1/messages/own/fire", "", "ops", "token ops fire own 0 CANCELLED"},
		{"DELETE", "/v1/messages/own", "", "app", ""},
		{"POST", "/v1/messages", `{"target":"pull:own","delay":1,"body":"secret"}`, "ops", ""},
		{"GET", "/v1/messages", "", "ops", ""},

		{"POST", "Purge", `{"filter":{"target":"pull:own"}}`, "ops", "token ops purge pull:own 1 ok"},
		{"POST", "Purge", `{}`, "app", "token app purge 0 permission_denied"},
		{"POST", "Pause", `{"target":"pull:own"}`, "ops", "token ops pause pull:own 0 ok"},
		{"POST", "Resume", `{"target":"x"}`, "ops", "token ops resume x 0 invalid_argument"},
		{"POST", "SetLimit", `{"target":"pull:own","rate":5}`, "ops", "token ops limit pull:own 0 ok"},
		{"POST", "RetryDeadLetter", `{"id":"own-dead"}`, "ops", "token ops retry_dead_letter own-dead 0 ok"},
		{"POST", "DeleteDeadLetter", `{"id":"own-dead"}`, "ops", "token ops delete_dead_letter own-dead 0 ok"},
		{"POST", "Cancel", `{"id":"own"}`, "ops", "token ops cancel own 0 CANCELLED"},
		{"POST", "Reschedule", `{"id":"own","delayMs":1}`, "ops", "token ops reschedule own 0 CANCELLED"},
		{"POST", "Fire", `{"id":"own"}`, "ops", "token ops fire own 0 CANCELLED"},
		{"POST", "Cancel", `{"id":"own"}`, "app", ""},
	} {
		got = nil
		if c.path[0] != '/' {
			c.path = "/cicada.v1.Scheduler/" + c.path
		}
		send(s, c.method, c.path, c.body, c.token)
		require.Equal(t, c.want, strings.Join(got, "; "), "%s %s as %s", c.method, c.path, c.token)
	}
	// Without credentials everybody is an operator: only what needs the scope admin is an entry.
	got = nil
	open := New(newEstate(), Options{Audit: note})
	send(open, http.MethodDelete, "/v1/messages/own", "", "")
	send(open, http.MethodPost, "/v1/targets/pause", `{"target":"pull:own"}`, "")
	require.Equal(t, []string{"anonymous pause pull:own 0 ok"}, got)
	// A new change without a word for the audit would go unseen.
	for _, rt := range routes() {
		require.Equal(t, rt.rule.Scope == access.Admin || strings.Contains(rt.path, "/{id}") &&
			rt.method != http.MethodGet, rt.action != "", "%s %s", rt.method, rt.path)
	}
	actions := map[string]bool{}
	for _, rt := range routes() {
		actions[rt.action] = true
	}
	for path, p := range procedures() {
		require.True(t, actions[p.action], path)
		require.False(t, p.rule.Scope == access.Admin && p.action == "", path)
	}
}
