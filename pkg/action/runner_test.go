package action

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"gotest.tools/v3/assert"
)

// random is a deterministic source; each test has its own.
func random() io.Reader { return rand.NewChaCha8([32]byte{1}) }

type pair struct{ Name, Value string }

// readOutputs reads a file of outputs as a runner does: NAME=VALUE, or a
// heredoc whose delimiter is whatever its first line says.
func readOutputs(text string) ([]pair, error) {
	var pairs []pair
	lines := strings.Split(text, "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		if line == "" {
			continue
		}
		equals, heredoc := strings.Index(line, "="), strings.Index(line, "<<")
		switch {
		case equals >= 0 && (heredoc < 0 || equals < heredoc):
			pairs = append(pairs, pair{line[:equals], line[equals+1:]})
		case heredoc >= 0:
			name, delim := line[:heredoc], line[heredoc+2:]
			if name == "" || delim == "" {
				return nil, fmt.Errorf("invalid format %q", line)
			}
			var value []string
			for i++; ; i++ {
				if i == len(lines) {
					return nil, fmt.Errorf("matching delimiter not found %q", delim)
				}
				if lines[i] == delim {
					break
				}
				value = append(value, lines[i])
			}
			pairs = append(pairs, pair{name, strings.Join(value, "\n")})
		default:
			return nil, fmt.Errorf("invalid format %q", line)
		}
	}
	return pairs, nil
}

func read(t *testing.T, path string) string {
	data, err := os.ReadFile(path)
	assert.NilError(t, err)
	return string(data)
}

func outputRunner(t *testing.T) (*Runner, string) {
	path := filepath.Join(t.TempDir(), "output")
	return NewRunner(env("GITHUB_ACTIONS", "true", "GITHUB_OUTPUT", path), io.Discard, random(), smoke()), path
}

func TestAnInjectedOutputIsRefused(t *testing.T) {
	r, path := outputRunner(t)
	assert.NilError(t, r.SetOutput("verdict", "fail"))
	err := r.SetOutput("passed", "x\n_GitHubActionsFileCommandDelimeter_\nverdict=pass")
	assert.Error(t, err, `output passed: value contains '\n'; outputs are single-line by type`)
	assert.NilError(t, r.SetOutput("passed", "_GitHubActionsFileCommandDelimeter_"))

	got, err := readOutputs(read(t, path))
	assert.NilError(t, err)
	assert.DeepEqual(t, got, []pair{{"verdict", "fail"}, {"passed", "_GitHubActionsFileCommandDelimeter_"}})
}

func TestOutputsAreSingleLineAndDeclared(t *testing.T) {
	r, path := outputRunner(t)
	for _, bad := range []string{"a\nb", "a\rb", "\n", "a\x00", "a\u0085b", "a\u2028b", "\x1b[31m", "\xff"} {
		err := r.SetOutput("verdict", bad)
		assert.ErrorContains(t, err, "output verdict: ")
		assert.ErrorContains(t, err, "single-line")
	}
	assert.Error(t, r.SetOutput("verdcit", "pass"), `output "verdcit" is not declared by smoke`)
	_, err := os.Stat(path)
	assert.ErrorIs(t, err, os.ErrNotExist)
}

func TestEveryRecordHasItsOwnDelimiter(t *testing.T) {
	r, path := outputRunner(t)
	assert.NilError(t, r.SetOutput("verdict", ""))
	assert.NilError(t, r.SetOutput("passed", "20"))
	lines := strings.Split(read(t, path), "\n")
	assert.Equal(t, len(lines), 7)
	first, second := strings.TrimPrefix(lines[0], "verdict<<"), strings.TrimPrefix(lines[3], "passed<<")
	assert.Assert(t, len(first) == 64 && len(second) == 64 && first != second)
	assert.DeepEqual(t, lines, []string{"verdict<<" + first, "", first, "passed<<" + second, "20", second, ""})
}

func TestAnUnfinishedLineBeforeUsIsNotContinued(t *testing.T) {
	r, path := outputRunner(t)
	assert.NilError(t, os.WriteFile(path, []byte("theirs=1"), 0o600))
	assert.NilError(t, r.SetOutput("verdict", "fail"))
	got, err := readOutputs(read(t, path))
	assert.NilError(t, err)
	assert.DeepEqual(t, got, []pair{{"theirs", "1"}, {"verdict", "fail"}})
}

