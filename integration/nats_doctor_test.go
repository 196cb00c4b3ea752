// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
)

// natsUsers are those of natsServer: may is one who may do all that the documentation asks for, each
// other one lacks something.
func natsUsers() []*server.User {
	may := []string{
		"$JS.API.INFO", "$JS.API.STREAM.INFO.SCHEDULE", "$JS.API.STREAM.LIST",
		"$JS.API.CONSUMER.*.SCHEDULE.cicada", "$JS.API.CONSUMER.CREATE.SCHEDULE.cicada.>",
		"$JS.API.CONSUMER.MSG.NEXT.SCHEDULE.cicada", "$JS.ACK.SCHEDULE.cicada.>", "rejected",
	}
	without := func(name string, subjects ...string) *server.User {
		var left []string
		for _, s := range may {
			keep := true
			for _, gone := range subjects {
				keep = keep && s != gone
			}
			if keep {
				left = append(left, s)
			}
		}
		return &server.User{Username: name, Password: "p", Permissions: &server.Permissions{
			Publish:   &server.SubjectPermission{Allow: left},
			Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}},
		}}
	}
	return []*server.User{
		{Username: "admin", Password: "p"}, without("may"), without("account", "$JS.API.INFO"),
		without("stream", "$JS.API.STREAM.INFO.SCHEDULE"),
		without("create", "$JS.API.CONSUMER.CREATE.SCHEDULE.cicada.>"),
		without("pull", "$JS.API.CONSUMER.MSG.NEXT.SCHEDULE.cicada"),
		without("ack", "$JS.ACK.SCHEDULE.cicada.>"), without("reject", "rejected"),
	}
}

func natsServer(t *testing.T, o *server.Options) string {
	t.Helper()
	o.Host, o.Port, o.NoSigs, o.NoLog = "127.0.0.1", server.RANDOM_PORT, true, true
	s, err := server.NewServer(o)
	require.NoError(t, err)
	go s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	require.True(t, s.ReadyForConnections(time.Minute))
	return s.ClientURL()
}

// Someone who may not do what reading needs must be told before the first request is lost, by name of
// what is missing; and one who may must not be frightened.
func TestDoctorOfNATS(t *testing.T) {
	t.Parallel()
	url := natsServer(t, &server.Options{JetStream: true, StoreDir: t.TempDir(), Users: natsUsers()})
	nc, err := nats.Connect(url, nats.UserInfo("admin", "p"))
	require.NoError(t, err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	for name, subject := range map[string]string{"SCHEDULE": "schedule.>", "REJECTED": "rejected"} {
		_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: name, Subjects: []string{subject}})
		require.NoError(t, err)
	}
	_, err = js.CreateConsumer(t.Context(), "SCHEDULE", jetstream.ConsumerConfig{
		Durable: "cicada", FilterSubject: "schedule.>", AckPolicy: jetstream.AckExplicitPolicy,
	})
	require.NoError(t, err)
	_, err = js.Publish(t.Context(), "schedule.a", []byte("x"))
	require.NoError(t, err)
	doctor := func(url, user, password string) (worst map[string]string, r cliResult) {
		file := filepath.Join(t.TempDir(), "c.yaml")
		require.NoError(t, os.WriteFile(file, []byte("brokers:\n  n1:\n    kind: nats\n    urls: [\""+url+
			"\"]\n    user: "+user+"\n    password: "+password+"\n"+
			`    sources: [{stream: SCHEDULE, subject: "schedule.>", reject_subject: rejected}]`+"\n"), 0o600))
		r = cliRun{}.run(t, "doctor", "--config", file, "-o", "jsonl")
		worst = make(map[string]string)
		for _, o := range jsonLines(t, r.out) {
			check, result := o["check"].(string), o["result"].(string)
			if strings.HasPrefix(check, "n1: ") && worst[check] != "FAIL" { // there is no daemon
				worst[check] = result
			}
		}
		return worst, r
	}
	for user, bad := range map[string]string{
		"may": "", "admin": "", "account": "n1: jetstream", "stream": "n1: source SCHEDULE",
		"create": "n1: consumer cicada", "pull": "n1: consumer cicada", "ack": "n1: consumer cicada",
		"reject": "n1: reject subject rejected",
	} {
		worst, r := doctor(url, user, "p")
		for check, result := range worst {
			require.Equal(t, check == bad, result == "FAIL", "%s: %s: %s", user, check, r)
		}
		if bad == "" {
			require.Equal(t, "ok", worst["n1: consumer cicada"], "%s", r)
			continue
		}
		require.Equal(t, "FAIL", worst[bad], "%s: %s", user, r)
		require.Contains(t, r.out, "ermissions Violation", "%s: it does not say why", user)
	}
	info, err := js.Consumer(t.Context(), "SCHEDULE", "cicada")
	require.NoError(t, err)
	require.Zero(t, info.CachedInfo().Delivered.Consumer, "the doctor took a record")

	worst, r := doctor(url, "admin", "wrong")
	require.Equal(t, map[string]string{"n1: reachable": "FAIL"}, worst, "%s", r)
	worst, r = doctor(natsServer(t, &server.Options{}), "u", "p")
	require.Equal(t, "FAIL", worst["n1: jetstream"], "%s", r)
}
