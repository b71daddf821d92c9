package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/tidwall/gjson"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/golden"

	"github.com/vaultmesh/remembrancer/pkg/action"
	"github.com/vaultmesh/remembrancer/pkg/tsa/tsatest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"remembrancer": main})
}

// The scripts are the command line as a person types it: real processes, real
// git, real gpg. Each has a home, a state directory and a GnuPG home of its own
// and inherits nothing from a runner that this test may itself run under.
//
// Beyond testscript's own commands:
//
//	exits N cmd args...      run and demand this exit status
//	covenant NAME            a repository under the covenant, pushed to NAME.git
//	commit MESSAGE           commit all that is there
//	let VAR cmd args...      run and keep standard output, trimmed, in a variable
//	json FILE PATH VALUE     demand a value of a JSON file (gjson's paths)
//	runner EVENT [PAYLOAD]   from here on, a runner of workflows calls, in this directory
//	gives NAME VALUE         demand an output of the step, read as a runner reads it
//	edit FILE OLD NEW        replace the one occurrence of OLD
//	mode FILE OCTAL          demand the permissions of a file
//	save NAME DIR            keep the names, modes and digests of all files in DIR but .git
//	same NAME DIR            demand that they are still those
//	forge serve              a forge with the repository acme/app, whose rules can be written; see cmdForge
//	authority serve NAME...  time-stamping authorities, pinned in ops/certs/tsa; see cmdAuthority
//	tsa serve NAME           a time-stamping authority; see cmdTSA
//	pulls serve DIR.git      a forge with the pull requests of a bare repository; see cmdPulls
//	releases serve           a forge with the releases of acme/app; see cmdReleases
//	node start NAME args...  a node in a process of its own; see cmdNode
//	prometheus serve SPEC WINDOW  a Prometheus; see cmdPrometheus
//	card shrinks args...     demand that a scorecard rests on what it cites; see cmdCard
//	ancestor serve FILE      a node that has only the ancestor's tools; see cmdAncestor
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		Setup:               setupScript,
		RequireUniqueNames:  true,
		RequireExplicitExec: false,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":      cmdExits,
			"covenant":   cmdCovenant,
			"commit":     cmdCommit,
			"let":        cmdLet,
			"json":       cmdJSON,
			"runner":     cmdRunner,
			"gives":      cmdGives,
			"edit":       cmdEdit,
			"mode":       cmdMode,
			"save":       cmdSave,
			"same":       cmdSame,
			"pulls":      cmdPulls,
			"releases":   cmdReleases,
			"forge":      cmdForge,
			"authority":  cmdAuthority,
			"tsa":        cmdTSA,
			"node":       cmdNode,
			"ancestor":   cmdAncestor,
			"prometheus": cmdPrometheus,
			"card":       cmdCard,
		},
	})
}

const gitconfig = `[user]
	name = A Person
	email = person@example.com
[init]
	defaultBranch = main
[commit]
	gpgsign = false
[protocol "file"]
	allow = always
[gc]
	auto = 0
`

func setupScript(env *testscript.Env) error {
	home := filepath.Join(env.WorkDir, ".home")
	if err := os.MkdirAll(home, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(home, ".gitconfig"), []byte(gitconfig), 0o600); err != nil {
		return err
	}
	// The path of gpg-agent's socket may have about a hundred bytes, so its home
	// is not below the script's.
	gnupg, err := os.MkdirTemp("", "gpg")
	if err != nil {
		return err
	}
	// Locking a key so that it takes a tenth of a second to unlock is no use here.
	if err := os.WriteFile(filepath.Join(gnupg, "gpg-agent.conf"), []byte("s2k-count 65536\n"), 0o600); err != nil {
		return err
	}
	env.Defer(func() {
		// No agent ran where there is no socket of one.
		if _, err := os.Stat(filepath.Join(gnupg, "S.gpg-agent")); err == nil {
			kill := exec.Command("gpgconf", "--kill", "all")
			kill.Env = append(os.Environ(), "GNUPGHOME="+gnupg)
			_ = kill.Run()
		}
		_ = os.RemoveAll(gnupg)
	})
	env.Values[saved{}] = map[string]string{}
	env.Values[pullsOf{}] = new(*scriptForge)
	env.Values[rulesOf{}] = new(ruleForge)
	env.Values[releasesOf{}] = new(releaseForge)
	env.Values[tsas{}] = map[string]*tsatest.TSA{}
	env.Values[authoritiesOf{}] = map[string]*tsatest.TSA{}
	env.Values[nodesOf{}] = map[string]*nodeProcess{}
	env.Values[prometheusOf{}] = new(prometheusServer)
	packages, err1 := filepath.Abs(filepath.Join("..", "..", "pkg"))
	data, err2 := filepath.Abs("testdata")
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	for name, value := range map[string]string{
		"HOME": home, "REMEMBRANCER_STATE": filepath.Join(env.WorkDir, ".state"), "GNUPGHOME": gnupg,
		"GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C.UTF-8", "PKG": packages, "DATA": data,
	} {
		env.Setenv(name, value)
	}
	return nil
}

