package slo

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"strconv"
	"time"
)

// Query is one request of the Prometheus API.
type Query struct {
	Name string `json:"name"`           // unique in an archive
	Path string `json:"path"`           // below the server's address
	Form string `json:"form,omitempty"` // sent as a form by POST; without one it is a GET
}

// Response is what a server answered, or why nothing came.
type Response struct {
	Query
	Status      int    `json:"status,omitempty"` // of HTTP; 0 when nothing came
	ContentType string `json:"content_type,omitempty"`
	Error       string `json:"error,omitempty"` // of the network, or a limit that was reached
	SHA256      string `json:"sha256"`          // of Body
	Body        []byte `json:"-"`
}

// Ask says what a report is to be about.
type Ask struct {
	Window      time.Duration // whole seconds; of the spec when zero
	Revision    string        // git commit that is to have run, 40 or 64 hex digits
	Artifact    string        // what was deployed, sha256: and 64 hex digits; empty: not said
	Environment string        // where it was, such as staging; empty: not said
	Source      string        // [FromBackfill] when the server's data were written after the fact; else empty
	Generator   string        // who asks, such as "remembrancer v1.2.3"
}

// Archive is everything that a report is made of beside the spec: what was to be
// found out, when, and each answer as it came. It is written as a tar file of
// manifest.json, responses/NNN.json and panels/NNN.json, without times or owners,
// so that equal archives are equal files.
//
// The responses are what is judged, and there must be one to each query. The
// panels are what the picture of the window is drawn from: their bytes are bound
// by the manifest as well, but no verdict depends on them. An archive without any
// is one that cannot be drawn.
type Archive struct {
	V           int        `json:"v"`
	At          time.Time  `json:"at"` // when the server's clock was read, by the clock here
	Window      string     `json:"window"`
	Revision    string     `json:"revision"`
	Artifact    string     `json:"artifact,omitempty"`
	Environment string     `json:"environment,omitempty"`
	Source      string     `json:"source,omitempty"` // as in [Ask]
	Generator   string     `json:"generator"`
	Responses   []Response `json:"responses"`
	Panels      []Response `json:"panels,omitempty"`
}

const (
	// MaxBody is the largest answer, in bytes: 72 hours of one target that is
	// scraped every second, twice.
	MaxBody    = 16 << 20
	maxArchive = 128 << 20
	maxPoints  = 10_000 // of a range, fewer than the 11,000 that servers allow
)

var (
	revisionText    = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)
	artifactText    = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	environmentText = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)
)

// CheckArtifact says whether a text names an artifact.
func CheckArtifact(s string) error {
	if !artifactText.MatchString(s) {
		return fmt.Errorf("artifact %q: want sha256: and 64 lower-case hex digits", s)
	}
	return nil
}

// CheckAsk says whether a spec can be judged over a window. Its errors are of
// whoever asked.
func (s *Spec) CheckAsk(a Ask) error {
	w := a.window(s)
	switch {
	case w <= 0 || w%time.Second != 0:
		return fmt.Errorf("window %v: want whole seconds, and at least one", w)
	case w < 20*s.interval:
		return fmt.Errorf("window %s: want at least 20 scrape intervals of %s", FormatDuration(w), FormatDuration(s.interval))
	case !revisionText.MatchString(a.Revision):
		return fmt.Errorf("revision %q: want a whole git commit id, 40 or 64 lower-case hex digits", a.Revision)
	case a.Artifact != "" && CheckArtifact(a.Artifact) != nil:
		return CheckArtifact(a.Artifact)
	case a.Environment != "" && !environmentText.MatchString(a.Environment):
		return fmt.Errorf("environment %q: want small letters, digits and hyphens, such as staging", a.Environment)
	case a.Source != "" && a.Source != FromBackfill:
		return fmt.Errorf("source %q: want none, or %s", a.Source, FromBackfill)
	}
	for _, o := range s.objectives {
		n, slice := s.slices(o, w)
		least := 1
		if o.Kind == Slices { // fewer cannot tell the target from all
			least = int(tidy(1 / (1 - o.Target)))
		}
		switch {
		case slice < 4*s.interval:
			return fmt.Errorf("slo %s: slices of %s: want at least 4 scrape intervals of %s", o.Name, FormatDuration(slice), FormatDuration(s.interval))
		case n < least:
			return fmt.Errorf("slo %s: a window of %s has %d slices of %s, want at least %d", o.Name, FormatDuration(w), n, FormatDuration(slice), least)
		case n > maxPoints:
			return fmt.Errorf("slo %s: a window of %s has %d slices of %s, want at most %d", o.Name, FormatDuration(w), n, FormatDuration(slice), maxPoints)
		}
	}
	return nil
}

