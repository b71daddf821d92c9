// Package suite runs a list of small tests that a file declares, for those who
// would rather not write a script.
//
// Each test makes one claim: what a command does, what a server answers, that a
// port is open, or what a file is. The tests are independent of one another and
// run in parallel; the results come in the order of the file.
//
// # The file
//
//	version: 1
//	parallel: 4                       # tests at a time, 1 to 64; 4 when not given
//	tests:
//	  - id: says-its-version          # unique; letters, digits and . _ - / :
//	    run: [./bin/app, --version]   # a list of words, or one shell line
//	    exit: 0                       # the exit status; 0 when not given
//	    stdout:                       # only standard output is looked at
//	      matches: '^app v\d+'        # RE2; ^ and $ match at each line
//	    env: {LANG: C}                # added to the environment
//	    stdin: "text"                 # empty when not given
//	    timeout: 30s                  # of one attempt, 100ms to 1h; 30s when not given
//	    retries: 0                    # further attempts, 0 to 5
//	  - id: healthy
//	    http:
//	      url: http://127.0.0.1:8080/health
//	      status: 200                 # 200 when not given
//	      json: {path: checks.0.ok, equals: true}
//	  - id: port-open
//	    tcp: 127.0.0.1:5432
//	  - id: licence-there
//	    file: {path: LICENSE, exists: true, matches: Apache}
//
// A test has an id and exactly one of run, http, tcp and file. exit, stdout, env
// and stdin belong to run. matches and json stand in stdout and in http, and both
// may be given. A shell line is run by bash -e -o pipefail -c, so that neither a
// line nor a pipe swallows a failure; where there is no bash, write the words.
//
// json takes apart one JSON value: path is keys and indexes joined by dots, # is
// the length of a list, a dot in a key is written \. and the value there must be
// the text, number, boolean or null of equals. Numbers are compared as numbers,
// beyond 2^53 by their digits.
//
// A web address is asked with GET, directly and not through a proxy. At most
// three redirects are followed, and only to the same scheme, host and port: one to
// elsewhere is a failure that names it. When status is one of 300 to 399 the
// redirect itself is the answer, and none is followed.
//
// A file's path is relative to the directory of the tests and stays in it, also
// through links. It must be a regular file; besides, sha256 (64 hex digits),
// matches and executable (true or false) may be demanded of it. exists: false
// stands alone, and demands that nothing has this name.
//
// # Verdicts
//
// A test passes, fails (judged and found wanting, or not done in time), or is an
// error: it could not be judged, since its program did not start or was killed,
// or there was more than 8 MiB to look at. With retries, a test that passes at a
// later attempt is flaky. When a test ends, and at its timeout, every process in
// its group is killed.
//
// # What is refused
//
// A file of more than 256 KiB or 1000 tests, or of none; unknown keys, with the
// nearest known one; repeated keys and ids, anchors, aliases, merge keys, tags,
// tabs, invisible characters, a second document; a value of another type; a
// pattern that any text matches; and claims that contradict each other. Every
// error begins with file:line, and nothing is taken from a file that has one.
package suite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/judge"
)

// Suite is a list of tests, as [Parse] read it. It never changes.
type Suite struct {
	parallel int
	tests    []test
}

type test struct {
	id      string
	line    int
	claim   probe
	timeout time.Duration // of one attempt
	retries int
}

// probe is what a test does to find out. Its context is that of one attempt.
type probe interface {
	try(ctx context.Context, b *bench) outcome
}

// bench is what all tests of a run share.
type bench struct {
	dir  string
	root *os.Root // of dir
	env  []string
}

type outcome struct {
	status  judge.Status
	message string
	output  []byte // the end of what was seen
}

func passed(output []byte) outcome { return outcome{judge.Pass, "", output} }

func failed(output []byte, format string, args ...any) outcome {
	return outcome{judge.Fail, fmt.Sprintf(format, args...), output}
}

func unjudged(output []byte, err error) outcome {
	return outcome{judge.Error, err.Error(), output}
}

// IDs returns the names of the tests in the order of the file.
func (s *Suite) IDs() []string {
	ids := make([]string, len(s.tests))
	for i, t := range s.tests {
		ids[i] = t.id
	}
	return ids
}

// Options are the optional parts of a run.
type Options struct {
	Dir string   // where the tests run; "" is the current directory
	Env []string // the environment of the commands, which inherit nothing else
	// Now is the clock that durations are read from; nil is time.Now.
	Now func() time.Time
	// Progress gets a line for each test as it ends, and the end of the output of
	// those that do not pass; nil is nobody. An error of it stops nothing.
	Progress io.Writer
	// Terminal says that a person looks at Progress: marks instead of words.
	Terminal bool
	// Parallel is how many tests run at a time; 0 is what the file says.
	Parallel int
}