func wantArgs(ts *testscript.TestScript, neg bool, args []string, least int, usage string) {
	if neg || len(args) < least {
		ts.Fatalf("usage: %s", usage)
	}
}

func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 2, "exits N cmd args...")
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

const passing = `#!/bin/sh
echo three little tests
echo 'SMOKE_JSON={"pass":3,"total":3}'
`

func cmdCovenant(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 1, "covenant NAME")
	dir := ts.MkAbs(args[0])
	ts.Check(os.Mkdir(dir, 0o755))
	ts.Check(os.WriteFile(filepath.Join(dir, "SMOKE_TEST.sh"), []byte(passing), 0o755))
	git := func(args ...string) { ts.Check(ts.Exec("git", append([]string{"-C", dir}, args...)...)) }
	git("init", "-q")
	git("init", "-q", "--bare", dir+".git")
	git("remote", "add", "origin", dir+".git")
	ts.Check(ts.Exec("sh", "-c", `cd "$0" && remembrancer init --yes --origin "example.com/$1"`, dir, filepath.Base(dir)))
	git("add", "-A")
	git("commit", "-qm", "init")
	git("push", "-q", "-u", "origin", "main")
}

func cmdCommit(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 1, "commit MESSAGE")
	ts.Check(ts.Exec("git", "add", "-A"))
	ts.Check(ts.Exec("git", "commit", "-qm", args[0]))
}

func cmdLet(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 2, "let VAR cmd args...")
	ts.Check(ts.Exec(args[1], args[2:]...))
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}

func cmdJSON(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 3, "json FILE PATH VALUE")
	text := ts.ReadFile(args[0])
	if !gjson.Valid(text) {
		ts.Fatalf("%s is not JSON:\n%s", args[0], text)
	}
	if got := gjson.Get(text, args[1]).String(); got != args[2] {
		ts.Fatalf("%s is %q, want %q", args[1], got, args[2])
	}
}

func cmdRunner(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 1, "runner EVENT [PAYLOAD]")
	ts.Check(ts.Exec("git", "rev-parse", "HEAD"))
	payload := ""
	if len(args) > 1 {
		payload = ts.MkAbs(args[1])
	}
	for name, value := range map[string]string{
		"CI": "true", "GITHUB_ACTIONS": "true", "GITHUB_EVENT_NAME": args[0], "GITHUB_EVENT_PATH": payload,
		"GITHUB_REPOSITORY": "acme/app", "GITHUB_SHA": strings.TrimSpace(ts.ReadFile("stdout")), "GITHUB_RUN_ID": "7", "GITHUB_RUN_ATTEMPT": "1",
		"GITHUB_WORKSPACE": ts.MkAbs("."),
	} {
		ts.Setenv(name, value)
	}
	for name, file := range map[string]string{"GITHUB_OUTPUT": ".output", "GITHUB_STEP_SUMMARY": ".summary"} {
		file = filepath.Join(ts.Getenv("WORK"), file)
		ts.Check(os.WriteFile(file, nil, 0o600))
		ts.Setenv(name, file)
	}
}

var outputRecord = regexp.MustCompile(`(?m)^([a-z0-9-]+)<<(\S+)\n(.*)\n(\S+)$`)

func cmdGives(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 2, "gives NAME VALUE")
	text := ts.ReadFile(ts.Getenv("GITHUB_OUTPUT"))
	found := false
	rest := outputRecord.ReplaceAllStringFunc(text, func(record string) string {
		m := outputRecord.FindStringSubmatch(record)
		if m[2] != m[4] {
			ts.Fatalf("record of %s ends with %q, want %q", m[1], m[4], m[2])
		}
		if m[1] == args[0] {
			found = true
			if m[3] != args[1] {
				ts.Fatalf("output %s is %q, want %q", m[1], m[3], args[1])
			}
		}
		return ""
	})
	if strings.TrimSpace(rest) != "" {
		ts.Fatalf("GITHUB_OUTPUT holds more than records:\n%s", rest)
	}
	if !found {
		ts.Fatalf("no output %s in:\n%s", args[0], text)
	}
}

