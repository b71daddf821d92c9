package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/config"
)

// example is a copy of one of the examples, as a repository of its own.
type example struct {
	t   *testing.T
	dir string
	env []string
}

// standIn is a runner of a testscript, which prints what a real one printed.
func standIn(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile("testdata/script/init-counts-each-test-of-a-runner.txtar")
	assert.NilError(t, err)
	_, script, ok := strings.Cut(string(text), "\n-- bin/"+name+" --\n")
	assert.Assert(t, ok, name)
	script, _, _ = strings.Cut(script, "\n-- ")
	return script + "\n"
}

// newExample copies an example. What it runs of needs and is not on this machine
// is played by a stand-in; real says that there is none.
func newExample(t *testing.T, name string, needs ...string) (e example, real bool) {
	t.Helper()
	top := t.TempDir()
	e = example{t: t, dir: filepath.Join(top, name)}
	assert.NilError(t, os.CopyFS(e.dir, os.DirFS(filepath.Join(moduleRoot, "examples", name))))
	// What was made by somebody who tried it in place is not part of it.
	for _, made := range []string{".smoke", "target", "__pycache__"} {
		assert.NilError(t, os.RemoveAll(filepath.Join(e.dir, made)))
	}
	home, path := filepath.Join(top, "home"), os.Getenv("PATH")
	bin := filepath.Join(top, "bin")
	assert.NilError(t, os.MkdirAll(bin, 0o755))
	assert.NilError(t, os.MkdirAll(home, 0o755))
	real = true
	for _, program := range needs {
		probe := exec.Command(program, "--version")
		if program == "python3" {
			probe = exec.Command(program, "-c", "import pytest")
		}
		if program == "go" {
			probe = exec.Command(program, "version")
		}
		if probe.Run() == nil {
			continue
		}
		real = false
		t.Logf("%s is played by a stand-in: it is not on this machine", program)
		assert.NilError(t, os.WriteFile(filepath.Join(bin, program), []byte(standIn(t, program)), 0o755))
	}
	for _, kv := range os.Environ() {
		switch name, _, _ := strings.Cut(kv, "="); {
		case slices.Contains([]string{"HOME", "PATH", "CI", "GOFLAGS", "NODE_OPTIONS"}, name),
			strings.HasPrefix(name, "GITHUB_"), strings.HasPrefix(name, "REMEMBRANCER_"), strings.HasPrefix(name, "XDG_"), strings.HasPrefix(name, "GIT_"):
		default:
			e.env = append(e.env, kv)
		}
	}
	// Toolchains keep in the real home what they have downloaded and compiled.
	own, err := os.UserHomeDir()
	assert.NilError(t, err)
	for name, sub := range map[string]string{"CARGO_HOME": ".cargo", "RUSTUP_HOME": ".rustup", "PYENV_ROOT": ".pyenv"} {
		if dir := filepath.Join(own, sub); os.Getenv(name) == "" {
			if _, err := os.Stat(dir); err == nil {
				e.env = append(e.env, name+"="+dir)
			}
		}
	}
	for _, name := range []string{"GOCACHE", "GOMODCACHE"} {
		value, err := exec.Command("go", "env", name).Output()
		assert.NilError(t, err)
		e.env = append(e.env, name+"="+strings.TrimSpace(string(value)))
	}
	e.env = append(
		e.env, "HOME="+home, "PATH="+bin+string(os.PathListSeparator)+path, "REMEMBRANCER_STATE="+filepath.Join(top, "state"), "CARGO_NET_OFFLINE=true", "GOWORK=off",
		"GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=N", "GIT_AUTHOR_EMAIL=n@example.org", "GIT_COMMITTER_NAME=N", "GIT_COMMITTER_EMAIL=n@example.org",
	)
	e.git("init", "-q", "-b", "main")
	return e, real
}

func (e example) git(args ...string) string {
	e.t.Helper()
	cmd := exec.CommandContext(e.t.Context(), "git", args...)
	cmd.Dir, cmd.Env = e.dir, e.env
	out, err := cmd.CombinedOutput()
	assert.NilError(e.t, err, "%s", out)
	return string(out)
}

