package main

import (
	"bytes"
	"crypto/rand"
	"io/fs"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/covenant"
	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/publish"
)

// staged is a tree that is about to be committed: another one, and one file.
type staged struct {
	covenant.Tree
	path, data string
}

func (s staged) Blob(p string) ([]byte, error) {
	if p == s.path {
		return []byte(s.data), nil
	}
	return s.Tree.Blob(p)
}

func (s staged) Walk(folder string, fn func(string, fs.FileMode, string) error) error {
	seen := false
	err := s.Tree.Walk(folder, func(p string, m fs.FileMode, id string) error {
		if p == s.path {
			seen, id = true, "staged"
		}
		return fn(p, m, id)
	})
	if err == nil && !seen && (folder == "" || strings.HasPrefix(s.path, folder+"/")) {
		err = fn(s.path, 0o644, "staged")
	}
	return err
}

// aProject is a repository under the covenant, with the world of its owner.
func aProject(t *testing.T) (*world, string) {
	t.Helper()
	dir, state := t.TempDir(), t.TempDir()
	var out bytes.Buffer
	w := &world{
		ctx: t.Context(), dir: dir, now: time.Now, rand: rand.Reader, stdin: strings.NewReader(""), stdout: &out, stderr: &out,
		getenv: func(name string) string { return map[string]string{"REMEMBRANCER_STATE": state}[name] },
	}
	git(t, dir, "init", "-q", "-b", "main")
	assert.Equal(t, w.run([]string{"init", "--yes", "--origin", "example.com/r"}), 0, out.String())
	return w, dir
}

func git(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", append([]string{"-c", "user.name=N", "-c", "user.email=n@example.org", "-c", "commit.gpgsign=false"}, args...)...)
	cmd.Dir = dir
	cmd.Env = []string{"GIT_CONFIG_NOSYSTEM=1", "HOME=" + t.TempDir(), "PATH=/usr/local/bin:/usr/bin:/bin"}
	out, err := cmd.CombinedOutput()
	assert.NilError(t, err, "git %v: %s", args, out)
}

func fast(t *testing.T, w *world, path, data string) judge.Verdict {
	t.Helper()
	p, err := w.openProject()
	assert.NilError(t, err)
	before, err := w.before(p)
	assert.NilError(t, err)
	started := time.Now()
	checks, err := w.fastCovenants(p, staged{before, path, data})
	assert.NilError(t, err)
	assert.Assert(t, time.Since(started) < time.Second, "took %s", time.Since(started))
	return judge.Sum(checks, nil)
}

func statusOf(v judge.Verdict, id string) string {
	for _, c := range v.Checks {
		if c.ID == id {
			return c.Status.String()
		}
	}
	return "not made"
}

func TestWhatIsStagedIsJudgedInUnderASecond(t *testing.T) {
	w, dir := aProject(t)

	// The covenant's own first commit writes what later ones must leave alone.
	v := fast(t, w, "README.md", "# R\n")
	assert.Equal(t, statusOf(v, "integrity/change"), "unclaimed")
	git(t, dir, "add", "-A")
	git(t, dir, "commit", "-qm", "init")

	v = fast(t, w, "README.md", "# R\n")
	assert.Equal(t, v.Status, judge.Pass, v.Text())
	assert.Equal(t, statusOf(v, "integrity/ledger-unchanged"), "pass")
	assert.Equal(t, statusOf(v, "integrity/change"), "not made")

	v = fast(t, w, "ops/ledger/policy", "quorum none\n")
	assert.Equal(t, v.Status, judge.Fail)
	assert.Equal(t, statusOf(v, "integrity/ledger-unchanged"), "fail")

	v = fast(t, w, "README.md", "[gone](nowhere.md)\n")
	assert.Equal(t, statusOf(v, "hygiene/links"), "fail", v.Text())

	v = fast(t, w, "SMOKE_TEST.sh", "exit 0\n")
	assert.Equal(t, v.Status, judge.Pass, v.Text())
	assert.Assert(t, strings.Contains(v.Text(), "SMOKE_TEST.sh: warning: gate-owned path changed"), v.Text())
}

// A branch that takes in what was published since is compared with what was
// published, not with itself.
func TestAMergeIsComparedWithTheLongerLog(t *testing.T) {
	w, dir := aProject(t)
	git(t, dir, "add", "-A")
	git(t, dir, "commit", "-qm", "init")
	git(t, dir, "init", "-q", "--bare", dir+"/../remote.git")
	git(t, dir, "remote", "add", "origin", dir+"/../remote.git")
	git(t, dir, "branch", "side")
	assert.Equal(t, w.run([]string{"record", "discovery", "--title", "it works"}), 0)
	git(t, dir, "add", "-A")
	git(t, dir, "commit", "-qm", "receipt")
	git(t, dir, "push", "-q", "origin", "main")
	assert.Equal(t, w.run([]string{"publish"}), 0, w.stdout.(*bytes.Buffer).String())
	git(t, dir, "pull", "-q", "origin", "main")
	git(t, dir, "checkout", "-q", "side")
	git(t, dir, "commit", "-q", "--allow-empty", "-m", "side")
	git(t, dir, "merge", "-q", "--no-ff", "--no-commit", "main")

	p, err := w.openProject()
	assert.NilError(t, err)
	tip, err := p.repo.Resolve("main")
	assert.NilError(t, err)
	merged, err := p.repo.TreeAt(tip) // side has nothing of its own
	assert.NilError(t, err)
	checks, err := w.fastCovenants(p, publish.Tree(merged))
	assert.NilError(t, err)
	v := judge.Sum(checks, nil)
	assert.Equal(t, statusOf(v, "integrity/ledger-unchanged"), "pass", v.Text())
	assert.Equal(t, filepath.Base(p.root), filepath.Base(dir))
}
