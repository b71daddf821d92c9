package suite

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp/cmpopts"
	"go.yaml.in/yaml/v3"
	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/judge"
)

var env = []string{"PATH=/usr/local/bin:/usr/bin:/bin"}

// read makes a suite of tests that are written without the frame around them.
func read(t *testing.T, tests string) *Suite {
	t.Helper()
	s, err := Parse("smoke.yaml", []byte("version: 1\ntests:\n"+tests))
	assert.NilError(t, err)
	return s
}

func run(t *testing.T, s *Suite, o Options) []Result {
	t.Helper()
	if o.Env == nil {
		o.Env = env
	}
	results, err := s.Run(t.Context(), o)
	assert.NilError(t, err)
	return results
}

// one runs one test and returns what became of it.
func one(t *testing.T, dir, test string) Result {
	t.Helper()
	results := run(t, read(t, "  - {id: a, "+test+"}\n"), Options{Dir: dir})
	assert.Equal(t, len(results), 1)
	return results[0]
}

func TestCommandsAreJudgedByExitAndOutput(t *testing.T) {
	for _, test := range []struct {
		yaml    string
		status  judge.Status
		message string
	}{
		{`run: ["true"]`, judge.Pass, ""},
		{`run: [sh, -c, "exit 3"], exit: 3`, judge.Pass, ""},
		{`run: [sh, -c, "exit 3"]`, judge.Fail, "exit status 3, wanted 0"},
		{`run: ["true"], exit: 1`, judge.Fail, "exit status 0, wanted 1"},
		{`run: echo one && echo two, stdout: {matches: ^two$}`, judge.Pass, ""},
		{`run: echo one && echo two, stdout: {matches: ^three$}`, judge.Fail, "standard output does not match ^three$"},
		{`run: echo two >&2, stdout: {matches: two}`, judge.Fail, "standard output does not match two"},
		{`run: [cat], stdin: in, stdout: {matches: ^in$}`, judge.Pass, ""},
		{`run: [cat], stdout: {matches: \A\z}`, judge.Pass, ""},
		{`run: echo, stdout: {matches: \A\z}`, judge.Fail, `standard output does not match \A\z`},
		{`run: 'test "$HOME-$LANG" = "-C x"', env: {LANG: C x}`, judge.Pass, ""},
		// Neither a line nor a pipe swallows a failure.
		{`run: "false\ntrue"`, judge.Fail, "exit status 1, wanted 0"},
		{`run: false | cat`, judge.Fail, "exit status 1, wanted 0"},
		{`run: no-such-program-here`, judge.Error, "exit status 127: the shell could not find or start a command"},
		{`run: exit 127, exit: 127`, judge.Pass, ""},
		{`run: [no-such-program-here]`, judge.Error, `could not start: "no-such-program-here" is not in PATH`},
		{`run: [no-such-program-here], exit: 127`, judge.Error, `could not start: "no-such-program-here" is not in PATH`},
		{`run: [sh, -c, "kill -9 $$"]`, judge.Error, "the command was killed (signal: killed)"},
		{`run: [yes], timeout: 200ms`, judge.Fail, "not done after 200ms"},
		{`run: "head -c 9000000 /dev/zero"`, judge.Error, "more than 8 MiB to look at"},
		{`run: "head -c 9000000 /dev/zero >&2"`, judge.Pass, ""},
	} {
		r := one(t, t.TempDir(), test.yaml)
		if test.yaml == `run: [yes], timeout: 200ms` && r.Status == judge.Error {
			continue // a fast machine prints 8 MiB sooner
		}
		assert.Equal(t, r.Message, test.message, test.yaml)
		assert.Equal(t, r.Status, test.status, test.yaml)
	}
}

