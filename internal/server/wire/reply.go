// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/base64"
	"strconv"
	"strings"
	"unicode/utf8"
	"unsafe"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler"
)

// AppendReceipt appends the reply to one accepted message.
func AppendReceipt(dst []byte, r *scheduler.Receipt) []byte {
	dst = append(dst, `{"id":`...)
	dst = AppendString(dst, string(r.ID))
	dst = AppendDues(dst, r.Due)
	dst = append(dst, `,"durability":"`...)
	dst = append(dst, r.Durability.String()...)
	dst = append(dst, `","duplicate":`...)
	dst = strconv.AppendBool(dst, r.Duplicate)
	dst = append(dst, `,"generation":`...)
	dst = strconv.AppendUint(dst, uint64(r.Generation), 10)
	dst = append(dst, `,"state":"`...)
	dst = append(dst, r.State.String()...)
	dst = append(dst, '"')
	if r.Crowded {
		dst = append(dst, `,"crowded":true`...)
		dst = appendSuggested(dst, r.Suggested)
	}
	return append(dst, '}')
}

// appendSuggested appends the members that tell a later second with room, if one was found.
func appendSuggested(dst []byte, at delay.Due) []byte {
	if at == 0 {
		return dst
	}
	dst = append(dst, `,"suggested_at":"`...)
	dst = AppendDue(dst, at)
	dst = append(dst, `","suggested_at_ms":`...)
	return strconv.AppendInt(dst, int64(at), 10)
}

// Fault is an error as the outside sees it. Field and Result may be empty.
type Fault struct {
	Code    string // Connect's
	Message string
	Field   string // of the request, if one is at fault
	Result  string // TOO_LATE, like the answer of a change, or CROWDED
	// Suggested is a later second with room, of CROWDED; 0: none was found.
	Suggested delay.Due
}

// AppendFault appends the object of an error.
func AppendFault(dst []byte, f Fault) []byte {
	dst = append(dst, `{"code":"`...)
	dst = append(dst, f.Code...)
	dst = append(dst, `","message":`...)
	dst = AppendString(dst, f.Message)
	if f.Field != "" {
		dst = append(dst, `,"field":`...)
		dst = AppendString(dst, f.Field)
	}
	if f.Result != "" {
		dst = append(dst, `,"result":"`...)
		dst = append(dst, f.Result...)
		dst = append(dst, '"')
	}
	dst = appendSuggested(dst, f.Suggested)
	return append(dst, '}')
}

// AppendLeases appends the reply to a pull.
func AppendLeases(dst []byte, leases []scheduler.Lease) []byte {
	dst = append(dst, `{"messages":[`...)
	for i := range leases {
		l := &leases[i]
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"id":`...)
		dst = AppendString(dst, string(l.ID))
		dst = append(dst, `,"receipt":`...)
		dst = AppendString(dst, l.Receipt)
		dst = append(dst, `,"attempt":`...)
		dst = strconv.AppendUint(dst, uint64(l.Attempt), 10)
		dst = AppendDues(dst, l.Due)
		dst = append(dst, `,"fired_at_ms":`...)
		dst = strconv.AppendInt(dst, int64(l.FiredAt), 10)
		dst = append(dst, `,"key":`...)
		dst = AppendString(dst, l.RoutingKey)
		dst = append(dst, `,"headers":`...)
		dst = appendHeaders(dst, l.Headers)
		dst = appendBody(dst, l.Body)
		dst = append(dst, '}')
	}
	return append(dst, `]}`...)
}

// AppendSettled appends the reply to an ack, a nack or an extend.
func AppendSettled(dst []byte, receipts []string, results []scheduler.SettleResult) []byte {
	dst = append(dst, `{"results":[`...)
	for i, r := range results {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"receipt":`...)
		dst = AppendString(dst, receipts[i])
		dst = append(dst, `,"result":"`...)
		dst = append(dst, r.String()...)
		dst = append(dst, `"}`...)
	}
	return append(dst, `]}`...)
}

// Show is what a reply shows of a message beside what is known of all.
type Show struct {
	Body bool     // the body
	Dead bool     // how it ended, even where nothing is known of it
	Next []Firing // of a schedule
}