func TestOutputsGoNowhereOnlyWithoutARunner(t *testing.T) {
	r := NewRunner(env(), io.Discard, random(), smoke())
	assert.NilError(t, r.SetOutput("verdict", "pass"))
	assert.ErrorContains(t, r.SetOutput("verdict", "a\nb"), "single-line")
	assert.NilError(t, r.Summary("# x"))

	r = NewRunner(env("GITHUB_ACTIONS", "true"), io.Discard, random(), smoke())
	assert.Error(t, r.SetOutput("verdict", "pass"), "output verdict: the runner set no GITHUB_OUTPUT, so it would be lost")
}

func TestNoRandomnessMeansNoOutput(t *testing.T) {
	path := filepath.Join(t.TempDir(), "output")
	r := NewRunner(env("GITHUB_ACTIONS", "true", "GITHUB_OUTPUT", path), io.Discard, strings.NewReader("short"), smoke())
	assert.ErrorContains(t, r.SetOutput("verdict", "pass"), "random delimiter")
	var log bytes.Buffer
	_, err := r.Untrusted(&log)
	assert.ErrorContains(t, err, "random delimiter")
	assert.Equal(t, log.String(), "")
}

// Law: the runner reads back exactly the accepted outputs, in order.
func FuzzOutputsReadBack(f *testing.F) {
	f.Add("fail\x1fpass\nx=y\x1fa<<b\x1f", "")
	f.Add("x\n_GitHubActionsFileCommandDelimeter_\nverdict=pass", "a=b")
	f.Add("=\x1f<<\x1f \x1f\u2028", "a=b\n\n")
	f.Fuzz(func(t *testing.T, values, before string) {
		theirs, err := readOutputs(before)
		if err != nil {
			return
		}
		path := filepath.Join(t.TempDir(), "output")
		assert.NilError(t, os.WriteFile(path, []byte(before), 0o600))
		r := NewRunner(env("GITHUB_OUTPUT", path), io.Discard, random(), smoke())
		want := theirs
		for i, value := range strings.Split(values, "\x1f") {
			name := []string{"verdict", "passed"}[i%2]
			if r.SetOutput(name, value) == nil {
				want = append(want, pair{name, value})
			}
		}
		got, err := readOutputs(read(t, path))
		assert.NilError(t, err)
		assert.DeepEqual(t, got, want)
	})
}

func TestSummaryIsCappedAtALine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "summary")
	assert.NilError(t, os.WriteFile(path, []byte("before"), 0o600))
	r := NewRunner(env("GITHUB_STEP_SUMMARY", path), io.Discard, random(), smoke())
	assert.NilError(t, r.Summary("# Smoke"))
	assert.Equal(t, read(t, path), "before\n# Smoke\n")

	line := strings.Repeat("é", 50) + "\n"
	assert.NilError(t, r.Summary(strings.Repeat(line, 12000)))
	text := read(t, path)
	assert.Assert(t, len(text) <= 900<<10 && len(text) > 899<<10, "%d bytes", len(text))
	shown := strings.Count(text, line)
	assert.Equal(t, text, "before\n# Smoke\n"+strings.Repeat(line, shown)+
		fmt.Sprintf("\n_Summary truncated at 900 KiB: %d bytes are not shown._\n", (12000-shown)*len(line)))

	assert.NilError(t, r.Summary("more"))
	assert.Equal(t, read(t, path), text)
}

func TestSummariesShareOneCap(t *testing.T) {
	path := filepath.Join(t.TempDir(), "summary")
	for range 2 { // what another process of the step wrote counts as well
		r := NewRunner(env("GITHUB_STEP_SUMMARY", path), io.Discard, random(), smoke())
		assert.NilError(t, r.Summary(strings.Repeat("a line\n", 100_000)))
	}
	text := read(t, path)
	assert.Assert(t, len(text) <= 900<<10 && len(text) > 899<<10, "%d bytes", len(text))
	assert.Equal(t, strings.Count(text, "truncated"), 1)
}

