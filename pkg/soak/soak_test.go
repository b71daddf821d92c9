package soak

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/golden"

	"github.com/vaultmesh/remembrancer/pkg/durable"
	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/node"
	"github.com/vaultmesh/remembrancer/pkg/slo"
)

func statuses(r *Report) string {
	var all []string
	for _, c := range r.Checks {
		all = append(all, strings.TrimPrefix(c.ID, "soak/")+" "+c.Status.String())
	}
	return strings.Join(all, ", ")
}

const allPass = "schedule pass, truth pass, audit pass, agreement pass"

func TestARunAgainstARealNode(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	o := w.options()
	o.Plan.Weights = Weights{Append: 5, Batch: 3, ReadBack: 2, Denied: 4, Tampered: 3, Replay: 2, Tools: 1, Disconnect: 1}
	s := w.soak(o)
	r, err := s.Run(t.Context())
	assert.NilError(t, err)
	assert.Equal(t, statuses(r), allPass, r.Text())
	assert.Equal(t, r.Verdict, judge.Pass)
	assert.Equal(t, r.Total.Due, int64(len(arrivals(o.Plan, 1))))
	assert.Equal(t, r.Total.Good, r.Total.Due, r.Text())
	for _, work := range workloads {
		assert.Assert(t, r.Workloads[work].Due > 0, "%s: nothing was due", work)
	}
	// Three counts, made in three places.
	assert.Equal(t, float64(r.Appends.Log), r.Appends.Node)
	assert.Equal(t, r.Appends.Log, r.Appends.Own)
	assert.Assert(t, r.Appends.Own >= r.Appends.Client && r.Appends.Own <= r.Appends.Client+r.Appends.Unknown)
	assert.Equal(t, r.Audit.Verified, r.Audit.Entries)
	assert.Equal(t, r.Audit.Coverage, 1.0)
	assert.Equal(t, r.Node.Node, "local/a")

	// The report is left under the run's id, and the run is over.
	data, err := o.State.Get("test.json")
	assert.NilError(t, err)
	var left struct {
		Run     string `json:"run_id"`
		Seed    uint64
		Verdict string
		Total   struct {
			P95 float64 `json:"p95_ms"`
		}
	}
	assert.NilError(t, json.Unmarshal(data, &left), "%s", data)
	assert.Equal(t, fmt.Sprintln(left.Run, left.Seed, left.Verdict), "test 1 pass\n")
	assert.Equal(t, fmt.Sprintf("%.1fms", left.Total.P95), r.Total.P95.String())
	was, err := load(o.State)
	assert.NilError(t, err)
	assert.Assert(t, was == nil)
	_, err = New(o)
	assert.ErrorContains(t, err, "run test has ended")
}

func TestEachWorkloadEndsAsItMust(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.met(w.options())
	for _, work := range workloads {
		want := Verified
		if work == Denied || work == Tampered {
			want = DeniedExpected
		}
		variants := int64(2)
		if want == DeniedExpected || work == Replay {
			variants = 25 // each comes by
		}
		for seq := range variants {
			o, err := s.one(t, work, seq, 10*time.Second)
			if work == Replay && o == DeniedExpected {
				continue // or verified: it depends on what is replayed
			}
			assert.Equal(t, o, want, "%s %d: %v", work, seq, err)
		}
	}
	assert.NilError(t, s.auditor.follow(t.Context()))
	is := s.auditor.state()
	assert.Equal(t, is.Invalid+is.Missing+is.Lies, int64(0), "%v", is.Findings)
	assert.Equal(t, is.Verified, s.auditor.size()-is.From)
}

