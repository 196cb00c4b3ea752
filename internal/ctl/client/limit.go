// SPDX-License-Identifier: Apache-2.0

package client

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

// Limit is how fast a target may be delivered to; nil is no limit.
type Limit struct {
	Rate  float64 `json:"rate"`  // messages per second
	Burst int64   `json:"burst"` // at once
}

// String is the limit as ParseRate reads its rate, in the unit that makes it readable.
func (l *Limit) String() string {
	if l == nil {
		return "none"
	}
	rate, unit := l.Rate, "/s"
	for _, longer := range [...]string{"/m", "/h"} {
		if rate >= 1 {
			break
		}
		rate, unit = rate*60, longer
	}
	text := strconv.FormatFloat(math.Round(rate*1000)/1000, 'f', -1, 64) + unit
	return text + " burst " + strconv.FormatInt(l.Burst, 10)
}

// ParseRate reads messages per second from 100/s, 10/m, 5/h, or none, which is 0.
func ParseRate(s string) (float64, error) {
	if s == "none" {
		return 0, nil
	}
	number, unit, _ := strings.Cut(s, "/")
	seconds := map[string]float64{"s": 1, "m": 60, "h": 3600}[unit]
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || seconds == 0 || !(n > 0) {
		return 0, errors.New("want a rate such as 100/s, 10/m or 5/h, or none")
	}
	return n / seconds, nil
}
