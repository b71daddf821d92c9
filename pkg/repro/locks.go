package repro

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"

	"github.com/vaultmesh/remembrancer/pkg/judge"
)

const (
	locksID    = "reproducibility/lock-files"
	locksClaim = "what is taken from others is locked"
)

// Locks wants a lock file for each manifest of the tree, and each lock file
// that is required, with a manifest beside it:
//
//	go.mod with requirements       go.sum, with a hash of every module
//	package.json with dependencies package-lock.json or npm-shrinkwrap.json, that
//	                               locks every dependency as package.json asks for
//	                               it, with its hash; or yarn.lock, pnpm-lock.yaml,
//	                               bun.lock, bun.lockb; also of the workspace above
//	Cargo.toml of a program or     Cargo.lock, also of the workspace above
//	a workspace
//	pyproject.toml with            poetry.lock, uv.lock, pdm.lock, pylock.toml or
//	dependencies, Pipfile,         Pipfile.lock, or a --hash on every line of each
//	requirements*.txt              requirements*.txt beside it
//	composer.json with packages    composer.lock
//	Gemfile, gems.rb               Gemfile.lock, gems.locked
//
// Where no more is said a lock file must be there and hold something; whether
// it fits its manifest is for its own tool to say. The detail says what was
// checked. Without manifest and without required lock file nothing is claimed.
func Locks(t judge.Tree, required []string) judge.Check {
	l, err := list(t, func(name string) bool { return ecosystem(name) != nil })
	if err != nil {
		return judge.Unjudged(locksID, locksClaim, err)
	}
	if len(l.paths) == 0 && len(required) == 0 {
		return judge.NotClaimed(locksID, locksClaim, "no manifest that takes anything from others in the tree"+l.asideText())
	}
	k := &lockCheck{t: t, listing: l, used: map[string]bool{}, counts: map[string]int{}}
	for _, p := range l.paths {
		if err := ecosystem(path.Base(p))(k, p); err != nil {
			return judge.Unjudged(locksID, locksClaim, fmt.Errorf("%s: %w", p, err))
		}
	}
	for _, p := range required {
		if _, ok, err := k.lock(p); err != nil {
			return judge.Unjudged(locksID, locksClaim, fmt.Errorf("%s: %w", p, err))
		} else if !ok {
			k.found(p, 0, "", "is required, and is not a file of the tree that holds something")
		} else if known := path.Base(p); isLock(known) && !k.used[p] {
			k.found(p, 0, "", "is required, and no manifest beside it or in its workspace needs it")
		} else if !isLock(known) {
			k.counts["required file ("+show(known)+", that it is there)"]++
		}
	}
	var checked []string
	for _, what := range slices.Sorted(maps.Keys(k.counts)) {
		checked = append(checked, fmt.Sprintf("%d %s", k.counts[what], what))
	}
	if len(checked) == 0 && len(k.findings) == 0 {
		return judge.NotClaimed(locksID, locksClaim, fmt.Sprintf("%d manifests take nothing from others%s", len(l.paths), l.asideText()))
	}
	return judge.Judged(locksID, locksClaim, "checked: "+strings.Join(checked, "; ")+l.asideText(), k.findings...)
}

type lockCheck struct {
	t judge.Tree
	*listing
	findings []judge.Finding
	used     map[string]bool // lock files that a manifest needs
	counts   map[string]int  // what was checked, and how often
}

func (k *lockCheck) found(p string, line int, fix, format string, args ...any) {
	k.findings = append(k.findings, judge.Finding{Path: p, Line: line, Message: fmt.Sprintf(format, args...), Fix: fix})
}

// lock returns a file that holds something, and whether there is one. A link
// or a submodule is none.
func (k *lockCheck) lock(p string) ([]byte, bool, error) {
	if mode, ok := k.modes[p]; !ok || !mode.IsRegular() {
		return nil, false, nil
	}
	data, err := k.t.Blob(p)
	return data, len(bytes.TrimSpace(data)) > 0, err
}

// beside marks the lock files of these names in a folder as used, and returns
// those that are there.
func (k *lockCheck) beside(dir string, names ...string) (paths []string, err error) {
	for _, name := range names {
		p := path.Join(dir, name)
		_, ok, err := k.lock(p)
		if err != nil {
			return nil, err
		}
		if ok {
			k.used[p] = true
			paths = append(paths, p)
		}
	}
	return paths, nil
}

