package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/action"
)

func readYAML(t *testing.T, name string, into any) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(moduleRoot, name))
	assert.NilError(t, err)
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	assert.NilError(t, dec.Decode(into))
	assert.ErrorIs(t, dec.Decode(new(any)), io.EOF)
}

// isHookRun demands a command line that this program takes.
func isHookRun(t *testing.T, line string, hooks ...string) {
	t.Helper()
	v, rest := find(strings.Fields(line))
	assert.Assert(t, v != nil, "%q is no command", line)
	assert.Equal(t, v.spec.Verb, "hook run")
	values, err := action.Parse(v.spec, rest, func(string) string { return "" }, io.Discard)
	assert.NilError(t, err)
	assert.DeepEqual(t, values.Args(), hooks)
	assert.Assert(t, slices.ContainsFunc(gitHooks, func(g gitHook) bool { return g.name == hooks[0] }))
}

func TestPreCommitHooksCallWhatThereIs(t *testing.T) {
	var hooks []struct {
		ID            string
		Name          string
		Description   string
		Entry         string
		Language      string
		Stages        []string
		PassFilenames *bool `yaml:"pass_filenames"`
		AlwaysRun     bool  `yaml:"always_run"`
	}
	readYAML(t, ".pre-commit-hooks.yaml", &hooks)
	var ids []string
	for _, h := range hooks {
		ids = append(ids, h.ID+" "+h.Language)
		program, rest, _ := strings.Cut(h.Entry, " ")
		if h.Language == "docker_image" {
			// The image has no toolchain: there only the fast checks run.
			assert.Assert(t, strings.HasPrefix(program, "ghcr.io/vaultmesh/remembrancer:"), program)
			assert.Assert(t, strings.Contains(rest, "--fast"), rest)
		} else {
			assert.Equal(t, program, "remembrancer")
		}
		isHookRun(t, rest, "pre-commit")
		assert.Assert(t, h.Name != "" && h.Description != "" && h.AlwaysRun && h.PassFilenames != nil && !*h.PassFilenames, h.ID)
		assert.DeepEqual(t, h.Stages, []string{"pre-commit", "pre-merge-commit"})
	}
	assert.DeepEqual(t, ids, []string{"remembrancer-smoke golang", "remembrancer-smoke-system system", "remembrancer-smoke-docker docker_image"})
}

func TestTheLefthookExampleCallsWhatThereIs(t *testing.T) {
	var file map[string]struct {
		Commands map[string]struct{ Run string }
	}
	readYAML(t, "examples/lefthook.yml", &file)
	assert.Equal(t, len(file), len(gitHooks))
	for _, g := range gitHooks {
		line, ok := strings.CutPrefix(file[g.name].Commands["remembrancer"].Run, "remembrancer ")
		assert.Assert(t, ok, g.name)
		isHookRun(t, line, g.name)
	}
}

func TestTheHookIsPlainShellWhateverThePath(t *testing.T) {
	script := string(gitHooks[0].script(`C:\Program Files\it's\remembrancer.exe`, true))
	assert.Assert(t, strings.HasPrefix(script, "#!/bin/sh\n"+hookMark), script)
	assert.Assert(t, !strings.ContainsRune(script, '\r'))
	assert.Assert(t, strings.Contains(script, `it'\''s`), script)
	assert.Assert(t, strings.HasSuffix(script, "hook run --fast pre-commit\n"), script)
}

func TestGitsVariablesAreNotPassedOn(t *testing.T) {
	assert.DeepEqual(t, withoutGit([]string{
		"PATH=/bin", "GIT_DIR=.git", "GIT_INDEX_FILE=.git/index", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=a", "GITHEAD_1=side", "GIT_CONFIG_GLOBAL=/g", "GITHUB_ACTIONS=true", "GIT_SSH_COMMAND=ssh -v",
	}), []string{"PATH=/bin", "GIT_CONFIG_GLOBAL=/g", "GITHUB_ACTIONS=true", "GIT_SSH_COMMAND=ssh -v"})
}

func TestTheEndOfAnOutputIsKept(t *testing.T) {
	var l lastBytes
	for range 3 {
		_, _ = l.Write(bytes.Repeat([]byte("a"), keptOutput-1))
		_, _ = l.Write([]byte("bc"))
	}
	assert.Equal(t, len(l.data), keptOutput)
	assert.Assert(t, bytes.HasSuffix(l.data, []byte("abc")))
	_, _ = l.Write(bytes.Repeat([]byte("d"), keptOutput+1))
	assert.Equal(t, string(l.data), strings.Repeat("d", keptOutput))
}
