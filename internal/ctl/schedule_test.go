// SPDX-License-Identifier: Apache-2.0

package ctl

import "testing"

const (
	oneSchedule = `{"id":"weekly","state":"scheduled","due":"2026-03-28T01:30:05.000Z",` +
		`"due_ms":1774661405000,"attempts":0,"tier":"warm","target":"pull:orders","size":4,` +
		`"generation":1,"schedule":{"expression":"30 2 * * *","time_zone":"Europe/Berlin",` +
		`"misfire":"fire_all","misfire_limit":100,"count":9,"jitter":"5s","fired":3,"missed":2,` +
		`"last":"2026-03-27T01:30:05.000Z","last_due_ms":1774575005000,"paused":false,"next":[` +
		`{"due":"2026-03-28T01:30:05.000Z","due_ms":1774661405000,` +
		`"local":"Sat 2026-03-28 02:30:05 +01:00"},` +
		`{"due":"2026-03-29T01:00:05.000Z","due_ms":1774746005000,` +
		`"local":"Sun 2026-03-29 03:00:05 +02:00","note":"02:30 does not exist"}]}}`
	pausedSchedule = `{"id":"p","state":"scheduled","due_ms":1,"size":0,"attempts":0,"schedule":{` +
		`"expression":"@every 5m","time_zone":"UTC","misfire":"skip","fired":0,"missed":0,` +
		`"paused":true,"next":[{"due":"D","due_ms":1,"local":"L"}]}}`
)

// What a person plans by and what scripts read of schedules: each line is a promise (C1, C2), and
// what is sent must be what the flags say.
func TestSchedules(t *testing.T) {
	w := newWorld(t, canned{
		`POST /v1/messages {"body":"hi","count":5,"id":"weekly","jitter":"30s","misfire":"fire_all",` +
			`"misfire_limit":10,"schedule":"0 9 * * MON","target":"pull:orders",` +
			`"time_zone":"Europe/Berlin","until":"2040-01-01T00:00:00Z"}`: `{"id":"weekly","due":"D",` +
			`"due_ms":5,"durability":"local","duplicate":false,"generation":1,"state":"scheduled"}`,
		"POST /v1/messages": `400 {"code":"invalid_argument","message":"no such zone",` +
			`"field":"time_zone"}`,
		"GET /v1/messages/weekly":                                    oneSchedule,
		"GET /v1/messages/p":                                         pausedSchedule,
		"GET /v1/messages?kind=schedule&limit=100":                   `{"messages":[` + oneSchedule + `,` + pausedSchedule + `]}`,
		"GET /v1/messages?kind=schedule&limit=1&target=pull%3Aq":     `{"messages":[],"next_page_token":"t"}`,
		"GET /v1/messages?kind=message&limit=100":                    `{"messages":[]}`,
		"GET /v1/pending/count?kind=schedule":                        `{"count":2}`,
		"GET /v1/pending/histogram?bucket=1d&recurring=true&to=2040": `{"buckets":[{"from":"T1","from_ms":1,"count":4,"bytes":9,"hot":0,"warm":1,"cold":0,"recurring":3}]}`,
		"GET /v1/pending/histogram?bucket=1h&recurring=true":         `400 {"code":"invalid_argument","message":"is needed","field":"to"}`,
		"POST /v1/messages/weekly/pause":                             `{"id":"weekly","result":"PAUSED","durability":"local"}`,
		"POST /v1/messages/weekly/resume":                            `{"id":"weekly","result":"RESUMED","due":"D","due_ms":1,"durability":"tier"}`,
		"POST /v1/messages/weekly/fire":                              `{"id":"weekly","result":"FIRED","due":"D","due_ms":1,"durability":"local"}`,
		"POST /v1/messages/gone/pause":                               `404 {"id":"gone","result":"NOT_FOUND","code":"not_found","message":"no"}`,
		"POST /v1/messages/m/pause":                                  `400 {"code":"invalid_argument","message":"m is no schedule","field":"id"}`,
	})
	w.do("", "send --target pull:orders --schedule 0~9~*~*~MON --tz Europe/Berlin --misfire fire_all "+
		"--misfire-limit 10 --until 2040-01-01T00:00:00Z --count 5 --jitter 30s --id weekly hi")
	w.do("", "send --target pull:orders --schedule @daily --tz X/Y hi")
	w.do("", "send --target pull:orders --schedule @daily --delay 1s hi")
	w.do("", "send --target pull:orders --schedule @daily --count x hi")
	w.do("", "ls --schedules")
	w.do("", "ls --schedules -o id")
	w.do("", "ls --kind message")
	w.do("", "schedule ls --target pull:q --limit 1")
	w.do("", "get weekly")
	w.do("", "get p")
	w.do("", "get p --json")
	w.do("", "count --kind schedule")
	w.do("", "histogram --bucket 1d --recurring --to 2040")
	w.do("", "histogram --recurring")
	w.do("", "schedule pause weekly gone")
	w.do("", "schedule pause m")
	w.do("", "schedule resume weekly")
	w.do("", "schedule trigger weekly --json")
	w.do("", "schedule pause")
	w.do("", "schedule nonsense")
	w.terminal = true
	w.do("", "schedule ls")
	w.do("", "get weekly")
	w.golden("schedules.txt")
}