// lies are what a node could do, and how it is caught.
func TestALyingNodeIsCaughtByTheClient(t *testing.T) {
	flip := func(after string) func([]byte) []byte {
		return func(b []byte) []byte {
			if at := bytes.Index(b, []byte(after)); at >= 0 && at+len(after)+40 < len(b) {
				b = bytes.Clone(b)
				b[at+len(after)+40] ^= 1
			}
			return b
		}
	}
	tool := func(name string) func(*http.Request) bool {
		return func(r *http.Request) bool {
			body, err := io.ReadAll(r.Body)
			r.Body = io.NopCloser(bytes.NewReader(body))
			return err == nil && bytes.Contains(body, []byte(`"`+name+`"`))
		}
	}
	for name, c := range map[string]struct {
		work   Workload
		about  func(*http.Request) bool
		change func([]byte) []byte
		want   string
	}{
		"a receipt with another text": {Append, tool("get_memory"), func(b []byte) []byte {
			return regexp.MustCompile(`payload\\":\\"ey`).ReplaceAll(regexp.MustCompile(`payload\\\\\\":\\\\\\"ey`).ReplaceAll(b, []byte(`payload\\\":\\\"fy`)), []byte(`payload\":\"fy`))
		}, "receipt"},
		"another receipt":                 {Append, tool("get_memory"), nil, "the node shows another one"},
		"a tile with another hash":        {Append, pathIs("/tile/0/"), func(b []byte) []byte { b = bytes.Clone(b); b[0] ^= 1; return b }, "tiles"},
		"a tile that is too short":        {Append, pathIs("/tile/0/"), func(b []byte) []byte { return b[:len(b)-1] }, "bytes"},
		"a checkpoint that nobody signed": {Append, pathIs("/checkpoint"), flip("— local/a "), "checkpoint"},
		"an index that is not so": {Append, tool("record_decision"), func(b []byte) []byte {
			return regexp.MustCompile(`index(\\*)":[0-9]+`).ReplaceAll(b, []byte(`index${1}":0`))
		}, "entry 0"},
		"an index beyond the log": {Append, tool("record_decision"), func(b []byte) []byte {
			return regexp.MustCompile(`index(\\*)":[0-9]+`).ReplaceAll(b, []byte(`index${1}":99999`))
		}, "is not below"},
		"an earlier receipt that changed": {ReadBack, tool("fed_get"), func(b []byte) []byte {
			return bytes.Replace(b, []byte(`sig`), []byte(`sog`), 1)
		}, "is not what it was"},
		"what must be refused is taken": {Denied, func(r *http.Request) bool { return r.Method == http.MethodPost }, func([]byte) []byte {
			return []byte(`{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"{}"}],"structuredContent":{"ok":true}}}`)
		}, "must refuse it"},
		"tools that are not there": {Tools, tool("tools/list"), func([]byte) []byte {
			return []byte(`{"jsonrpc":"2.0","id":1,"result":{"tools":[]}}`)
		}, "is not there"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			s := w.met(w.options())
			_, err := s.one(t, Append, 1, 10*time.Second)
			assert.NilError(t, err)
			change := c.change
			if change == nil { // the answer about another receipt
				other := s.work.receipts[0]
				change = func([]byte) []byte {
					line, err := json.Marshal(map[string]any{"ok": true, "memory": map[string]any{"line": other.line}})
					assert.NilError(t, err)
					answer, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": 0, "result": map[string]any{"structuredContent": json.RawMessage(line), "content": []any{}}})
					assert.NilError(t, err)
					return answer
				}
			}
			var id atomic.Pointer[string]
			w.lie(func(rw http.ResponseWriter, r *http.Request, real http.Handler) bool {
				if !c.about(r) {
					return false
				}
				body, _ := io.ReadAll(r.Body)
				if m := regexp.MustCompile(`"id":([0-9]+)`).FindSubmatch(body); m != nil {
					n := string(m[1])
					id.Store(&n)
				}
				r.Body = io.NopCloser(bytes.NewReader(body))
				rec := httptest.NewRecorder()
				real.ServeHTTP(rec, r)
				rw.Header().Set("Content-Type", rec.Header().Get("Content-Type"))
				if c.work == Denied {
					rw.Header().Set("Content-Type", "application/json")
				}
				answer := change(rec.Body.Bytes())
				if c.change == nil && id.Load() != nil {
					answer = bytes.Replace(answer, []byte(`"id":0`), []byte(`"id":`+*id.Load()), 1)
				}
				_, _ = rw.Write(answer)
				return true
			})
			o, err := s.one(t, c.work, 2, 10*time.Second)
			assert.Equal(t, o, Unverified, "%v", err)
			assert.ErrorContains(t, err, c.want)
		})
	}
}

