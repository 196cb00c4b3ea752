// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/integration/torture/client"
	"github.com/cicadamq/cicada/integration/torture/history"
)

// misfireLimit is what the schedule "all" makes up for at most.
const misfireLimit = 5

// stepped is a real daemon whose clock is stepped under schedules that are due every second.
type stepped struct {
	*run
	t     *testing.T
	api   *client.API
	first map[string]int64 // ms: the first instant of each
	lost  bool             // a disk was
	kills int
	// followed is when the daemon was last seen to follow the wall clock.
	followed time.Time
}

// firings are the dues, in ms, that the receiver was asked about, and how often it said yes.
func (s *stepped) firings(id string) map[int64]int {
	events, err := history.Read(s.logs)
	require.NoError(s.t, err)
	out := map[int64]int{}
	for _, e := range events {
		schedule, due, ok := strings.Cut(e.ID, "@")
		if e.What != history.Attempt || !ok || schedule != id {
			continue
		}
		require.Equal(s.t, fmt.Sprint(e.Due), due)
		require.Zero(s.t, (e.Due-s.first[id])%1000, "%s is no instant", e.ID)
		require.GreaterOrEqual(s.t, e.Fired, e.Due, "%s was early, says the daemon", e.ID)
		out[e.Due]++
	}
	return out
}

func (s *stepped) latest(id string) (last int64) {
	for due := range s.firings(id) {
		last = max(last, due)
	}
	return last
}

// clock is what the daemon takes for the time, and whether it is held.
func (s *stepped) clock() (now int64, held bool) {
	status, err := s.api.Look("GET", "/v1/status", nil)
	require.NoError(s.t, err)
	c, _ := status["clock"].(map[string]any)
	held, _ = c["held"].(bool)
	return due(fmt.Sprint(c["now"])), held
}

func (s *stepped) wallNow() int64 { return time.Now().Add(s.wall).UnixMilli() }

func (s *stepped) step(by time.Duration) { require.NoError(s.t, s.setClocks(s.wall+by, s.boot)) }

// crash kills the daemon, now and then with its disk, and starts it again.
func (s *stepped) crash(disk bool) {
	s.kills++
	s.daemon().kill()
	if disk {
		s.lost = true
		require.NoError(s.t, os.RemoveAll(s.daemon().data))
	}
	require.NoError(s.t, s.restart())
}

// count compares what fired and what the daemon says was missed with the instants there were.
func (s *stepped) count(id string) {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		info, err := s.api.Look("GET", client.Path(id), nil)
		require.NoError(s.t, err)
		c, _ := info["schedule"].(map[string]any)
		fired, missed := number(s.t, c["fired"]), number(s.t, c["missed"])
		instants := (number(s.t, info["due_ms"]) - s.first[id]) / 1000 // before the next one
		got := s.firings(id)
		if !s.lost && (fired+missed != instants || int64(len(got)) < fired) {
			time.Sleep(50 * time.Millisecond) // between the two looks, or under way
			continue
		}
		for due, n := range got {
			require.LessOrEqual(s.t, n, 1+s.kills, "%s of %d", id, due)
			require.True(s.t, n == 1 || s.kills > 0, "%s of %d came %d times", id, due, n)
		}
		return
	}
	require.Fail(s.t, "instants are neither fired nor missed, or both", id)
}

func number(t *testing.T, v any) int64 {
	t.Helper()
	n, ok := v.(json.Number)
	require.True(t, ok, "%v is no number", v)
	out, err := n.Int64()
	require.NoError(t, err)
	return out
}

// silent requires that nothing due beyond an instant is attempted for a while. The instant goes on
// with the time, when the daemon's clock does.
func (s *stepped) silent(beyond int64, goesOn bool, span time.Duration) {
	began := time.Now()
	time.Sleep(span)
	for id := range s.first {
		latest := s.latest(id)
		limit := beyond + 1000
		if goesOn {
			limit += time.Since(began).Milliseconds()
		}
		require.LessOrEqual(s.t, latest, limit, "%s fired by a clock that nobody confirmed", id)
	}
}

// over judges what was stepped over: the instants from and to are clearly within.
func (s *stepped) over(from, to int64) {
	for id := range s.first {
		within, last := 0, int64(0)
		for due := range s.firings(id) {
			if due > from && due < to {
				within++
				last = max(last, due)
			}
		}
		switch id {
		case "skip":
			require.Zero(s.t, within, "skip: between %d and %d", from, to)
		case "once":
			require.LessOrEqual(s.t, within, 1, "once: between %d and %d", from, to)
		case "all":
			require.LessOrEqual(s.t, within, misfireLimit, "all: between %d and %d", from, to)
		}
		if within > 0 {
			require.Greater(s.t, last, to-3000, "%s: only the latest are made up for", id)
		}
	}
}