func TestAValueIsComparedAsJSONMeansIt(t *testing.T) {
	for _, test := range []struct{ data, claim, message string }{
		{`{"a":{"b":[1,2.50,"x",true,null]}}`, `path: a.b.1, equals: 2.5`, ""},
		{`{"a":{"b":[1,2.50,"x",true,null]}}`, `path: a.b.2, equals: x`, ""},
		{`{"a":{"b":[1,2.50,"x",true,null]}}`, `path: a.b.3, equals: true`, ""},
		{`{"a":{"b":[1,2.50,"x",true,null]}}`, `path: a.b.4, equals: null`, ""},
		{`{"a":{"b":[1,2.50,"x",true,null]}}`, `path: 'a.b.#', equals: 5`, ""},
		{`{"a":{"b":[1,2.50,"x",true,null]}}`, `path: 'a.b.#', equals: 6`, "has 5 at a.b.#, wanted 6"},
		{`{"a":{"b":[1,2.50,"x",true,null]}}`, `path: a.b.5, equals: null`, "has nothing at a.b.5, wanted null"},
		{`{"a.b":"","a":{"b":"no"}}`, `path: 'a\.b', equals: ""`, ""},
		{`{"a":"1"}`, `path: a, equals: 1`, `has "1" at a, wanted 1`},
		{`{"a":1}`, `path: a, equals: "1"`, `has 1 at a, wanted "1"`},
		{`{"a":false}`, `path: a, equals: true`, `has false at a, wanted true`},
		{`{"a":1e2}`, `path: a, equals: 100`, ""},
		{`{"a":9007199254740993}`, `path: a, equals: 9007199254740993`, ""},
		{`{"a":9007199254740993}`, `path: a, equals: 9007199254740992`, "has 9007199254740993 at a, wanted 9007199254740992"},
		{`{"a":1`, `path: a, equals: 1`, "is not JSON"},
		{``, `path: a, equals: 1`, "is not JSON"},
		{`{"a":1} {"a":2}`, `path: a, equals: 1`, "is not JSON"},
	} {
		r := one(t, t.TempDir(), fmt.Sprintf(`run: [cat], stdin: %q, stdout: {json: {%s}}`, test.data, test.claim))
		assert.Equal(t, strings.TrimPrefix(r.Message, "standard output "), test.message, test.data+" "+test.claim)
		assert.Equal(t, r.Status == judge.Pass, test.message == "")
	}
}

func TestFilesAreJudgedInsideTheDirectory(t *testing.T) {
	dir := t.TempDir()
	text := []byte("MIT License\n")
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "LICENSE"), text, 0o644))
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "tool"), nil, 0o755))
	assert.NilError(t, os.Mkdir(filepath.Join(dir, "sub"), 0o755))
	assert.NilError(t, os.Symlink("../tool", filepath.Join(dir, "sub", "in")))
	assert.NilError(t, os.Symlink("/etc/passwd", filepath.Join(dir, "out")))
	assert.NilError(t, os.Symlink("nowhere", filepath.Join(dir, "dangling")))
	sum := sha256.Sum256(text)
	good, bad := hex.EncodeToString(sum[:]), strings.Repeat("0", 64)
	large, err := os.Create(filepath.Join(dir, "large"))
	assert.NilError(t, err)
	assert.NilError(t, large.Truncate(maxSeen+1))
	assert.NilError(t, large.Close())
	largeSum := sha256.Sum256(make([]byte, maxSeen+1))
	for _, test := range []struct {
		yaml    string
		status  judge.Status
		message string
	}{
		{`path: LICENSE, exists: true, matches: ^MIT, sha256: ` + good, judge.Pass, ""},
		{`path: LICENSE, sha256: "` + bad + `"`, judge.Fail, "LICENSE has the SHA-256 " + good + ", wanted " + bad},
		{`path: LICENSE, matches: ^GPL`, judge.Fail, "LICENSE does not match ^GPL"},
		{`path: COPYING, exists: true`, judge.Fail, "COPYING is not there"},
		{`path: COPYING, executable: false`, judge.Fail, "COPYING is not there"},
		{`path: COPYING, exists: false`, judge.Pass, ""},
		{`path: LICENSE, exists: false`, judge.Fail, "LICENSE is there, wanted nothing"},
		{`path: sub, exists: false`, judge.Fail, "sub is there, wanted nothing"},
		{`path: dangling, exists: false`, judge.Fail, "dangling is there, wanted nothing"},
		{`path: dangling, exists: true`, judge.Fail, "dangling is not there"},
		{`path: sub, exists: true`, judge.Fail, "sub is not a regular file"},
		{`path: tool, executable: true`, judge.Pass, ""},
		{`path: sub/in, executable: true`, judge.Pass, ""},
		{`path: tool, executable: false`, judge.Fail, "tool is executable"},
		{`path: LICENSE, executable: true`, judge.Fail, "LICENSE is not executable"},
		{`path: out, exists: true`, judge.Error, "statat out: path escapes from parent"},
		{`path: out/x, exists: false`, judge.Error, "statat out/x: path escapes from parent"},
		{`path: large, matches: x`, judge.Error, "more than 8 MiB to look at"},
		{`path: large, sha256: ` + hex.EncodeToString(largeSum[:]), judge.Pass, ""},
	} {
		r := one(t, dir, "file: {"+test.yaml+"}")
		assert.Equal(t, r.Message, test.message, test.yaml)
		assert.Equal(t, r.Status, test.status, test.yaml)
	}
}

