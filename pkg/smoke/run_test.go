//go:build unix

package smoke

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/process"
)

// A fixed clock: the deadline itself is real, what the report says is not.
func clock() func() time.Time {
	now := t0
	return func() time.Time { defer func() { now = t1 }(); return now }
}

func shell(line string) Command {
	return Command{Shell: line, Env: []string{"PATH=/usr/bin:/bin"}, Timeout: 20 * time.Second}
}

func run(t *testing.T, c Command, o Options) (Execution, string) {
	t.Helper()
	var live bytes.Buffer
	o.Now = clock()
	x, err := Run(context.Background(), c, &live, o)
	assert.NilError(t, err)
	assert.Assert(t, (x.ExitCode == nil) == (x.Failure != ""))
	return x, live.String()
}

func TestOnlyStandardOutputIsKeptAndBothAreStreamed(t *testing.T) {
	t.Parallel()
	x, live := run(t, shell(`echo one; echo two >&2; exit 3`), Options{})
	assert.Equal(t, string(x.Stdout), "one\n")
	assert.Equal(t, x.OutputSHA256, hexSHA256([]byte("one\n")))
	assert.Equal(t, x.OutputBytes, int64(4))
	assert.Equal(t, *x.ExitCode, 3)
	assert.Assert(t, strings.Contains(live, "one\n") && strings.Contains(live, "two\n"), live)
	assert.Equal(t, x.Started, t0)
	assert.Equal(t, x.Finished, t1)
	assert.Equal(t, x.Command, "echo one; echo two >&2; exit 3")
}

func TestArgvRunsRelativeToDirWithoutAShell(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script := "#!/bin/sh\nprintf '%s\\n' \"$@\" 'SMOKE_JSON={\"pass\":1,\"total\":1}'\n"
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "SMOKE_TEST.sh"), []byte(script), 0o755))
	x, _ := run(t, Command{Argv: []string{"./SMOKE_TEST.sh", "$HOME; id"}, Dir: dir, Timeout: time.Minute}, Options{})
	assert.Equal(t, string(x.Stdout), "$HOME; id\nSMOKE_JSON={\"pass\":1,\"total\":1}\n")
	assert.Equal(t, x.Command, "./SMOKE_TEST.sh '$HOME; id'")
	assert.Equal(t, JudgeOutput(x, readAuto, Expect{Total: 1}).Verdict, Pass)
}

func TestChildSeesOnlyTheGivenEnvironment(t *testing.T) {
	t.Setenv("REMEMBRANCER_SECRET", "leak")
	for _, env := range [][]string{nil, {"PATH=/usr/bin:/bin"}} {
		c := shell(`echo "<$REMEMBRANCER_SECRET>"`)
		c.Env = env
		x, _ := run(t, c, Options{})
		assert.Equal(t, string(x.Stdout), "<>\n")
	}
}

