package config

import (
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"slices"
)

// resultLine is the line a smoke command prints to be understood.
const resultLine = `SMOKE_JSON={"pass":N,"total":N}`

var makeTarget = regexp.MustCompile(`(?m)^(smoke(?:-test)?)[ ]*:(?:[^=]|$)`)

// Detect looks for a smoke command that a repository already has: an
// executable SMOKE_TEST.sh, smoke_test.sh or scripts/smoke*.sh, or a Makefile
// with the target smoke or smoke-test. It returns the defaults with that
// command, and the reason says what was found. If found is false the reason
// says what is missing.
func Detect(fsys fs.FS) (s Smoke, reason string, found bool) {
	s = Default().Smoke
	idle := "" // a script that is there but cannot be run
	scripts := []string{"SMOKE_TEST.sh", "smoke_test.sh"}
	if more, err := fs.Glob(fsys, "scripts/smoke*.sh"); err == nil {
		slices.Sort(more)
		scripts = append(scripts, more...)
	}
	for _, name := range scripts {
		info, err := fs.Stat(fsys, name)
		switch {
		case err != nil || !info.Mode().IsRegular():
		case info.Mode()&0o111 == 0:
			if idle == "" {
				idle = name
			}
		default:
			s.Run = Command{Argv: []string{"./" + name}}
			return s, "found " + name, true
		}
	}
	// The order in which GNU make looks.
	for _, name := range []string{"GNUmakefile", "makefile", "Makefile"} {
		text, ok := head(fsys, name)
		if !ok {
			continue
		}
		var targets []string
		for _, m := range makeTarget.FindAllSubmatch(text, -1) {
			targets = append(targets, string(m[1]))
		}
		for _, t := range []string{"smoke", "smoke-test"} {
			if slices.Contains(targets, t) {
				s.Run = Command{Argv: []string{"make", t}}
				return s, fmt.Sprintf("found the target %s in %s", t, name), true
			}
		}
		break
	}
	if idle != "" {
		return Smoke{}, fmt.Sprintf("found %s, but it is not executable: chmod +x %s", idle, idle), false
	}
	return Smoke{}, "found no smoke command: add an executable SMOKE_TEST.sh that prints one line " + resultLine, false
}

// head reads at most the first MiB: a build file that is larger is none that a
// person wrote.
func head(fsys fs.FS, name string) ([]byte, bool) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, false
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, false
	}
	text, err := io.ReadAll(io.LimitReader(f, 1<<20))
	return text, err == nil
}
