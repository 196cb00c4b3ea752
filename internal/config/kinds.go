// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cicadamq/cicada/delay"
)

// The kinds of settings: each makes a row of the table from the field it fills.

func text(key, def, help string, field func(*Config) *string, check func(string) error) Setting {
	return Setting{
		Key: key, Default: def, Help: help,
		set: func(c *Config, v string) error {
			if check != nil {
				if err := check(v); err != nil {
					return err
				}
			}
			*field(c) = v
			return nil
		},
		get: func(c *Config) string { return *field(c) },
	}
}

func secret(key, env, help string, field func(*Config) *Secret) Setting {
	return Setting{
		Key: key, Flag: "-", Env: env, Help: help, Secret: true,
		set: func(c *Config, v string) error { *field(c) = Secret(v); return nil },
		get: func(c *Config) string { return field(c).String() },
	}
}

func span(key, def, help string, low, high time.Duration,
	field func(*Config) *time.Duration,
) Setting {
	return Setting{
		Key: key, Default: def, Help: help,
		set: func(c *Config, v string) error {
			d, err := delay.ParseDuration(v)
			if err != nil {
				return fmt.Errorf("%q is not a duration such as 500ms, 90s, 24h or 30d", v)
			}
			if d < low || d > high {
				return fmt.Errorf("%s is out of range: %s to %s", v, delay.FormatDuration(low),
					delay.FormatDuration(high))
			}
			*field(c) = d
			return nil
		},
		get: func(c *Config) string { return delay.FormatDuration(*field(c)) },
	}
}

func size(key, def, help string, low, high int64, field func(*Config) *int64) Setting {
	return Setting{
		Key: key, Default: def, Help: help,
		set: func(c *Config, v string) error {
			n, err := parseSize(v)
			if err != nil {
				return err
			}
			if n < low || n > high {
				return fmt.Errorf("%s is out of range: %s to %s", v, formatSize(low),
					formatSize(high))
			}
			*field(c) = n
			return nil
		},
		get: func(c *Config) string { return formatSize(*field(c)) },
	}
}

// count is a whole number from 1.
func count(key, def, help string, high int, field func(*Config) *int) Setting {
	return Setting{
		Key: key, Default: def, Help: help,
		set: func(c *Config, v string) error {
			n, err := strconv.Atoi(v)
			if err != nil || n < 1 || n > high {
				return fmt.Errorf("want a whole number from 1 to %d", high)
			}
			*field(c) = n
			return nil
		},
		get: func(c *Config) string { return strconv.Itoa(*field(c)) },
	}
}

func choice(key, def, help string, words []string, set func(*Config, string),
	get func(*Config) string,
) Setting {
	return Setting{
		Key: key, Default: def, Help: help,
		set: func(c *Config, v string) error {
			if !slices.Contains(words, v) {
				return fmt.Errorf("want %s, not %q", strings.Join(words, ", "), v)
			}
			set(c, v)
			return nil
		},
		get: get,
	}
}

func toggle(key, flag, help string, field func(*Config) *bool) Setting {
	return Setting{
		Key: key, Flag: flag, Default: "false", Help: help, Bool: true,
		set: func(c *Config, v string) error {
			if v != "true" && v != "false" {
				return fmt.Errorf("want true or false, not %q", v)
			}
			*field(c) = v == "true"
			return nil
		},
		get: func(c *Config) string { return strconv.FormatBool(*field(c)) },
	}
}

func list(key, flag, help string, field func(*Config) *[]string) Setting {
	return Setting{
		Key: key, Flag: flag, Help: help, List: true,
		set: func(c *Config, v string) error {
			var items []string
			for item := range strings.SplitSeq(v, ",") {
				if item = strings.TrimSpace(item); item == "" && v != "" {
					return errors.New("an item of the list is empty")
				}
				if item != "" {
					items = append(items, item)
				}
			}
			*field(c) = items
			return nil
		},
		get: func(c *Config) string { return strings.Join(*field(c), ",") },
	}
}

var sizeUnits = []struct {
	name string
	size int64
}{{"GiB", gibibyte}, {"MiB", mebibyte}, {"KiB", kibibyte}, {"B", 1}}

func parseSize(v string) (int64, error) {
	if v == "0" {
		return 0, nil
	}
	for _, u := range sizeUnits {
		digits, ok := strings.CutSuffix(v, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || n < 0 || n > math.MaxInt64/u.size {
			break
		}
		return n * u.size, nil
	}
	return 0, fmt.Errorf("%q is not a size such as 512MiB or 2GiB", v)
}

func formatSize(n int64) string {
	for _, u := range sizeUnits {
		if n >= u.size && n%u.size == 0 {
			return strconv.FormatInt(n/u.size, 10) + u.name
		}
	}
	return "0"
}