// A clock that steps while schedules recur is where other schedulers fire twice, early, thousands of
// times or never again: the real process is stepped by a second to 30 days in both directions, with
// kill -9 while it is wrong, and loses its disk in the end. Steps are held until somebody confirms
// them or the hold is over; every instant fires once or is missed as the policy says.
func TestSchedulesUnderSteps(t *testing.T) {
	if testing.Short() {
		t.Skip("a minute and a half")
	}
	dir := t.TempDir()
	program := filepath.Join(os.Getenv("CICADA_TORTURE_PROGRAMS"), "cicada-torture")
	if os.Getenv("CICADA_TORTURE_PROGRAMS") == "" {
		var err error
		program, err = Build(dir, "torture")
		require.NoError(t, err)
	}
	s := &stepped{t: t, first: map[string]int64{}, run: &run{opts: Options{
		Store: "file", Dir: dir, Program: program, Progress: func(text string) { t.Log(text) },
		Env: []string{"CICADA_PLANTED=" + os.Getenv("CICADA_PLANTED")}, // of a build with the tag exam
	}}}
	t.Cleanup(s.close)
	require.NoError(t, s.open())
	s.hooks.calm.Store(true)
	var err error
	s.api, err = s.run.api("steps")
	require.NoError(t, err)
	for id, policy := range map[string]string{"once": "fire_once", "all": "fire_all", "skip": "skip"} {
		m := map[string]any{
			"id": id, "target": s.hooks.targets()[0], "schedule": "@every 1s", "misfire": policy,
			"durability": "tier", "body": "tick",
		}
		if id == "all" {
			m["misfire_limit"] = misfireLimit
		}
		made, err := s.api.Look("POST", "/v1/messages", m)
		require.NoError(t, err)
		s.first[id] = number(t, made["due_ms"])
	}
	time.Sleep(2500 * time.Millisecond)
	for n, by := range []time.Duration{
		time.Second, 90 * time.Second, time.Hour, 24 * time.Hour, 30 * 24 * time.Hour,
	} {
		began := time.Now()
		s.there(by, n%2 == 0)
		there := time.Since(began)
		s.back(by, n%2 == 1)
		t.Logf("a step of %s: there %s, and back %s", by, there, time.Since(began)-there)
	}
	s.crash(true)
	now := s.wallNow()
	for id := range s.first {
		for deadline := time.Now().Add(time.Minute); s.latest(id) <= now; time.Sleep(pollEvery) {
			require.True(t, time.Now().Before(deadline), "%s goes on after the loss of the disk", id)
		}
		s.count(id)
	}
	code, _, err := s.daemon().term()
	require.NoError(t, err)
	require.Zero(t, code)
}

// there steps the clock forward.
func (s *stepped) there(by time.Duration, confirm bool) {
	before := s.wallNow()
	s.step(by)
	stepped := time.Now()
	if by > 2*time.Second {
		s.silent(before, true, 1200*time.Millisecond)
		_, held := s.clock()
		if time.Since(stepped) < clockHold { // this machine did not stand still
			require.True(s.t, held, "a step of %s is held", by)
		}
		if confirm {
			_, err := s.api.Look("POST", "/v1/clock/confirm", nil)
			require.NoError(s.t, err)
		}
	}
	s.follows(2500 * time.Millisecond)
	if by > time.Minute {
		// What came by the clock as it went on while it was held is not what was stepped over.
		s.over(before+s.heldFor(stepped)+1000, before+by.Milliseconds())
	}
	for id := range s.first {
		s.count(id)
	}
}

// heldFor is how long, in ms, the daemon may not have followed a step.
func (s *stepped) heldFor(since time.Time) int64 { return s.followed.Sub(since).Milliseconds() }

// back steps it back and, after a while, right again.
func (s *stepped) back(by time.Duration, kill bool) {
	s.step(-by)
	before := s.wallNow() + by.Milliseconds() // what it was when it was stepped, or a little later
	if kill {
		s.crash(false)
	}
	if by > 2*time.Second {
		s.silent(before, false, 2*time.Second)
	}
	s.step(by)
	if kill && by > 2*time.Second { // it began with the wrong time
		_, err := s.api.Look("POST", "/v1/clock/confirm", nil)
		require.NoError(s.t, err)
	}
	s.follows(2500 * time.Millisecond)
	for id := range s.first {
		s.count(id)
	}
}

// follows requires that the daemon follows the wall clock again, and fires by it.
func (s *stepped) follows(span time.Duration) {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(pollEvery) {
		from := s.wallNow()
		now, held := s.clock()
		to := s.wallNow()
		s.followed = time.Now()
		if !held && now >= from-1000 && now <= to+1000 {
			break
		}
		require.True(s.t, s.followed.Before(deadline), "held %t, at %d and not within %d and %d", held,
			now, from, to)
	}
	time.Sleep(span)
	for id := range s.first {
		// Millions of instants that were stepped over are counted first.
		for n := 0; s.latest(id) <= s.wallNow()-5000; n++ {
			require.Less(s.t, n, 300, "%s does not go on", id)
			time.Sleep(100 * time.Millisecond)
		}
	}
}
