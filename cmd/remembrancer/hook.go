package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/vaultmesh/remembrancer/pkg/action"
	"github.com/vaultmesh/remembrancer/pkg/config"
	"github.com/vaultmesh/remembrancer/pkg/covenant"
	"github.com/vaultmesh/remembrancer/pkg/durable"
	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/publish"
	"github.com/vaultmesh/remembrancer/pkg/smoke"
)

// gitHook is a hook that git runs before it makes something.
type gitHook struct{ name, makes string }

var gitHooks = []gitHook{{"pre-commit", "commit"}, {"pre-merge-commit", "merge"}}

const (
	// hookMark is how a hook of ours is told from others': its second line
	// begins with it.
	hookMark = "# remembrancer-hook"
	// chainedSuffix is behind the name of a hook that was there before ours.
	chainedSuffix = ".remembrancer-chained"
)

var fastInput = action.Input{Name: "fast", Kind: action.Bool, Usage: "Only check the covenants that staged files can break, without running the smoke test; well under a second.", CLIOnly: true}

const courtesy = "A hook is a courtesy, not a guarantee: git commit --no-verify passes it by, and git runs none for a fast-forward, a rebase or a cherry-pick. What decides is the gate in CI."

var hookInstallVerb = verb{
	spec: action.Spec{
		Verb:    "hook install",
		Summary: "let git run the smoke test before it commits or merges",
		Description: "Writes the hooks pre-commit and pre-merge-commit to where git takes them from: core.hooksPath if it is set, else the hooks of the repository, which linked work trees share. " +
			"They judge what is staged, not the work tree; see remembrancer help hook run.\n\n" +
			"A hook of somebody else is refused. With --chain it is kept as NAME" + chainedSuffix + " and runs first; when it fails, so does the hook. Installing again changes nothing, or only what flags say.\n\n" +
			courtesy,
		Inputs: []action.Input{
			{Name: "chain", Kind: action.Bool, Usage: "Keep a hook that is there, and run it first.", CLIOnly: true},
			fastInput,
		},
		Examples: []string{"remembrancer hook install", "remembrancer hook install --chain --fast"},
	},
	run: runHookInstall,
}

var hookUninstallVerb = verb{
	spec: action.Spec{
		Verb:        "hook uninstall",
		Summary:     "take the hooks away and restore what was there",
		Description: "Removes the hooks that hook install wrote, and gives a hook that was chained its name back. Hooks of others are left as they are.",
	},
	run: runHookUninstall,
}

var hookRunVerb = verb{
	spec: action.Spec{
		Verb:    "hook run",
		Summary: "judge what is staged, as a hook of git does",
		Args:    "pre-commit|pre-merge-commit",
		Description: "Checks the index out to a temporary directory and runs the smoke test of its remembrancer.yaml there, so a file that is staged in part is judged as it is staged. " +
			"What is not staged is not there, and neither is what git ignores.\n\n" +
			"The directory is a repository of its own: the same HEAD, index and history, but no tags, remotes, hooks or local configuration. What a test does to it ends with it. " +
			"Variables by which git tells a hook of the real repository (GIT_DIR and the like) are not passed on.\n\n" +
			courtesy,
		Inputs:   []action.Input{fastInput},
		Examples: []string{"remembrancer hook run pre-commit", "remembrancer hook run --fast pre-commit"},
	},
	run: runHookRun,
}

// git runs the git program and returns what it printed, without the last newline.
func (w *world) git(dir string, env []string, args ...string) (string, error) {
	cmd := exec.CommandContext(w.ctx, "git", args...)
	cmd.Dir, cmd.Env = dir, append(w.childEnviron(), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(out), "\n"), "\r"), nil
}

// gitPath makes a path that git printed absolute: some are relative to where git
// was run.
func (w *world) gitPath(printed string) string { return w.path(filepath.FromSlash(printed)) }

// hooksDir returns the directory that git takes this repository's hooks from.
func (w *world) hooksDir() (string, error) {
	dir, err := w.git(w.dir, nil, "rev-parse", "--git-path", "hooks")
	if err != nil {
		return "", err
	}
	// A setting of the user or the system is one directory for all repositories.
	set, err := w.git(w.dir, nil, "config", "--show-scope", "--get", "core.hooksPath")
	if scope, _, _ := strings.Cut(set, "\t"); err == nil && (scope == "global" || scope == "system") {
		return "", misused("core.hooksPath is set for all repositories (%s): the hook would judge all of them; give this one its own with git config core.hooksPath .git/hooks", scope)
	}
	return w.gitPath(dir), nil
}