// manifest returns a manifest's content.
func (k *lockCheck) manifest(p string) ([]byte, error) {
	data, err := follow(k.t, k.modes, p)
	if broken := (brokenLink{}); errors.As(err, &broken) {
		k.found(p, 0, "put the file itself in place of the link", "%s", broken.Error())
		return nil, nil
	}
	return data, err
}

// ecosystem returns how a manifest of that name is checked; nil when it is none.
func ecosystem(name string) func(*lockCheck, string) error {
	switch name {
	case "go.mod":
		return (*lockCheck).golang
	case "package.json":
		return (*lockCheck).npm
	case "Cargo.toml":
		return (*lockCheck).cargo
	case "pyproject.toml", "Pipfile":
		return (*lockCheck).python
	case "composer.json":
		return (*lockCheck).composer
	case "Gemfile":
		return func(k *lockCheck, p string) error { return k.present(p, "bundle lock", "Gemfile.lock") }
	case "gems.rb":
		return func(k *lockCheck, p string) error { return k.present(p, "bundle lock", "gems.locked") }
	}
	if isRequirements(name) {
		return (*lockCheck).python
	}
	return nil
}

var lockNames = slices.Concat([]string{"go.sum", "Cargo.lock", "composer.lock", "Gemfile.lock", "gems.locked"}, npmLocks, otherNodeLocks, pythonLocks)

func isLock(name string) bool { return slices.Contains(lockNames, name) }

// present wants one of the lock files beside a manifest.
func (k *lockCheck) present(p, fix string, names ...string) error {
	found, err := k.beside(path.Dir(p), names...)
	if err != nil {
		return err
	}
	k.counts[fmt.Sprintf("%s (that %s is there)", path.Base(p), strings.Join(names, " or "))]++
	if len(found) == 0 {
		k.found(p, 0, in(path.Dir(p), fix), "has no %s beside it", strings.Join(names, " or "))
	}
	return nil
}

// in is a command to type in a folder.
func in(dir, command string) string {
	if dir == "." {
		return command
	}
	return "cd " + Command{Argv: []string{dir}}.String() + " && " + command
}

// golang checks that each module that go.mod requires has a hash.
func (k *lockCheck) golang(p string) error {
	data, err := k.manifest(p)
	if err != nil || data == nil {
		return err
	}
	f, err := modfile.Parse(p, data, nil)
	if err != nil {
		k.found(p, 0, "", "does not parse, so what it requires is not known: %v", err)
		return nil
	}
	replaced := map[module.Version]module.Version{}
	for _, r := range f.Replace {
		replaced[r.Old] = r.New
	}
	type need struct {
		module.Version
		line int
	}
	var needs []need
	for _, r := range f.Require {
		v := r.Mod
		if by, ok := replaced[v]; ok {
			v = by
		} else if by, ok := replaced[module.Version{Path: v.Path}]; ok {
			v = by
		}
		if v.Version == "" {
			continue // a folder
		}
		n := need{Version: v}
		if r.Syntax != nil {
			n.line = r.Syntax.Start.Line
		}
		needs = append(needs, n)
	}
	if len(needs) == 0 {
		return nil
	}
	k.counts["go.mod (that go.sum has a hash of every module it requires)"]++
	fix := in(path.Dir(p), "go mod tidy")
	sum := path.Join(path.Dir(p), "go.sum")
	data, ok, err := k.lock(sum)
	if err != nil {
		return err
	}
	if !ok {
		k.found(p, 0, fix, "requires %d modules and has no go.sum beside it", len(needs))
		return nil
	}
	k.used[sum] = true
	hashed := map[module.Version]bool{}
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if len(fields) != 3 || !isH1(fields[2]) {
			k.found(sum, n, fix, "is not MODULE VERSION h1:HASH")
			continue
		}
		hashed[module.Version{Path: fields[0], Version: strings.TrimSuffix(fields[1], "/go.mod")}] = true
	}
	for _, v := range needs {
		if !hashed[v.Version] {
			k.found(p, v.line, fix, "%s %s has no hash in go.sum", v.Path, v.Version.Version)
		}
	}
	return nil
}

// isH1 reports whether a text is a hash as go.sum has them.
func isH1(s string) bool {
	b64, ok := strings.CutPrefix(s, "h1:")
	sum, err := base64.StdEncoding.DecodeString(b64)
	return ok && err == nil && len(sum) == 32
}

