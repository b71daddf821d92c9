//go:build unix

package process

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

var env = []string{"PATH=/usr/local/bin:/usr/bin:/bin"}

func shell(line string) Command {
	return Command{Argv: []string{"sh", "-c", line}, Env: env}
}

func TestAnExitStatusIsNoError(t *testing.T) {
	for _, want := range []int{0, 1, 126, 255} {
		got, err := Run(t.Context(), shell("exit "+strconv.Itoa(want)))
		assert.NilError(t, err)
		assert.Equal(t, got, want)
	}
}

func TestNothingIsInherited(t *testing.T) {
	t.Setenv("SECRET", "x")
	var out bytes.Buffer
	_, err := Run(t.Context(), Command{Argv: []string{"/usr/bin/env"}, Env: nil, Stdout: &out})
	assert.NilError(t, err)
	assert.Equal(t, out.String(), "")
}

func TestInputThatNobodyReadsChangesNothing(t *testing.T) {
	c := shell("exit 4")
	c.Stdin = strings.NewReader(strings.Repeat("x", 1<<20))
	got, err := Run(t.Context(), c)
	assert.NilError(t, err)
	assert.Equal(t, got, 4)
}

func TestWhatIsNoRunIsAnError(t *testing.T) {
	dir := t.TempDir()
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "tool"), []byte("#!/bin/sh\n"), 0o755))
	for _, test := range []struct {
		c    Command
		want string
	}{
		{Command{}, "the command is empty, wanted a program"},
		{Command{Argv: []string{""}}, "the command is empty, wanted a program"},
		{Command{Argv: []string{"no-such-program"}, Env: env}, `could not start: "no-such-program" is not in PATH`},
		{Command{Argv: []string{"./no-such-program"}, Env: env}, "could not start: fork/exec ./no-such-program: no such file or directory"},
		// A relative entry of PATH would let the work tree stand in for a tool.
		{Command{Argv: []string{"tool"}, Dir: dir, Env: []string{"PATH=.:" + filepath.Join(dir, "none")}}, `could not start: "tool" is not in PATH`},
		{shell("kill -9 $$"), "the command was killed (signal: killed)"},
	} {
		exit, err := Run(t.Context(), test.c)
		assert.Error(t, err, test.want)
		assert.Equal(t, exit, -1)
	}
}

func gone(t *testing.T, pid int) {
	t.Helper()
	for range 100 {
		// A child that nobody waited for may still be there as a zombie.
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) || err == nil && strings.Contains(string(stat), ") Z ") {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("process %d is still there", pid)
}

func TestAtTheEndOfItsTimeTheWholeGroupGoes(t *testing.T) {
	why := errors.New("time is over")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 300*time.Millisecond, why)
	defer cancel()
	file := filepath.Join(t.TempDir(), "pid")
	exit, err := Run(ctx, shell("sleep 300 & echo $! > '"+file+"'; wait"))
	assert.ErrorIs(t, err, why)
	assert.Equal(t, exit, -1)
	data, err := os.ReadFile(file)
	assert.NilError(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	assert.NilError(t, err)
	gone(t, pid)
}

func TestWhatACommandLeavesBehindGoesWithIt(t *testing.T) {
	var out bytes.Buffer
	c := shell("sleep 300 > /dev/null 2>&1 & echo $!")
	c.Stdout = &out
	exit, err := Run(t.Context(), c)
	assert.NilError(t, err)
	assert.Equal(t, exit, 0)
	pid, err := strconv.Atoi(strings.TrimSpace(out.String()))
	assert.NilError(t, err)
	gone(t, pid)
}

func TestNothingStartsAfterTheEnd(t *testing.T) {
	why := errors.New("over")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	_, err := Run(ctx, shell("exit 0"))
	assert.ErrorIs(t, err, why)
}