// AppendInfo appends what is known of one message.
func AppendInfo(dst []byte, m *scheduler.Info, show Show) []byte {
	dst = append(dst, `{"id":`...)
	dst = AppendString(dst, string(m.ID))
	dst = append(dst, `,"state":"`...)
	dst = append(dst, m.State.String()...)
	dst = append(dst, '"')
	if !m.Known {
		return append(dst, '}')
	}
	dst = AppendDues(dst, m.Due)
	dst = append(dst, `,"attempts":`...)
	dst = strconv.AppendUint(dst, uint64(m.Attempts), 10)
	dst = append(dst, `,"tier":"`...)
	dst = append(dst, m.Level.String()...)
	dst = append(dst, `","target":`...)
	dst = AppendString(dst, string(m.Target))
	dst = append(dst, `,"key":`...)
	dst = AppendString(dst, m.RoutingKey)
	dst = append(dst, `,"headers":`...)
	dst = appendHeaders(dst, m.Headers)
	dst = append(dst, `,"size":`...)
	dst = strconv.AppendInt(dst, int64(m.Size), 10)
	dst = append(dst, `,"generation":`...)
	dst = strconv.AppendUint(dst, uint64(m.Generation), 10)
	if m.Recurrence != nil {
		dst = append(dst, `,"schedule":`...)
		dst = appendSchedule(dst, m.Recurrence, show.Next)
	}
	if m.Guard != nil {
		dst = append(dst, `,"guard":{"lane":`...)
		dst = AppendString(dst, string(m.Guard.Lane))
		dst = append(dst, `,"entry":`...)
		dst = AppendString(dst, m.Guard.Entry)
		dst = append(dst, '}')
	}
	if show.Dead || m.Reason != "" || m.LastError != "" {
		dst = append(dst, `,"reason":`...)
		dst = AppendString(dst, m.Reason)
		dst = append(dst, `,"last_error":`...)
		dst = AppendString(dst, m.LastError)
	}
	if m.DiedAt > 0 {
		dst = append(dst, `,"died_at":"`...)
		dst = AppendDue(dst, m.DiedAt)
		dst = append(dst, '"')
	}
	if show.Body {
		dst = appendBody(dst, m.Body)
	}
	return append(dst, '}')
}

// AppendDues appends the members of a due in both forms, with the commas before them.
func AppendDues(dst []byte, due delay.Due) []byte {
	dst = append(dst, `,"due":"`...)
	dst = AppendDue(dst, due)
	dst = append(dst, `","due_ms":`...)
	return strconv.AppendInt(dst, int64(due), 10)
}

func appendHeaders(dst []byte, headers []delay.Header) []byte {
	dst = append(dst, '{')
	for i, h := range headers {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = AppendString(dst, h.Name)
		dst = append(dst, ':')
		dst = AppendString(dst, h.Value)
	}
	return append(dst, '}')
}

// appendBody appends the body as text if it is valid UTF-8, else in base64.
func appendBody(dst, body []byte) []byte {
	if utf8.Valid(body) {
		dst = append(dst, `,"body":`...)
		return appendText(dst, body)
	}
	dst = append(dst, `,"body_base64":"`...)
	dst = base64.StdEncoding.AppendEncode(dst, body)
	return append(dst, '"')
}

// AppendString appends s as a JSON string. What is not UTF-8 becomes U+FFFD.
func AppendString(dst []byte, s string) []byte {
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\ufffd")
	}
	return appendText(dst, unsafe.Slice(unsafe.StringData(s), len(s)))
}

// appendText appends valid UTF-8 as a JSON string.
func appendText(dst, b []byte) []byte {
	dst = append(dst, '"')
	for {
		n, _ := plain(b)
		dst = append(dst, b[:n]...)
		if n == len(b) {
			return append(dst, '"')
		}
		const hex = "0123456789abcdef"
		switch c := b[n]; c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		b = b[n+1:]
	}
}

// AppendDue appends what due.String() gives, without the allocation and four times as fast.
func AppendDue(dst []byte, due delay.Due) []byte {
	const msPerDay = 86_400_000
	if due < 0 || due > delay.MaxDue {
		return append(dst, due.String()...)
	}
	days, ms := int64(due)/msPerDay, int64(due)%msPerDay
	// Days to a date, counting years from March, so that a leap day ends one: eras of 400 years
	// have 146,097 days. Day 0 is 1970-01-01, which is day 719,468 from 0000-03-01.
	days += 719_468
	era, ofEra := days/146_097, days%146_097
	yearOfEra := (ofEra - ofEra/1460 + ofEra/36_524 - ofEra/146_096) / 365
	ofYear := ofEra - (365*yearOfEra + yearOfEra/4 - yearOfEra/100)
	shifted := (5*ofYear + 2) / 153
	dayOfMonth := ofYear - (153*shifted+2)/5 + 1
	year, month := yearOfEra+era*400, shifted+3
	if month > 12 {
		year, month = year+1, month-12
	}
	dst = append(dst, digit(year/1000), digit(year/100), digit(year/10), digit(year), '-',
		digit(month/10), digit(month), '-', digit(dayOfMonth/10), digit(dayOfMonth), 'T')
	sec := ms / 1000
	h, m, s := sec/3600, sec/60%60, sec%60
	return append(dst, digit(h/10), digit(h), ':', digit(m/10), digit(m), ':', digit(s/10), digit(s),
		'.', digit(ms/100), digit(ms/10), digit(ms), 'Z')
}

func digit(v int64) byte { return byte('0' + v%10) }