var (
	npmLocks       = []string{"npm-shrinkwrap.json", "package-lock.json"}
	otherNodeLocks = []string{"yarn.lock", "pnpm-lock.yaml", "bun.lock", "bun.lockb"}
)

// npmKinds are the fields of package.json that list what is installed; of a
// name in several the last counts.
var npmKinds = []string{"devDependencies", "dependencies", "optionalDependencies"}

// npm checks that the lock file has each dependency of package.json, or that
// there is one of another tool.
func (k *lockCheck) npm(p string) error {
	data, err := k.manifest(p)
	if err != nil || data == nil {
		return err
	}
	asked, err := dependencies(data)
	if err != nil {
		k.found(p, 0, "", "does not parse, so what it depends on is not known: %v", err)
		return nil
	}
	if len(asked) == 0 {
		return nil
	}
	fix := in(path.Dir(p), "npm install --package-lock-only")
	names := slices.Concat(npmLocks, otherNodeLocks)
	for dir := path.Dir(p); ; dir = path.Dir(dir) {
		isRoot, err := k.workspace(dir)
		if err != nil {
			return err
		}
		if dir == path.Dir(p) || isRoot {
			found, err := k.beside(dir, names...)
			if err != nil {
				return err
			}
			if len(found) > 0 {
				return k.npmLocked(p, data, asked, dir, found)
			}
		}
		if dir == "." {
			break
		}
	}
	k.counts["package.json (that a lock file is there)"]++
	k.found(p, 0, fix, "has %d dependencies and no %s beside it or at a workspace above", len(asked), strings.Join(names, ", "))
	return nil
}

// workspace reports whether a folder locks what folders below it depend on.
func (k *lockCheck) workspace(dir string) (bool, error) {
	if _, ok := k.modes[path.Join(dir, "pnpm-workspace.yaml")]; ok {
		return true, nil
	}
	data, ok, err := k.lock(path.Join(dir, "package.json"))
	if err != nil || !ok {
		return false, err
	}
	o, err := object(data)
	// What does not parse is a finding of its own.
	return err == nil && o["workspaces"] != nil, nil
}

func (k *lockCheck) npmLocked(p string, manifest []byte, asked map[string]string, dir string, locks []string) error {
	deep := false
	for _, lock := range locks {
		if !slices.Contains(npmLocks, path.Base(lock)) {
			continue
		}
		deep = true
		data, _, err := k.lock(lock)
		if err != nil {
			return err
		}
		k.npmLock(p, manifest, asked, dir, lock, data)
	}
	if deep {
		k.counts["package.json (that the npm lock file has every dependency, as asked for, with its hash)"]++
	} else {
		k.counts[fmt.Sprintf("package.json (that %s is there)", path.Base(locks[0]))]++
	}
	return nil
}

func (k *lockCheck) npmLock(p string, manifest []byte, asked map[string]string, dir, lock string, data []byte) {
	fix := in(dir, "npm install --package-lock-only")
	o, err := object(data)
	if err != nil {
		k.found(lock, 0, fix, "does not parse: %v", err)
		return
	}
	rel := "" // of the package in the lock file
	if path.Dir(p) != dir {
		rel = strings.TrimPrefix(path.Dir(p), strings.TrimPrefix(dir+"/", "./"))
	}
	var entry func(name string) map[string]json.RawMessage
	var locked map[string]string // nil: the version does not say
	switch version := string(o["lockfileVersion"]); version {
	case "2", "3":
		packages, err := object(o["packages"])
		if err != nil {
			k.found(lock, 0, fix, "has no packages: %v", err)
			return
		}
		if packages[rel] == nil {
			k.found(lock, 0, fix, "does not know the package %s", show(p))
			return
		}
		if locked, err = dependencies(packages[rel]); err != nil {
			k.found(lock, 0, fix, "package %q: %v", rel, err)
			return
		}
		entry = func(name string) map[string]json.RawMessage {
			// As Node looks for it: in the package's folder, then above.
			for at := rel; ; at = path.Dir(at) {
				if raw := packages[path.Join(at, "node_modules", name)]; raw != nil {
					e, _ := object(raw) // what is no object has no hash
					return e
				}
				if at == "" || at == "." {
					return nil
				}
			}
		}
	case "1":
		all, err := object(o["dependencies"])
		if err != nil {
			k.found(lock, 0, fix, "has no dependencies: %v", err)
			return
		}
		entry = func(name string) map[string]json.RawMessage {
			e, _ := object(all[name]) // as above
			return e
		}
	default:
		k.found(lock, 0, fix, "lockfileVersion is %q: wanted 1, 2 or 3", version)
		return
	}
	for _, name := range slices.Sorted(maps.Keys(asked)) {
		e, line := entry(name), lineIn(manifest, name)
		switch was, ok := locked[name]; {
		case e == nil || locked != nil && !ok:
			k.found(p, line, fix, "%s is not in %s", show(name), lock)
		case locked != nil && was != asked[name]:
			k.found(p, line, fix, "%s is asked for as %q, and %s locks %q", show(name), asked[name], lock, was)
		case !npmHashed(e):
			k.found(p, line, fix, "%s has no hash in %s", show(name), lock)
		}
	}
}