// Result is what became of one test.
type Result struct {
	ID       string
	Line     int          // of the test in the file, from 1
	Status   judge.Status // Pass, Fail or Error
	Flaky    bool         // it passed, but not at the first attempt
	Attempts int          // 0 when the run was ended before it began
	Duration time.Duration
	// Message is one printable line: why it is no pass, or what the attempt
	// before said. Empty for a plain pass.
	Message string
	// Output is the end of what the last attempt printed or received, at most
	// 4 KiB, without escape sequences.
	Output string
}

// Run carries out all tests and returns a result of each, in the order of the
// file. When ctx ends, what is not done is an error. Run itself fails only when
// there is no such directory.
func (s *Suite) Run(ctx context.Context, o Options) ([]Result, error) {
	dir := o.Dir
	if dir == "" {
		dir = "."
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("directory of the tests: %w", err)
	}
	defer root.Close()
	now := o.Now
	if now == nil {
		now = time.Now
	}
	parallel := o.Parallel
	if parallel <= 0 {
		parallel = s.parallel
	}
	b := &bench{dir: dir, root: root, env: o.Env}
	p := &progress{w: o.Progress, terminal: o.Terminal, total: len(s.tests)}
	results := make([]Result, len(s.tests))
	next := make(chan int)
	var workers sync.WaitGroup
	for range min(parallel, len(s.tests)) {
		workers.Go(func() {
			for i := range next {
				start := now()
				r := s.tests[i].run(ctx, b)
				// A clock that was set back makes no negative duration.
				r.Duration = max(0, now().Sub(start))
				results[i] = r
				p.ended(r)
			}
		})
	}
	for i := range s.tests {
		next <- i
	}
	close(next)
	workers.Wait()
	return results, nil
}

// pause is how long a test waits before its second attempt; before each further
// one it is twice as long.
const pause = 100 * time.Millisecond

var errTimeout = errors.New("timeout")

func (t *test) run(ctx context.Context, b *bench) Result {
	r := Result{ID: t.id, Line: t.line, Status: judge.Error}
	wait := pause
	for {
		if err := context.Cause(ctx); err != nil {
			r.Status, r.Message = judge.Error, ended(r.Attempts, err)
			return r
		}
		r.Attempts++
		o := t.attempt(ctx, b)
		before := r.Message
		r.Status, r.Message, r.Output = o.status, clip(oneLine(o.message), maxMessage), plain(o.output)
		if err := context.Cause(ctx); err != nil && o.status != judge.Pass {
			r.Status, r.Message = judge.Error, ended(r.Attempts, err)
			return r
		}
		if o.status == judge.Pass && r.Attempts > 1 {
			r.Flaky, r.Message = true, clip(fmt.Sprintf("passed at attempt %d; the one before: %s", r.Attempts, before), maxMessage)
		}
		if o.status == judge.Pass || r.Attempts > t.retries {
			return r
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
		wait *= 2
	}
}

func ended(attempts int, cause error) string {
	if attempts == 0 {
		return clip(oneLine(fmt.Sprintf("not begun: the run was ended: %v", cause)), maxMessage)
	}
	return clip(oneLine(fmt.Sprintf("not done: the run was ended: %v", cause)), maxMessage)
}

func (t *test) attempt(ctx context.Context, b *bench) outcome {
	ctx, cancel := context.WithTimeoutCause(ctx, t.timeout, errTimeout)
	defer cancel()
	o := t.claim.try(ctx, b)
	if o.status != judge.Pass && errors.Is(context.Cause(ctx), errTimeout) {
		return failed(o.output, "not done after %s", t.timeout)
	}
	return o
}

// progress tells of tests as they end.
type progress struct {
	mu       sync.Mutex // guards all below; a test's lines stay together
	w        io.Writer
	terminal bool
	done     int
	total    int
}

// shownLines is how much of a failing test's output is shown.
const shownLines = 20

func (p *progress) ended(r Result) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done++
	if p.w == nil {
		return
	}
	mark := r.Status.String()
	if p.terminal {
		mark = map[judge.Status]string{judge.Pass: "✓"}[r.Status]
		if mark == "" {
			mark = "✗"
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %d of %d %s (%.2fs)", mark, p.done, p.total, r.ID, r.Duration.Seconds())
	if r.Message != "" {
		fmt.Fprintf(&b, ": %s", r.Message)
	}
	b.WriteByte('\n')
	if out := strings.TrimRight(r.Output, "\n"); r.Status != judge.Pass && out != "" {
		lines := strings.Split(out, "\n")
		for _, l := range lines[max(0, len(lines)-shownLines):] {
			fmt.Fprintf(&b, "    %s\n", l)
		}
	}
	// Losing the live view must not lose the verdict.
	_, _ = io.WriteString(p.w, b.String())
}
