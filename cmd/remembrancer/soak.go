package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/action"
	"github.com/vaultmesh/remembrancer/pkg/durable"
	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/node"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/soak"
)

var soakSpec = action.Spec{
	Verb: "soak", Summary: "put a node under load, verify every answer, and audit its log",
	Description: "Sends operations when they are due by a schedule made from a seed, whether or not the node keeps up, and counts each from when it was due. " +
		"Every receipt is verified by the client, and every entry of the log is read again by an auditor. What a node must refuse is asked for, too. /metrics shows it as it goes.\n\n" +
		"It writes to the node: give it one for the purpose. A node of the same user on this machine needs no token and no key here; for another one give --token-file, with a token of the scopes read, record and federate, and --trust-anchor.\n\n" +
		"Ctrl-C ends it with a summary. Started again with the same --state or --run-id it goes on at the same schedule; what was due meanwhile was dropped.",
	Inputs: append([]action.Input{
		{Name: "node", Required: true, Usage: "URL of the node, such as http://localhost:8001."},
		{Name: "duration", Kind: action.Duration, Default: "15m", Usage: "How long it runs."},
		{Name: "metrics", Usage: "Address and port to serve /metrics and /healthz on, such as 127.0.0.1:9109; nowhere when left out."},
		{Name: "rate", Default: "5", Usage: "Mean operations a second."},
		{Name: "arrivals", Default: soak.Poisson, Choices: []string{soak.Poisson, soak.Even}, Usage: "How arrivals are spread: poisson, each by itself, or even, one in each equal share of the load."},
		{Name: "swing", Default: "0.5", Usage: "By how much of the mean the rate rises and falls over a day, or over the run if that is shorter: 0 to 0.9."},
		{Name: "burst", Default: "1", Usage: "By what the rate is multiplied in bursts, ten a day, each a hundredth of the day long; 1 is none."},
		{Name: "weights", Kind: action.List, Usage: "How often each workload is drawn, as append=60,read=20; workloads that are not named have none."},
		{Name: "seed", Kind: action.Int, Usage: "Seed of the schedule; drawn when left out."},
		{Name: "run-id", Usage: "Name of the run; drawn when left out. That of a run which was cut off goes on with it."},
		{Name: "state", Usage: "Directory that the run keeps its state in; one of its own below the state directory when left out."},
		{Name: "out", Usage: "File to write the summary to, as JSON."},
		{Name: "workers", Kind: action.Int, Usage: "Operations at a time; enough for twice those that can be under way when left out. What finds no place is dropped, and counted."},
		{Name: "deadline", Kind: action.Duration, Default: "5s", Usage: "How long an operation may take, from when it was due."},
		{Name: "max-lag", Kind: action.Duration, Default: "1s", Usage: "An operation that comes out of the driver later than this is dropped, by the driver's own fault."},
		{Name: "fault", Choices: []string{"disconnect"}, Usage: "What goes wrong in the fault phase, beside --fault-command: disconnect has one of ten callers hang up."},
		{Name: "fault-command", Usage: "Command that sh runs when the fault phase begins, such as one that restarts the node. It must end before the phase does."},
		{Name: "fault-from", Kind: action.Duration, Usage: "When the fault phase begins; after half of the run when left out."},
		{Name: "fault-for", Kind: action.Duration, Usage: "How long it is; a tenth of the run when left out."},
		{Name: "treaty", Default: "AURORA-AKASH-001", Usage: "Label treaty_id of the metrics."},
		{Name: "track", Default: "stable", Usage: "Label track of the metrics."},
		{Name: "trust-anchor", Kind: action.List, Usage: "Files with the public keys of the node and of others who have entries in its log, as federation trust --export prints them; those of the node on this machine when left out."},
		{Name: "token-file", Usage: "File with the bearer token."},
		{Name: "ca", Usage: "PEM file of the authorities to believe, in place of the system's."},
		{Name: "client-cert", Usage: "PEM file of the certificate to show."},
		{Name: "client-key", Usage: "PEM file of that certificate's key."},
		{Name: "wait", Kind: action.Duration, Default: "1m", Usage: "How long to wait at the begin for a node that does not answer."},
		{Name: "json", Kind: action.Bool, Usage: "Print the summary as JSON."},
	}, homeInputs()...),
	Exit:     "0 when all that was measured means something, 1 when the node said or showed something that is not so, 3 when it could not be judged: the schedule was not kept, counts disagree, another node answers, or it was stopped.",
	Examples: []string{"remembrancer soak --node http://localhost:8001 --duration 3m --metrics 127.0.0.1:9109"},
}