func (a Ask) window(s *Spec) time.Duration {
	if a.Window == 0 {
		return s.window
	}
	return a.Window
}

// slices returns how many whole slices of an objective a window has, and how
// long one is. An objective that is not judged by slices has them as well: one
// burst of traffic must not stand for a window, nor good days for a bad last hour.
func (s *Spec) slices(o Objective, window time.Duration) (int, time.Duration) {
	d := o.Slice
	if o.Kind != Slices {
		d = max(window/72, 4*s.interval).Truncate(time.Second)
	}
	return int(window / d), d
}

// The names of the queries that are not of an objective.
const (
	queryClock    = "clock"
	queryBuild    = "buildinfo"
	queryRuntime  = "runtimeinfo"
	queryRevision = "revision"
)

// First are the queries that say which others there are: the server's clock, and
// since when it runs.
func (s *Spec) First() []Query {
	q := []Query{{queryClock, "api/v1/query", form("query", "time()")}}
	if !s.anyServer {
		q = append(q, Query{queryBuild, "api/v1/status/buildinfo", ""}, Query{queryRuntime, "api/v1/status/runtimeinfo", ""})
	}
	return q
}

// End is the one moment that every query ends at: two scrapes before the
// server's clock, when what was scraped by then has been written.
func (s *Spec) End(clock time.Time) time.Time {
	return clock.Truncate(time.Second).Add(-2 * s.interval)
}

// ServerEnd is [Spec.End] of what the first query of [Spec.First] was answered.
func (s *Spec) ServerEnd(clock Response) (time.Time, error) {
	at, err := readClock(clock)
	if err != nil {
		return time.Time{}, fmt.Errorf("the server's clock: %w", err)
	}
	return s.End(at), nil
}

// Queries are the queries that follow [Spec.First], for a window that ends at end.
func (s *Spec) Queries(window time.Duration, end time.Time) []Query {
	var all []Query
	instant := func(name, expr string) {
		all = append(all, Query{name, "api/v1/query", form("query", expr, "time", unix(end))})
	}
	w := fmt.Sprintf("[%ds]", window/time.Second)
	for i, t := range s.targets {
		instant(fmt.Sprintf("up/%d", i), t+w)
	}
	instant(queryRevision, "max by (git_sha) (max_over_time("+s.revision+w+"))")
	// Children of one target are added up; two targets stay two series, and are
	// refused: a canary must not be averaged with what is stable.
	for _, o := range s.objectives {
		n, slice := s.slices(o, window)
		ranged := func(name, sel string) {
			all = append(all, Query{
				o.Key + "/" + name, "api/v1/query_range",
				form("query", "sum by (job, instance) (increase("+sel+fmt.Sprintf("[%ds]", slice/time.Second)+"))",
					"start", unix(end.Add(-time.Duration(n-1)*slice)), "end", unix(end), "step", strconv.Itoa(int(slice/time.Second))),
			})
		}
		instant(o.Key+"/good", "sum by (job, instance) (increase("+o.Good+w+"))")
		instant(o.Key+"/total", "sum by (job, instance) (increase("+o.Total+w+"))")
		instant(o.Key+"/resets", "max by (job, instance) (resets("+o.Total+w+"))")
		ranged("good-slices", o.Good)
		ranged("total-slices", o.Total)
		if o.Kind == Latency {
			instant(o.Key+"/buckets", "sum by (job, instance, le) (increase("+o.Buckets+w+"))")
		}
		if o.CrossCheck != "" {
			instant(o.Key+"/cross-check", "sum by (job, instance) (delta("+o.CrossCheck+w+"))")
		}
	}
	return all
}

func form(pairs ...string) string {
	v := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		v.Set(pairs[i], pairs[i+1])
	}
	return v.Encode()
}

func unix(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }

// Collect asks a server everything and keeps what it answers. It stops at the
// first answer that is none: the archive then says so, and is judged REFUSED.
// What the picture is drawn from is asked last; there it stops only where no more
// answers come. ask must have passed [Spec.CheckAsk]. The only error is that of
// ctx.
func Collect(ctx context.Context, s *Spec, ask Ask, now func() time.Time, fetch func(context.Context, Query) Response) (*Archive, error) {
	a := &Archive{
		V: 1, Window: FormatDuration(ask.window(s)), Revision: ask.Revision, Artifact: ask.Artifact, Environment: ask.Environment,
		Source: ask.Source, Generator: ask.Generator,
	}
	var clock time.Time
	get := func(list []Query) (bool, error) {
		for _, q := range list {
			r := fetch(ctx, q)
			if err := ctx.Err(); err != nil {
				return false, err
			}
			if q.Name == queryClock {
				a.At = now().UTC().Truncate(time.Millisecond)
			}
			r.Query, r.SHA256 = q, hexSum(r.Body)
			a.Responses = append(a.Responses, r)
			if r.Status != 200 || r.Error != "" {
				return false, nil
			}
			if q.Name == queryClock {
				var err error
				if clock, err = readClock(r); err != nil {
					return false, nil //nolint:nilerr // the archive shows it, and is judged
				}
			}
		}
		return true, nil
	}
	if ok, err := get(s.First()); !ok {
		return a, err
	}
	if ok, err := get(s.Queries(ask.window(s), s.End(clock))); !ok {
		return a, err
	}
	for _, q := range s.PanelQueries(ask.window(s), s.End(clock)) {
		r := fetch(ctx, q)
		if err := ctx.Err(); err != nil {
			return a, err
		}
		r.Query, r.SHA256 = q, hexSum(r.Body)
		a.Panels = append(a.Panels, r)
		if r.Status == 0 {
			break
		}
	}
	return a, nil
}

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// Marshal returns the archive's file.
func (a *Archive) Marshal() ([]byte, error) {
	manifest, err := indented(a)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	put := func(name string, data []byte) {
		if err == nil {
			err = w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data)), Format: tar.FormatUSTAR})
		}
		if err == nil {
			_, err = w.Write(data)
		}
	}
	put("manifest.json", manifest)
	for i, r := range a.Responses {
		put(member("responses", i), r.Body)
	}
	for i, r := range a.Panels {
		put(member("panels", i), r.Body)
	}
	if err != nil {
		return nil, err
	}
	return b.Bytes(), w.Close()
}

func member(folder string, i int) string { return fmt.Sprintf("%s/%03d.json", folder, i) }

// ParseArchive reads an archive's file. What it takes is what Marshal writes.
func ParseArchive(data []byte) (*Archive, error) {
	a, err := parseArchive(data)
	if err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	return a, nil
}

func parseArchive(data []byte) (*Archive, error) {
	if len(data) > maxArchive {
		return nil, fmt.Errorf("%d bytes, want at most %d", len(data), maxArchive)
	}
	r := tar.NewReader(bytes.NewReader(data))
	next := func(want string) ([]byte, error) {
		h, err := r.Next()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", want, err)
		}
		if h.Name != want {
			return nil, fmt.Errorf("found %q, want %s", h.Name, want)
		}
		return io.ReadAll(r)
	}
	manifest, err := next("manifest.json")
	if err != nil {
		return nil, err
	}
	a := &Archive{}
	dec := json.NewDecoder(bytes.NewReader(manifest))
	dec.DisallowUnknownFields()
	if err := dec.Decode(a); err != nil {
		return nil, fmt.Errorf("manifest.json: %w", err)
	}
	if a.V != 1 {
		return nil, fmt.Errorf("version %d, want 1", a.V)
	}
	bodies := func(folder string, list []Response) error {
		for i := range list {
			body, err := next(member(folder, i))
			if err != nil {
				return err
			}
			if got := hexSum(body); got != list[i].SHA256 {
				return fmt.Errorf("%s has SHA-256 %s, manifest.json says %s", member(folder, i), got, list[i].SHA256)
			}
			list[i].Body = body
		}
		return nil
	}
	if err := bodies("responses", a.Responses); err != nil {
		return nil, err
	}
	if err := bodies("panels", a.Panels); err != nil {
		return nil, err
	}
	again, err := a.Marshal()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, data) {
		return nil, errors.New("it is not written as an archive is")
	}
	return a, nil
}

// indented is how every JSON file here is written.
func indented(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(v)
	return b.Bytes(), err
}