func TestAServerIsJudgedByWhatItAnswersItself(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"status":"ok"}`) }))
	defer other.Close()
	mux := http.NewServeMux()
	mux.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"status":"ok"}`) })
	mux.HandleFunc("/down", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "down", http.StatusServiceUnavailable) })
	mux.Handle("/moved", http.RedirectHandler("/health", http.StatusFound))
	mux.Handle("/loop", http.RedirectHandler("/loop", http.StatusFound))
	mux.Handle("/away", http.RedirectHandler(other.URL+"/health", http.StatusFound))
	mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, maxSeen+1)) })
	mux.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/broken", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		fmt.Fprint(w, "short")
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	for _, test := range []struct {
		yaml    string
		status  judge.Status
		message string
	}{
		{`/health, json: {path: status, equals: ok}, matches: '"ok"'`, judge.Pass, ""},
		{`/health, json: {path: status, equals: down}`, judge.Fail, `the answer has "ok" at status, wanted "down"`},
		{`/health, matches: down`, judge.Fail, "the answer does not match down"},
		{`/down`, judge.Fail, "status 503, wanted 200"},
		{`/down, status: 503, matches: ^down$`, judge.Pass, ""},
		{`/none`, judge.Fail, "status 404, wanted 200"},
		{`/moved, matches: ok`, judge.Pass, ""},
		{`/moved, status: 302`, judge.Pass, ""},
		{`/away, status: 302`, judge.Pass, ""},
		{`/away, matches: ok`, judge.Fail, "redirected to " + other.URL + "/health, which is not followed: name that address if it is meant"},
		{`/loop`, judge.Fail, "redirected more than 3 times"},
		{`/large`, judge.Pass, ""},
		{`/large, matches: x`, judge.Error, "more than 8 MiB to look at"},
		{`/broken, matches: short`, judge.Fail, "the answer broke off: unexpected EOF"},
	} {
		r := one(t, "", `http: {url: `+server.URL+test.yaml+`}`)
		assert.Equal(t, r.Message, test.message, test.yaml)
		assert.Equal(t, r.Status, test.status, test.yaml)
	}
	slow := one(t, "", `http: {url: `+server.URL+`/slow}, timeout: 100ms`)
	assert.Equal(t, slow.Message, "not done after 100ms")
	address := strings.TrimPrefix(server.URL, "http://")
	assert.Equal(t, one(t, "", `tcp: "`+address+`"`).Status, judge.Pass)
	server.Close()
	for _, gone := range []string{`http: {url: ` + server.URL + `}`, `tcp: "` + address + `"`} {
		r := one(t, "", gone)
		assert.Equal(t, r.Status, judge.Fail)
		assert.Assert(t, strings.Contains(r.Message, "connection refused"), r.Message)
	}
}