var (
	integrity = regexp.MustCompile(`^sha(?:1|256|384|512)-[A-Za-z0-9+/]{20,}={0,2}(?:\s|$)`)
	gitCommit = regexp.MustCompile(`^git[+:].*#[0-9a-f]{40}$`)
)

// npmHashed reports whether an entry of a lock file says which content it is
// of: by a hash, by a commit, or as a folder of the tree.
func npmHashed(e map[string]json.RawMessage) bool {
	return integrity.MatchString(text(e["integrity"])) || string(e["link"]) == "true" ||
		gitCommit.MatchString(text(e["resolved"])) || gitCommit.MatchString(text(e["version"]))
}

// object decodes a JSON object with its keys as they are: a struct would take
// "Integrity" for "integrity".
func object(data []byte) (map[string]json.RawMessage, error) {
	var o map[string]json.RawMessage
	if len(data) == 0 {
		return nil, errors.New("there is none")
	}
	if err := json.Unmarshal(bytes.TrimPrefix(data, []byte("\ufeff")), &o); err != nil {
		return nil, err
	}
	if o == nil {
		return nil, errors.New("it is null")
	}
	return o, nil
}

func text(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}

// dependencies returns what a package.json, or its copy in a lock file, asks
// for: names with what versions.
func dependencies(data []byte) (map[string]string, error) {
	o, err := object(data)
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for _, kind := range npmKinds {
		if o[kind] == nil {
			continue
		}
		var some map[string]string
		if err := json.Unmarshal(o[kind], &some); err != nil {
			return nil, fmt.Errorf("%s: %w", kind, err)
		}
		maps.Copy(all, some)
	}
	return all, nil
}

// lineIn is the line on which a JSON text first names a key; 0 for none.
func lineIn(data []byte, key string) int {
	at := regexp.MustCompile(`"` + regexp.QuoteMeta(key) + `"\s*:`).FindIndex(data)
	if at == nil {
		return 0
	}
	return 1 + bytes.Count(data[:at[0]], []byte("\n"))
}

var (
	cargoWorkspace = regexp.MustCompile(`(?m)^\s*\[\s*workspace\s*[\].]|^\s*workspace\s*[.=]`)
	cargoProgram   = regexp.MustCompile(`(?m)^\s*\[\[\s*bin\s*\]\]|^\s*bin\s*=`)
)

func (k *lockCheck) cargo(p string) error {
	data, err := k.manifest(p)
	if err != nil || data == nil {
		return err
	}
	dir := path.Dir(p)
	program := cargoProgram.Match(data) || cargoWorkspace.Match(data)
	for f := range k.modes {
		program = program || f == path.Join(dir, "src/main.rs") || strings.HasPrefix(f, path.Join(dir, "src/bin")+"/")
	}
	if !program {
		return nil
	}
	// A member of a workspace is locked by it.
	for above := dir; above != "."; {
		above = path.Dir(above)
		root, ok, err := k.lock(path.Join(above, "Cargo.toml"))
		if err != nil {
			return err
		}
		if !ok || !cargoWorkspace.Match(root) {
			continue
		}
		if found, err := k.beside(above, "Cargo.lock"); err != nil || len(found) > 0 {
			k.counts["Cargo.toml (that Cargo.lock is there)"]++
			return err
		}
	}
	return k.present(p, "cargo generate-lockfile", "Cargo.lock")
}