func cmdEdit(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 3, "edit FILE OLD NEW")
	text := ts.ReadFile(args[0])
	if n := strings.Count(text, args[1]); n != 1 {
		ts.Fatalf("%q is %d times in %s, want once", args[1], n, args[0])
	}
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Replace(text, args[1], args[2], 1)), info.Mode().Perm()))
}

func cmdMode(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 2, "mode FILE OCTAL")
	info, err := os.Lstat(ts.MkAbs(args[0]))
	ts.Check(err)
	if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[1] {
		ts.Fatalf("%s has mode %s, want %s", args[0], got, args[1])
	}
}

// saved is the key of a script's listings by name.
type saved struct{}

// listing names every file of a directory but git's own, with mode and digest.
func listing(ts *testscript.TestScript, dir string) string {
	var b strings.Builder
	top := ts.MkAbs(dir)
	ts.Check(filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path == top {
			return nil
		}
		if err != nil {
			return err
		}
		if d.IsDir() {
			if d.Name() == ".git" {
				return fs.SkipDir
			}
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(top, path)
		if err != nil {
			return err
		}
		content := []byte("a link")
		if info.Mode().IsRegular() {
			if content, err = os.ReadFile(path); err != nil {
				return err
			}
		}
		fmt.Fprintf(&b, "%s %s %x\n", info.Mode(), rel, sha256.Sum256(content))
		return nil
	}))
	return b.String()
}

func cmdSave(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 2, "save NAME DIR")
	ts.Value(saved{}).(map[string]string)[args[0]] = listing(ts, args[1])
}

func cmdSame(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 2, "same NAME DIR")
	was, ok := ts.Value(saved{}).(map[string]string)[args[0]]
	if !ok {
		ts.Fatalf("nothing was saved as %s", args[0])
	}
	if now := listing(ts, args[1]); was != now {
		ts.Fatalf("%s has changed; it was\n%sand is\n%s", args[1], was, now)
	}
}

// ask runs the program within the test, with nothing of the test's environment.
func ask(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	w := &world{
		ctx: context.Background(), dir: t.TempDir(), getenv: func(string) string { return "" }, now: time.Now, rand: rand.Reader,
		stdin: strings.NewReader(""), stdout: &out, stderr: &err,
	}
	code = w.run(args)
	return code, out.String(), err.String()
}

func TestHelpIsGolden(t *testing.T) {
	code, out, stderr := ask(t, "help")
	assert.Equal(t, code, 0)
	assert.Equal(t, stderr, "")
	golden.Assert(t, out, "help/help.golden")
	for _, v := range verbs() {
		words := strings.Fields(v.spec.Verb)
		code, out, stderr := ask(t, append([]string{"help"}, words...)...)
		assert.Equal(t, code, 0)
		assert.Equal(t, stderr, "")
		golden.Assert(t, out, "help/"+strings.Join(words, "-")+".golden")

		code, asked, stderr := ask(t, append(words, "--help")...)
		assert.Equal(t, code, 0)
		assert.Equal(t, stderr, "")
		assert.Equal(t, asked, out)
	}
}

func TestEveryHelpFileIsOfAVerb(t *testing.T) {
	known := map[string]bool{"help.golden": true}
	for _, v := range verbs() {
		known[strings.ReplaceAll(v.spec.Verb, " ", "-")+".golden"] = true
	}
	entries, err := os.ReadDir("testdata/help")
	assert.NilError(t, err)
	for _, e := range entries {
		assert.Assert(t, known[e.Name()], "%s is left over", e.Name())
	}
}

// Runners, shells and documents call actions by their names.
func TestEveryActionIsCalledByItsName(t *testing.T) {
	seen := map[string]bool{}
	for _, v := range verbs() {
		if v.spec.Name == "" {
			continue
		}
		assert.Assert(t, !seen[v.spec.Name], v.spec.Name)
		seen[v.spec.Name] = true
		code, out, _ := ask(t, "action", v.spec.Name, "--help")
		assert.Equal(t, code, 0)
		assert.Equal(t, out, action.Help(v.spec))
	}
}