func TestResultsComeInTheOrderOfTheFile(t *testing.T) {
	s := read(t, `
  - {id: slow, run: sleep 0.2}
  - {id: wrong, run: "echo no; false"}
  - {id: quick, run: ["true"]}
`)
	var out bytes.Buffer
	got := run(t, s, Options{Progress: &out, Parallel: 3})
	assert.DeepEqual(t, got, []Result{
		{ID: "slow", Line: 4, Status: judge.Pass, Attempts: 1},
		{ID: "wrong", Line: 5, Status: judge.Fail, Attempts: 1, Message: "exit status 1, wanted 0", Output: "no\n"},
		{ID: "quick", Line: 6, Status: judge.Pass, Attempts: 1},
	}, cmpopts.IgnoreFields(Result{}, "Duration"))
	assert.Assert(t, got[0].Duration >= 200*time.Millisecond)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	assert.Equal(t, len(lines), 4, out.String())
	assert.Assert(t, strings.HasPrefix(lines[3], "pass 3 of 3 slow ("), out.String())
	assert.DeepEqual(t, s.IDs(), []string{"slow", "wrong", "quick"})
}

func TestProgressShowsMarksToPeopleAndWordsToLogs(t *testing.T) {
	s := read(t, `
  - {id: a, run: ["true"]}
  - {id: b, run: "echo 'why not'; seq 30; exit 1"}
`)
	second := time.Unix(0, 0)
	clock := func() time.Time { return second }
	for _, terminal := range []bool{true, false} {
		var out bytes.Buffer
		run(t, s, Options{Progress: &out, Terminal: terminal, Parallel: 1, Now: clock})
		good, bad := "pass", "fail"
		if terminal {
			good, bad = "✓", "✗"
		}
		want := good + " 1 of 2 a (0.00s)\n" + bad + " 2 of 2 b (0.00s): exit status 1, wanted 0\n"
		for i := 11; i <= 30; i++ {
			want += fmt.Sprintf("    %d\n", i)
		}
		assert.Equal(t, out.String(), want)
	}
}

func TestTestsRunSideBySide(t *testing.T) {
	// Each waits for the other: one after the other they would never end.
	dir := t.TempDir()
	s := read(t, `
  - {id: a, run: "touch a; until test -e b; do sleep 0.01; done"}
  - {id: b, run: "touch b; until test -e a; do sleep 0.01; done"}
`)
	for _, r := range run(t, s, Options{Dir: dir}) {
		assert.Equal(t, r.Status, judge.Pass, r.Message)
	}
}

func TestAPassAfterARetryIsFlaky(t *testing.T) {
	dir := t.TempDir()
	test := `run: "echo x >> tries; test $(wc -l < tries) = 3", retries: %d`
	assert.DeepEqual(t, one(t, dir, fmt.Sprintf(test, 2)),
		Result{ID: "a", Line: 3, Status: judge.Pass, Flaky: true, Attempts: 3, Message: "passed at attempt 3; the one before: exit status 1, wanted 0"},
		cmpopts.IgnoreFields(Result{}, "Duration"))
	assert.NilError(t, os.Remove(filepath.Join(dir, "tries")))
	assert.DeepEqual(t, one(t, dir, fmt.Sprintf(test, 1)),
		Result{ID: "a", Line: 3, Status: judge.Fail, Attempts: 2, Message: "exit status 1, wanted 0"},
		cmpopts.IgnoreFields(Result{}, "Duration"))
}