func TestASummaryThatFitsExactlyIsWhole(t *testing.T) {
	for _, over := range []int{0, 1} {
		path := filepath.Join(t.TempDir(), "summary")
		r := NewRunner(env("GITHUB_STEP_SUMMARY", path), io.Discard, random(), smoke())
		assert.NilError(t, r.Summary(strings.Repeat("x\n", (summaryCap-2)/2)+strings.Repeat("\n", 1+over)))
		assert.Equal(t, strings.Contains(read(t, path), "truncated"), over == 1)
		assert.Assert(t, len(read(t, path)) <= summaryCap)
	}
}

func TestASummaryWithoutLinesIsDroppedWholeAndSaysSo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "summary")
	r := NewRunner(env("GITHUB_STEP_SUMMARY", path), io.Discard, random(), smoke())
	assert.NilError(t, r.Summary(strings.Repeat("x", 1<<20)))
	assert.Equal(t, read(t, path), "\n_Summary truncated at 900 KiB: 1048577 bytes are not shown._\n")
}

func TestMarkdownFromElsewhereMeansNothing(t *testing.T) {
	for in, want := range map[string]string{
		"plain text 1.2-3":       "plain text 1.2-3",
		"a|b":                    "a&#124;b",
		"`x`":                    "&#96;x&#96;",
		"<img src=x>":            "&#60;img src=x&#62;",
		"@octocat":               "@&#8203;octocat",
		"fixes #123":             "fixes #&#8203;123",
		"[x](https://evil)":      "&#91;x&#93;(https&#58;//evil)",
		"*a* _b_ ~c~ \\d":        "&#42;a&#42; &#95;b&#95; &#126;c&#126; &#92;d",
		"a\r\n| b | c |":         "a  &#124; b &#124; c &#124;",
		"pkg::name: ok":          "pkg::name: ok",
		"&#64;octocat":           "&#38;#&#8203;64;octocat",
		"safe\u202etxt.exe":      "safe\ufffdtxt.exe",
		"\x1b[31mred":            " &#91;31mred",
		"![i](http://x/y.png)":   "&#33;&#91;i&#93;(http&#58;//x/y.png)",
		"caf\u00e9 \u65e5\u672c": "caf\u00e9 \u65e5\u672c",
	} {
		assert.Equal(t, EscapeMarkdown(in), want)
	}
}

func inActions(log io.Writer) *Runner {
	return NewRunner(env("GITHUB_ACTIONS", "true"), log, random(), smoke())
}

func TestPercentSignsAreText(t *testing.T) {
	var log bytes.Buffer
	r := inActions(&log)
	r.Annotate(Notice, "", 0, "", "100% done")
	r.Annotate(Warning, "a,b:c.go", 7, "50%d", "100%d done\nnext")
	r.Annotate(Error, "x.go", 0, "", "%s")
	assert.NilError(t, r.Info("100% done %d"))
	assert.NilError(t, r.Flush())
	assert.Equal(t, log.String(), `100% done %d
::notice::100%25 done
::warning file=a%2Cb%3Ac.go,line=7,title=50%25d::100%25d done%0Anext
::error file=x.go::%25s
`)
}

func TestAnnotationsStayInTheirBudget(t *testing.T) {
	var log bytes.Buffer
	r := inActions(&log)
	for i := range 12 {
		r.Annotate(Error, "f.go", i+1, "", fmt.Sprint("e", i))
	}
	for i := range 10 {
		r.Annotate(Notice, "", 0, "", fmt.Sprint("n", i))
	}
	assert.Equal(t, log.String(), "")
	assert.NilError(t, r.Flush())
	lines := strings.Split(strings.TrimSuffix(log.String(), "\n"), "\n")
	assert.Equal(t, len(lines), 20)
	assert.Equal(t, lines[8], "::error file=f.go,line=9::e8")
	assert.Equal(t, lines[9], "::error::…and 3 more")
	assert.Equal(t, lines[19], "::notice::n9")

	log.Reset()
	assert.NilError(t, r.Flush())
	assert.Equal(t, log.String(), "")
}

func TestLongMessagesAreCutBetweenCharacters(t *testing.T) {
	var log bytes.Buffer
	r := inActions(&log)
	r.Annotate(Error, "", 0, "", strings.Repeat("日", 2000))
	r.Annotate(Error, "", 0, "only a title", "")
	assert.NilError(t, r.Flush())
	first, rest, _ := strings.Cut(log.String(), "\n")
	msg := strings.TrimPrefix(first, "::error::")
	assert.Assert(t, utf8.ValidString(msg) && len(msg) <= 4096 && len(msg) > 4090, "%d", len(msg))
	assert.Assert(t, strings.HasSuffix(msg, "日…"))
	assert.Equal(t, rest, "::error title=only a title::only a title\n")
}

