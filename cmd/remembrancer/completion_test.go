package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/action"
)

// line is what stands on a command line, the last word as far as it is typed,
// and what the shells offer there.
type line struct {
	typed []string
	want  []string // all that is offered, sorted
}

var completionLines = []line{
	{[]string{"remembrancer", "ga"}, []string{"gate"}},
	{[]string{"remembrancer", "hook", ""}, []string{"install", "run", "uninstall"}},
	{[]string{"remembrancer", "hook", "run", ""}, []string{"pre-commit", "pre-merge-commit"}},
	{[]string{"remembrancer", "hook", "install", "--"}, []string{"--chain", "--fast", "--help"}},
	{[]string{"remembrancer", "gate", "--q"}, []string{"--quiet"}},
	{[]string{"remembrancer", "smoke", "--warnings", ""}, []string{"allow", "fail"}},
	{[]string{"remembrancer", "smoke", "--from", "sav"}, []string{"saved.log"}},
	{[]string{"remembrancer", "smoke", "--expect", ""}, nil},
	{[]string{"remembrancer", "verify", "sav"}, []string{"saved.log"}},
	{[]string{"remembrancer", "completion", "f"}, []string{"fish"}},
	{[]string{"remembrancer", "help", "scor"}, []string{"scorecard"}},
	{[]string{"remembrancer", "nothing", ""}, nil},
}

// completionDir is a directory with a script for a shell and a file to complete.
func completionDir(t *testing.T, shell string) string {
	t.Helper()
	code, script, stderr := ask(t, "completion", shell)
	assert.Equal(t, code, 0, stderr)
	dir := t.TempDir()
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "script"), []byte(script), 0o600))
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "saved.log"), nil, 0o600))
	return dir
}

// offers runs a shell in a directory and returns the words it printed, sorted.
func offers(t *testing.T, dir string, argv ...string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = dir, []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8"}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	assert.NilError(t, err, "%s%s", out, &stderr)
	assert.Equal(t, stderr.String(), "")
	var words []string
	for l := range strings.Lines(string(out)) {
		if word, _, _ := strings.Cut(strings.TrimSpace(l), "\t"); word != "" { // fish adds a description
			words = append(words, word)
		}
	}
	slices.Sort(words)
	return words
}

func TestBashCompletesWhatThereIs(t *testing.T) {
	dir := completionDir(t, "bash")
	const try = `source ./script; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _remembrancer; printf '%s\n' "${COMPREPLY[@]}"`
	for _, l := range append(
		completionLines,
		line{[]string{"remembrancer", ""}, firstWords()},
		line{[]string{"remembrancer", "smoke", "--warnings", "=", "a"}, []string{"allow"}},
		line{[]string{"remembrancer", "smoke", "--warnings", "="}, []string{"allow", "fail"}},
	) {
		got := offers(t, dir, append([]string{"bash", "--norc", "-c", try, "bash"}, l.typed...)...)
		assert.DeepEqual(t, got, l.want)
	}
}

// firstWords are the first words of all commands, sorted.
func firstWords() []string {
	words := []string{"help", "version"}
	for _, v := range verbs() {
		first, _, _ := strings.Cut(v.spec.Verb, " ")
		words = append(words, first)
	}
	slices.Sort(words)
	return slices.Compact(words)
}

// Where fish is, it is asked; what it is told is checked below in any case.
func TestFishCompletesWhatThereIs(t *testing.T) {
	dir := completionDir(t, "fish")
	if _, err := exec.LookPath("fish"); err != nil {
		return
	}
	for _, l := range completionLines {
		got := offers(t, dir, "fish", "--no-config", "-c", `source ./script; complete -C "`+strings.Join(l.typed, " ")+`"`)
		assert.DeepEqual(t, got, l.want)
	}
}

// zsh's own _arguments works only behind a key that is pressed, so here one in
// its place says what it was given.
func TestZshIsToldWhatThereIs(t *testing.T) {
	dir := completionDir(t, "zsh")
	if _, err := exec.LookPath("zsh"); err != nil {
		return
	}
	const try = `compdef() { : }
_describe() { print -rl -- ${${(P)2}%%:*} }
_arguments() { print -r -- "$CURRENT $words"; print -rl -- "$@" }
source ./script; words=("$@"); CURRENT=$#; _remembrancer`
	asked := func(typed ...string) []string {
		return offers(t, dir, append([]string{"zsh", "-f", "-c", try, "zsh"}, typed...)...)
	}
	assert.DeepEqual(t, asked("remembrancer", ""), firstWords())
	assert.DeepEqual(t, asked("remembrancer", "hook", ""), []string{"install", "run", "uninstall"})
	assert.DeepEqual(t, asked("remembrancer", "hook", "run", "--fast", ""), []string{
		"--fast[Only check the covenants that staged files can break, without running the smoke test; well under a second]",
		"--help[show what it takes and gives]",
		"1:word:(pre-commit pre-merge-commit)",
		"3 remembrancer --fast",
	})
	assert.Assert(t, slices.Contains(asked("remembrancer", "smoke", ""), "--warnings=[Whether a warning counts as a pass, where there is no configuration to say it]:warnings:(fail allow)"))
	assert.DeepEqual(t, asked("remembrancer", "version", ""), []string{"2 remembrancer"})
}

func TestEveryShellIsToldOfEveryFlagAndOfNoSecret(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		_, script, _ := ask(t, "completion", shell)
		for _, v := range verbs() {
			for _, in := range v.spec.Inputs {
				told := "--" + in.Name
				if shell == "fish" {
					told = "'__remembrancer_in " + v.spec.Verb + "' -l " + in.Name + " "
				}
				switch {
				case in.Kind != action.Secret && !in.ActionOnly:
					assert.Assert(t, strings.Contains(script, told), "%s: %s --%s", shell, v.spec.Verb, in.Name)
				case in.Kind == action.Secret && shell == "fish":
					assert.Assert(t, !strings.Contains(script, told), "%s: %s --%s", shell, v.spec.Verb, in.Name)
				}
			}
		}
	}
}
