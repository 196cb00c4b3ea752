// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/cicadamq/cicada/delay"
)

// maxSubjectBytes keeps the line of a publish, with its reply subject, far below the 4 KiB that
// servers allow.
const maxSubjectBytes = 1024

// subjectOf is the subject of the target nats:<broker>/<subject>. reason is empty when it is good.
func subjectOf(target delay.Target, broker string) (subject, reason string) {
	rest, ok := strings.CutPrefix(string(target), "nats:")
	name, subject, slash := strings.Cut(rest, "/")
	if !ok || !slash {
		return "", "want nats:<broker>/<subject>"
	}
	if name != broker {
		return "", "not a subject of the broker " + broker
	}
	return subject, badSubject(subject, false)
}

// badSubject says what is wrong with a subject to publish to or, with wildcards, to read (N1).
func badSubject(subject string, wildcards bool) string {
	switch {
	case subject == "":
		return "the subject is empty"
	case len(subject) > maxSubjectBytes:
		return "the subject is longer than 1 KiB"
	case !utf8.ValidString(subject):
		return "the subject is not valid UTF-8"
	case subject[0] == '$' || strings.HasPrefix(subject, "_INBOX."):
		return "the subject belongs to the system"
	}
	for _, r := range subject {
		if unicode.IsSpace(r) || unicode.IsControl(r) {
			return "the subject holds a space or a control character"
		}
	}
	tokens := strings.Split(subject, ".")
	for i, token := range tokens {
		switch {
		case token == "":
			return "the subject has an empty part"
		case wildcards && (token == "*" || token == ">" && i == len(tokens)-1):
		case strings.ContainsAny(token, "*>"):
			return "the subject holds a wildcard"
		}
	}
	return ""
}