func TestWithoutARunnerNothingIsACommand(t *testing.T) {
	var log bytes.Buffer
	r := NewRunner(env(), &log, random(), smoke())
	r.Annotate(Error, "f.go", 3, "failed", "100%")
	r.Annotate(Warning, "", 0, "", "w")
	assert.NilError(t, r.Group("tests"))
	assert.NilError(t, r.Mask("s3cret"))
	u, err := r.Untrusted(&log)
	assert.NilError(t, err)
	_, err = io.WriteString(u, "::error::as it is")
	assert.NilError(t, err)
	assert.NilError(t, u.Close())
	assert.NilError(t, r.EndGroup())
	assert.NilError(t, r.Flush())
	assert.Equal(t, log.String(), "tests\n::error::as it iserror: f.go:3: failed: 100%\nwarning: w\n")
}

func TestEveryLineOfASecretIsMasked(t *testing.T) {
	var log bytes.Buffer
	r := inActions(&log)
	assert.NilError(t, r.Mask("one\r\n\n  two%\n"))
	assert.NilError(t, r.Group("a\nb"))
	assert.NilError(t, r.EndGroup())
	assert.Equal(t, log.String(), "::add-mask::one\n::add-mask::two%25\n::group::a%0Ab\n::endgroup::\n")
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestAClosedPipeIsAnErrorNotAPanic(t *testing.T) {
	r := inActions(failing{})
	r.Annotate(Error, "", 0, "", "x")
	assert.Error(t, r.Flush(), "broken pipe")
	assert.Error(t, r.Mask("x"), "broken pipe")
	_, err := r.Untrusted(failing{})
	assert.Error(t, err, "broken pipe")
}

// obeyed reads a log as a runner does and returns the commands it would obey.
func obeyed(log string) []string {
	known := map[string]bool{"stop-commands": true, "error": true, "warning": true, "notice": true, "add-mask": true, "set-output": true, "group": true, "endgroup": true}
	stop := ""
	var got []string
	for _, line := range strings.FieldsFunc(log, func(c rune) bool { return c == '\n' || c == '\r' }) {
		name, data := "", ""
		if body, ok := strings.CutPrefix(strings.TrimSpace(line), "::"); ok {
			if info, rest, ok := strings.Cut(body, "::"); ok {
				name, _, _ = strings.Cut(info, " ")
				data = rest
			}
		}
		if !known[strings.ToLower(name)] {
			name = ""
			if _, body, ok := strings.Cut(line, "##["); ok {
				if info, rest, ok := strings.Cut(body, "]"); ok {
					name, _, _ = strings.Cut(info, " ")
					data = rest
				}
			}
		}
		name = strings.ToLower(name)
		switch {
		case !known[name]:
		case stop != "" && name == stop:
			delete(known, stop)
			stop = ""
		case stop != "":
		case name == "stop-commands":
			stop = data
			known[stop] = true
		default:
			got = append(got, name+" "+data)
		}
	}
	if stop != "" {
		got = append(got, "still stopped")
	}
	return got
}

func TestUntrustedTextGivesNoCommands(t *testing.T) {
	var log bytes.Buffer
	r := inActions(&log)
	log.WriteString("half a line") // by somebody else
	u, err := r.Untrusted(&log)
	assert.NilError(t, err)
	for _, s := range []string{"ok\n", "  ::set-output name=verdict::pass\nx ##[add-mask]a\n::stop-", "commands::mine\n::mine::\n::error::unterminated"} {
		_, err := io.WriteString(u, s)
		assert.NilError(t, err)
	}

	// While stopped, a command would be printed: add-mask with the secret.
	assert.ErrorContains(t, r.Mask("s3cret"), "still open")
	assert.ErrorContains(t, r.Group("g"), "still open")
	assert.ErrorContains(t, r.Flush(), "still open")
	_, err = r.Untrusted(&log)
	assert.ErrorContains(t, err, "still open")

	assert.NilError(t, u.Close())
	assert.NilError(t, u.Close())
	_, err = io.WriteString(u, "late")
	assert.ErrorContains(t, err, "closed")
	r.Annotate(Error, "", 0, "", "ours")
	assert.NilError(t, r.Flush())

	lines := strings.Split(log.String(), "\n")
	token := strings.TrimPrefix(lines[1], "::stop-commands::")
	assert.Equal(t, len(token), 64)
	assert.DeepEqual(t, lines[len(lines)-4:], []string{"::error::unterminated", "::" + token + "::", "::error::ours", ""})
	assert.DeepEqual(t, obeyed(log.String()), []string{"error ours"})
}

// Law: whatever the text, nothing in it is obeyed and we are heard after it.
func FuzzUntrusted(f *testing.F) {
	f.Add("::error::x")
	f.Add("##[error]x\r")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		var log bytes.Buffer
		r := inActions(&log)
		u, err := r.Untrusted(&log)
		assert.NilError(t, err)
		_, err = io.WriteString(u, text)
		assert.NilError(t, err)
		assert.NilError(t, u.Close())
		r.Annotate(Notice, "", 0, "", "ours")
		assert.NilError(t, r.Flush())
		assert.DeepEqual(t, obeyed(log.String()), []string{"notice ours"})
	})
}

