// SPDX-License-Identifier: Apache-2.0

package guardian

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/rocketmq"
	"github.com/cicadamq/cicada/broker/rocketmq/fakebroker"
	"github.com/cicadamq/cicada/broker/rocketmq/remoting"
)

// What hinders a guardian, and what is lost already, must be told before somebody relies on it.
func TestExamine(t *testing.T) {
	inWorld(t, fakebroker.Options{}, all(), func(t *testing.T, w *world) {
		look := func() (verdicts []broker.Verdict, text string) {
			for _, f := range Examine(t.Context(), w.config(), all()) {
				require.Equal(t, "guardian of broker-a", f.Check)
				verdicts, text = append(verdicts, f.Verdict), f.Detail
			}
			return verdicts, text
		}
		w.send(0, 1, "level", level(10))
		w.send(0, 1, "lost", level(10))
		w.send(0, 2, "timer", timerAt(w.now().Add(time.Hour)))
		verdicts, text := look()
		require.Equal(t, []broker.Verdict{broker.Good}, verdicts)
		require.Equal(t, "2 at delay levels and 1 timers wait; 0 at delay levels are lost to it", text)
		for line, said := range map[string]string{
			"timerRocksDBEnable=true":   "come twice",
			"messageIndexEnable=false":  "nobody could tell",
			"timerWheelEnable=false":    "delay levels alone",
			"recallMessageEnable=false": "takes no recalls",
		} {
			w.cluster.Broker(0).Configure(line + "\n")
			text = ""
			for _, f := range Examine(t.Context(), w.config(), all()) {
				if f.Verdict != broker.Good {
					text += f.Detail
				}
			}
			require.Contains(t, text, said)
		}
		w.cluster.Broker(0).Configure("")
		w.expire(0)
		verdicts, text = look()
		require.Equal(t, []broker.Verdict{broker.Warn, broker.Warn}, verdicts)
		require.Contains(t, text, "2 at delay levels are lost to it")
		b := w.cluster.Broker(0)
		for code, said := range map[int]string{
			remoting.RequestMaxOffset: "SCHEDULE_TOPIC_XXXX cannot be read",
			remoting.RequestQuery:     "nobody could tell what it delivered to orders: query",
		} {
			b.OnRequest(func(c *remoting.Command) (f fakebroker.Fault) {
				if c.Code == code {
					f.Refuse = remoting.NoPermission
				}
				return f
			})
			text = ""
			for _, f := range Examine(t.Context(), w.config(), all()) {
				if f.Verdict == broker.Bad {
					text += f.Detail
				}
			}
			require.Contains(t, text, said)
		}
		b.OnRequest(func(c *remoting.Command) fakebroker.Fault {
			if c.Code == remoting.RequestPull {
				return fakebroker.Fault{Refuse: remoting.NoPermission}
			}
			return fakebroker.Fault{}
		})
		verdicts, text = look()
		require.Equal(t, []broker.Verdict{broker.Bad}, verdicts)
		require.Contains(t, text, "SCHEDULE_TOPIC_XXXX cannot be read")
		b.Stop()
		found := Examine(t.Context(), w.config(), all())
		require.Equal(t, broker.Bad, found[0].Verdict)
	})
	require.Equal(t, broker.Bad, Examine(t.Context(), rocketmq.Config{}, all())[0].Verdict)
}
