package repro_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/repro"
)

// tree is a commit's tree in memory. Content "-> TARGET" is a link, "submodule"
// one of those, a leading "#!" an executable, and "missing" a blob that is not
// at hand.
type tree map[string]string

func (t tree) mode(p string) fs.FileMode {
	switch data := t[p]; {
	case strings.HasPrefix(data, "-> "):
		return fs.ModeSymlink
	case data == "submodule":
		return fs.ModeIrregular
	case strings.HasPrefix(data, "#!"):
		return 0o755
	}
	return 0o644
}

func (t tree) Blob(p string) ([]byte, error) {
	data, ok := t[p]
	switch {
	case !ok:
		return nil, &fs.PathError{Op: "read", Path: p, Err: fs.ErrNotExist}
	case data == "missing":
		return nil, errors.New("object is missing from the repository")
	case !t.mode(p).IsRegular():
		return nil, errors.New("not a regular file")
	}
	return []byte(data), nil
}

func (t tree) Link(p string) (string, error) {
	target, ok := strings.CutPrefix(t[p], "-> ")
	if !ok {
		return "", errors.New("not a link")
	}
	return target, nil
}

func (t tree) Walk(folder string, fn func(string, fs.FileMode, string) error) error {
	for _, p := range slices.Sorted(maps.Keys(t)) {
		if folder == "" || p == folder || strings.HasPrefix(p, folder+"/") {
			if err := fn(p, t.mode(p), t[p]); err != nil {
				return err
			}
		}
	}
	return nil
}

func with(t tree, path, content string) tree {
	t = maps.Clone(t)
	t[path] = content
	return t
}

var epoch = time.Date(2024, 2, 29, 22, 30, 0, 0, time.UTC)

func plan(command string, outputs ...string) repro.Plan {
	return repro.Plan{
		Command: repro.Command{Shell: command},
		Outputs: outputs,
		Timeout: time.Minute,
		Epoch:   epoch,
		Env:     []string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/root", "GIT_DIR=/elsewhere", "LANGUAGE=fr", "KEPT=yes"},
	}
}

// build builds in a folder that must be empty afterwards.
func build(t *testing.T, src repro.Source, p repro.Plan) judge.Check {
	t.Helper()
	temp := t.TempDir()
	c := repro.Build(t.Context(), src, p, repro.Options{TempDir: temp})
	left, err := os.ReadDir(temp)
	assert.NilError(t, err)
	assert.Equal(t, len(left), 0)
	return c
}

func TestACleanBuildPasses(t *testing.T) {
	t.Parallel()
	src := tree{
		"build.sh": `#!/bin/sh
set -eu
test -x build.sh && test ! -x data/in.txt && test "$(readlink link)" = data/in.txt && test -d sub && test ! -e .git
test "$KEPT" = yes && test -z "${GIT_DIR-}" && test -z "${LANGUAGE-}" && test -d "$HOME" && test -d "$TMPDIR" && test "$SOURCE_DATE_EPOCH" = 1709245800
test "$(stat -c %a data data/in.txt build.sh | tr '\n' ' ')" = "755 644 755 "
test -z "$(ls -A "$HOME" "$TMPDIR" | grep -v :)"
mkdir -p out/d "$HOME/cache"
cp data/in.txt out/in.txt
cp build.sh out/run
tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --mode=u=rwX,go=rX --owner=0 --group=0 --numeric-owner -cf out/d/all.tar data
ln -s in.txt out/here
chmod 500 "$HOME/cache"
pwd; umask; date +%s%N
`,
		"data/in.txt": "hello\n",
		"link":        "-> data/in.txt",
		"dangling":    "-> nowhere/at/all",
		"sub":         "submodule",
	}
	p := plan("", "out/**")
	p.Command = repro.Command{Argv: []string{"./build.sh"}}
	var log bytes.Buffer
	temp := t.TempDir()
	c := repro.Build(t.Context(), src, p, repro.Options{TempDir: temp, Log: &log})
	assert.Equal(t, len(c.Evidence), 4, "%+v", c)
	tarred := c.Evidence[0] // as this machine's tar makes it
	assert.DeepEqual(t, c, judge.Check{
		ID: "reproducibility/build", Claim: "two builds in unlike surroundings make the same bytes", Status: judge.Pass,
		Detail: "./build.sh, twice, with SOURCE_DATE_EPOCH=1709245800: 4 outputs, 10933 bytes, equal; different were path, HOME, TMPDIR, umask, time zone, locale, order of files, clock",
		Evidence: []string{
			tarred,
			"sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03 out/here",
			"sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03 out/in.txt",
			c.Evidence[3],
		},
	})
	assert.Assert(t, strings.HasSuffix(tarred, " out/d/all.tar"), tarred)
	left, err := os.ReadDir(temp)
	assert.NilError(t, err)
	assert.Equal(t, len(left), 0)
	for _, s := range []string{"build 1 of 2: ./build.sh\n", "build 2 of 2: ./build.sh\n", "/1/src\n", "/second-build/of-this-commit/src\n", "\n0022\n", "\n0077\n"} {
		assert.Assert(t, strings.Contains(log.String(), s), "%q in %s", s, log.String())
	}
}