func TestALogThatGoesBackIsCaught(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.met(w.options())
	old, err := s.r.get(t.Context(), "/checkpoint")
	assert.NilError(t, err)
	for seq := range int64(3) {
		_, err := s.one(t, Append, seq, 10*time.Second)
		assert.NilError(t, err)
	}
	assert.NilError(t, s.auditor.follow(t.Context()))
	w.alter(pathIs("/checkpoint"), func([]byte) []byte { return old })
	o, err := s.one(t, Consistency, 5, 10*time.Second)
	assert.Equal(t, o, Unverified)
	assert.ErrorContains(t, err, "now it is to have")
	assert.ErrorContains(t, s.auditor.follow(t.Context()), "now it is to have")
	assert.Equal(t, s.auditor.state().Lies, int64(1))
}

// The auditor finds out by itself which entry it is.
func TestALyingNodeIsCaughtByTheAuditor(t *testing.T) {
	for name, c := range map[string]struct {
		change                     func([]byte) []byte
		status                     int
		verified, missing, invalid int64
		found                      string
	}{
		"an entry that is dropped from the end": {func(b []byte) []byte { lines := readBundle(b, 256); return bundleOf(lines[:len(lines)-1]) }, 200, 4, 1, 0, "is not shown"},
		"a bundle that is not there":            {func([]byte) []byte { return nil }, 404, 0, 5, 0, "is not shown"},
		"an entry that was changed": {func(b []byte) []byte {
			lines := readBundle(b, 256)
			lines[len(lines)-1] = bytes.Replace(lines[len(lines)-1], []byte(`"sig":"`), []byte(`"sig":"A`), 1)
			return bundleOf(lines)
		}, 200, 4, 0, 1, "entry 5"},
		"an entry that stands for another": {func(b []byte) []byte {
			lines := readBundle(b, 256)
			lines[len(lines)-1] = lines[0]
			return bundleOf(lines)
		}, 200, 4, 0, 1, "it is not the entry that was signed"},
		"two entries in another order": {func(b []byte) []byte {
			lines := readBundle(b, 256)
			n := len(lines)
			lines[n-1], lines[n-2] = lines[n-2], lines[n-1]
			return bundleOf(lines)
		}, 200, 3, 0, 2, "it is not the entry that was signed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			s := w.met(w.options())
			for seq := range int64(5) {
				_, err := s.one(t, Append, seq, 10*time.Second)
				assert.NilError(t, err)
			}
			w.lie(func(rw http.ResponseWriter, r *http.Request, real http.Handler) bool {
				if !pathIs("/tile/entries/")(r) {
					return false
				}
				rec := httptest.NewRecorder()
				real.ServeHTTP(rec, r)
				rw.WriteHeader(c.status)
				_, _ = rw.Write(c.change(rec.Body.Bytes()))
				return true
			})
			assert.NilError(t, s.auditor.finish(t.Context()))
			is := s.auditor.state()
			assert.Equal(t, fmt.Sprint(is.Verified, is.Missing, is.Invalid), fmt.Sprint(c.verified, c.missing, c.invalid), "%v", is.Findings)
			assert.Assert(t, strings.Contains(strings.Join(is.Findings, "\n"), c.found), "%v", is.Findings)
			r := s.report()
			assert.Equal(t, r.Checks[2].Status, judge.Fail)
			// The truth is seen again as soon as it is told.
			w.front.Store(nil)
			_, err := s.one(t, Append, 9, 10*time.Second)
			assert.NilError(t, err)
			assert.NilError(t, s.auditor.follow(t.Context()))
			assert.Equal(t, s.auditor.state().Verified, c.verified+1)
		})
	}
}

