package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"gotest.tools/v3/assert"
)

// typed is one command of a document's console block, with what it prints.
type typed struct {
	command, output string
	line            int
}

// blocks returns the contents of a document's fenced blocks of one language,
// with the line each begins at.
func blocks(doc, language string) (contents []string, lines []int) {
	var current []string
	start, in := 0, false
	for i, l := range strings.Split(doc, "\n") {
		switch {
		case !in && l == "```"+language:
			in, start, current = true, i+2, nil
		case in && l == "```":
			in = false
			contents, lines = append(contents, strings.Join(current, "\n")), append(lines, start)
		case in:
			current = append(current, l)
		}
	}
	return contents, lines
}

func consoleCommands(doc string) (all []typed) {
	contents, starts := blocks(doc, "console")
	for b, content := range contents {
		for i, l := range strings.Split(content, "\n") {
			if command, ok := strings.CutPrefix(l, "$ "); ok {
				all = append(all, typed{command: command, line: starts[b] + i})
			} else if len(all) > 0 {
				all[len(all)-1].output += l + "\n"
			}
		}
	}
	return all
}

var (
	digests = regexp.MustCompile(`[0-9a-fA-F]{16,}`)
	sizes   = regexp.MustCompile(`size [0-9]+`)
)

// settled is an output without what differs from run to run: keys, digests, and how
// long the log has grown.
func settled(s string) string {
	return sizes.ReplaceAllString(digests.ReplaceAllString(s, "<hex>"), "size <n>")
}

func TestEveryCommandOfTheReadmeDoesWhatItSays(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile(filepath.Join(moduleRoot, "README.md"))
	assert.NilError(t, err)
	root, err := filepath.Abs(moduleRoot)
	assert.NilError(t, err)
	env := readmeWorld(t, root)
	project := readmeProject(t, env)
	scratch := t.TempDir()
	commands := consoleCommands(string(readme))
	assert.Assert(t, len(commands) >= 10, "found %d commands", len(commands))
	for _, c := range commands {
		dir := project
		if strings.Contains(c.command, "./cmd/remembrancer") || strings.Contains(c.command, "examples/") {
			dir = root
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		// Two runs at a time must not share what a reader writes to /tmp.
		cmd := exec.CommandContext(ctx, "bash", "-c", strings.ReplaceAll(c.command, " /tmp/", " "+scratch+"/"))
		cmd.Dir, cmd.Env = dir, env
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		cancel()
		// A command shown with a failing verdict must fail, all others succeed.
		if strings.Contains(c.output, "FAIL") {
			assert.Assert(t, err != nil, "README.md:%d: %s: passed, but is shown to fail", c.line, c.command)
		} else {
			assert.NilError(t, err, "README.md:%d: %s\n%s%s", c.line, c.command, out, stderr.String())
		}
		if c.output != "" {
			assert.Equal(t, settled(string(out)), settled(c.output), "README.md:%d: %s", c.line, c.command)
		}
	}
}

// readmeWorld builds the program and an environment in which a newcomer's
// commands can be typed.
func readmeWorld(t *testing.T, root string) (env []string) {
	t.Helper()
	bin := t.TempDir()
	build := exec.Command("go", "build", "-buildvcs=false", "-o", bin, "./cmd/remembrancer")
	build.Dir = root
	out, err := build.CombinedOutput()
	assert.NilError(t, err, "%s", out)
	home := t.TempDir()
	for _, kv := range os.Environ() {
		switch name, _, _ := strings.Cut(kv, "="); {
		case name == "HOME", name == "PATH", name == "CI", strings.HasPrefix(name, "GITHUB_"), strings.HasPrefix(name, "REMEMBRANCER_"), strings.HasPrefix(name, "XDG_"):
		default:
			env = append(env, kv)
		}
	}
	for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOPROXY", "GOFLAGS"} {
		value, err := exec.Command("go", "env", name).Output()
		assert.NilError(t, err)
		env = append(env, name+"="+strings.TrimSpace(string(value)))
	}
	return append(env,
		"HOME="+home, "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"), "REMEMBRANCER_STATE="+filepath.Join(home, "state"),
		"GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=N", "GIT_AUTHOR_EMAIL=n@example.org", "GIT_COMMITTER_NAME=N", "GIT_COMMITTER_EMAIL=n@example.org")
}

// readmeProject is a newcomer's clone with a smoke script.
func readmeProject(t *testing.T, env []string) string {
	t.Helper()
	dir := t.TempDir()
	script := `
git init -q --bare -b main remote.git
git init -q -b main project && cd project
mkdir dist && echo app > dist/app.tar.gz
printf '#!/bin/sh\necho "SMOKE_JSON={\\"pass\\":2,\\"total\\":2}"\n' > SMOKE_TEST.sh && chmod +x SMOKE_TEST.sh
git add -A && git commit -qm start
git remote add origin ../remote.git && git push -q -u origin main`
	cmd := exec.Command("bash", "-ec", script)
	cmd.Dir, cmd.Env = dir, env
	out, err := cmd.CombinedOutput()
	assert.NilError(t, err, "%s", out)
	return filepath.Join(dir, "project")
}

func TestTheReadmesTestCommandIsTheOneThatCIRuns(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(moduleRoot, "README.md"))
	assert.NilError(t, err)
	contents, _ := blocks(string(readme), "sh")
	assert.DeepEqual(t, contents, []string{"go test ./..."})
	lib, err := os.ReadFile(filepath.Join(moduleRoot, ".ci", "lib.sh"))
	assert.NilError(t, err)
	assert.Assert(t, strings.Contains(string(lib), "go test ./..."))
}

func TestWorkflowBlocksOfTheReadmeAreWorkflows(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(moduleRoot, "README.md"))
	assert.NilError(t, err)
	contents, _ := blocks(string(readme), "yaml")
	assert.Equal(t, len(contents), 1)
	assert.Equal(t, len(strings.Split(contents[0], "\n")), 6)
	var workflow struct {
		On   []string
		Jobs map[string]struct {
			RunsOn string `yaml:"runs-on"`
			Steps  []struct {
				Uses string
				With map[string]any
			}
		}
	}
	assert.NilError(t, yaml.Unmarshal([]byte(contents[0]), &workflow))
	assert.DeepEqual(t, workflow.On, []string{"pull_request", "merge_group"})
	steps := workflow.Jobs["smoke-test"].Steps
	assert.Equal(t, len(steps), 2)
	assert.Assert(t, strings.HasPrefix(steps[1].Uses, "vaultmesh/remembrancer@"))
}
