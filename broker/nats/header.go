// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
)

// msgID is the header by which a stream tells a repeated message.
const msgID = "Nats-Msg-Id"

// owned reports whether a header is not the caller's to set (N2). A firing's own headers were
// written by the shard.
func owned(name string) bool {
	lower := strings.ToLower(name)
	if lower == delay.HeaderScheduleID || lower == delay.HeaderMissed {
		return false
	}
	return strings.HasPrefix(lower, "cicada-") || controls(name)
}

// controls reports whether a header is an order to a server, or to a client, for which status and
// description are the server's words.
func controls(name string) bool {
	lower := strings.ToLower(name)
	return strings.HasPrefix(lower, "nats-") || lower == "status" || lower == "description"
}

// badHeader says why a header cannot be carried. The client library would replace line breaks
// silently.
func badHeader(h delay.Header) string {
	if h.Name == "" {
		return "headers: a name is empty"
	}
	for i := range len(h.Name) {
		if c := h.Name[i]; c <= ' ' || c >= 0x7f || c == ':' {
			return "headers: a name holds a character that NATS does not allow"
		}
	}
	if strings.ContainsAny(h.Value, "\r\n\x00") {
		return "headers: a value holds a line break"
	}
	return ""
}

// header is the header of the message for d.
func header(d *broker.Delivery) (h nats.Header, reason string) {
	h = make(nats.Header, len(d.Headers)+6)
	for _, c := range d.Headers {
		if reason = badHeader(c); reason != "" {
			return nil, reason
		}
		if !owned(c.Name) {
			h[c.Name] = append(h[c.Name], c.Value)
		}
	}
	id := headerText(string(d.ID))
	h[msgID] = []string{messageID(id, d.Generation)}
	h["cicada-id"] = []string{id}
	h["cicada-due"] = []string{d.Due.String()}
	h["cicada-fired-at"] = []string{d.FiredAt.String()}
	h["cicada-attempt"] = []string{strconv.FormatUint(uint64(d.Attempt), 10)}
	if d.RoutingKey != "" {
		h["cicada-key"] = []string{headerText(d.RoutingKey)}
	}
	return h, ""
}

// messageID tells the generations of an id apart: a message that replaced another one is not its
// duplicate. The percent sign keeps it apart from every id.
func messageID(id string, generation uint32) string {
	if generation <= 1 {
		return id
	}
	return id + "%/" + strconv.FormatUint(uint64(generation), 10)
}

// headerText is broker.HeaderText, without a copy of what is plain.
func headerText(s string) string {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '%' {
			return broker.HeaderText(s)
		}
	}
	return s
}