func bundleOf(lines [][]byte) []byte {
	var b []byte
	for _, l := range lines {
		b = append(append(b, byte(len(l)>>8), byte(len(l))), l...)
	}
	return b
}

func TestWhatFailsIsNamedAfterHowItFailed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.met(w.options())
	post := func(r *http.Request) bool { return r.Method == http.MethodPost }
	for _, c := range []struct {
		want  Outcome
		front func(http.ResponseWriter, *http.Request, http.Handler) bool
	}{
		{Timeout, func(_ http.ResponseWriter, r *http.Request, _ http.Handler) bool {
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
			return true
		}},
		{Rejected, func(rw http.ResponseWriter, r *http.Request, _ http.Handler) bool {
			if !post(r) {
				return false
			}
			rw.WriteHeader(http.StatusServiceUnavailable)
			return true
		}},
		{Errored, func(http.ResponseWriter, *http.Request, http.Handler) bool { panic(http.ErrAbortHandler) }},
	} {
		for _, work := range []Workload{Append, Batch, ReadBack, Denied, Tampered, Replay, Tools} {
			w.front.Store(nil)
			s.r.mu.Lock()
			s.r.wait, s.r.fails = time.Time{}, 0
			s.r.mu.Unlock()
			_, err := s.r.open(t.Context())
			assert.NilError(t, err)
			w.lie(c.front)
			deadline := 20 * time.Second
			if c.want == Timeout {
				deadline = 200 * time.Millisecond
			}
			o, err := s.one(t, work, 1, deadline)
			assert.Equal(t, o, c.want, "%s: %v", work, err)
		}
	}
}

func TestARunSurvivesTheRestartOfItsNode(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	o := w.options()
	o.Plan.Duration = 2400 * time.Millisecond
	o.Plan.FaultFrom, o.Plan.FaultFor = 800*time.Millisecond, 800*time.Millisecond
	o.Plan.Weights = Weights{Append: 1}
	o.Fault = func(context.Context) error {
		w.stop()
		time.Sleep(300 * time.Millisecond)
		w.secret.Store("another-" + strings.Repeat("0123456789abcdef", 2)) // as a node's control token is another each time
		w.start()
		return nil
	}
	s := w.soak(o)
	r, err := s.Run(t.Context())
	assert.NilError(t, err)
	assert.Assert(t, r.Total.Ended[Errored] > 0, r.Text())
	assert.Assert(t, r.Total.Ended[Verified] > 0, r.Text())
	assert.Equal(t, r.Total.Ended[Rejected], int64(0), r.Text())
	assert.Equal(t, r.Audit.Coverage, 1.0, r.Text())
	assert.DeepEqual(t, r.Faults, []string{"the command ended well"})
	assert.Equal(t, r.Checks[2].Status, judge.Pass, r.Text())
}

func TestANodeWithOtherKeysEndsTheRun(t *testing.T) {
	t.Parallel()
	w, other := newWorld(t), newWorld(t)
	o := w.options()
	o.Plan.Duration = time.Minute
	o.Keys = append(o.Keys, other.keys...) // even one whose key is at hand
	began := time.Now()
	o.Progress = func(Progress) {
		if w.real.Swap(other.real.Load()) != other.real.Load() {
			w.server.CloseClientConnections()
		}
	}
	r, err := w.soak(o).Run(t.Context())
	var changed *OtherNode
	assert.Assert(t, errors.As(err, &changed), "%v", err)
	assert.ErrorContains(t, err, "another node answers")
	assert.Assert(t, r != nil && r.Interrupted)
	assert.Assert(t, time.Since(began) < 30*time.Second)
	assert.Equal(t, r.Checks[0].Status, judge.Error)
}