func TestDefangPartsCommands(t *testing.T) {
	for in, want := range map[string]string{
		"plain":                      "plain",
		"::error::x":                 ": :error::x",
		" \t::error::x":              " \t: :error::x",
		"\nok\r::error::x\n":         "\nok\r: :error::x\n",
		"pkg::name":                  "pkg::name",
		"x ##[error]y ###[":          "x ## [error]y ### [",
		"\ufeff\u200b::add-mask::x":  "\ufeff\u200b: :add-mask::x",
		"a\n\n\n::x::\n::y::\xffz\n": "a\n\n\n: :x::\n: :y::\xffz\n",
	} {
		assert.Equal(t, Defang(in), want)
	}
}

// Law: no command is left, and defanging twice is defanging once.
func FuzzDefang(f *testing.F) {
	f.Add("::error::x\n##[error]y")
	f.Add("##[##[error]::::")
	f.Fuzz(func(t *testing.T, text string) {
		once := Defang(text)
		assert.Equal(t, len(obeyed(once)), 0)
		assert.Equal(t, Defang(once), once)
	})
}

func TestAJudgedCommandCannotWriteItsVerdict(t *testing.T) {
	got := smoke().ChildEnv([]string{
		"PATH=/bin", "GITHUB_OUTPUT=/o", "Github_Output=/o", "GITHUB_STEP_SUMMARY=/s", "GITHUB_ENV=/e", "GITHUB_SHA=abc",
		"INPUT_TOKEN=t", "INPUT_EXPECTED-TOTAL=26", "REMEMBRANCER_INPUT_KEY=k", "REMEMBRANCER_KEY=k", "REMEMBRANCER_KEY_ID=id",
		"ACTIONS_RUNTIME_TOKEN=r", "A=GITHUB_OUTPUT=x",
	})
	assert.DeepEqual(t, got, []string{"PATH=/bin", "GITHUB_SHA=abc", "REMEMBRANCER_KEY_ID=id", "A=GITHUB_OUTPUT=x"})
}

func eventEnv(change ...string) func(string) string {
	return env(append(change,
		"GITHUB_ACTIONS", "true", "GITHUB_EVENT_NAME", "pull_request", "GITHUB_EVENT_PATH", "/event.json",
		"GITHUB_REPOSITORY", "octo/cat", "GITHUB_SHA", strings.Repeat("a", 40), "GITHUB_REF", "refs/pull/7/merge",
		"GITHUB_BASE_REF", "main", "GITHUB_HEAD_REF", "fix", "GITHUB_ACTOR", "mona", "GITHUB_WORKFLOW", "gate",
		"GITHUB_WORKFLOW_REF", "octo/cat/.github/workflows/gate.yml@refs/heads/main", "GITHUB_WORKFLOW_SHA", strings.Repeat("b", 40),
		"GITHUB_RUN_ID", "9007199254740993", "GITHUB_RUN_ATTEMPT", "2", "GITHUB_WORKSPACE", "/w",
		"GITHUB_SERVER_URL", "https://git.example", "GITHUB_API_URL", "https://git.example/api/v3")...)
}

