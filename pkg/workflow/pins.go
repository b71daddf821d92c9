package workflow

import (
	"fmt"
	"path"
	"regexp"
	"strings"

	"github.com/rhysd/actionlint"

	"github.com/vaultmesh/remembrancer/pkg/judge"
)

// use is one place where a workflow or an action runs another.
type use struct {
	file *file
	what *actionlint.String
	job  *job // nil in an action
	step int  // in the job; -1 for a call of a reusable workflow
}

func (f *file) uses() []use {
	var all []use
	add := func(j *job, steps []*actionlint.Step) {
		for i, step := range steps {
			if a, ok := step.Exec.(*actionlint.ExecAction); ok {
				all = append(all, use{f, a.Uses, j, i})
			}
		}
	}
	for _, j := range f.jobs {
		if j.WorkflowCall != nil {
			all = append(all, use{f, j.WorkflowCall.Uses, j, -1})
		}
		add(j, j.Steps)
	}
	add(nil, f.steps)
	return all
}

var (
	pinnedRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+(/[^/@\s]+)*@([0-9a-fA-F]{40}|[0-9a-fA-F]{64})$`)
	remoteRE = regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+)((?:/[A-Za-z0-9._-]+)*)(?:@([A-Za-z0-9._/-]+))?$`)
	digestRE = regexp.MustCompile(`^[^\s@]+@sha256:[0-9a-f]{64}$`)
	commitRE = regexp.MustCompile(`^([0-9a-fA-F]{40}|[0-9a-fA-F]{64})$`)
)

const (
	pinsClaim  = "every action and image that a workflow runs is pinned by its content"
	pinsNobody = "there is no workflow and no action"
)

// Pins is the check reproducibility/actions: every uses: of another repository
// names a full commit, every image a digest, and every local action and workflow
// is in the tree. Images of containers and services that are named by tag are
// warnings. It does not ask whether a commit belongs to the repository that it is
// fetched from.
func Pins(s *Set) judge.Check { return s.pins("reproducibility/actions") }

func (s *Set) pins(id string) judge.Check {
	if len(s.workflows)+len(s.actions)+len(s.broken) == 0 {
		return judge.NotClaimed(id, pinsClaim, pinsNobody)
	}
	var found []judge.Finding
	n := 0
	for _, f := range append(append([]*file{}, s.workflows...), s.actions...) {
		for _, u := range f.uses() {
			n++
			if message, fix := s.unpinned(u); message != "" {
				found = append(found, f.at(u.what.Pos, fix, "%s", message))
			}
		}
		if f.image != nil {
			n++
			if message, fix := unpinnedImage(f.image.Value); message != "" {
				found = append(found, f.at(f.image.Pos, fix, "%s", message))
			}
		}
		said := map[string]bool{}
		for _, image := range f.containers() {
			n++
			v := image.Value
			if v == "" || said[v] || digestRE.MatchString(strings.TrimPrefix(v, "docker://")) {
				continue
			}
			said[v] = true // once a file
			found = append(found, f.warn(image.Pos, digestFix(v), "the image %q is not pinned by digest", v))
		}
	}
	return s.judged(id, pinsClaim, fmt.Sprintf("%d uses in %d workflows and %d actions", n, len(s.workflows), len(s.actions)), found)
}

func (f *file) containers() []*actionlint.String {
	var all []*actionlint.String
	add := func(c *actionlint.Container) {
		if c != nil && c.Image != nil {
			all = append(all, c.Image)
		}
	}
	for _, j := range f.jobs {
		add(j.Container)
		if j.Services != nil {
			for _, s := range j.Services.Value {
				add(s.Container)
			}
		}
	}
	return all
}

// unpinned returns what is wrong with a uses:, "" for nothing.
func (s *Set) unpinned(u use) (message, fix string) {
	v := u.what.Value
	switch {
	case strings.Contains(v, "${{"):
		return fmt.Sprintf("uses: %q is decided at run time, wanted a name", v), "name the action, with its full commit"
	case strings.HasPrefix(v, "docker://"):
		if image := strings.TrimPrefix(v, "docker://"); !digestRE.MatchString(image) {
			return fmt.Sprintf("the image %q is not pinned by digest", image), digestFix(image)
		}
		return "", ""
	case strings.HasPrefix(v, "./"), strings.HasPrefix(v, "$/"):
		message, _, _ := s.local(u)
		return message, "name an action of this tree, or write owner/action@<40-hex> # vX.Y.Z"
	case pinnedRE.MatchString(v) && !strings.Contains(v, "/../") && !strings.Contains(v, "/./"):
		return "", ""
	}
	m := remoteRE.FindStringSubmatch(v)
	if m == nil || strings.Contains(v, "..") {
		return fmt.Sprintf("uses: %q is neither ./path nor $/path, nor docker://image@sha256:…, nor owner/repository@commit", v), "write owner/action@<40-hex> # vX.Y.Z"
	}
	repo, sub, ref := m[1], m[2], m[3]
	version := ref
	if version == "" {
		version = "vX.Y.Z"
	}
	fix = fmt.Sprintf("write %s%s@<40-hex> # %s", repo, sub, version)
	if ref != "" {
		fix += fmt.Sprintf("; git ls-remote https://github.com/%s '%s*' shows it, in the line with ^{} if there is one", repo, ref)
	}
	if ref == "" {
		return fmt.Sprintf("%s names no commit, and GitHub refuses it", repo+sub), fix
	}
	return fmt.Sprintf("%s is not pinned by a full commit: whoever can move %q decides what runs", repo+sub, ref), fix
}