func TestFirstContactRefusesWhatCannotBeVerified(t *testing.T) {
	t.Parallel()
	w, other, few := newWorld(t), newWorld(t), newWorld(t, node.Read, node.Record)
	for want, change := range map[string]func(*Options){
		"fed_session needs a token with the scope federate": func(o *Options) { o.Node, o.Keys = few.url, few.keys },
		"no key of": func(o *Options) { o.Keys = other.keys },
		"want a token with the scopes read, record and federate": func(o *Options) { o.Token = func() (string, error) { return "", nil } },
		"no token for you": func(o *Options) { o.Token = func() (string, error) { return "", errors.New("no token for you") } },
		"refused":          func(o *Options) { o.Node, o.Contact = refusing(t), 300*time.Millisecond },
	} {
		o := w.options()
		change(&o)
		r, err := w.soak(o).Run(t.Context())
		assert.ErrorContains(t, err, want)
		assert.Assert(t, r == nil)
	}
}

func TestOptionsThatMeanNothingAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for want, change := range map[string]func(*Options){
		"want a URL such as": func(o *Options) { o.Node = "localhost:8001" },
		"without a path":     func(o *Options) { o.Node += "/else" },
		"no key to verify":   func(o *Options) { o.Keys = nil },
		`treaty ""`:          func(o *Options) { o.Treaty = "" },
		`run id "a/b"`:       func(o *Options) { o.Run = "a/b" },
		"rate -1":            func(o *Options) { o.Plan.Rate = -1 },
		`track "a b"`:        func(o *Options) { o.Track = "a b" },
	} {
		o := w.options()
		change(&o)
		_, err := New(o)
		assert.ErrorContains(t, err, want)
		assert.Assert(t, errors.Is(err, ErrUsage))
	}
}

// Ctrl-C, and the same command again.
func TestARunGoesOnWhereItWasStopped(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	o := w.options()
	o.Plan.Duration, o.Run, o.Seed = 2500*time.Millisecond, "", 0
	first := w.soak(o)
	r1, err := w.runFor(first, time.Second)
	assert.NilError(t, err)
	assert.Assert(t, r1.Interrupted)
	assert.Equal(t, r1.Verdict, judge.Error)
	assert.Assert(t, strings.Contains(r1.Checks[0].Detail, "start it again with the same state to go on"))
	all := int64(len(arrivals(o.Plan, first.Seed())))

	time.Sleep(300 * time.Millisecond)
	second := w.soak(o)
	assert.Assert(t, second.Resumed())
	r2, err := second.Run(t.Context())
	assert.NilError(t, err)
	assert.Equal(t, r2.Run, r1.Run)
	assert.Equal(t, r2.Seed, r1.Seed)
	assert.Equal(t, r2.Starts, int64(2))
	assert.Equal(t, r2.Begun, r1.Begun)
	assert.Equal(t, r2.Total.Due, all)
	assert.Assert(t, r2.Dropped.Away > 0 && r2.Dropped.Away == r2.Dropped.All && r2.Dropped.Own == r2.Dropped.Away, r2.Text())
	assert.Assert(t, r2.Total.Good == all-r2.Dropped.Away, r2.Text())
	assert.Assert(t, r2.Audit.Entries > r1.Audit.Entries && r2.Audit.Coverage == 1, r2.Text())
	// A tenth was dropped: that is no measurement of the node.
	assert.Equal(t, statuses(r2), "schedule error, truth pass, audit pass, agreement pass", r2.Text())
}

