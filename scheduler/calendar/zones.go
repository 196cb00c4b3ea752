// SPDX-License-Identifier: Apache-2.0

package calendar

import (
	"archive/zip"
	"bytes"
	_ "embed"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/cicadamq/cicada/delay"
)

//go:generate go run ./gen

// database is the tz database in the form in which the Go toolchain carries it: one uncompressed
// TZif file for each zone (RFC 9636).
//
//go:embed tzdata/zoneinfo.zip
var database []byte

//go:embed tzdata/VERSION
var version string

// Version is the release of the embedded tz database, such as "2025c".
func Version() string { return strings.TrimSpace(version) }

// maxZones bounds the zones that are kept after their first use; the database has about 600 names.
const maxZones = 1000

// Zones finds time zones by their IANA names. It is safe for concurrent use.
type Zones struct {
	files map[string]*zip.File

	mu     sync.Mutex
	loaded map[string]*time.Location
}

// NewZones opens the embedded database.
func NewZones() (*Zones, error) {
	r, err := zip.NewReader(bytes.NewReader(database), int64(len(database)))
	if err != nil {
		return nil, fmt.Errorf("embedded tz database: %w", err)
	}
	z := &Zones{
		files:  make(map[string]*zip.File, len(r.File)),
		loaded: make(map[string]*time.Location),
	}
	for _, f := range r.File {
		if !strings.HasSuffix(f.Name, "/") {
			z.files[f.Name] = f
		}
	}
	return z, nil
}

// Names are the zones of the database, in no order.
func (z *Zones) Names() []string {
	names := make([]string, 0, len(z.files))
	for name := range z.files {
		names = append(names, name)
	}
	return names
}

// Location is the zone of an IANA name; an empty name is UTC. An unknown name is an invalid field
// "time_zone".
func (z *Zones) Location(name string) (*time.Location, error) {
	if name == "" || name == "UTC" {
		return time.UTC, nil
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	if loc, ok := z.loaded[name]; ok {
		return loc, nil
	}
	f, ok := z.files[name]
	if !ok {
		return nil, z.unknown(name)
	}
	loc, err := load(f)
	if err != nil {
		return nil, fmt.Errorf("time zone %s: %w", name, err)
	}
	if len(z.loaded) < maxZones {
		z.loaded[name] = loc
	}
	return loc, nil
}

func load(f *zip.File) (*time.Location, error) {
	r, err := f.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	return time.LoadLocationFromTZData(f.Name, data)
}

// unknown refuses a name, and says which one may have been meant.
func (z *Zones) unknown(name string) error {
	low := strings.ToLower(name)
	for have := range z.files {
		if strings.ToLower(have) == low {
			return delay.Invalid("time_zone", "%q is unknown; did you mean %s?", clip(name), have)
		}
	}
	return delay.Invalid("time_zone",
		"%q is not a zone of the IANA database (%s), such as Europe/Berlin", clip(name), Version())
}

// maxQuoted bounds what an error repeats of its input, in bytes.
const maxQuoted = 64

// clip shortens what an error quotes.
func clip(s string) string {
	if len(s) > maxQuoted {
		return strings.ToValidUTF8(s[:maxQuoted], "") + "…"
	}
	return s
}
