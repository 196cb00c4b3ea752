// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"errors"
	"slices"
	"strings"

	"github.com/cicadamq/cicada/delay"
)

// checkTarget checks the form of a target that a header gave, then asks check.
func checkTarget(name string, t delay.Target, check func(delay.Target) error) error {
	switch {
	case t == "":
		return delay.Invalid(name, "is needed")
	case len(t) > delay.MaxTargetBytes:
		return delay.Invalid(name, "longer than %d bytes", delay.MaxTargetBytes)
	case !delay.ValidText(string(t)) || strings.ContainsAny(string(t), " \u00a0"):
		return delay.Invalid(name, "has spaces, control characters or invalid UTF-8")
	case t.Kind() == "":
		return delay.Invalid(name, "want a kind before the colon, as in pull:orders")
	case check == nil:
		return nil
	}
	err := check(t)
	if fault, ok := errors.AsType[*delay.FieldError](err); ok {
		return delay.Invalid(name, "%s", fault.Reason)
	}
	return err
}

// checkHeaders sorts the caller's headers by name, so that the same content is equal however it was
// sent (S4), and checks their number and size.
func checkHeaders(headers []delay.Header) error {
	if len(headers) > delay.MaxHeaders {
		return delay.Invalid("headers", "more than %d headers", delay.MaxHeaders)
	}
	if len(headers) > 1 {
		slices.SortFunc(headers, func(a, b delay.Header) int {
			return strings.Compare(a.Name, b.Name)
		})
	}
	size := 0
	for i, h := range headers {
		size += len(h.Name) + len(h.Value)
		switch {
		case !delay.ValidText(h.Value):
			return delay.Invalid(h.Name, "has control characters or invalid UTF-8")
		case i > 0 && h.Name == headers[i-1].Name:
			return delay.Invalid(h.Name, "is given twice")
		}
	}
	if size > delay.MaxHeaderBytes {
		return delay.Invalid("headers", "%d bytes together, more than %d", size,
			delay.MaxHeaderBytes)
	}
	return nil
}