// A crash leaves the state of a moment: what was done since is not known, and counts as
// dropped.
func TestARunGoesOnAfterACrash(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	o := w.options()
	o.Plan.Duration = 2500 * time.Millisecond
	s := w.soak(o)
	_, err := w.runFor(s, time.Second)
	assert.NilError(t, err)
	was, err := load(o.State)
	assert.NilError(t, err)
	// Three of those that were done are under way in the state that is left, and two
	// were not even handed out.
	take := func(work Workload, n int64) {
		for out := range was.Ended[work] {
			was.Ended[work][out] -= n
			break
		}
	}
	list := arrivals(o.Plan, 1)
	was.Open = map[int64]Workload{}
	for i := range int64(5) {
		a := list[was.Next-1-i]
		take(a.work, 1)
		was.Appended.Verified -= asked(a.work)
		if i > 1 {
			was.Open[a.seq] = a.work
		}
	}
	was.Next -= 2
	assert.NilError(t, was.put(o.State))

	r, err := w.soak(o).Run(t.Context())
	assert.NilError(t, err)
	assert.Equal(t, r.Total.Due, int64(len(list)))
	assert.Assert(t, r.Dropped.Away >= 5, r.Text())
	assert.Equal(t, r.Checks[3].Status, judge.Pass, r.Text())
}

func TestAStateOfSomethingElseIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	o := w.options()
	o.Plan.Duration = time.Minute
	_, err := w.runFor(w.soak(o), 300*time.Millisecond)
	assert.NilError(t, err)
	for want, change := range map[string]func(*Options){
		"the state is of run test":      func(o *Options) { o.Run = "other" },
		"has the seed 1, not 2":         func(o *Options) { o.Seed = 2 },
		"goes on, and has another plan": func(o *Options) { o.Plan.Rate = 21 },
	} {
		again := o
		change(&again)
		_, err := New(again)
		assert.ErrorContains(t, err, want)
		assert.Assert(t, errors.Is(err, ErrUsage))
	}
	again := o
	again.Plan, again.KeepPlan, again.Seed, again.Run = Plan{Duration: time.Hour}, true, 0, ""
	s, err := New(again)
	assert.NilError(t, err)
	assert.Equal(t, s.Plan().Duration, time.Minute)

	// Another node at the address is found at once, even one whose key is at hand.
	other := newWorld(t)
	again = o
	again.Node, again.Keys = other.url, append(slices.Clone(w.keys), other.keys...)
	_, err = other.soak(again).Run(t.Context())
	assert.ErrorContains(t, err, "another node answers")

	assert.NilError(t, o.State.Put(stateFile, []byte("{}")))
	_, err = New(o)
	assert.ErrorContains(t, err, "want the state of a run")
}

func TestCountsThatDisagreeAreRefused(t *testing.T) {
	base := Report{Starts: 1, Appends: Appends{Client: 1000, Unknown: 5, Node: 1003, NodeSize: 1003, Log: 1003, Own: 1003}}
	for _, c := range []struct {
		name   string
		change func(*Report, *counted)
		want   judge.Status
		says   string
	}{
		{"they agree", func(*Report, *counted) {}, judge.Pass, "the client verified 1000"},
		{"others write, too", func(r *Report, _ *counted) { r.Appends.Log, r.Appends.Node, r.Appends.NodeSize = 1500, 1500, 1500 }, judge.Pass, "1003 of them of this run"},
		{"nobody asked the node", func(_ *Report, c *counted) { c.Samples = 1 }, judge.Error, seriesAppends},
		{"the node counts what it does not have", func(r *Report, _ *counted) { r.Appends.Node = 1100 }, judge.Error, "the node's two counts differ"},
		{"the node and its log", func(r *Report, _ *counted) { r.Appends.Node, r.Appends.NodeSize = 1100, 1100 }, judge.Error, "another number than its log grew by"},
		{"but after a restart it cannot know", func(r *Report, c *counted) { r.Appends.Node, r.Appends.NodeSize, c.Restarts = 700, 700, 1 }, judge.Pass, ""},
		{"the client verified what is not there", func(r *Report, _ *counted) { r.Appends.Own = 900 }, judge.Error, "fewer are in the log"},
		{"more is there than was asked for", func(r *Report, _ *counted) { r.Appends.Own = 1100 }, judge.Error, "more are in the log"},
	} {
		r, n := base, counted{Samples: 2}
		c.change(&r, &n)
		check := r.agreement(n)
		assert.Equal(t, check.Status, c.want, "%s: %s", c.name, check.Detail)
		assert.Assert(t, strings.Contains(check.Detail, c.says), "%s: %s", c.name, check.Detail)
	}
}