// hookFile is one hook as it lies in the directory.
type hookFile struct {
	gitHook
	path    string
	there   bool // something has the name
	ours    bool
	data    []byte
	chained bool // something has the name of a chained hook
}

func (h hookFile) chainedPath() string { return h.path + chainedSuffix }

func readHooks(dir string) ([]hookFile, error) {
	var found []hookFile
	for _, g := range gitHooks {
		h := hookFile{gitHook: g, path: filepath.Join(dir, g.name)}
		info, err := os.Lstat(h.path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		h.there = err == nil
		if h.there && info.Mode().IsRegular() { // a link may lead to anything of anybody
			if h.data, err = os.ReadFile(h.path); err != nil {
				return nil, err
			}
			_, second, _ := bytes.Cut(h.data, []byte("\n"))
			h.ours = bytes.HasPrefix(second, []byte(hookMark))
		}
		if _, err = os.Lstat(h.chainedPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		h.chained = err == nil
		found = append(found, h)
	}
	return found, nil
}

// script is the text of a hook. Git for Windows brings the shell that it needs.
// A graphical client may have a short PATH, so the program is named by its place;
// where that is gone, as after an upgrade, by its name.
func (g gitHook) script(program string, fast bool) []byte {
	flag := ""
	if fast {
		flag = " --fast"
	}
	program = "'" + strings.ReplaceAll(filepath.ToSlash(program), "'", `'\''`) + "'"
	return []byte(`#!/bin/sh
` + hookMark + `: written by "remembrancer hook install", removed by "remembrancer hook uninstall"
chained="$(dirname "$0")/` + g.name + chainedSuffix + `"
if [ -x "$chained" ]; then
	"$chained" "$@" || exit $?
fi
program=` + program + `
[ -x "$program" ] || program=remembrancer
if ! command -v "$program" >/dev/null 2>&1; then
	echo "remembrancer is not here, so nothing was judged: install it, or remove $0" >&2
	exit 1
fi
exec "$program" hook run` + flag + " " + g.name + `
`)
}

func runHookInstall(w *world, v *action.Values, _ *action.Runner) error {
	dir, err := w.hooksDir()
	if err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	hooks, err := readHooks(dir)
	if err != nil {
		return err
	}
	// Everything is looked at before anything is changed.
	for _, h := range hooks {
		switch {
		case !h.there || h.ours:
		case !v.Bool("chain"):
			return misused("%s is a hook of somebody else: hook install --chain keeps it and runs it first", h.path)
		case h.chained:
			return misused("%s is a hook of somebody else, and so is %s: make one of the two", h.path, h.chainedPath())
		}
	}
	for _, h := range hooks {
		script := h.script(program, v.Bool("fast"))
		said := "installed"
		switch {
		case h.ours && bytes.Equal(h.data, script):
			w.say("%s is there already", h.path)
			continue
		case h.ours:
			said = "renewed"
		case h.there:
			// A crash after this leaves no hook: what was there is beside it, and
			// installing again chains it.
			if err := os.Rename(h.path, h.chainedPath()); err != nil {
				return err
			}
			said = "installed; the hook that was there runs first"
		}
		if err := durable.Put(h.path, script, 0o755); err != nil {
			return err
		}
		w.say("%s %s", h.path, said)
	}
	return nil
}

func runHookUninstall(w *world, _ *action.Values, _ *action.Runner) error {
	dir, err := w.hooksDir()
	if err != nil {
		return err
	}
	hooks, err := readHooks(dir)
	if err != nil {
		return err
	}
	for _, h := range hooks {
		switch {
		case h.there && !h.ours:
			w.say("%s is a hook of somebody else, and stays", h.path)
		case h.chained:
			if err := os.Rename(h.chainedPath(), h.path); err != nil {
				return err
			}
			w.say("%s is again what it was", h.path)
		case h.there:
			if err := os.Remove(h.path); err != nil {
				return err
			}
			w.say("%s removed", h.path)
		default:
			w.say("%s is not there", h.path)
		}
	}
	return nil
}

func runHookRun(w *world, v *action.Values, r *action.Runner) error {
	i := -1
	if args := v.Args(); len(args) == 1 {
		i = slices.IndexFunc(gitHooks, func(g gitHook) bool { return g.name == args[0] })
	}
	if i < 0 {
		return misused("want one hook, pre-commit or pre-merge-commit")
	}
	what, run := "Smoke tests", w.stagedSmoke
	if v.Bool("fast") {
		what, run = "Covenants", w.stagedCovenants
	}
	code, err := run(r, gitHooks[i])
	if err != nil {
		w.say("❌ %s could not be judged. Cannot %s.", what, gitHooks[i].makes)
		return err
	}
	return quietly(code)
}

// stagedSmoke runs the smoke test on what is staged, and says what became of it.
func (w *world) stagedSmoke(r *action.Runner, g gitHook) (int, error) {
	w.say("🔍 Running smoke tests...")
	p, remove, err := w.checkOutIndex()
	defer remove()
	if err != nil {
		return 0, err
	}
	inner := *w
	inner.dir, inner.environ = p.root, withoutGit(w.environ)
	inner.getenv = func(name string) string { return lastOf(inner.environ, name) }
	var end lastBytes
	report, err := inner.smoke(p, &end, 0, &testResults{dir: p.root})
	if err != nil {
		return 0, err
	}
	if report.Verdict == smoke.Pass {
		w.say("✅ Smoke tests passed: %d of %d", report.Passed, report.Total)
		return exitPass, nil
	}
	said := "failed"
	if report.Verdict == smoke.Error {
		said = "could not be judged"
	}
	w.say("❌ Smoke tests %s. Cannot %s.", said, g.makes)
	for _, reason := range report.Reasons {
		w.say("   %s", action.Defang(reason))
	}
	if err := w.showEnd(r, &end); err != nil {
		return 0, err
	}
	if p.cfg.Smoke.Mode == config.Advisory {
		w.sayAdvisory(false)
		return exitPass, nil
	}
	return report.Verdict.ExitStatus(), nil
}

// stagedCovenants checks what staged files can break, without a checkout and
// without the git program.
func (w *world) stagedCovenants(_ *action.Runner, g gitHook) (int, error) {
	w.say("🔍 Checking what is staged...")
	repo, err := gitrepo.Open(w.dir)
	if err != nil {
		return 0, err
	}
	index := w.getenv("GIT_INDEX_FILE")
	if index != "" {
		index = w.gitPath(index)
	}
	tree, err := repo.Staged(index)
	if err != nil {
		return 0, err
	}
	if len(w.merging()) > 0 {
		in, remove, err := w.innerRepository()
		defer remove()
		if err != nil {
			return 0, err
		}
		if repo, err = gitrepo.Open(in.work); err != nil {
			return 0, err
		}
	}
	p, err := stagedProject(repo, tree)
	if err != nil {
		return 0, err
	}
	checks, err := w.fastCovenants(p, publish.Tree(tree))
	if err != nil {
		return 0, err
	}
	verdict := judge.Sum(checks, nil)
	switch verdict.Status {
	case judge.Pass:
		w.say("✅ Covenants passed: %s", verdict.Line())
		return exitPass, nil
	case judge.Fail:
		w.say("❌ Covenants failed. Cannot %s.", g.makes)
	default: // where nothing is claimed nothing was judged
		w.say("❌ Covenants could not be judged. Cannot %s.", g.makes)
	}
	w.say("%s", indent(action.Defang(verdict.Text())))
	if p.cfg.Covenants.Mode == config.Advisory {
		w.sayAdvisory(false)
		return exitPass, nil
	}
	return verdictExit(verdict.Status), nil
}

// stagedProject is the project as the index has it, its configuration too.
func stagedProject(repo *gitrepo.Repo, tree *gitrepo.Tree) (*project, error) {
	data, err := tree.Blob(config.FileName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is not staged: git add %[1]s, or write one with remembrancer init", config.FileName)
	}
	if err != nil {
		return nil, err
	}
	p := &project{repo: repo, root: repo.Root()}
	if p.cfg, err = config.Parse(config.FileName, data); err != nil {
		return nil, misused("%v", err)
	}
	p.layout = covenant.Layout{Ops: p.cfg.Paths.Ops, Docs: p.cfg.Paths.Docs}
	return p, nil
}

// innerRepo is a repository of its own, in a temporary directory, with the HEAD
// and the history of the real one.
type innerRepo struct {
	work, own     string // its work tree and git directory
	gitDir, index string // of the real repository
}

// innerRepository makes a temporary repository. remove takes it away again, and
// must be called whatever the error is. Nothing is written to the real one: the
// objects of that are borrowed.
func (w *world) innerRepository() (in innerRepo, remove func(), err error) {
	remove = func() {}
	args := []string{"rev-parse", "--show-toplevel", "--absolute-git-dir"}
	for _, name := range []string{"index", "objects", "shallow", "MERGE_HEAD"} {
		args = append(args, "--git-path", name)
	}
	out, err := w.git(w.dir, nil, args...)
	if err != nil {
		return in, remove, err
	}
	places := strings.Split(out, "\n")
	if len(places) != 6 {
		return in, remove, fmt.Errorf("git rev-parse: found %d paths, wanted 6: a path with a line break is not supported", len(places))
	}
	for i := range places {
		places[i] = w.gitPath(strings.TrimSuffix(places[i], "\r"))
	}
	temp, err := os.MkdirTemp("", "remembrancer-hook-")
	if err != nil {
		return in, remove, err
	}
	remove = func() { w.removeAll(temp) }
	// Some tools name what they make after the directory they are in.
	in.work = filepath.Join(temp, "tree", filepath.Base(places[0]))
	in.own, in.gitDir, in.index = filepath.Join(in.work, ".git"), places[1], places[2]
	err = errors.Join(
		os.MkdirAll(filepath.Join(in.own, "objects", "info"), 0o755),
		os.MkdirAll(filepath.Join(in.own, "refs", "heads"), 0o755),
		os.WriteFile(filepath.Join(in.own, "objects", "info", "alternates"), []byte(filepath.ToSlash(places[3])+"\n"), 0o644),
		os.WriteFile(filepath.Join(in.own, "config"), []byte(innerConfig()), 0o644),
		copyFile(filepath.Join(in.own, "shallow"), places[4]),
		copyFile(filepath.Join(in.own, "MERGE_HEAD"), places[5]),
		w.copyHead(in.own),
	)
	if merging := w.merging(); err == nil && len(merging) > 0 {
		err = os.WriteFile(filepath.Join(in.own, "MERGE_HEAD"), []byte(strings.Join(merging, "\n")+"\n"), 0o644)
	}
	return in, remove, err
}

// merging returns the commits that git is about to merge. It runs pre-merge-commit
// before it writes MERGE_HEAD, and until then only the environment names them.
func (w *world) merging() (commits []string) {
	for _, kv := range w.environ {
		name, _, _ := strings.Cut(kv, "=")
		if h, err := gitrepo.ParseHash(strings.TrimPrefix(name, "GITHEAD_")); err == nil && strings.HasPrefix(name, "GITHEAD_") {
			commits = append(commits, h.String())
		}
	}
	return commits
}

// checkOutIndex checks the index out into a temporary repository; remove is that
// of innerRepository. The tree is written to the temporary repository, from a
// copy of the index. The checkout happens under the real configuration, so that
// filters and line endings are those of the work tree.
func (w *world) checkOutIndex() (p *project, remove func(), err error) {
	in, remove, err := w.innerRepository()
	if err != nil {
		return nil, remove, err
	}
	copied := filepath.Join(in.own, "index.staged")
	if err := copyFile(copied, in.index); err != nil {
		return nil, remove, err
	}
	git := func(index string, args ...string) (string, error) {
		// What would write beside the index, into the real repository, is off.
		off := []string{"-c", "core.splitIndex=false", "-c", "core.fsmonitor=false", "-c", "core.untrackedCache=false", "-c", "index.sparse=false"}
		return w.git(in.work, []string{
			"GIT_DIR=" + in.gitDir, "GIT_WORK_TREE=" + in.work, "GIT_OBJECT_DIRECTORY=" + filepath.Join(in.own, "objects"), "GIT_INDEX_FILE=" + index,
		}, append(off, args...)...)
	}
	name, err := git(copied, "write-tree")
	if err != nil {
		return nil, remove, err
	}
	index := filepath.Join(in.own, "index")
	if _, err := git(index, "read-tree", name); err != nil {
		return nil, remove, err
	}
	if _, err := git(index, "checkout-index", "--all", "--index", "--quiet"); err != nil {
		return nil, remove, err
	}
	hash, err := gitrepo.ParseHash(name)
	if err != nil {
		return nil, remove, err
	}
	repo, err := gitrepo.Open(in.work)
	if err != nil {
		return nil, remove, err
	}
	tree, err := repo.TreeAt(hash)
	if err != nil {
		return nil, remove, err
	}
	p, err = stagedProject(repo, tree)
	return p, remove, errors.Join(err, os.Remove(copied))
}

// innerConfig is the configuration of the temporary repository. Its objects are
// those of the real one, and so is their format, which gitrepo holds to SHA-1.
func innerConfig() string {
	modes := "true"
	if runtime.GOOS == "windows" {
		modes = "false"
	}
	return "[core]\n\trepositoryformatversion = 0\n\tbare = false\n\tfilemode = " + modes + "\n\tsymlinks = " + modes + "\n[gc]\n\tauto = 0\n"
}

// copyHead gives the temporary repository the branch and commit of the real one.
func (w *world) copyHead(own string) error {
	// Both fail where there is nothing to name: on no branch, before a first commit.
	branch, _ := w.git(w.dir, nil, "symbolic-ref", "--quiet", "HEAD")
	commit, _ := w.git(w.dir, nil, "rev-parse", "--quiet", "--verify", "HEAD^{commit}")
	switch {
	case branch == "" && commit == "":
		return errors.New("HEAD names neither a branch nor a commit")
	case branch == "":
		return os.WriteFile(filepath.Join(own, "HEAD"), []byte(commit+"\n"), 0o644)
	case commit != "":
		ref := filepath.Join(own, filepath.FromSlash(branch))
		if err := errors.Join(os.MkdirAll(filepath.Dir(ref), 0o755), os.WriteFile(ref, []byte(commit+"\n"), 0o644)); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(own, "HEAD"), []byte("ref: "+branch+"\n"), 0o644)
}

// copyFile copies a file if it is there.
func copyFile(to, from string) error {
	data, err := os.ReadFile(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o600)
}

// removeAll removes a directory, also where a test made directories that nobody
// may write to, such as a cache of modules.
func (w *world) removeAll(dir string) {
	if os.RemoveAll(dir) == nil {
		return
	}
	if root, err := os.OpenRoot(dir); err == nil {
		_ = fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, _ error) error {
			if d != nil && d.IsDir() {
				_ = root.Chmod(path, 0o700)
			}
			return nil
		})
		root.Close()
	}
	if err := os.RemoveAll(dir); err != nil {
		w.note("note: %s is left: %v", dir, err)
	}
}

