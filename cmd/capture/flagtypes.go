package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/alecthomas/kong"

	"capture/internal/postgres"
	"capture/internal/web"
	"capture/store/retention"
)

// This file defines the types of the flags. The error for a bad value says what is accepted. It also quotes the value,
// unless the value may be secret. kong adds the name of the flag or of the environment variable to the error.

// duration is a time.Duration within the limits of the flag's min and max tags.
type duration time.Duration

func (d *duration) Decode(ctx *kong.DecodeContext) error {
	text, err := popValue(ctx, "duration")
	if err != nil {
		return err
	}
	v, err := time.ParseDuration(text)
	low, high := mustDuration(ctx, "min"), mustDuration(ctx, "max")
	if err != nil || v < low || v > high {
		return fmt.Errorf("%q is not a duration from %s to %s, such as 250ms, 10s, 5m or 1h", text,
			ctx.Value.Tag.Get("min"), ctx.Value.Tag.Get("max"))
	}
	*d = duration(v)
	return nil
}

func mustDuration(ctx *kong.DecodeContext, tag string) time.Duration {
	v, err := time.ParseDuration(ctx.Value.Tag.Get(tag))
	if err != nil {
		panic(err)
	}
	return v
}

// moment is a point in time. It is zero if the flag was not given.
type moment struct{ time.Time }

func (m *moment) Decode(ctx *kong.DecodeContext) error {
	text, err := popValue(ctx, "time")
	if err != nil {
		return err
	}
	t, ok := parseMoment(text, time.Now())
	if !ok {
		return fmt.Errorf("%q is not a time such as 2026-11-24T13:00:00Z, 2026-11-24, \"2026-11-24 13:00\" (UTC), or an age such as 2h or 3d", text)
	}
	m.Time = t
	return nil
}

// parseMoment parses a time or an age. A time without an offset is in UTC, and a date means the start of that day.
func parseMoment(text string, now time.Time) (time.Time, bool) {
	for _, layout := range []string{time.RFC3339, time.DateOnly, "2006-01-02 15:04", time.DateTime} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, true
		}
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		return now.Add(-time.Duration(n) * 24 * time.Hour), err == nil
	}
	age, err := time.ParseDuration(text)
	return now.Add(-age), err == nil && age >= 0
}

// size is a number of bytes within the limits of the flag's min and max tags. Its units are those of Postgres: 1 kB is 1024
// bytes.
type size int64

func (s *size) Decode(ctx *kong.DecodeContext) error {
	text, err := popValue(ctx, "size")
	if err != nil {
		return err
	}
	v, ok := parseSize(text)
	low, _ := parseSize(ctx.Value.Tag.Get("min"))
	high, _ := parseSize(ctx.Value.Tag.Get("max"))
	if !ok || v < low || v > high {
		return fmt.Errorf("%q is not a size from %s to %s, such as 512MB or 1GB; without a unit it is in bytes", text,
			ctx.Value.Tag.Get("min"), ctx.Value.Tag.Get("max"))
	}
	*s = size(v)
	return nil
}

// memorySize is a size; 0 means auto.
type memorySize int64

func (m *memorySize) Decode(ctx *kong.DecodeContext) error {
	var s size
	if text := ctx.Scan.Peek().String(); text == "auto" {
		ctx.Scan.Pop()
	} else if err := s.Decode(ctx); err != nil {
		return fmt.Errorf("%w; auto is accepted, too", err)
	}
	*m = memorySize(s)
	return nil
}

// parseSize parses a size such as "1GB", "1.5 GB", "512mb" or "1073741824".
func parseSize(text string) (int64, bool) {
	number := strings.TrimRightFunc(text, unicode.IsLetter)
	shift, known := map[string]uint{"": 0, "B": 0, "KB": 10, "MB": 20, "GB": 30, "TB": 40, "PB": 50}[strings.ToUpper(text[len(number):])]
	v, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	bytes := v * float64(uint64(1)<<shift)
	if err != nil || !known || !(bytes >= 0 && bytes < math.MaxInt64) {
		return 0, false
	}
	return int64(bytes), true
}

// count is an integer within the limits of the flag's min and max tags.
type count int

