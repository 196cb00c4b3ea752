// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/integration/rocketmq"
)

const (
	rocketAdmin    = "root:root-secret"
	rocketPassword = "guardian-secret"
)

// rocketGrants are what a guardian's user needs, by the name of a user who has all but one. They are
// those of docs/rocketmq.md.
var rocketGrants = map[string]struct {
	resources, actions []string
}{
	"schedule": {[]string{"Topic:SCHEDULE_TOPIC_XXXX"}, []string{"Sub", "Get"}},
	"timer":    {[]string{"Topic:rmq_sys_wheel_timer"}, []string{"Sub", "Get"}},
	"group":    {[]string{"Group:cicada-guardian"}, []string{"Sub"}},
	"targets": {
		[]string{"Topic:orders", "Topic:mails", "Topic:reminders"}, []string{"Pub", "Sub", "Get"},
	},
}

// grantAllBut creates a user who has all grants but one.
func grantAllBut(ctx context.Context, c *rocketmq.Cluster, user, missing string) error {
	err := c.Client.User(ctx, c.BrokerAddr, user, rocketPassword)
	for name, g := range rocketGrants {
		if name != missing {
			err = errors.Join(err, c.Client.Grant(ctx, c.BrokerAddr, user, g.resources, g.actions))
		}
	}
	return err
}

// Where access is controlled (ACL 2.0), a guardian who may do what the documentation says must work,
// and one who may not must hear of it by name, before anything is lost.
func TestRocketMQAccess(t *testing.T) {
	rocketFull(t)
	run := &rocketRun{
		opts: rocketmq.Options{Admin: rocketAdmin}, cicada: true, user: "guardian",
		started: func(ctx context.Context, r *rocketRun) error {
			return grantAllBut(ctx, r.cluster, r.user, "")
		},
	}
	rocketRuns(t, run)
	run.saves(t)

	require.Empty(t, doctorOfRocketMQ(t, run.cluster, "guardian", rocketPassword))
	for name, who := range rocketStrangers(t, run.cluster) {
		detail := doctorOfRocketMQ(t, run.cluster, who.user, who.password)
		require.Contains(t, detail, who.says, name)
		d, err := rocketmq.NewDaemon(rocketmq.DaemonOptions{
			Program: program, Dir: filepath.Join(t.TempDir(), name), NameAddr: run.cluster.NameAddr,
			Guardian: true, User: who.user, Password: who.password,
		})
		require.NoError(t, err)
		require.NoError(t, d.Start())
		if name != "targets" { // of which nothing was lost yet
			require.Eventually(t, func() bool { return strings.Contains(d.Log(), who.says) },
				time.Minute, 100*time.Millisecond, "%s: %s", name, d.Log())
		}
		d.Kill()
	}
}

// stranger is one who may not guard, and what is said to them.
type stranger struct{ user, password, says string }

// rocketStrangers are all kinds of them. They are created where they are users.
func rocketStrangers(t *testing.T, c *rocketmq.Cluster) map[string]stranger {
	t.Helper()
	all := map[string]stranger{
		"nobody":  {"", "", "no access_key is configured"},
		"unknown": {"unknown", rocketPassword, "it knows nobody with the access_key"},
		"wrong":   {"guardian", "wrong", "the secret_key is not that of the access_key"},
	}
	for missing, what := range map[string]string{
		"schedule": "Topic:SCHEDULE_TOPIC_XXXX", "timer": "Topic:rmq_sys_wheel_timer",
		"group": "Group:cicada-guardian", "targets": "Topic:mails",
	} {
		user := "not-" + missing
		require.NoError(t, grantAllBut(t.Context(), c, user, missing))
		all[missing] = stranger{
			user, rocketPassword, "User:" + user + " has no permission to access " + what,
		}
	}
	return all
}

// doctorOfRocketMQ is what the doctor finds bad, as that user.
func doctorOfRocketMQ(t *testing.T, c *rocketmq.Cluster, user, password string) (bad string) {
	t.Helper()
	d, err := rocketmq.NewDaemon(rocketmq.DaemonOptions{
		Dir: t.TempDir(), NameAddr: c.NameAddr, Guardian: true, User: user, Password: password,
	})
	require.NoError(t, err)
	r := cliRun{}.run(t, "doctor", "--config", d.Config(), "-o", "jsonl")
	for _, o := range jsonLines(t, r.out) {
		check := o["check"].(string)
		if strings.HasPrefix(check, "rmq: ") && o["result"] == "FAIL" { // there is no daemon
			bad += check + ": " + o["detail"].(string) + "\n"
		}
	}
	return bad
}