// withoutGit is an environment in which git finds the repository that it is in.
// What chooses the user's own configuration and transport stays.
func withoutGit(environ []string) []string {
	keep := []string{"GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM", "GIT_SSH", "GIT_SSH_COMMAND"}
	return slices.DeleteFunc(slices.Clone(environ), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		name = strings.ToUpper(name)
		return (strings.HasPrefix(name, "GIT_") || strings.HasPrefix(name, "GITHEAD_")) && !slices.Contains(keep, name)
	})
}

// lastOf returns the value of a variable, as a process would see it.
func lastOf(environ []string, name string) string {
	for _, kv := range slices.Backward(environ) {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}

// lastBytes keeps the end of an output.
type lastBytes struct{ data []byte }

const keptOutput = 16 << 10 // bytes

func (l *lastBytes) Write(p []byte) (int, error) {
	l.data = append(l.data, p[max(0, len(p)-keptOutput):]...)
	if n := len(l.data) - keptOutput; n > 0 {
		l.data = append(l.data[:0], l.data[n:]...)
	}
	return len(p), nil
}

// showEnd shows the last lines of an output.
func (w *world) showEnd(r *action.Runner, end *lastBytes) error {
	const most = 40
	lines := bytes.SplitAfter(bytes.TrimRight(end.data, "\n"), []byte("\n"))
	shown := bytes.Join(lines[max(0, len(lines)-most):], nil)
	if len(shown) == 0 {
		return nil
	}
	out, err := r.Untrusted(w.stderr)
	if err != nil {
		return err
	}
	_, err = io.WriteString(out, string(shown)+"\n")
	return errors.Join(err, out.Close())
}