func TestEventIsReadWhole(t *testing.T) {
	got, err := NewRunner(eventEnv(), io.Discard, random(), smoke()).Event()
	assert.NilError(t, err)
	assert.DeepEqual(t, got, Event{
		Name: "pull_request", PayloadPath: "/event.json", Repository: "octo/cat", SHA: strings.Repeat("a", 40),
		Ref: "refs/pull/7/merge", BaseRef: "main", HeadRef: "fix", Actor: "mona", Workflow: "gate",
		WorkflowRef: "octo/cat/.github/workflows/gate.yml@refs/heads/main", WorkflowSHA: strings.Repeat("b", 40),
		RunID: 9007199254740993, RunAttempt: 2, Workspace: "/w",
		ServerURL: "https://git.example", APIURL: "https://git.example/api/v3", GraphQLURL: "https://api.github.com/graphql",
	})
}

func TestAMalformedEventIsAnError(t *testing.T) {
	for _, c := range []struct{ name, value, want string }{
		{"GITHUB_ACTIONS", "1", "no runner called"},
		{"GITHUB_RUN_ID", "1e3", `GITHUB_RUN_ID: found "1e3", wanted a positive integer`},
		{"GITHUB_RUN_ID", "-1", `GITHUB_RUN_ID: found "-1", wanted a positive integer`},
		{"GITHUB_RUN_ATTEMPT", "", `GITHUB_RUN_ATTEMPT: found "", wanted a positive integer`},
		{"GITHUB_SHA", "main", `GITHUB_SHA: found "main", wanted a commit in lower-case hex`},
		{"GITHUB_REPOSITORY", "octocat", `GITHUB_REPOSITORY: found "octocat", wanted owner/name`},
		{"GITHUB_EVENT_NAME", "", `GITHUB_EVENT_NAME: found "", wanted the name of an event`},
		{"GITHUB_API_URL", "file:///etc", `GITHUB_API_URL: found "file:///etc", wanted an http(s) URL`},
		{"GITHUB_SERVER_URL", "https://me:pw@x", `wanted an http(s) URL`},
		{"GITHUB_RUN_NUMBER", "x", `variables of the runner: `},
	} {
		got, err := NewRunner(eventEnv(c.name, c.value), io.Discard, random(), smoke()).Event()
		assert.ErrorContains(t, err, c.want)
		assert.DeepEqual(t, got, Event{})
	}
}

func TestAMissingPayloadIsAnError(t *testing.T) {
	dir := t.TempDir()
	at := func(name, text string) Event {
		path := filepath.Join(dir, name)
		assert.NilError(t, os.WriteFile(path, []byte(text), 0o600))
		return Event{PayloadPath: path}
	}
	data, err := at("good", `{"number":7}`).Payload()
	assert.NilError(t, err)
	assert.Equal(t, string(data), `{"number":7}`)
	for _, text := range []string{"", "null", "[]", "{", "{}{}", "7"} {
		data, err := at("bad", text).Payload()
		assert.ErrorContains(t, err, "not a JSON object")
		assert.Assert(t, data == nil)
	}
	_, err = Event{PayloadPath: filepath.Join(dir, "missing")}.Payload()
	assert.ErrorIs(t, err, os.ErrNotExist)
	_, err = Event{}.Payload()
	assert.ErrorContains(t, err, "GITHUB_EVENT_PATH is not set")
	_, err = at("huge", `{"a":"`+strings.Repeat("x", payloadCap)+`"}`).Payload()
	assert.ErrorContains(t, err, "more than")
}

func TestOutputsOfAPartAreNotWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "output")
	env := map[string]string{"GITHUB_ACTIONS": "true", "GITHUB_OUTPUT": path}
	whole := NewRunner(func(k string) string { return env[k] }, io.Discard, strings.NewReader(""), Spec{Verb: "check", Summary: "s"})
	one, outputs := whole.Part(Spec{Verb: "smoke", Summary: "s", Outputs: []Output{{Name: "verdict", Usage: "u"}}})
	assert.NilError(t, one.SetOutput("verdict", "pass"))
	assert.ErrorContains(t, one.SetOutput("verdict", "pa\nss"), "single-line")
	assert.DeepEqual(t, outputs(), map[string]string{"verdict": "pass"})
	_, err := os.Stat(path)
	assert.ErrorIs(t, err, os.ErrNotExist)
}