func (c *count) Decode(ctx *kong.DecodeContext) error {
	text, err := popValue(ctx, "number")
	if err != nil {
		return err
	}
	low, _ := strconv.Atoi(ctx.Value.Tag.Get("min"))
	high, _ := strconv.Atoi(ctx.Value.Tag.Get("max"))
	v, err := strconv.Atoi(text)
	if err != nil || v < low || v > high {
		return fmt.Errorf("%q is not an integer from %d to %d", text, low, high)
	}
	*c = count(v)
	return nil
}

// policy is the retention of kept states, such as 24h,7d,4w.
type policy retention.Policy

func (p *policy) UnmarshalText(text []byte) error {
	v, err := retention.Parse(string(text))
	if err != nil {
		return fmt.Errorf("%q is not what to keep, such as 24h,7d,4w, 48 (hours) or 0: %w", text, err)
	}
	*p = policy(v)
	return nil
}

// rate is a number of events per second.
type rate float64

func (r *rate) UnmarshalText(text []byte) error {
	const most = 1000
	v, err := strconv.ParseFloat(string(text), 64)
	if err != nil || !(v >= 0 && v <= most) {
		return fmt.Errorf("%q is not a number from 0 to %d", text, most)
	}
	*r = rate(v)
	return nil
}

// popValue consumes and returns the flag's value, which comes from the command line or the environment.
func popValue(ctx *kong.DecodeContext, what string) (string, error) {
	var text string
	if err := ctx.Scan.PopValueInto(what, &text); err != nil {
		return "", err
	}
	return strings.TrimSpace(text), nil
}

// choice is one of the words in the flag's enum tag, in lower case. Decode checks the value before kong does, because kong's
// own error does not name the environment variable that a bad value comes from.
type choice string

func (c *choice) Decode(ctx *kong.DecodeContext) error {
	text, err := popValue(ctx, "word")
	if err != nil {
		return err
	}
	accepted := ctx.Value.EnumSlice()
	if !slices.Contains(accepted, strings.ToLower(text)) {
		return fmt.Errorf("%q is not one of %s", text, strings.Join(accepted, ", "))
	}
	*c = choice(strings.ToLower(text))
	return nil
}

// address is the host and port that a server listens on.
type address string

func (a *address) UnmarshalText(text []byte) error {
	_, port, err := net.SplitHostPort(string(text))
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return fmt.Errorf("%q is not HOST:PORT, such as 127.0.0.1:8080 or 0.0.0.0:8080", text)
	}
	*a = address(text)
	return nil
}

// loopback is an IP address and port of the loopback interface. Host names are refused, because DNS may resolve them to
// another address.
type loopback string

func (l *loopback) UnmarshalText(text []byte) error {
	if at, err := netip.ParseAddrPort(string(text)); err != nil || !at.Addr().Unmap().IsLoopback() {
		return fmt.Errorf("%q is not an IP:PORT of the loopback interface, such as 127.0.0.1:6060 or [::1]:6060", text)
	}
	*l = loopback(text)
	return nil
}

// tableName is the name of a table, with or without its schema.
type tableName struct{ postgres.Name }

func (t *tableName) UnmarshalText(text []byte) error {
	name, err := postgres.ParseName(string(text))
	if err != nil {
		return err
	}
	t.Name = name
	return nil
}

// tokenFile is the path of a file that contains a token.
type tokenFile string

func (t *tokenFile) UnmarshalText(text []byte) error {
	path := string(text)
	if _, err := tokenFile(path).readToken(); err != nil {
		return err
	}
	*t = tokenFile(path)
	return nil
}

// readToken returns the token, or "" if no file is configured.
func (t tokenFile) readToken() (string, error) {
	if t == "" {
		return "", nil
	}
	token, _, err := web.ReadToken(string(t))
	if errors.As(err, new(*fs.PathError)) {
		err = fmt.Errorf("%w; give a file that contains the token and that this user may read", err)
	}
	return token, err
}

// secretURL is an http or https URL. It often contains a secret, so errors never show it.
type secretURL string

func (u *secretURL) Decode(ctx *kong.DecodeContext) error {
	text, err := popValue(ctx, "URL")
	if err != nil {
		return err
	}
	if parsed, err := url.Parse(text); err != nil || parsed.Host == "" || parsed.Scheme != "http" && parsed.Scheme != "https" {
		return errors.New("the value (hidden, it may be a secret) is not a URL such as https://hooks.example.com/services/…")
	}
	*u = secretURL(text)
	return nil
}