// typed runs the program as a person types it there.
func (e example) typed(want int, args ...string) (stdout string) {
	e.t.Helper()
	var out, errs bytes.Buffer
	w := &world{
		ctx: context.Background(), dir: e.dir, getenv: func(name string) string { return lastOf(e.env, name) }, environ: e.env,
		now: time.Now, rand: rand.Reader, stdin: strings.NewReader(""), stdout: &out, stderr: &errs,
	}
	code := w.run(args)
	assert.Equal(e.t, code, want, "%s\n%s%s", args, &out, &errs)
	return out.String()
}

func (e example) edit(name, old, changed string) {
	e.t.Helper()
	path := filepath.Join(e.dir, name)
	text, err := os.ReadFile(path)
	assert.NilError(e.t, err)
	assert.Assert(e.t, strings.Contains(string(text), old), "%s", name)
	info, err := os.Stat(path)
	assert.NilError(e.t, err)
	assert.NilError(e.t, os.WriteFile(path, []byte(strings.Replace(string(text), old, changed, 1)), info.Mode()))
}

// Each project is put under the covenant as its header says, is green, leaves
// nothing untracked, and is red once one of its tests is broken, which smoke names.
func TestEveryProjectOfTheExamplesIsGreenAndTurnsRed(t *testing.T) {
	for _, tc := range []struct {
		name           string
		needs          []string
		green          string // how many tests there are
		file, old, new string // what breaks one
		named          string // how smoke names it; "" if only the output does
	}{
		{"minimal", nil, "2 of 2", "hello.sh", "hello,", "bye,", ""},
		{"go", []string{"go"}, "2 of 2", "sums.go", "sum += n", "sum -= n", "example.com/sums.TestAdd/some"},
		{"node", []string{"node", "npm"}, "2 of 2", "sums.js", "sum + n", "sum - n", "adds all"},
		{"python", []string{"python3"}, "2 of 2", "sums.py", "sum(numbers)", "-sum(numbers)", "tests.test_sums.test_adds_all"},
		{"rust", []string{"cargo"}, "3 of 3", "src/lib.rs", ".sum()", ".product()", "sums::tests::adds_all|sums::tests::the_sum_of_none_is_0"},
		{"monorepo", []string{"go", "node", "npm"}, "5 of 5", "tools/greet.sh", "hello", "bye", "greets"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			e, real := newExample(t, tc.name, tc.needs...)
			e.typed(0, "init", "--yes")
			e.git("add", "-A")
			e.git("commit", "-qm", "covenant")
			out := e.typed(0, "gate")
			if real {
				assert.Assert(t, strings.HasPrefix(out, "✅ smoke    "+tc.green+" tests passed\n"), out)
			}
			assert.Equal(t, e.git("status", "--porcelain"), "")

			e.edit(tc.file, tc.old, tc.new)
			if !real {
				e.env = append(e.env, "BROKEN=yes")
			}
			e.typed(1, "gate", "--quiet")
			out = e.typed(1, "smoke")
			if real && tc.named != "" {
				assert.Assert(t, regexp.MustCompile(`(?m)^ +failed +.*(`+tc.named+`)`).MatchString(out), out)
			}

			e.git("checkout", "-q", tc.file)
			e.typed(0, "uninstall", "--yes")
			e.git("add", "-A")
			want := strings.Fields(tree(t, filepath.Join(moduleRoot, "examples", tc.name)))
			want = slices.DeleteFunc(want, func(name string) bool { return name == config.FileName }) // it was there before, and nobody wrote it
			got := slices.DeleteFunc(strings.Fields(e.git("ls-files")), func(name string) bool { return name == config.FileName })
			assert.DeepEqual(t, got, want)
		})
	}
}

