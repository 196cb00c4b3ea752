// SPDX-License-Identifier: Apache-2.0

package brokers

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cicadamq/cicada/integration/ports"
)

// RocketMQOptions choose what is started beside the name server and the broker.
type RocketMQOptions struct {
	Proxy    bool     // the broker inside a proxy, which speaks gRPC
	OwnProxy bool     // a proxy in a process of its own, before the broker
	Tiered   bool     // RocketMQ's own tiered store, on files
	Settings []string // lines of broker.conf
	// NameAddr is that of another's name server, which the broker joins instead of having one. It
	// needs a setting brokerName then.
	NameAddr string
	// Admin, if not "", is name:password of an administrator: access is controlled (ACL 2.0).
	Admin string
}

// RocketMQ is a name server, a broker and maybe a proxy, each in a process of its own.
type RocketMQ struct {
	NameServer, Broker *Process // NameServer is nil when it is another's
	Proxy              *Process // nil when there is none of its own

	NameAddr   string // of the name server, host:port
	BrokerAddr string // of the broker's remoting port
	ProxyAddr  string // of the proxy's gRPC port

	dir string
}

// StartRocketMQ starts them with their data in dir, and returns when the name server knows the
// broker.
func StartRocketMQ(dir string, opts RocketMQOptions) (*RocketMQ, error) {
	path, err := Script("rocketmq.sh")
	if err != nil {
		return nil, err
	}
	at, err := ports.Reserve(9)
	if err != nil {
		return nil, err
	}
	env := append(os.Environ(), "CICADA_ROCKETMQ_SETTINGS="+strings.Join(opts.Settings, "\n"))
	ready := "boot success"
	if opts.Proxy {
		env, ready = append(env, "CICADA_ROCKETMQ_PROXY=1"), "startup successfully"
	}
	if opts.Tiered {
		env = append(env, "CICADA_ROCKETMQ_TIERED=1")
	}
	if opts.NameAddr != "" {
		env = append(env, "CICADA_ROCKETMQ_NAME_SERVER="+opts.NameAddr)
	}
	if opts.Admin != "" {
		env = append(env, "CICADA_ROCKETMQ_ADMIN="+opts.Admin)
	}
	process := func(name, ready string) *Process {
		return &Process{name: name, dir: dir, ready: ready, ports: at, command: func() *exec.Cmd {
			cmd := exec.Command(path, name, dir, strconv.Itoa(at.First))
			cmd.Env = env
			return cmd
		}}
	}
	r := &RocketMQ{
		Broker: process("broker", ready), NameAddr: opts.NameAddr,
		BrokerAddr: at.Addr(4), ProxyAddr: at.Addr(7), dir: dir,
	}
	if opts.NameAddr == "" {
		r.NameAddr, r.NameServer = at.Addr(0), process("namesrv", "boot success")
	}
	if opts.OwnProxy {
		r.Proxy = process("proxy", "startup successfully")
	}
	return r, r.Start()
}

// Start starts what does not run, and returns when the name server knows the broker.
func (r *RocketMQ) Start() error {
	if r.NameServer != nil {
		if err := r.NameServer.Start(); err != nil {
			return err
		}
	}
	if err := r.Broker.Start(); err != nil {
		return err
	}
	for deadline := time.Now().Add(startWithin); time.Now().Before(deadline); {
		if !hasRoute(r.NameAddr) {
			time.Sleep(5 * pollEvery)
			continue
		}
		if r.Proxy != nil { // it finds a broker when it starts, or ends
			return r.Proxy.Start()
		}
		return nil
	}
	return fmt.Errorf("the name server did not hear of the broker within %s: %s", startWithin,
		r.Broker.Log())
}

// Kill kills the broker, its name server and its proxy.
func (r *RocketMQ) Kill() error { return r.each((*Process).Kill) }

// Stop ends them in order.
func (r *RocketMQ) Stop() error { return r.each((*Process).Stop) }

func (r *RocketMQ) each(end func(*Process) error) error {
	var err error
	if r.Proxy != nil {
		err = end(r.Proxy)
	}
	err = errors.Join(err, end(r.Broker))
	if r.NameServer != nil {
		err = errors.Join(err, end(r.NameServer))
	}
	return err
}

// Admin runs mqadmin and returns what it printed.
func (r *RocketMQ) Admin(args ...string) (string, error) {
	path, err := Script("rocketmq.sh")
	if err != nil {
		return "", err
	}
	cmd := exec.Command(path, append([]string{"admin", r.dir}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("mqadmin %s: %w", strings.Join(args, " "), err)
	}
	return string(out), nil
}

// Data is the directory of the broker's store.
func (r *RocketMQ) Data() string { return filepath.Join(r.dir, "store") }

// hasRoute asks the name server for a topic that every broker has.
func hasRoute(addr string) bool {
	const requestRoute = `{"code":105,"flag":0,"language":"OTHER","opaque":1,"version":475,` +
		`"serializeTypeCurrentRPC":"JSON","extFields":{"topic":"SCHEDULE_TOPIC_XXXX"}}`
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return false
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	frame := binary.BigEndian.AppendUint32(nil, uint32(4+len(requestRoute)))
	frame = binary.BigEndian.AppendUint32(frame, uint32(len(requestRoute)))
	if _, err := c.Write(append(frame, requestRoute...)); err != nil {
		return false
	}
	in := bufio.NewReader(c)
	var lengths [8]byte // of the frame, and of its header
	if _, err := io.ReadFull(in, lengths[:]); err != nil {
		return false
	}
	header := make([]byte, binary.BigEndian.Uint32(lengths[4:])&0xffff)
	if _, err := io.ReadFull(in, header); err != nil {
		return false
	}
	return bytes.Contains(header, []byte(`"code":0,`))
}