func digestFix(image string) string {
	name, _, _ := strings.Cut(image, "@")
	return fmt.Sprintf("write %s@sha256:<64-hex>, as docker buildx imagetools inspect shows it", name)
}

// unpinnedImage judges runs.image of an action. Anything but an image by its URL
// is the path of a Dockerfile in the tree.
func unpinnedImage(v string) (message, fix string) {
	image, ok := strings.CutPrefix(v, "docker://")
	base := path.Base(v)
	switch {
	case ok && !digestRE.MatchString(image):
		return fmt.Sprintf("the image %q is not pinned by digest: a commit that pins this action does not pin it", image), digestFix(image)
	case !ok && base != "Dockerfile" && !strings.HasPrefix(base, "Dockerfile.") && !strings.HasSuffix(base, "Dockerfile"):
		return fmt.Sprintf("image: %q is neither a Dockerfile nor docker://image@sha256:…", v), ""
	}
	return "", ""
}

// local judges a use of ./path, which is in the workspace, or of $/path, which is
// in the repository and commit of the file itself. It returns the folder in the
// tree, "" when it is not of this tree, and the workflow, when it is one.
func (s *Set) local(u use) (message, dir string, called *file) {
	v := u.what.Value
	own := strings.HasPrefix(v, "$/")
	if !own && !strings.HasPrefix(v, "./") || strings.Contains(v, "${{") {
		return "", "", nil
	}
	p := path.Clean(v[2:])
	if p == ".." || strings.HasPrefix(p, "../") || strings.HasPrefix(p, "/") {
		return fmt.Sprintf("uses: %q leaves the repository", v), "", nil
	}
	if u.step < 0 {
		for _, f := range s.workflows {
			if f.path == p {
				return "", "", f
			}
		}
		for _, b := range s.broken {
			if b.Path == p {
				return "", "", nil // said already
			}
		}
		return fmt.Sprintf("there is no workflow %s in the tree", p), "", nil
	}
	candidates := []string{p}
	switch {
	case own:
	case u.job != nil:
		message, rest, mine := checkedOut(u.job.Steps[:u.step], p)
		if !mine {
			return message, "", nil
		}
		candidates[0] = rest
	default:
		// Where its caller put the repository, an action cannot know.
		for at := range s.places {
			if rest, ok := strings.CutPrefix(p, at+"/"); ok {
				candidates = append(candidates, rest)
			}
		}
	}
	for _, c := range candidates {
		if s.runnable[c] {
			return "", c, nil
		}
		for _, m := range s.modules {
			if c == m || strings.HasPrefix(c, m+"/") {
				return "", "", nil // the tree pins a submodule by its commit
			}
		}
	}
	return fmt.Sprintf("there is no action in %s of the tree: no action.yml, action.yaml or Dockerfile", candidates[0]), "", nil
}

// checkoutPlaces returns the folders of the workspace that workflows check this
// repository out to, the workspace itself left out.
func (s *Set) checkoutPlaces() map[string]bool {
	places := map[string]bool{}
	for _, f := range s.workflows {
		for _, j := range f.jobs {
			for _, step := range j.Steps {
				if a, ok := checkout(step); ok && ownRepository(a) && path.Clean(input(a, "path")) != "." {
					places[path.Clean(input(a, "path"))] = true
				}
			}
		}
	}
	return places
}

func ownRepository(a *actionlint.ExecAction) bool {
	repo := strings.ReplaceAll(input(a, "repository"), " ", "")
	return repo == "" || repo == "${{github.repository}}"
}

// checkedOut tells what a path of the workspace is by the checkouts before it: a
// path of this repository (mine, and which), or one of another, which is as
// pinned as the checkout is.
func checkedOut(steps []*actionlint.Step, p string) (message, rest string, mine bool) {
	rest, mine = p, true
	longest := -1
	for _, step := range steps {
		a, ok := checkout(step)
		if !ok {
			continue
		}
		at := path.Clean(input(a, "path"))
		below := p
		if at != "." {
			if below, ok = strings.CutPrefix(p, at+"/"); !ok && p != at {
				continue
			}
			if p == at {
				below = "."
			}
		}
		if len(at) < longest {
			continue
		}
		longest = len(at)
		repo, ref := input(a, "repository"), input(a, "ref")
		if ownRepository(a) {
			message, rest, mine = "", below, true
			continue
		}
		message, rest, mine = "", "", false
		if !commitRE.MatchString(ref) {
			message = fmt.Sprintf("%s is of %s, which line %d checks out by ref: %q, not by a full commit", p, repo, step.Pos.Line, ref)
		}
	}
	return message, rest, mine
}

var checkoutRE = regexp.MustCompile(`(?i)^[^@]*/[a-z0-9._-]*checkout[a-z0-9._-]*@`)

// checkout returns the step as an action that checks a repository out.
func checkout(step *actionlint.Step) (*actionlint.ExecAction, bool) {
	a, ok := step.Exec.(*actionlint.ExecAction)
	return a, ok && a.Uses != nil && checkoutRE.MatchString(a.Uses.Value)
}

// input returns the text of an action's input, "" when it is not given.
func input(a *actionlint.ExecAction, name string) string {
	if in, ok := a.Inputs[name]; ok && in.Value != nil {
		return in.Value.Value
	}
	return ""
}