// tree lists the files of a folder that git knows or would take, sorted.
func tree(t *testing.T, dir string) string {
	t.Helper()
	cmd := exec.Command("git", "ls-files", "--cached", "--others", "--exclude-standard")
	cmd.Dir = dir
	out, err := cmd.Output()
	assert.NilError(t, err)
	lines := strings.Fields(string(out))
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// The headers say that init would write the same.
func TestInitFindsWhatTheExamplesSay(t *testing.T) {
	for name, needs := range map[string]string{"minimal": "", "go": "go", "node": "npm", "python": "python3"} {
		e, _ := newExample(t, name, strings.Fields(needs)...)
		path := filepath.Join(e.dir, config.FileName)
		read := func() config.Config {
			data, err := os.ReadFile(path)
			assert.NilError(t, err)
			c, err := config.Parse(config.FileName, data)
			assert.NilError(t, err)
			return c
		}
		said := read()
		assert.NilError(t, os.Remove(path))
		e.typed(0, "init", "--yes", "--origin", "example.com/"+name)
		found := read()
		found.Origin = ""
		assert.DeepEqual(t, found, said)
	}
}

func TestTwoNodesSync(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs(moduleRoot)
	assert.NilError(t, err)
	for _, program := range []string{"curl", "python3"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("this test needs %s: apt-get install %[1]s", program)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(root, "examples", "two-nodes", "try"))
	cmd.Dir, cmd.Env = t.TempDir(), readmeWorld(t, root)
	out, err := cmd.CombinedOutput()
	assert.NilError(t, err, "%s", out)
	assert.Assert(t, strings.Contains(string(out), "✅ Connected to peer: "), "%s", out)
	assert.Assert(t, strings.Contains(string(out), "receipts  2; 1 came, 1 went"), "%s", out)
	assert.Assert(t, strings.Contains(string(out), "\nPASS  "), "%s", out)
}

// goreleaser is not part of the tests' tools, so what is written here is what may
// stand in its file: the keys of version 2 that are in use, and no others.
func TestTheReleaseIsBuiltBesideTheGenesisAndSignedByUs(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(moduleRoot, ".goreleaser.yaml"))
	assert.NilError(t, err)
	type info struct {
		Src  string
		Info struct{ Mtime string }
	}
	var f struct {
		Version     int
		ProjectName string `yaml:"project_name"`
		Dist        string
		Before      struct{ Hooks []string }
		Builds      []struct {
			ID, Main, Binary    string
			Env, Flags, Ldflags []string
			Goos, Goarch        []string
			ModTimestamp        string `yaml:"mod_timestamp"`
		}
		Checksum struct {
			NameTemplate string `yaml:"name_template"`
			Algorithm    string
		}
		Sboms     []struct{ ID, Artifacts string }
		DockersV2 []struct {
			ID, Dockerfile    string
			IDs, Images, Tags []string
			Platforms         []string
			ExtraFiles        []string `yaml:"extra_files"`
			Labels            map[string]string
		} `yaml:"dockers_v2"`
		Changelog struct{ Disable bool }
		Release   struct {
			Draft                bool
			ReplaceExistingDraft bool `yaml:"replace_existing_draft"`
			Prerelease, Mode     string
		}
		Archives []struct {
			ID              string
			IDs, Formats    []string
			NameTemplate    string `yaml:"name_template"`
			FormatOverrides []struct {
				Goos    string
				Formats []string
			} `yaml:"format_overrides"`
			BuildsInfo struct{ Mtime string } `yaml:"builds_info"`
			Files      []info
		} `yaml:"archives"`
	}
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	assert.NilError(t, d.Decode(&f))
	assert.Equal(t, f.Version, 2)
	assert.Equal(t, f.Dist, "build") // dist/ is the genesis's
	assert.Equal(t, len(f.Builds), 1)
	b := f.Builds[0]
	assert.DeepEqual(t, b.Goos, []string{"linux", "darwin", "windows"})
	assert.DeepEqual(t, b.Goarch, []string{"amd64", "arm64"})
	assert.DeepEqual(t, b.Flags, []string{"-trimpath"})
	assert.DeepEqual(t, b.Env, []string{"CGO_ENABLED=0", "GOTOOLCHAIN=local"})
	assert.Equal(t, f.Checksum.Algorithm, "sha256")
	assert.Equal(t, f.Sboms[0].Artifacts, "archive")
	assert.Assert(t, f.Release.Draft) // nothing is published before it is signed
	for _, name := range slices.Concat([]string{b.Main, f.DockersV2[0].Dockerfile, f.Archives[0].Files[0].Src, f.Archives[0].Files[1].Src}, f.DockersV2[0].ExtraFiles) {
		_, err := os.Stat(filepath.Join(moduleRoot, name))
		assert.NilError(t, err)
	}
	// Whatever the image copies is in the context that goreleaser makes.
	docker, err := os.ReadFile(filepath.Join(moduleRoot, "Dockerfile"))
	assert.NilError(t, err)
	for _, m := range regexp.MustCompile(`(?m)^COPY ([^-].*) \S+$`).FindAllStringSubmatch(string(docker), -1) {
		for _, name := range strings.Fields(m[1]) {
			assert.Assert(t, slices.Contains(f.DockersV2[0].ExtraFiles, name), name)
		}
	}
}