func TestWorkspaceIsSafeForGitWithoutEditingFiles(t *testing.T) {
	t.Parallel()
	assert.DeepEqual(t, childEnv(nil, ""), []string{})
	assert.DeepEqual(t, childEnv([]string{"A=b"}, "/w"), []string{"A=b", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=/w", "GIT_CONFIG_COUNT=1"})
	assert.DeepEqual(t, childEnv([]string{"GIT_CONFIG_COUNT=1"}, "/w"), []string{"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_1=safe.directory", "GIT_CONFIG_VALUE_1=/w", "GIT_CONFIG_COUNT=2"})
	x, _ := run(t, shell(`echo $GIT_CONFIG_COUNT $GIT_CONFIG_VALUE_0`), Options{Workspace: "/w"})
	assert.Equal(t, string(x.Stdout), "1 /w\n")
}

func TestDeadlineEndsTheWholeGroup(t *testing.T) {
	t.Parallel()
	c := shell(`echo 'SMOKE_JSON={"pass":1,"total":1}'
		(trap 'echo the child was told >&2; exit' TERM; sleep 60 & wait) &
		wait`)
	c.Timeout = time.Second
	x, live := run(t, c, Options{})
	assert.Assert(t, strings.Contains(live, "the child was told\n"), live)
	assert.Equal(t, x.Failure, "timed out after 1s")
	got := JudgeOutput(x, readAuto, Expect{})
	assert.Equal(t, got.Verdict, Error)
	assert.DeepEqual(t, got.Reasons, []string{"timed out after 1s"})
}

func TestACommandThatIgnoresSIGTERMIsKilled(t *testing.T) {
	t.Parallel()
	mark := filepath.Join(t.TempDir(), "alive")
	// The child outlives the parent's death unless the whole group is killed.
	c := shell(`trap "" TERM; (sleep 3.5; touch ` + mark + `) >/dev/null 2>&1 & while :; do sleep 0.1; done`)
	c.Timeout = 100 * time.Millisecond
	start := time.Now()
	x, _ := run(t, c, Options{})
	assert.Assert(t, time.Since(start) < 2*process.Grace)
	assert.Equal(t, x.Failure, "timed out after 100ms")
	time.Sleep(4*time.Second - time.Since(start))
	_, err := os.Stat(mark)
	assert.Assert(t, errors.Is(err, os.ErrNotExist), "a child survived")
}

func TestAChildThatKeepsThePipeOpenDoesNotHang(t *testing.T) {
	t.Parallel()
	start := time.Now()
	x, _ := run(t, shell(`sleep 60 & echo done`), Options{})
	assert.Assert(t, time.Since(start) < 2*process.Grace)
	assert.Equal(t, string(x.Stdout), "done\n")
	assert.Equal(t, *x.ExitCode, 0)
}

func TestCancellingIsAnHonestError(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(100*time.Millisecond, cancel)
	x, err := Run(ctx, shell(`trap 'exit 0' TERM; sleep 60 & wait`), &bytes.Buffer{}, Options{})
	assert.NilError(t, err)
	assert.Equal(t, x.Failure, "cancelled before it ended")
	assert.Equal(t, Judge(x, Counts{Passed: 1, Total: 1}, Expect{}).Verdict, Error)
}

func TestDeathBySignalIsAnHonestError(t *testing.T) {
	t.Parallel()
	x, _ := run(t, shell(`echo 'SMOKE_JSON={"pass":1,"total":1}'; kill -9 $$`), Options{})
	assert.Equal(t, x.Failure, "the command was killed (signal: killed)")
	assert.Equal(t, JudgeOutput(x, readAuto, Expect{}).Verdict, Error)
}

func TestWhatCannotStartIsAnHonestError(t *testing.T) {
	t.Parallel()
	x, _ := run(t, Command{Argv: []string{"no-such-tool"}, Timeout: time.Second}, Options{})
	assert.Equal(t, x.Failure, `could not start: "no-such-tool" is not in PATH`)
	assert.Equal(t, x.OutputSHA256, hexSHA256(nil))
	x, _ = run(t, Command{Argv: []string{"./no-such-script"}, Dir: t.TempDir(), Timeout: time.Second}, Options{})
	assert.Equal(t, x.Failure, "could not start: fork/exec ./no-such-script: no such file or directory")
	_, err := EncodeReport(JudgeOutput(x, readAuto, Expect{Total: 27}))
	assert.NilError(t, err)
	x, _ = run(t, shell("no-such-tool"), Options{})
	assert.Equal(t, JudgeOutput(x, readAuto, Expect{}).Verdict, Error)
}

func TestTooMuchOutputIsAnErrorAndEndsTheRun(t *testing.T) {
	t.Parallel()
	start := time.Now()
	x, _ := run(t, shell(`echo 'SMOKE_JSON={"pass":1,"total":1}'; while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done`), Options{MaxOutput: 10000})
	assert.Assert(t, time.Since(start) < 2*process.Grace)
	assert.Equal(t, x.Failure, "output too large: more than 10000 bytes on standard output")
	assert.Assert(t, x.Stdout == nil)
	assert.Equal(t, JudgeOutput(x, readAuto, Expect{}).Verdict, Error)
}

func TestABigStandardErrorDoesNotBlock(t *testing.T) {
	t.Parallel()
	x, live := run(t, shell(`head -c 1000000 /dev/zero >&2; echo ok`), Options{})
	assert.Equal(t, string(x.Stdout), "ok\n")
	assert.Equal(t, len(live), 1000003)
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestALostLiveViewDoesNotLoseTheVerdict(t *testing.T) {
	t.Parallel()
	x, err := Run(context.Background(), shell(`echo 'SMOKE_JSON={"pass":1,"total":1}'`), broken{}, Options{})
	assert.NilError(t, err)
	assert.Equal(t, JudgeOutput(x, readAuto, Expect{}).Verdict, Pass)
}

func TestMeaninglessCommandsAreRefused(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		c   Command
		err string
	}{
		{Command{Timeout: 1}, "smoke command is empty: wanted a list of words or one shell line"},
		{Command{Shell: " ", Timeout: 1}, "smoke command is empty: wanted a list of words or one shell line"},
		{Command{Argv: []string{"a"}, Shell: "a", Timeout: 1}, "smoke command is given twice: wanted a list of words or one shell line"},
		{Command{Argv: []string{""}, Timeout: 1}, "smoke command begins with an empty word"},
		{Command{Shell: "true"}, "smoke timeout is 0s: wanted more than 0"},
	} {
		_, err := Run(context.Background(), tc.c, &bytes.Buffer{}, Options{})
		assert.Error(t, err, tc.err)
	}
}

func TestPATHIsTheChildsAndNeverTheWorkTree(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "tool"), []byte("#!/bin/sh\necho yes\n"), 0o755))
	x, _ := run(t, Command{Argv: []string{"tool"}, Env: []string{"PATH=" + dir}, Timeout: time.Minute}, Options{})
	assert.Equal(t, string(x.Stdout), "yes\n")
	here, err := os.Getwd()
	assert.NilError(t, err)
	relative, err := filepath.Rel(here, dir)
	assert.NilError(t, err)
	x, _ = run(t, Command{Argv: []string{"tool"}, Env: []string{"PATH=" + relative + ":/bin"}, Timeout: time.Minute}, Options{})
	assert.Equal(t, x.Failure, `could not start: "tool" is not in PATH`)
}