func TestEachLeakIsCaughtAndLocated(t *testing.T) {
	t.Parallel()
	const leaks = `
set -eu
mkdir out in
echo same > out/same.txt
date -u +%Y-%m-%dT%H:%M:%SZ > out/time-iso.txt
date -u +%s > out/time-epoch.txt
date -u > out/time-text.txt
echo "built in $PWD" > out/path.txt
echo "$HOME/.cache" > out/path-home.txt
mktemp -d > out/path-tmp.txt
umask > out/umask.txt
echo a > in/a; echo b > in/b
tar --sort=name --mtime=@$SOURCE_DATE_EPOCH -cf out/umask.tar in
tar --sort=name --mtime=@$SOURCE_DATE_EPOCH -c in | gzip -n > out/umask.tar.gz
chmod -R u=rwX,go=rX in
tar --sort=name -cf out/time.tar in
gzip -k in/a; mv in/a.gz out/time.gz
echo "$PWD" > in/a; tar --sort=name --mtime=@$SOURCE_DATE_EPOCH -cf inner.tar in
tar --sort=name --mtime=@$SOURCE_DATE_EPOCH --mode=644 -cf out/path-nested.tar inner.tar
echo "$LC_ALL" > out/locale.txt
printf '\303\251' | wc -m > out/locale-length.txt
echo "$TZ" > out/zone-name.txt
date -d @$SOURCE_DATE_EPOCH > out/zone-text.txt
date -d @$SOURCE_DATE_EPOCH '+%Y-%m-%d %H:%M' > out/zone-iso.txt
date -d @$SOURCE_DATE_EPOCH '+day %F' > out/zone-day.txt
ls -l in/a | cut -c1-10 > out/same-mode.txt
touch new; ls -l new | cut -c1-10 > out/umask-mode.txt
ln -s "$PWD/in" out/link
echo "$(umask)" > out/only-$(umask)
echo x > out/x; [ "$(umask)" = 0022 ] || chmod +x out/x
(head -c 70000 /dev/zero; pwd) > out/path-far.bin
`
	c := build(t, tree{"a": "b"}, plan(leaks, "out/**"))
	assert.Equal(t, c.Status, judge.Fail)
	assert.Assert(t, strings.Contains(c.Detail, "2 of 26 outputs are equal"), c.Detail)
	// One finding an output, in order; the first twenty are told.
	told := map[string]string{}
	for _, f := range c.Findings {
		name, what, _ := strings.Cut(f.Message, ": ")
		assert.Assert(t, f.Fix != "" || name == "and 4 outputs more differ", f.Message)
		told[name] = what
	}
	for name, want := range map[string][]string{
		"out/link":              {`leads to `, `/1/src/in in the first build, to `, `/second-build/of-this-commit/src/in in the second: the path of the build is in it`},
		"out/locale-length.txt": {`at offset 0: 32 0a ("2\n") in the first build, 31 0a ("1\n") in the second`},
		"out/locale.txt":        {`at offset 1: 43 0a ("C\n") in the first build, 43 2e 55 54 46 2d 38 0a ("C.UTF-8\n") in the second: the locale of the build is in it`},
		"out/only-0022":         {`only the first build made it`},
		"out/only-0077":         {`only the second build made it`},
		"out/path-far.bin":      {`at offset 700`, `: the path of the build is in it`},
		"out/path-home.txt":     {`at offset `, `: the path of the build is in it`},
		"out/path-nested.tar":   {`member "inner.tar": member "in/a": at offset `, `: the path of the build is in it`},
		"out/path-tmp.txt":      {`at offset `, `: the path of the build is in it`},
		"out/path.txt":          {`at offset `, ` in the first build, `, `: the path of the build is in it`},
		"out/time-epoch.txt":    {`at offset `, `: the time of the build is in it`},
		"out/time-iso.txt":      {`at offset `, `: the time of the build is in it`},
		"out/time-text.txt":     {`at offset `, `: the time of the build is in it`},
		"out/time.gz":           {`gzip header: date is 2`, `: the time of the build is in it`},
		"out/time.tar":          {`member "in/": date is 2`, `: the time of the build is in it`},
		"out/umask-mode.txt":    {`at offset 4: `, `: the umask of the build is in it`},
		"out/umask.tar":         {`member "in/": mode is drwxr-xr-x in the first build, drwx------ in the second: the umask of the build is in it`},
		"out/umask.tar.gz":      {`in gzip: member "in/": mode is drwxr-xr-x in the first build, drwx------ in the second: the umask of the build is in it`},
		"out/umask.txt":         {`at offset 2: 30 30 32 32 0a ("0022\n") in the first build, 30 30 37 37 0a ("0077\n") in the second: the umask of the build is in it`},
		"out/x":                 {`executable in the second build only: the umask of the build is in it`},
	} {
		rest, ok := told[name]
		assert.Assert(t, ok, "%s is not told: %v", name, slices.Sorted(maps.Keys(told)))
		for _, w := range want {
			_, after, found := strings.Cut(rest, w)
			assert.Assert(t, found, "%s: %s\nwanted %s", name, told[name], w)
			rest = after
		}
		assert.Equal(t, rest, "", name)
		delete(told, name)
	}
	assert.DeepEqual(t, told, map[string]string{"and 4 outputs more differ": ""})
}

