package smoke

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/process"
)

// maxOutput bounds what is kept of standard output, in bytes.
const maxOutput = 64 << 20

// Command is what to run: exactly one of Argv and Shell.
type Command struct {
	Argv  []string
	Shell string // one line for bash -c, or sh -c where there is no bash
	Dir   string // working directory; "" is the current one
	Env   []string
	// Timeout ends the run; it must be positive and should be shorter than
	// whatever would kill the caller, so that the report still gets written.
	Timeout time.Duration
}

// String returns the command as a person would type it.
func (c Command) String() string {
	if c.Shell != "" {
		return c.Shell
	}
	words := make([]string, len(c.Argv))
	for i, w := range c.Argv {
		words[i] = w
		if w == "" || strings.Trim(w, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:=,@%+-") != "" {
			words[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}

// Options are the optional parts of a run.
type Options struct {
	// Workspace, when set, is declared a safe directory to the git commands
	// the child runs: in a container the work tree belongs to another user.
	// It is passed in the environment, so no file is edited.
	Workspace string
	// MaxOutput bounds standard output, in bytes; 0 means 64 MiB.
	MaxOutput int64
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Execution is what running a command left behind.
type Execution struct {
	Command           string // as a person would type it; empty for a saved output
	Started, Finished time.Time
	ExitCode          *int   // nil: there is none, or it is not known
	Stdout            []byte // raw, for a Reader
	OutputSHA256      string // hex, of the raw standard output
	OutputBytes       int64
	// Failure says why there is no result to judge: the command did not
	// start, was killed, ran out of time or printed too much. Empty when it
	// ran to its end.
	Failure string
	// Saved marks an output that was not produced by Run.
	Saved bool

	shell bool
}

// FromOutput makes an execution of an output that somebody saved, so that it
// can be judged without running anything. Its exit status is not known.
func FromOutput(stdout []byte, now time.Time) Execution {
	x := Execution{
		Started: now, Finished: now,
		Stdout: stdout, OutputSHA256: hexSHA256(stdout), OutputBytes: int64(len(stdout)),
		Saved: true,
	}
	if len(stdout) > maxOutput {
		x.Stdout, x.Failure = nil, tooLarge(maxOutput)
	}
	return x
}

func tooLarge(limit int64) string {
	return fmt.Sprintf("output too large: more than %d bytes on standard output", limit)
}

var (
	errTooLarge = errors.New("output too large")
	errTimeout  = errors.New("timeout")
)

// Run runs a command in its own process group, streams its standard output and
// standard error to out as they come, and keeps standard output for judging.
// The environment is c.Env and nothing else; standard input is empty.
//
// At the deadline, when ctx ends, or when the output grows too large, the whole
// group gets SIGTERM and two seconds later SIGKILL. Processes that the command
// leaves behind in its group are killed when it ends. All of these are no error
// of Run: they are recorded in the Execution, which then judges as an error.
// Run itself refuses only a command that makes no sense.
//
// A write error of out does not stop the run: losing the live view must not
// lose the verdict.
func Run(ctx context.Context, c Command, out io.Writer, o Options) (Execution, error) {
	switch {
	case len(c.Argv) == 0 && strings.TrimSpace(c.Shell) == "":
		return Execution{}, errors.New("smoke command is empty: wanted a list of words or one shell line")
	case len(c.Argv) > 0 && c.Shell != "":
		return Execution{}, errors.New("smoke command is given twice: wanted a list of words or one shell line")
	case len(c.Argv) > 0 && c.Argv[0] == "":
		return Execution{}, errors.New("smoke command begins with an empty word")
	case c.Timeout <= 0:
		return Execution{}, fmt.Errorf("smoke timeout is %s: wanted more than 0", c.Timeout)
	}
	now := o.Now
	if now == nil {
		now = time.Now
	}
	limit := o.MaxOutput
	if limit <= 0 {
		limit = maxOutput
	}
	env := childEnv(c.Env, o.Workspace)
	argv := c.Argv
	if c.Shell != "" {
		argv = []string{"bash", "-c", c.Shell}
		if _, err := process.LookPath("bash", env); err != nil {
			argv[0] = "sh"
		}
	}

	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	live := &sink{out: out}
	stdout := &capture{live: live, sum: sha256.New(), limit: limit, over: func() { stop(errTooLarge) }}
	x := Execution{Command: c.String(), Started: now(), shell: c.Shell != ""}
	finish := func() Execution {
		x.Finished = now()
		x.OutputSHA256, x.OutputBytes = hex.EncodeToString(stdout.sum.Sum(nil)), stdout.n
		if x.Failure == "" {
			x.Stdout = stdout.kept.Bytes()
		}
		return x
	}

	ctx, cancel := context.WithTimeoutCause(ctx, c.Timeout, errTimeout)
	defer cancel()
	code, err := process.Run(ctx, process.Command{Argv: argv, Dir: c.Dir, Env: env, Stdout: stdout, Stderr: live})
	switch {
	case stdout.n > limit:
		// Checked by count and not by cause: the command may have ended by
		// itself just before it could be stopped.
		x.Failure = tooLarge(limit)
	case errors.Is(err, errTimeout):
		x.Failure = fmt.Sprintf("timed out after %s", c.Timeout)
	case err != nil && context.Cause(ctx) != nil && errors.Is(err, context.Cause(ctx)):
		x.Failure = "cancelled before it ended"
	case err != nil:
		x.Failure = err.Error()
	default:
		x.ExitCode = &code
	}
	return finish(), nil
}

// childEnv never returns nil: to os/exec a nil environment means "inherit".
func childEnv(env []string, workspace string) []string {
	child := append([]string{}, env...)
	if workspace == "" {
		return child
	}
	n, err := strconv.Atoi(lookupEnv(env, "GIT_CONFIG_COUNT"))
	if err != nil || n < 0 {
		n = 0
	}
	return append(child,
		fmt.Sprintf("GIT_CONFIG_KEY_%d=safe.directory", n),
		fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", n, workspace),
		fmt.Sprintf("GIT_CONFIG_COUNT=%d", n+1))
}

// lookupEnv returns the last value of a variable, as os/exec would pass it.
func lookupEnv(env []string, name string) string {
	for i := len(env) - 1; i >= 0; i-- {
		if v, ok := strings.CutPrefix(env[i], name+"="); ok {
			return v
		}
	}
	return ""
}

// sink lets two pipes share one writer and outlives its failure.
type sink struct {
	mu     sync.Mutex // held while writing, so that chunks stay whole
	out    io.Writer
	broken bool
}

func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.broken {
		_, err := s.out.Write(p)
		s.broken = err != nil
	}
	return len(p), nil
}

// capture keeps and hashes one stream while passing it on.
type capture struct {
	live  *sink
	kept  bytes.Buffer
	sum   hash.Hash
	n     int64
	limit int64
	over  func()
}

func (c *capture) Write(p []byte) (int, error) {
	c.sum.Write(p)
	c.n += int64(len(p))
	if c.n > c.limit {
		c.kept = bytes.Buffer{}
		c.over()
		return len(p), nil
	}
	c.kept.Write(p)
	return c.live.Write(p)
}
