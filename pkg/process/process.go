// Package process runs a command that may leave others behind, and leaves none.
//
// A command is started in a process group of its own. When it ends, and when its
// time is over, what is still in the group is killed with it: a test that starts
// a server must not keep it running after the verdict. A process that makes a
// group of its own gets away; where there are no process groups only the command
// itself is ended.
//
// A program is looked up in the PATH of the environment that the command gets,
// not in that of the caller. Relative entries there are passed over, so that a
// work tree cannot stand in for a tool.
package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"
)

// Grace is how long a command may take to end after it was asked to, and how
// long what it left behind may keep its output open.
const Grace = 2 * time.Second

// Command is what to run.
type Command struct {
	Argv []string // not empty; a first word without a slash is looked up in PATH
	Dir  string   // "" is the current directory
	Env  []string // "NAME=value", and nothing else is inherited
	// Stdin, Stdout and Stderr may be nil: nothing comes, nothing is kept.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// Run runs a command to its end and returns its exit status. Any status is no
// error: an error says that there is none, because the command could not be
// started, was killed, or was ended since ctx is done; then the error wraps the
// context's cause.
func Run(ctx context.Context, c Command) (exit int, err error) {
	if len(c.Argv) == 0 || c.Argv[0] == "" {
		return -1, errors.New("the command is empty, wanted a program")
	}
	path, err := LookPath(c.Argv[0], c.Env)
	if err != nil {
		return -1, fmt.Errorf("could not start: %w", err)
	}
	cmd := exec.CommandContext(ctx, path, c.Argv[1:]...)
	cmd.Args[0] = c.Argv[0]
	// To os/exec a nil environment means "inherit".
	cmd.Dir, cmd.Env = c.Dir, append([]string{}, c.Env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Stdin, c.Stdout, c.Stderr
	cmd.WaitDelay = Grace
	ended := false // written by Cancel, which Wait waits for
	prepareGroup(cmd)
	cmd.Cancel = func() error {
		err := terminateGroup(cmd)
		ended = err == nil
		return err
	}
	if err := cmd.Start(); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return -1, cause
		}
		return -1, fmt.Errorf("could not start: %w", err)
	}
	err = cmd.Wait()
	killGroup(cmd)
	switch state := cmd.ProcessState; {
	case ended:
		return -1, context.Cause(ctx)
	case state == nil:
		return -1, fmt.Errorf("could not wait for the command: %w", err)
	case state.ExitCode() < 0:
		return -1, fmt.Errorf("the command was killed (%s)", state)
	default:
		// Output that somebody kept open too long, or input that nobody read,
		// changes no exit status.
		return state.ExitCode(), nil
	}
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
