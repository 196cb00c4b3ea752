// SPDX-License-Identifier: Apache-2.0

package client

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// A refusal must keep its code (it becomes the exit status), a daemon that is not there must not
// look like a refusal (J1), and nothing is sent twice (J2).
func TestErrors(t *testing.T) {
	var calls atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		require.Equal(t, "Bearer secret", r.Header.Get("Authorization"))
		switch r.URL.EscapedPath() {
		case "/v1/messages/a%2Fb%20c":
			w.WriteHeader(http.StatusConflict)
			_, _ = io.WriteString(w, `{"id":"a/b c","result":"TOO_LATE","code":"aborted",`+
				`"message":"claimed"}`)
		default:
			w.WriteHeader(http.StatusBadGateway)
			_, _ = io.WriteString(w, "<html>proxy</html>")
		}
	}))
	defer srv.Close()
	c, err := New(srv.URL, Options{Token: "secret"})
	require.NoError(t, err)
	defer c.Close()

	_, err = c.Cancel(t.Context(), "a/b c", "")
	var answer *Error
	require.ErrorAs(t, err, &answer)
	require.Equal(t, "TOO_LATE", answer.Result)
	require.Equal(t, "TOO_LATE: claimed", err.Error())
	require.EqualValues(t, 1, calls.Load())
	_, err = c.Status(t.Context())
	require.ErrorAs(t, err, &answer)
	require.Equal(t, http.StatusBadGateway, answer.Status)
	require.EqualValues(t, 2, calls.Load())

	gone, err := New("127.0.0.1:1", Options{})
	require.NoError(t, err)
	_, err = gone.Status(t.Context())
	answer = nil
	require.False(t, errorsAs(err, &answer))
	require.ErrorContains(t, err, "start one with `cicada serve`")
	_, err = New("ftp://x", Options{})
	require.Error(t, err)
}

func errorsAs(err error, into **Error) bool {
	return errors.As(err, into)
}

// A metric with a longer name or with labels must not be taken for another.
func TestMetric(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "# HELP a x\na_total 1\na{b=\"c\"} 2\na 3.5e+07\n")
	}))
	defer srv.Close()
	c, err := New(srv.URL, Options{})
	require.NoError(t, err)
	defer c.Close()
	v, err := c.Metric(t.Context(), "a")
	require.NoError(t, err)
	require.InDelta(t, 3.5e7, v, 0)
	_, err = c.Metric(t.Context(), "b")
	require.Error(t, err)
}

const pulled = ` {"messages" : [ {"id":"a-1","receipt":"R==","attempt":2,"due":"x\"y\\",` +
	`"due_ms":1800000000123,"headers":{"k":"v","n":"\\\""},"x":[1,{"y":null},true,-1.5e3],` +
	`"body":"}]"},{"id":"b","receipt":"","attempt":1,"due_ms":0}],"more":{}} `

// A reply that is read wrongly would count lost messages or wrong lateness.
func TestScanPull(t *testing.T) {
	got, err := ScanPull([]byte(pulled), nil)
	require.NoError(t, err)
	require.Len(t, got, 2)
	require.Equal(t, "a-1", string(got[0].ID))
	require.Equal(t, "R==", string(got[0].Receipt))
	require.EqualValues(t, 1800000000123, got[0].DueMS)
	require.EqualValues(t, 2, got[0].Attempt)
	require.Equal(t, "b", string(got[1].ID))
	for n := range len(pulled) - 2 {
		_, err := ScanPull([]byte(pulled[:n]), nil)
		require.Error(t, err, "cut at %d", n)
	}
}

// Whatever encoding/json writes must be read back, and nothing may make it panic.
func FuzzScanPull(f *testing.F) {
	f.Add([]byte(pulled), "id", "body", int64(1))
	f.Add([]byte(`{"messages":[]}`), "\"\\", "}]\x00", int64(-1))
	f.Fuzz(func(t *testing.T, raw []byte, id, body string, due int64) {
		_, _ = ScanPull(raw, nil)
		m := Leased{ID: id, Receipt: id, DueMS: due, Attempt: 3, Body: &body, Due: body}
		b, err := json.Marshal(map[string]any{"messages": []Leased{m, m}})
		require.NoError(t, err)
		got, err := ScanPull(b, nil)
		require.NoError(t, err)
		require.Len(t, got, 2)
		for _, l := range got {
			var back, want string
			require.NoError(t, json.Unmarshal([]byte(`"`+string(l.ID)+`"`), &back))
			quoted, err := json.Marshal(id)
			require.NoError(t, err)
			require.NoError(t, json.Unmarshal(quoted, &want))
			require.Equal(t, want, back)
			require.Equal(t, due, l.DueMS)
			require.EqualValues(t, 3, l.Attempt)
		}
	})
}