var (
	pythonLocks = []string{"poetry.lock", "uv.lock", "pdm.lock", "pylock.toml", "Pipfile.lock"}
	// Tool settings alone take nothing from others.
	pythonNeeds = regexp.MustCompile(`(?m)^\s*(?:optional-)?dependencies\s*=\s*(?:[^\[\s]|\[\s*[^\]\s])|^\s*dynamic\s*=.*dependencies|^\s*\[(?:project\.optional-dependencies|dependency-groups|tool\.poetry\.(?:[A-Za-z0-9_.-]+\.)?dependencies)\]`)
	pythonURL   = regexp.MustCompile(`^(?:-e|--editable)\b`)
	pythonHash  = regexp.MustCompile(`\s--hash[= ]sha(?:256|384|512):[0-9a-f]{64,}`)
	comment     = regexp.MustCompile(`(?:^|\s)#`)
)

func isRequirements(name string) bool {
	return strings.HasPrefix(name, "requirements") && strings.HasSuffix(name, ".txt")
}

// python wants a lock file beside a manifest, or a hash on every requirement.
func (k *lockCheck) python(p string) error {
	data, err := k.manifest(p)
	if err != nil || data == nil {
		return err
	}
	name, dir := path.Base(p), path.Dir(p)
	if name == "pyproject.toml" && !pythonNeeds.Match(data) {
		return nil
	}
	if isRequirements(name) {
		lines, bare := requirements(data)
		if lines == 0 {
			return nil
		}
		if len(bare) > 0 {
			found, err := k.beside(dir, pythonLocks...)
			if err != nil {
				return err
			}
			if len(found) == 0 {
				k.found(p, bare[0], in(dir, "pip-compile --generate-hashes "+Command{Argv: []string{name}}.String()), "%d of %d requirements have no --hash, and there is no %s beside it", len(bare), lines, strings.Join(pythonLocks, ", "))
			}
		}
		k.counts["requirements*.txt (that each line has a --hash, or a lock file is there)"]++
		return nil
	}
	found, err := k.beside(dir, pythonLocks...)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		hashed := 0
		for _, other := range k.paths {
			if path.Dir(other) == dir && isRequirements(path.Base(other)) {
				data, err := k.manifest(other)
				if err != nil {
					return err
				}
				if lines, bare := requirements(data); lines > 0 && len(bare) == 0 {
					hashed++
				}
			}
		}
		if hashed == 0 {
			k.found(p, 0, in(dir, "uv lock"), "has no %s and no requirements.txt with hashes beside it", strings.Join(pythonLocks, ", "))
		}
	}
	k.counts[name+" (that a lock file, or requirements with hashes, are there)"]++
	return nil
}

// requirements counts what a requirements file asks for, and returns the lines
// of what has no hash.
func requirements(data []byte) (n int, bare []int) {
	line, start, whole := 0, 0, ""
	for part := range strings.Lines(string(data)) {
		line++
		if whole == "" {
			start = line
		}
		part = strings.TrimRight(part, "\r\n")
		if cut, ok := strings.CutSuffix(part, `\`); ok {
			whole += cut + " "
			continue
		}
		whole += part
		if at := comment.FindStringIndex(whole); at != nil {
			whole = whole[:at[0]]
		}
		word := strings.TrimSpace(whole)
		whole = ""
		if word == "" || strings.HasPrefix(word, "-") && !pythonURL.MatchString(word) {
			continue // nothing, or an option; files it includes are judged by their names
		}
		n++
		if !pythonHash.MatchString(word) {
			bare = append(bare, start)
		}
	}
	if strings.TrimSpace(whole) != "" {
		n, bare = n+1, append(bare, start) // ends in a continuation
	}
	return n, bare
}

func (k *lockCheck) composer(p string) error {
	data, err := k.manifest(p)
	if err != nil || data == nil {
		return err
	}
	o, err := object(data)
	if err != nil {
		k.found(p, 0, "", "does not parse, so what it requires is not known: %v", err)
		return nil
	}
	for _, kind := range []string{"require", "require-dev"} {
		packages, err := object(o[kind])
		if o[kind] != nil && err != nil && string(o[kind]) != "[]" { // PHP's empty object
			k.found(p, 0, "", "%s does not parse: %v", kind, err)
			return nil
		}
		for name := range packages {
			if strings.Contains(name, "/") { // others are the platform's: php, ext-json
				return k.present(p, "composer update --lock", "composer.lock")
			}
		}
	}
	return nil
}