func TestAnAuditThatIsNotWholeIsNoAudit(t *testing.T) {
	for _, c := range []struct {
		is      audited
		trouble string
		want    judge.Status
	}{
		{audited{To: 5, Verified: 5}, "", judge.Pass},
		{audited{}, "", judge.Error},
		{audited{To: 5, Verified: 4, Invalid: 1, Findings: []string{"entry 3: no"}}, "", judge.Fail},
		{audited{To: 5, Verified: 4, Missing: 1, Findings: []string{"entry 3: no"}}, "", judge.Fail},
		{audited{To: 5, Verified: 4, Invalid: 1, Strange: 1, Findings: []string{"entry 3: no"}}, "", judge.Error},
		{audited{To: 4, Verified: 4, Unseen: 1}, "connection refused", judge.Error},
		{audited{To: 5, Verified: 5}, "connection refused", judge.Error},
	} {
		grown := c.is.To + c.is.Unseen
		r := Report{Audit: Audit{Entries: grown, Verified: c.is.Verified, Missing: c.is.Missing + c.is.Unseen, Invalid: c.is.Invalid}}
		assert.Equal(t, r.audit(c.is, c.trouble).Status, c.want, "%+v", c)
	}
}

// shape is a page of metrics without values, and without what the libraries add.
func shape(t *testing.T, s *Soak) string {
	t.Helper()
	rec := httptest.NewRecorder()
	s.Handler().ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	assert.Equal(t, rec.Code, 200)
	var b strings.Builder
	for line := range strings.Lines(rec.Body.String()) {
		_, name, _ := strings.Cut(line, " ")
		if strings.HasPrefix(line, "# ") && strings.HasPrefix(name, "HELP remembrancer_") || strings.HasPrefix(line, "# TYPE remembrancer_") || strings.HasPrefix(line, "remembrancer_") {
			b.WriteString(regexp.MustCompile(` [0-9.e+-]+$`).ReplaceAllString(strings.TrimSpace(line), "") + "\n")
		}
	}
	return b.String()
}

// A series that appears with its first event hides that event from every rate.
func TestEverySeriesIsThereBeforeTheFirstOperation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.soak(w.options())
	s.m.ran("test", 1, "0123abcd")
	got := shape(t, s)
	golden.Assert(t, got, "metrics.golden")
	rec := httptest.NewRecorder()
	s.Handler().ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/healthz", nil))
	assert.Equal(t, rec.Body.String(), "ok\n")
}

func TestARunAddsNoSeries(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	o := w.options()
	o.Plan.Duration = 300 * time.Millisecond
	s := w.soak(o)
	s.m.ran("test", 1, "")
	before := shape(t, s)
	_, err := s.Run(t.Context())
	assert.NilError(t, err)
	revision := regexp.MustCompile(`node_git_sha="[^"]*"`)
	assert.Equal(t, revision.ReplaceAllString(shape(t, s), ""), revision.ReplaceAllString(before, ""))
}

// What is promised over two minutes must ask for what is there.
func TestTheShortSpecAsksForTheseSeries(t *testing.T) {
	const file = "../../examples/slo/soak-2m.yaml"
	data, err := os.ReadFile(file)
	assert.NilError(t, err)
	spec, err := slo.ParseSpec(file, data)
	assert.NilError(t, err)
	assert.NilError(t, spec.CheckAsk(slo.Ask{Window: 2 * time.Minute, Revision: strings.Repeat("0", 40)}))
	names, err := os.ReadFile("testdata/metrics.golden")
	assert.NilError(t, err)
	asked := map[string]bool{}
	for _, o := range spec.Objectives() {
		for _, q := range []string{o.Good, o.Total} {
			name, _, _ := strings.Cut(q, "{")
			asked[name] = true
			if strings.HasPrefix(name, "remembrancer_policy_") { // the node's
				continue
			}
			assert.Assert(t, bytes.Contains(names, []byte("\n"+name)), name)
			if o.Kind == slo.Latency {
				assert.Assert(t, bytes.Contains(names, []byte(fmt.Sprintf(`le="%v"`, o.Edge))))
			}
		}
	}
	assert.Equal(t, len(asked), 6, "%v", slices.Sorted(maps.Keys(asked)))
}

