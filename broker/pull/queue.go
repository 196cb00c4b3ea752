// SPDX-License-Identifier: Apache-2.0

package pull

import (
	"github.com/cicadamq/cicada/delay"
)

const scheme = "pull:"

// ParseQueue is the target of the queue with this name: 1 to delay.MaxQueueBytes characters of
// A-Z a-z 0-9 . _ and -. Any other name is a *delay.FieldError for field "queue".
func ParseQueue(name string) (delay.Target, error) {
	if reason := badQueue(name); reason != "" {
		return "", delay.Invalid("queue", "%s", reason)
	}
	return delay.Target(scheme + name), nil
}

// Check tells at accept time whether target is pull:<queue> with a queue that ParseQueue accepts:
// nil, or a *delay.FieldError for field "target".
func Check(target delay.Target) error {
	if !target.IsPull() {
		return delay.Invalid("target", "want pull:<queue>")
	}
	if reason := badQueue(target.Queue()); reason != "" {
		return delay.Invalid("target", "%s", reason)
	}
	return nil
}

func badQueue(name string) string {
	if name == "" {
		return "queue name is empty"
	}
	if len(name) > delay.MaxQueueBytes {
		return "queue name is longer than 128 characters"
	}
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case c == '.', c == '_', c == '-':
		default:
			return "queue name holds a character other than A-Z a-z 0-9 . _ -"
		}
	}
	return ""
}
