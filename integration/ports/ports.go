// SPDX-License-Identifier: Apache-2.0

// Package ports gives TCP ports to servers that tests start, end and start again at the same
// address.
//
// A port that the system chose for a listener which was closed again belongs to nobody: the next
// connection, or another test, may get it before the server listens, or while it is down. The ports
// given here are below those that connections get, and the UDP port of the same number stays bound
// as long as they are held: who asks meanwhile, in this process or another, gets others.
package ports

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// Where ports are looked for, and how often.
const (
	lowest, highest = 20_000, 32_000
	attempts        = 500
)

// Ports are TCP ports in a row, for one server after another at the same address.
type Ports struct {
	First int // the lowest
	held  []net.PacketConn
}

// Reserve finds n ports in a row that are free, and holds them until Release or the end of the
// process. The result must stay reachable as long.
func Reserve(n int) (*Ports, error) {
	for range attempts {
		p := &Ports{First: lowest + rand.IntN(highest-lowest-n)}
		if p.take(n) {
			return p, nil
		}
		p.Release()
	}
	return nil, fmt.Errorf("find %d free ports in a row", n)
}

// take holds the ports, and reports whether nobody held or used them.
func (p *Ports) take(n int) bool {
	for i := range n {
		c, err := net.ListenPacket("udp", p.Addr(i))
		if err != nil {
			return false
		}
		p.held = append(p.held, c)
		l, err := net.Listen("tcp", p.Addr(i))
		if err != nil {
			return false
		}
		_ = l.Close()
	}
	return true
}

// Addr is the address of the port i, on this machine.
func (p *Ports) Addr(i int) string { return "127.0.0.1:" + strconv.Itoa(p.First+i) }

// Release lets others have the ports.
func (p *Ports) Release() {
	for _, c := range p.held {
		_ = c.Close()
	}
	p.held = nil
}