var soakVerb = verb{spec: soakSpec, run: runSoak}

func runSoak(w *world, v *action.Values, r *action.Runner) error {
	o, err := w.soakOptions(v)
	if err != nil {
		return err
	}
	dir, err := w.soakState(v, &o)
	if err != nil {
		return err
	}
	defer dir.Close()
	s, err := soak.New(o)
	if errors.Is(err, soak.ErrUsage) {
		return misused("%v", err)
	}
	if err != nil {
		return err
	}
	if addr := v.String("metrics"); addr != "" {
		stop, err := w.serveMetrics(addr, s.Handler())
		if err != nil {
			return err
		}
		defer stop()
	}
	again := ""
	if s.Resumed() {
		again = ", which goes on"
	}
	w.note("🔁 run %s%s, seed %d, %v at %v a second against %s", s.ID(), again, s.Seed(), s.Plan().Duration, s.Plan().Rate, action.Defang(v.String("node")))
	report, err := s.Run(w.ctx)
	w.clearProgress()
	switch {
	case errors.Is(err, soak.ErrUsage):
		return misused("%v", err)
	case report == nil:
		return err
	}
	if out := v.String("out"); out != "" {
		data, merr := json.MarshalIndent(report, "", "  ")
		if merr != nil {
			return merr
		}
		if merr := durable.Put(w.path(out), append(data, '\n'), 0o644); merr != nil {
			return errors.Join(err, merr)
		}
	}
	text := report.Text()
	if v.Bool("json") {
		if jerr := w.sayJSON(report); jerr != nil {
			return jerr
		}
	} else {
		w.say("%s", action.Defang(strings.TrimRight(text, "\n")))
	}
	if report.Interrupted && v.String("state") == "" {
		w.note("   to go on: the same command with --run-id %s", s.ID())
	}
	if serr := r.Summary(report.Markdown(action.EscapeMarkdown)); serr != nil {
		return serr
	}
	switch {
	case err != nil:
		return err
	case report.Verdict == judge.Fail:
		return quietly(exitFail)
	case report.Verdict != judge.Pass:
		return quietly(exitUnjudged)
	}
	return nil
}

// number reads a value that need not be whole.
func number(v *action.Values, name string) (float64, error) {
	f, err := strconv.ParseFloat(v.String(name), 64)
	if err != nil {
		return 0, misused("--%s %q: want a number", name, v.String(name))
	}
	return f, nil
}

func (w *world) soakOptions(v *action.Values) (o soak.Options, err error) {
	p := soak.Plan{
		Duration: v.Duration("duration"), Arrivals: v.String("arrivals"), Deadline: v.Duration("deadline"), MaxLag: v.Duration("max-lag"), Workers: v.Int("workers"),
		Disconnects: v.String("fault") == "disconnect",
	}
	for _, n := range []struct {
		name string
		into *float64
	}{{"rate", &p.Rate}, {"swing", &p.Swing}, {"burst", &p.Burst}} {
		if *n.into, err = number(v, n.name); err != nil {
			return o, err
		}
	}
	if words := v.List("weights"); len(words) > 0 {
		if p.Weights, err = soak.ParseWeights(words); err != nil {
			return o, misused("%v", err)
		}
	}
	if p.Disconnects || v.String("fault-command") != "" || v.Given("fault-from") || v.Given("fault-for") {
		p.FaultFrom, p.FaultFor = p.Duration/2, p.Duration/10
		if v.Given("fault-from") {
			p.FaultFrom = v.Duration("fault-from")
		}
		if v.Given("fault-for") {
			p.FaultFor = v.Duration("fault-for")
		}
	}
	if v.Int("seed") < 0 || v.Int("seed") > 1<<53-1 {
		return o, misused("--seed %d: want 1 to 9007199254740991", v.Int("seed"))
	}
	o = soak.Options{
		Node: v.String("node"), Plan: p, Seed: uint64(v.Int("seed")), Run: v.String("run-id"), Treaty: v.String("treaty"), Track: v.String("track"),
		Contact: v.Duration("wait"), Now: w.now, Random: w.rand, Progress: w.soakProgress(), Note: func(format string, args ...any) {
			w.clearProgress()
			w.note("   %s", action.Defang(fmt.Sprintf(format, args...)))
		},
	}
	o.KeepPlan = !slices.ContainsFunc([]string{"duration", "rate", "arrivals", "swing", "burst", "weights", "workers", "deadline", "max-lag", "fault", "fault-command", "fault-from", "fault-for"}, v.Given)
	if o.Dial, err = w.dialOptions(v); err != nil {
		return o, err
	}
	h, err := w.nodeHome(v.String("data"), v.String("repo"), true)
	if err != nil {
		return o, err
	}
	if o.Keys, err = w.soakKeys(v, h); err != nil {
		return o, err
	}
	o.Token = func() (string, error) {
		if v.String("token-file") != "" {
			again, err := w.dialOptions(v)
			return again.Token, err
		}
		return controlToken(filepath.Join(h.dir, programsFile), o.Node)
	}
	if command := v.String("fault-command"); command != "" {
		o.Fault = func(ctx context.Context) error { return w.sh(ctx, command) }
	}
	return o, nil
}