func TestATimeZoneIsCaughtAndLocated(t *testing.T) {
	t.Parallel()
	c := build(t, tree{"a": "b"}, plan(`
mkdir out
echo "$TZ" > out/name.txt
date -d @$SOURCE_DATE_EPOCH > out/text.txt
date -d @$SOURCE_DATE_EPOCH '+at %Y-%m-%d %H:%M' > out/iso.txt
date -d @$SOURCE_DATE_EPOCH '+day %F' > out/day.txt
`, "out/*.txt"))
	assert.Equal(t, c.Status, judge.Fail)
	assert.Equal(t, len(c.Findings), 4)
	for _, f := range c.Findings {
		assert.Assert(t, strings.Contains(f.Message, ".txt: at offset ") && strings.HasSuffix(f.Message, ": the time zone of the build is in it"), f.Message)
		assert.Equal(t, f.Fix, "build in one time zone: TZ=UTC, date -u")
	}
}

func TestABuildThatFailsIsAFailWithItsLastWords(t *testing.T) {
	t.Parallel()
	c := build(t, tree{"a": "b"}, plan("echo before; for i in $(seq 30); do echo line $i; done; echo it broke >&2; exit 3", "out/**"))
	assert.Equal(t, c.Status, judge.Fail)
	assert.DeepEqual(t, c.Findings, []judge.Finding{{Message: "the first build exited with status 3", Fix: "echo before; for i in $(seq 30); do echo line $i; done; echo it broke >&2; exit 3"}})
	assert.Equal(t, len(c.Evidence), 20)
	assert.Equal(t, c.Evidence[19], "it broke")
}