func TestTheNodesOwnNumbersAreReadStrictly(t *testing.T) {
	page := `# HELP x y
remembrancer_build_info{git_sha="abc",goversion="go1",track="stable",version="v1"} 1
remembrancer_ledger_appends_total 12
remembrancer_ledger_tree_size 34
process_start_time_seconds 1.5e+09
`
	s, err := readSample([]byte(page))
	assert.NilError(t, err)
	assert.DeepEqual(t, s, sample{1.5e9, 12, 34, "abc"})
	for want, change := range map[string][2]string{
		"the node has no " + seriesAppends: {"remembrancer_ledger_appends_total 12", ""},
		"the node has no " + seriesSize:    {"remembrancer_ledger_tree_size 34", ""},
		"the node has no " + seriesStart:   {"process_start_time_seconds 1.5e+09", ""},
		`is "many"`:                        {"total 12", "total many"},
		`is "-1"`:                          {"total 12", "total -1"},
		"or is there twice":                {"process_start", "remembrancer_ledger_tree_size 35\nprocess_start"},
	} {
		_, err := readSample([]byte(strings.Replace(page, change[0], change[1], 1)))
		assert.ErrorContains(t, err, want)
	}
	var c counted
	for _, s := range []sample{{1, 10, 100, ""}, {1, 15, 105, ""}, {2, 3, 120, ""}, {2, 5, 122, ""}} {
		c.add(s)
	}
	assert.DeepEqual(t, c, counted{4, 7, 7, 1, sample{2, 5, 122, ""}})
}

func FuzzBundles(f *testing.F) {
	f.Add(bundleOf([][]byte{[]byte("a"), {}, bytes.Repeat([]byte("b"), 300)}), 256)
	f.Add([]byte{0}, 1)
	f.Fuzz(func(t *testing.T, data []byte, most int) {
		most = most & 0xff
		lines := readBundle(data, most)
		assert.Assert(t, len(lines) <= most)
		assert.Assert(t, bytes.HasPrefix(data, bundleOf(lines)))
	})
}

func FuzzSamples(f *testing.F) {
	f.Add([]byte("remembrancer_ledger_appends_total 1\nremembrancer_ledger_tree_size 2\nprocess_start_time_seconds 3\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := readSample(data)
		if err == nil {
			assert.Assert(t, s.Appends >= 0 && s.Size >= 0 && s.Started >= 0)
		}
	})
}

// What is read as a state is written as the same state.
func FuzzStates(f *testing.F) {
	f.Add([]byte(`{"version":1,"run_id":"r","seed":5,"plan":{"duration_ns":1000000000,"rate":5,"arrivals":"even","swing":0,"burst":1,"weights":{"append":1},"deadline_ns":1000,"workers":1,"max_lag_ns":10,"fault_from_ns":0,"fault_for_ns":0,"disconnects":false},"node":{"node":"n","fingerprint":"f","log":"l"},"begun":"2026-01-01T00:00:00Z","took":{"append":[[5,1]]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir, err := durable.CreateDir(t.TempDir())
		assert.NilError(t, err)
		defer dir.Close()
		assert.NilError(t, dir.Put(stateFile, data))
		s, err := load(dir)
		if err != nil {
			return
		}
		assert.NilError(t, s.put(dir))
		one, err := dir.Get(stateFile)
		assert.NilError(t, err)
		again, err := load(dir)
		assert.NilError(t, err)
		assert.NilError(t, again.put(dir))
		two, err := dir.Get(stateFile)
		assert.NilError(t, err)
		assert.Equal(t, string(one), string(two))
	})
}