// soakKeys reads the keys that receipts are verified with.
func (w *world) soakKeys(v *action.Values, h *home) ([]*openpgp.Key, error) {
	files := v.List("trust-anchor")
	if len(files) == 0 {
		var err error
		if files, err = filepath.Glob(filepath.Join(h.dir, "certs", "*.asc")); err != nil {
			return nil, err
		}
		if len(files) == 0 {
			return nil, misused("%s has no node's keys: on the node's machine type remembrancer federation trust --export > node.asc, and here give --trust-anchor node.asc", w.near(h.dir))
		}
	}
	return w.anchors(files)
}

// controlToken reads the token of a node of this user, if it is the one at a URL. It is
// never sent to anybody else.
func controlToken(file, address string) (string, error) {
	c, err := node.ReadControl(file)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	ours, err1 := url.Parse(c.URL)
	theirs, err2 := url.Parse(address)
	if err := errors.Join(err1, err2); err != nil {
		return "", err
	}
	if ours.Port() != theirs.Port() || ours.Scheme != theirs.Scheme || !loopbackName(theirs.Hostname()) {
		return "", nil
	}
	return c.Token, nil
}

func loopbackName(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

// sh runs a command of the user. What it leaves behind goes on: it may well be a node.
func (w *world) sh(ctx context.Context, command string) error {
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = w.dir, w.environ, w.stderr, w.stderr
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) { // it ended, and what it started has its output
		return nil
	}
	return err
}

// soakState opens the directory of a run.
func (w *world) soakState(v *action.Values, o *soak.Options) (*durable.Dir, error) {
	path := w.path(v.String("state"))
	if v.String("state") == "" {
		if o.Run == "" {
			var id [8]byte
			if _, err := io.ReadFull(w.rand, id[:]); err != nil {
				return nil, err
			}
			o.Run = hex.EncodeToString(id[:])
		}
		state, err := w.stateDir()
		if err != nil {
			return nil, err
		}
		if !filepath.IsLocal(o.Run) || filepath.Base(o.Run) != o.Run {
			return nil, misused("--run-id %q: want letters, digits, dots, dashes and underscores", o.Run)
		}
		path = filepath.Join(state, "soak", o.Run)
	}
	dir, err := durable.CreateDir(path)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(w.ctx, 5*time.Second)
	defer cancel()
	if _, err := dir.Lock(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("state %s: another driver has it: %w", w.near(path), err), dir.Close())
	}
	o.State = dir
	return dir, nil
}

// serveMetrics serves a handler until stop.
func (w *world) serveMetrics(addr string, h http.Handler) (stop func(), err error) {
	l, err := new(net.ListenConfig).Listen(w.ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	srv := &http.Server{Handler: h, ReadTimeout: 10 * time.Second, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10}
	var served sync.WaitGroup
	served.Go(func() { _ = srv.Serve(l) }) // ends with Close
	w.note("📈 metrics at http://%s/metrics", l.Addr())
	return func() {
		_ = srv.Close()
		served.Wait()
	}, nil
}

// soakProgress shows how a run goes: one line that changes where a person looks, and a
// line a minute elsewhere.
func (w *world) soakProgress() func(soak.Progress) {
	live := watched(w.stderr)
	var told time.Duration
	return func(p soak.Progress) {
		line := action.Defang(p.Line())
		switch {
		case live:
			fmt.Fprintf(w.stderr, "\r\x1b[K   %s", line)
		case p.Elapsed-told >= time.Minute:
			told = p.Elapsed.Truncate(time.Minute)
			w.note("   %s", line)
		}
	}
}