func TestABuildThatFailsOnlyTheSecondTimeIsAFail(t *testing.T) {
	t.Parallel()
	c := build(t, tree{"a": "b"}, plan(`mkdir out; touch out/x; test "$(umask)" = 0022`, "out/**"))
	assert.Equal(t, c.Status, judge.Fail)
	assert.Equal(t, c.Findings[0].Message, "the second build exited with status 1 where the first succeeded: it needs what differs between them, path, HOME, TMPDIR, umask, time zone, locale, order of files, clock")
}

func TestASecondBuildCannotRewriteTheFirst(t *testing.T) {
	t.Parallel()
	c := build(t, tree{"a": "b"}, plan(`mkdir out; date +%N > out/x; if [ -d ../../../1 ]; then cp out/x ../../../1/src/out/x; fi`, "out/**"))
	assert.Equal(t, c.Status, judge.Error)
	assert.Equal(t, c.Detail, "out/x: it changed after the first build had ended")
}

func TestWhatWasNotBuiltIsAnError(t *testing.T) {
	t.Parallel()
	ok := tree{"a": "b", "made": "-> a", "run": "#!/bin/sh\n"}
	argv := func(words ...string) repro.Plan {
		p := plan("", "out/**")
		p.Command = repro.Command{Argv: words}
		return p
	}
	change := func(f func(*repro.Plan)) repro.Plan {
		p := plan("mkdir out; touch out/x", "out/**")
		f(&p)
		return p
	}
	for name, c := range map[string]struct {
		src  tree
		plan repro.Plan
		want string
	}{
		"no time left": {ok, change(func(p *repro.Plan) {
			p.Command.Shell, p.Timeout = "echo slow; sleep 60 & sleep 60", 300*time.Millisecond
		}), "the first build, echo slow; sleep 60 & sleep 60: timed out after 300ms: it said last: slow"},
		"killed":              {ok, plan("kill -9 $$", "out/**"), "the first build, kill -9 $$: the command was killed (signal: killed)"},
		"no tool":             {ok, argv("no-such-tool", "all"), "the first build, no-such-tool all: exit status 127: a tool is missing: it said last: "},
		"no tool in a shell":  {ok, plan("no-such-tool", "out/**"), "exit status 127: a tool is missing: it said last: "},
		"no script":           {ok, argv("./build.sh"), "the first build, ./build.sh: exit status 127: a tool is missing: it said last: "},
		"no executable":       {ok, argv("./a"), "the first build, ./a: exit status 126: a tool is missing: it said last: "},
		"no shell":            {ok, change(func(p *repro.Plan) { p.Env = []string{"PATH=/nonexistent:."} }), `could not start: "sh" is not in PATH`},
		"no blob":             {with(ok, "c", "missing"), plan("true", "out/**"), "checkout: c: object is missing from the repository"},
		"no files":            {tree{}, plan("true", "out/**"), "checkout: the commit has no files"},
		"made nothing":        {ok, plan("true", "out/**"), `the first build, true: it made nothing that matches "out/**": wanted a pattern of files, such as "out/**"`},
		"a folder as pattern": {ok, plan("mkdir out; touch out/x", "out"), `it made nothing that matches "out": wanted a pattern of files, such as "out/**"`},
		"one pattern idle":    {ok, plan("mkdir out; touch out/x", "out/**", "lib/*.so"), `it made nothing that matches "lib/*.so"`},
		"only the commit's":   {ok, plan("cp -p a b; mv b a", "a", "made"), "it made nothing: all that matches a, made is in the commit already"},
		"a pipe":              {ok, plan("mkdir out; mkfifo out/p", "out/**"), "out/p is a p---------: wanted a file"},
		"an output elsewhere": {ok, plan("mkdir out; echo x > ../made; ln -s ../../made out/x", "out/**"), "out/x leads to ../../made, out of the checkout: what is there cannot be compared"},
		"a link out":          {with(ok, "l", "-> ../secret"), plan("true", "out/**"), "checkout: a link of the commit leaves its tree, or goes round: "},
		"a link to the root":  {with(ok, "l", "-> /etc/passwd"), plan("true", "out/**"), "checkout: a link of the commit leaves its tree"},
		"a link of links out": {with(with(with(ok, "d/e/f", ""), "d/e/up", "-> ../.."), "l", "-> d/e/up/../x"), plan("true", "out/**"), "checkout: a link of the commit leaves its tree"},
		"a link in a circle":  {with(ok, "l", "-> l"), plan("true", "out/**"), "checkout: a link of the commit leaves its tree, or goes round"},
		"a path out":          {with(ok, "../x", ""), plan("true", "out/**"), `checkout: "../x" is not a path that a checkout may have`},
		"a repository inside": {with(ok, "d/.Git/config", ""), plan("true", "out/**"), `checkout: "d/.Git/config" is not a path that a checkout may have`},
		"no command":          {ok, plan(" ", "out/**"), "build command is empty: wanted a list of words or one shell line"},
		"two commands":        {ok, change(func(p *repro.Plan) { p.Command.Argv = []string{"x"} }), "build command is given twice: wanted a list of words or one shell line"},
		"an empty word":       {ok, argv("", "x"), "build command begins with an empty word"},
		"no outputs":          {ok, plan("true"), `no outputs are named: wanted patterns of what the build makes, such as "bin/**"`},
		"a bad pattern":       {ok, plan("true", "out/[x"), `"out/[x" is not a pattern of outputs: wanted one such as "bin/**", relative to the checkout`},
		"a pattern out":       {ok, plan("true", "../x"), `"../x" is not a pattern of outputs`},
		"an absolute pattern": {ok, plan("true", "/x"), `"/x" is not a pattern of outputs`},
		"no timeout":          {ok, change(func(p *repro.Plan) { p.Timeout = 0 }), "build timeout is 0s: wanted more than 0"},
		"no time":             {ok, change(func(p *repro.Plan) { p.Epoch = time.Time{} }), "the commit has no time: wanted one for SOURCE_DATE_EPOCH"},
	} {
		t.Run(name, func(t *testing.T) {
			got := build(t, c.src, c.plan)
			assert.Equal(t, got.Status, judge.Error, "%+v", got)
			assert.Assert(t, strings.Contains(got.Detail, c.want), "%s\nwanted %s", got.Detail, c.want)
		})
	}
}

func TestABuildThatIsCancelledIsAnError(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	c := repro.Build(ctx, tree{"a": "b"}, plan("mkdir out; touch out/x; sleep 60", "out/**"), repro.Options{TempDir: t.TempDir()})
	assert.Equal(t, c.Status, judge.Error)
	ctx, cancel = context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	c = repro.Build(ctx, tree{"a": "b"}, plan("mkdir out; touch out/x", "out/**"), repro.Options{TempDir: t.TempDir()})
	assert.Equal(t, c.Status, judge.Error)
	assert.Equal(t, c.Detail, "context deadline exceeded")
}

func TestNoPlanClaimsNothing(t *testing.T) {
	c := repro.Build(t.Context(), tree{}, repro.Plan{Timeout: time.Minute, Epoch: epoch}, repro.Options{})
	assert.Equal(t, c.Status, judge.Unclaimed)
}

func TestAnUnusableTempDirIsAnError(t *testing.T) {
	c := repro.Build(t.Context(), tree{"a": "b"}, plan("true", "out/**"), repro.Options{TempDir: filepath.Join(t.TempDir(), "none")})
	assert.Equal(t, c.Status, judge.Error, fmt.Sprint(c))
}