func TestWhatIsNotDoneWhenTheRunEndsIsAnError(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	var begun atomic.Bool
	go func() {
		for !begun.Load() {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(100 * time.Millisecond)
		cancel(errors.New("somebody\nstopped it"))
	}()
	s := read(t, `
  - {id: a, run: ["true"]}
  - {id: b, run: sleep 30, retries: 5}
  - {id: c, run: ["true"]}
`)
	results, err := s.Run(ctx, Options{Env: env, Parallel: 1, Progress: writer(func(p []byte) { begun.Store(true) })})
	assert.NilError(t, err)
	assert.DeepEqual(t, results, []Result{
		{ID: "a", Line: 4, Status: judge.Pass, Attempts: 1},
		{ID: "b", Line: 5, Status: judge.Error, Attempts: 1, Message: "not done: the run was ended: somebody stopped it"},
		{ID: "c", Line: 6, Status: judge.Error, Message: "not begun: the run was ended: somebody stopped it"},
	}, cmpopts.IgnoreFields(Result{}, "Duration"))
}

type writer func(p []byte)

func (w writer) Write(p []byte) (int, error) { w(p); return len(p), nil }

func TestADirectoryThatIsNotThereIsAnError(t *testing.T) {
	_, err := read(t, "  - {id: a, run: x}").Run(t.Context(), Options{Dir: filepath.Join(t.TempDir(), "none")})
	assert.ErrorContains(t, err, "directory of the tests: ")
}

func TestOutputIsBoundedAndTame(t *testing.T) {
	r := one(t, t.TempDir(), `run: "printf 'é%.0s' $(seq 5000); printf '\\033]0;title\\007\\033[1mred\\033[0m\\r\\n\\001'; exit 1"`)
	assert.Assert(t, len(r.Output) <= maxTail)
	assert.Assert(t, strings.HasSuffix(r.Output, "éred\n�"), "%q", r.Output[len(r.Output)-20:])
}

func TestEveryErrorNamesFileAndLine(t *testing.T) {
	const head = "version: 1\ntests:\n"
	for _, test := range []struct{ yaml, want string }{
		{"", `smoke.yaml:1: the file is empty, wanted "version: 1" and tests`},
		{"- a", "smoke.yaml:1: the file: found a list, wanted a mapping with keys of version, parallel, tests"},
		{"tests:\n  - {id: a, run: x}", `smoke.yaml:1: version is missing, wanted "version: 1"`},
		{"version: 1", "smoke.yaml:1: tests is missing: a suite of nothing tests nothing"},
		{"version: 1\ntests: []", "smoke.yaml:2: tests: found an empty list, wanted a list of at least one entry"},
		{"version: 2\ntests: [{id: a, run: x}]", "smoke.yaml:1: version: found 2, wanted 1"},
		{head + "  - {id: a, run: x}\n---\n", "smoke.yaml:4: found a second document, wanted one"},
		{"version: [", "smoke.yaml:1: not YAML: did not find expected node content"},
		{"version: 1\ntest: []", "smoke.yaml:2: unknown key \"test\"; did you mean \"tests\"? known keys: version, parallel, tests\nsmoke.yaml:1: tests is missing: a suite of nothing tests nothing"},
		{"version: 1\nparallel: 65\ntests: [{id: a, run: x}]", "smoke.yaml:2: parallel: found 65, wanted 1 to 64"},
		{"version: 1\n\ttests:", "smoke.yaml:2: found a tab, wanted spaces"},
		{"version: 1 # \xff", "smoke.yaml:1: not UTF-8"},
		{"version: 1 # \u200b\u2028", "smoke.yaml:1: found the invisible character U+2028"},
		{"# " + strings.Repeat("x", maxFile), "smoke.yaml:1: 262146 bytes, wanted at most 262144"},
		{head + "  - x", "smoke.yaml:3: a test: found the text \"x\", wanted a mapping with keys of id, run, exit, stdout, stdin, env, http, tcp, file, timeout, retries"},
		{head + "  - run: x", "smoke.yaml:3: id is missing: each test needs a name of its own"},
		{head + "  - id: a", "smoke.yaml:3: a test: found none, wanted exactly one of run, http, tcp, file"},
		{head + "  - {id: a, run: x, tcp: 'h:1'}", "smoke.yaml:3: a test: found run and tcp, wanted exactly one of run, http, tcp, file"},
		{head + "  - {id: a, tcp: 'h:1', exit: 1}", "smoke.yaml:3: exit belongs to run, which this test does not have"},
		{head + "  - {id: a, run: x}\n  - {id: a, run: y}", `smoke.yaml:4: id: "a" is given twice, first on line 3`},
		{head + "  - {id: '##[error]', run: x}", `smoke.yaml:3: id: found "##[error]", wanted at most 100 letters, digits and . _ - / : that begin with a letter or digit`},
		{head + "  - {id: 1, run: x}", `smoke.yaml:3: id: found 1, wanted text: write "1"`},
		{head + "  - id: a\n    timout: 1s\n    run: x", `smoke.yaml:4: unknown key "timout"; did you mean "timeout"? known keys: id, run, exit, stdout, stdin, env, http, tcp, file, timeout, retries`},
		{head + "  - {id: a, run: x, run: y}", `smoke.yaml:3: key "run" is given twice, first on line 3`},
		{head + "  - {id: a, run: []}", "smoke.yaml:3: run: found an empty list, wanted a list of at least one entry"},
		{head + "  - {id: a, run: [sleep, 5]}", `smoke.yaml:3: run: found 5, wanted text: write "5"`},
		{head + "  - {id: a, run: ['']}", "smoke.yaml:3: run: the first word is empty, wanted a program"},
		{head + "  - {id: a, run: ' '}", `smoke.yaml:3: run: found " ", wanted a shell line without invisible characters`},
		{head + "  - {id: a, run: {}}", "smoke.yaml:3: run: found a mapping, wanted a list of words or one shell line"},
		{head + "  - {id: a, run: x, exit: 256}", "smoke.yaml:3: exit: found 256, wanted 0 to 255"},
		{head + "  - {id: a, run: x, exit: 0x1}", "smoke.yaml:3: exit: found 0x1, wanted a whole number"},
		{head + "  - {id: a, run: x, stdout: {}}", "smoke.yaml:3: stdout: found nothing, wanted matches or json"},
		{head + "  - {id: a, run: x, stdout: {match: y}}", "smoke.yaml:3: unknown key \"match\"; did you mean \"matches\"? known keys: matches, json\nsmoke.yaml:3: stdout: found nothing, wanted matches or json"},
		{head + "  - {id: a, run: x, stdout: {matches: '('}}", "smoke.yaml:3: matches: \"(\" is not a regular expression: missing closing ): `(?m)(`"},
		{head + "  - {id: a, run: x, stdout: {matches: '.*'}}", `smoke.yaml:3: matches: any text matches ".*", wanted a pattern that demands something; \A\z is no output`},
		{head + "  - {id: a, run: x, stdout: {matches: '^$'}}", `smoke.yaml:3: matches: any text matches "^$", wanted a pattern that demands something; \A\z is no output`},
		{head + "  - {id: a, run: x, stdout: {json: {path: a}}}", "smoke.yaml:3: json: equals is missing"},
		{head + "  - {id: a, run: x, stdout: {json: {path: '!1', equals: 1}}}", `smoke.yaml:3: path: found "!1", wanted keys and indexes joined by dots, such as checks.0.ok`},
		{head + "  - {id: a, run: x, stdout: {json: {path: 'a\\', equals: 1}}}", `smoke.yaml:3: path: found "a\\", wanted keys and indexes joined by dots, such as checks.0.ok`},
		{head + "  - {id: a, run: x, stdout: {json: {path: a, equals: 017}}}", `smoke.yaml:3: equals: found 017, wanted a value as JSON writes it: for text write "017"`},
		{head + "  - {id: a, run: x, stdout: {json: {path: a, equals: [1]}}}", "smoke.yaml:3: equals: found a list, wanted text, a number, true, false or null"},
		{head + "  - {id: a, run: x, env: {1A: b}}", `smoke.yaml:3: env: found "1A", wanted the name of a variable such as LANG`},
		{head + "  - {id: a, run: x, env: {A: 1}}", `smoke.yaml:3: A: found 1, wanted text: write "1"`},
		{head + "  - {id: a, run: x, env: {A: \"b\\0\"}}", "smoke.yaml:3: A: found a zero byte, which no variable can have"},
		{head + "  - {id: a, http: {}}", "smoke.yaml:3: http: url is missing"},
		{head + "  - {id: a, http: {url: 'ftp://h/'}}", `smoke.yaml:3: url: found "ftp://h/", wanted an address such as http://127.0.0.1:8080/health`},
		{head + "  - {id: a, http: {url: 'https://me:secret@h/'}}", "smoke.yaml:3: url: found a name or password in it, which do not belong in a file"},
		{head + "  - {id: a, http: {url: 'http://h/', status: 600}}", "smoke.yaml:3: status: found 600, wanted 100 to 599"},
		{head + "  - {id: a, tcp: localhost}", `smoke.yaml:3: tcp: found "localhost", wanted a host and a port such as 127.0.0.1:5432`},
		{head + "  - {id: a, tcp: 'h:0'}", `smoke.yaml:3: tcp: found "h:0", wanted a host and a port such as 127.0.0.1:5432`},
		{head + "  - {id: a, file: {path: x}}", "smoke.yaml:3: file: nothing is demanded of it, wanted exists, sha256, matches or executable"},
		{head + "  - {id: a, file: {exists: true}}", "smoke.yaml:3: file: path is missing"},
		{head + "  - {id: a, file: {path: x, exists: false, matches: y}}", "smoke.yaml:3: file: exists: false stands alone: a file that is not there is nothing else"},
		{head + "  - {id: a, file: {path: ../x, exists: true}}", `smoke.yaml:3: path: found "../x", wanted a path relative to the directory of the tests, with slashes and without ".."`},
		{head + "  - {id: a, file: {path: /x, exists: true}}", `smoke.yaml:3: path: found "/x", wanted a path relative to the directory of the tests, with slashes and without ".."`},
		{head + "  - {id: a, file: {path: x, exists: yes}}", `smoke.yaml:3: exists: found the text "yes", wanted true or false`},
		{head + "  - {id: a, file: {path: x, sha256: AB}}", `smoke.yaml:3: sha256: found "AB", wanted 64 lower-case hex digits`},
		{head + "  - {id: a, run: x, timeout: 1ms}", `smoke.yaml:3: timeout: found "1ms", wanted a duration from 100ms to 1h, such as 30s`},
		{head + "  - {id: a, run: x, retries: 6}", "smoke.yaml:3: retries: found 6, wanted 0 to 5"},
		{head + "  - &a {id: a, run: x}\n  - *a", "smoke.yaml:3: found the anchor \"a\", wanted the value alone\nsmoke.yaml:4: found an alias, wanted the value itself"},
		{head + "  - {id: a, run: !!str x}", `smoke.yaml:3: found the tag "!!str", wanted the value alone`},
		{head + "  - {id: a, run: x, env: {<<: {A: b}}}", "smoke.yaml:3: found a merge key, wanted the keys themselves"},
		{head + strings.Repeat("  - {}\n", 6), strings.Join(slices.Collect(func(yield func(string) bool) {
			for i := range 5 {
				yield(fmt.Sprintf("smoke.yaml:%d: id is missing: each test needs a name of its own", i+3))
				yield(fmt.Sprintf("smoke.yaml:%d: a test: found none, wanted exactly one of run, http, tcp, file", i+3))
			}
			yield("smoke.yaml:8: more errors are not shown")
		}), "\n")},
		{head + strings.Repeat("  - {}\n", 1001), "smoke.yaml:3: tests: found 1001 tests, wanted at most 1000"},
	} {
		s, err := Parse("smoke.yaml", []byte(test.yaml))
		assert.Error(t, err, test.want)
		assert.Assert(t, s == nil)
	}
}

// keys are all that a suite may hold; below env any name may stand.
var keys = []string{
	"version", "parallel", "tests", "id", "run", "exit", "stdout", "stdin", "env", "http", "tcp", "file", "timeout", "retries",
	"matches", "json", "path", "equals", "url", "status", "exists", "sha256", "executable",
}

func strangers(n *yaml.Node, above string) (found []string) {
	for i, c := range n.Content {
		if n.Kind != yaml.MappingNode {
			found = append(found, strangers(c, above)...)
		} else if i%2 == 1 {
			found = append(found, strangers(c, n.Content[i-1].Value)...)
		} else if above != "env" && !slices.Contains(keys, c.Value) {
			found = append(found, c.Value)
		}
	}
	return found
}

// What parses has known keys only, tests with ids of their own, and claims that
// can be held against anything; what does not is refused with file and line.
func FuzzParse(f *testing.F) {
	example, err := os.ReadFile(filepath.Join("..", "..", "examples", "smoke.yaml"))
	assert.NilError(f, err)
	f.Add(example, []byte(`{"a":[1,"x"]}`))
	f.Add([]byte("version: 1\ntests: [{id: a, run: x, stdout: {json: {path: a.#.b, equals: 1e3}}, env: {A: b}}]"), []byte(`{"a":[{"b":1}]}`))
	f.Add([]byte("version: 1\ntests: [{id: a, file: {path: x, exists: false}}]"), []byte("x"))
	f.Add([]byte("version: 1\ntests: [{id: a, tcp: '[::1]:80'}]\nextra: 1"), []byte(""))
	f.Fuzz(func(t *testing.T, data, seen []byte) {
		s, err := Parse("f", data)
		if err != nil {
			assert.Assert(t, s == nil)
			for line := range strings.SplitSeq(err.Error(), "\n") {
				assert.Assert(t, strings.HasPrefix(line, "f:") && line[2] >= '1' && line[2] <= '9', "%q", line)
			}
			return
		}
		var doc yaml.Node
		assert.NilError(t, yaml.Unmarshal(data, &doc))
		assert.Equal(t, len(strangers(&doc, "")), 0)
		ids := s.IDs()
		assert.Assert(t, len(ids) > 0 && len(ids) <= maxTests)
		slices.Sort(ids)
		assert.Equal(t, len(slices.Compact(ids)), len(s.tests))
		for _, test := range s.tests {
			assert.Assert(t, test.timeout >= minTimeout && test.timeout <= maxTimeout && test.retries <= maxRetries)
			switch c := test.claim.(type) {
			case *command:
				assert.Assert(t, (len(c.argv) > 0) != (c.shell != ""))
				c.stdout.missing(seen)
			case *webPage:
				c.body.missing(seen)
			case *openPort:
				_, _, err := net.SplitHostPort(c.address)
				assert.NilError(t, err)
			case *file:
				assert.Assert(t, filepath.IsLocal(filepath.FromSlash(c.path)))
				c.content.missing(seen)
			default:
				t.Fatalf("%s claims %T", test.id, c)
			}
		}
	})
}

func TestTheExampleRuns(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"status":"ok"}`) }))
	defer server.Close()
	example, err := os.ReadFile(filepath.Join("..", "..", "examples", "smoke.yaml"))
	assert.NilError(t, err)
	here := bytes.ReplaceAll(example, []byte("127.0.0.1:8080"), []byte(strings.TrimPrefix(server.URL, "http://")))
	assert.Assert(t, !bytes.Equal(here, example))
	s, err := Parse("smoke.yaml", here)
	assert.NilError(t, err)
	dir := t.TempDir()
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "LICENSE"), []byte("The MIT License\n"), 0o644))
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "SMOKE_TEST.sh"), []byte("#!/bin/sh\n"), 0o755))
	for _, r := range run(t, s, Options{Dir: dir}) {
		assert.Equal(t, r.Status, judge.Pass, "%s: %s", r.ID, r.Message)
	}
}

// The keys that the package comment shows are those that the parser knows.
func TestTheCommentShowsEveryKey(t *testing.T) {
	source, err := os.ReadFile("suite.go")
	assert.NilError(t, err)
	comment, _, _ := strings.Cut(string(source), "\npackage suite")
	for _, k := range keys {
		assert.Assert(t, strings.Contains(comment, k), k)
	}
}
