// Package workflow reads the workflows and actions of a repository and judges
// them: whether what they run is pinned, and whether they can be trusted to gate
// anything.
//
// [Load] reads every .github/workflows/*.yml and *.yaml, and every action.yml
// and action.yaml of a tree. Workflows go through actionlint's parser, actions
// through its YAML library, so that a finding names a line. [Pins] is one check
// of what they fetch. [Doctor] is a list of checks, each of them about one way in
// which a workflow lets a change through that it should have stopped:
//
//	syntax               GitHub refuses the file, so nothing of it ever runs
//	skippable            a required job that is skipped counts as a success
//	collision            two jobs post one name, and either can satisfy it
//	path-filter          the workflow does not run, and the check waits forever
//	merge-group          the same, in a merge queue
//	pull-request-target  code of a change runs where the secrets are
//	permissions          a token that can do more than its job needs
//	unpinned-action      what runs is decided by whoever can move a tag
//	script-injection     text that anybody can write becomes a script
//	credentials          the token lies where the change's code can read it
//	timeouts             a verdict that is never reached, or swallowed
//	concurrency          a publication is cancelled half way
//	secrets              the publisher's keys are within reach of a change
//	bot-actor            a condition believes a name that anybody can borrow
//
// # What is run
//
// A uses: of ./path is a folder of the workspace, which is this repository unless
// a checkout before put another there; $/path is a folder of the repository and
// commit of the file itself; docker://image is an image; all others name a
// repository and must name a full commit of it. Steps may run in the background
// or in parallel groups, and are found there, too.
//
// # Names of checks
//
// A branch is protected by names. A job posts its name, or its id when it has
// none; a matrix adds " (a, b)" unless the name itself holds an expression, and a
// reusable workflow posts "caller / called". What expressions evaluate to is not
// known here: such a name matches whatever they could become.
//
// # Conditions
//
// Whether a job or step can run on an event is decided by evaluating its if: for
// the event of a stranger: a fork's pull request, by nobody in particular. Only
// what is certainly false excludes it; what cannot be told counts as true.
//
// # What it refuses
//
// A workflow that does not parse, an action that is not one YAML mapping,
// duplicate keys, several documents in one file, aliases that never end or expand
// to more than 200,000 nodes, files of more than 1 MiB, more than 1,000 jobs or
// steps in a list, and symbolic links: none of it can be judged, so no check that
// looks at it passes. An action.yml without
// runs: is no action and is left alone; so is one below a folder named testdata,
// vendor or node_modules, as long as nothing in the tree uses it.
package workflow

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/rhysd/actionlint"
	"go.yaml.in/yaml/v4"

	"github.com/vaultmesh/remembrancer/pkg/judge"
)

const (
	folder   = ".github/workflows"
	maxFile  = 1 << 20 // bytes; GitHub takes half of that
	maxNodes = 200_000 // YAML nodes, with aliases expanded
	maxJobs  = 1000    // of a workflow, and steps of a job: some questions are about pairs of them
)

// Set is what a tree holds of workflows and actions.
type Set struct {
	workflows []*file
	actions   []*file
	broken    []judge.Finding // what could not be read, and is therefore never judged to be fine
	runnable  map[string]bool // every folder with an action.yml, action.yaml or Dockerfile
	all       []post          // the checks that the workflows post
	modules   []string        // submodules
	places    map[string]bool // folders that workflows check the repository out to
}

// file is one workflow or action that was read.
type file struct {
	path  string
	raw   string
	lines []string
	root  *yaml.Node

	flow *actionlint.Workflow // nil for an action
	jobs []*job               // of a workflow, in the order of its text
	byID map[string]*job      // in lower case

	steps []*actionlint.Step // of a composite action
	image *actionlint.String // of a Docker action

	events []string // that it runs on, itself or through its callers in the tree
}

// job is a job with the YAML it was written as: some questions are about text.
type job struct {
	*actionlint.Job
	file  *file
	node  *yaml.Node
	steps []*yaml.Node // as Steps: those of a parallel group each on its own
}

// Load reads a tree. The error is about the tree: a file of it that cannot be
// read. A file that is read and makes no sense is kept, and no check passes
// because of it.
func Load(tree judge.Tree) (*Set, error) {
	s := &Set{runnable: map[string]bool{}}
	var flows, actions []string
	err := tree.Walk("", func(p string, mode fs.FileMode, _ string) error {
		dir, name := path.Split(p)
		dir = path.Clean(dir)
		lower := strings.ToLower(name)
		var list *[]string
		switch {
		case dir == folder && (strings.HasSuffix(lower, ".yml") || strings.HasSuffix(lower, ".yaml")):
			list = &flows
		case name == "action.yml" || name == "action.yaml":
			s.runnable[dir] = true
			list = &actions
		case name == "Dockerfile" || name == "dockerfile":
			s.runnable[dir] = true
			return nil
		case mode&fs.ModeIrregular != 0:
			s.modules = append(s.modules, p)
			return nil
		default:
			return nil
		}
		if !mode.IsRegular() {
			s.broken = append(s.broken, judge.Finding{Path: p, Message: "not a regular file, wanted the text itself"})
			return nil
		}
		*list = append(*list, p)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("workflows: %w", err)
	}
	for _, p := range flows {
		f, err := s.read(tree, p)
		if err != nil {
			return nil, err
		}
		if f != nil && s.parseWorkflow(f) {
			s.workflows = append(s.workflows, f)
		}
	}
	s.places = s.checkoutPlaces()
	s.spreadEvents()
	s.findPosts()
	return s, s.loadActions(tree, actions)
}

// loadActions reads the actions. Those in folders of other people's files are
// read only once something uses them, which may be one of themselves.
func (s *Set) loadActions(tree judge.Tree, paths []string) error {
	slices.Sort(paths)
	used := map[string]bool{}
	note := func(f *file) {
		for _, u := range f.uses() {
			if _, local, _ := s.local(u); local != "" {
				used[local] = true
			}
		}
	}
	for _, f := range s.workflows {
		note(f)
	}
	for pending := paths; ; {
		var later []string
		for _, p := range pending {
			if !used[path.Dir(p)] && slices.ContainsFunc(strings.Split(path.Dir(p), "/"), foreign) {
				later = append(later, p)
				continue
			}
			f, err := s.read(tree, p)
			if err != nil {
				return err
			}
			if f != nil && s.parseAction(f) {
				s.actions = append(s.actions, f)
				note(f)
			}
		}
		if len(later) == len(pending) {
			return nil
		}
		pending = later
	}
}

func foreign(folder string) bool {
	return folder == "testdata" || folder == "vendor" || folder == "node_modules"
}

// read returns a file with its YAML, nil when that cannot be judged.
func (s *Set) read(tree judge.Tree, p string) (*file, error) {
	data, err := tree.Blob(p)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p, err)
	}
	if len(data) > maxFile {
		s.broken = append(s.broken, judge.Finding{Path: p, Message: fmt.Sprintf("has %d bytes, wanted at most %d", len(data), maxFile)})
		return nil, nil
	}
	f := &file{path: p, raw: string(data), lines: strings.Split(string(data), "\n")}
	if f.root, err = decode(data); err != nil {
		s.broken = append(s.broken, judge.Finding{Path: p, Line: yamlLine(err), Message: err.Error()})
		return nil, nil
	}
	return f, nil
}

// decode returns the one document of a file. A second one would be judged by
// nobody and, in whatever reads streams, run.
func decode(data []byte) (*yaml.Node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	doc := new(yaml.Node)
	if err := dec.Decode(doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("is empty")
		}
		return nil, err
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("holds more than one YAML document, wanted one")
	}
	if _, err := weigh(doc, map[*yaml.Node]int{}); err != nil {
		return nil, err
	}
	if len(doc.Content) != 1 {
		return nil, errors.New("is empty")
	}
	return doc.Content[0], nil
}

// weigh counts the nodes below n as they are once every alias is what it stands
// for. A few lines of aliases of aliases are more than any machine can hold.
func weigh(n *yaml.Node, seen map[*yaml.Node]int) (int, error) {
	const open = -1
	switch w := seen[n]; {
	case w == open:
		return 0, fmt.Errorf("line %d: an alias stands for something that it is part of", n.Line)
	case w > 0:
		return w, nil
	}
	seen[n] = open
	sum := 1
	children := n.Content
	if n.Kind == yaml.AliasNode {
		children = []*yaml.Node{n.Alias}
	}
	for _, c := range children {
		w, err := weigh(c, seen)
		if err != nil {
			return 0, err
		}
		if sum += w; sum > maxNodes {
			return 0, fmt.Errorf("line %d: expands to more than %d nodes", n.Line, maxNodes)
		}
	}
	seen[n] = sum
	return sum, nil
}

func yamlLine(err error) int {
	var p *yaml.ParserError
	if errors.As(err, &p) {
		return p.Line
	}
	return 0
}

// parseWorkflow lets actionlint read the file, and reads the steps again: GitHub
// has come to know some that actionlint does not, and one of them holds others.
func (s *Set) parseWorkflow(f *file) bool {
	flow, errs := actionlint.Parse([]byte(f.raw))
	known := map[actionlint.Pos]bool{} // steps of the newer kinds
	ok := true
	bad := func(line, column int, message string) {
		ok = false
		s.broken = append(s.broken, judge.Finding{Path: f.path, Line: line, Column: column, Message: message})
	}
	if flow != nil {
		f.flow, f.byID = flow, map[string]*job{}
		jobs := child(f.root, "jobs")
		for id, j := range flow.Jobs {
			n := child(jobs, id)
			jj := &job{Job: j, file: f, node: n}
			r := stepReader{newer: known}
			if steps := child(n, "steps"); steps != nil && steps.Kind == yaml.SequenceNode {
				r.read(steps, inJob)
			}
			if r.bad != nil {
				bad(r.bad.Line, r.bad.Column, r.why)
			}
			j.Steps, jj.steps = r.steps, r.nodes
			f.jobs, f.byID[id] = append(f.jobs, jj), jj
		}
	}
	for _, e := range errs {
		switch {
		case strings.HasPrefix(e.Message, `unexpected key "queue" for "concurrency" section`),
			strings.HasPrefix(e.Message, `unexpected key "background" for step to `),
			strings.HasPrefix(e.Message, `anchor "`) && strings.HasSuffix(e.Message, "is defined but not used"),
			strings.HasPrefix(e.Message, `step must run script with "run" section`) && known[actionlint.Pos{Line: e.Line, Col: e.Column}]:
			continue
		}
		bad(e.Line, e.Column, e.Message)
	}
	if flow == nil {
		bad(1, 1, "not a workflow")
	}
	if len(f.jobs) > maxJobs {
		bad(1, 1, fmt.Sprintf("has %d jobs, wanted at most %d", len(f.jobs), maxJobs))
	}
	if !ok {
		return false
	}
	slices.SortFunc(f.jobs, func(a, b *job) int {
		return cmp.Or(cmp.Compare(a.Pos.Line, b.Pos.Line), cmp.Compare(a.Pos.Col, b.Pos.Col))
	})
	return true
}

// parseAction reads what an action runs. The rest of its manifest is none of our
// business.
func (s *Set) parseAction(f *file) bool {
	bad := func(n *yaml.Node, format string, args ...any) bool {
		s.broken = append(s.broken, judge.Finding{Path: f.path, Line: n.Line, Column: n.Column, Message: fmt.Sprintf(format, args...)})
		return false
	}
	if resolve(f.root).Kind != yaml.MappingNode {
		return bad(f.root, "not a mapping, wanted the manifest of an action")
	}
	if n, key := twice(f.root); n != nil {
		return bad(n, "key %q stands twice, or is a merge key", key)
	}
	runs := child(f.root, "runs")
	if runs == nil {
		return false // no action, whatever its name
	}
	if runs.Kind != yaml.MappingNode {
		return bad(runs, "runs: is not a mapping")
	}
	f.image = text(child(runs, "image"))
	steps := child(runs, "steps")
	if steps == nil {
		return true
	}
	r := stepReader{}
	r.read(steps, inAction)
	f.steps = r.steps
	if r.bad != nil {
		return bad(r.bad, "%s", r.why)
	}
	return true
}

// resolve returns what an alias stands for.
func resolve(n *yaml.Node) *yaml.Node {
	for n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// pairs yields the keys and values of a mapping; of anything else, none.
func pairs(n *yaml.Node) func(func(k, v *yaml.Node) bool) {
	return func(yield func(k, v *yaml.Node) bool) {
		if n = resolve(n); n == nil || n.Kind != yaml.MappingNode {
			return
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			if !yield(resolve(n.Content[i]), resolve(n.Content[i+1])) {
				return
			}
		}
	}
}

// child returns the value of a key, whatever its case; nil if there is none.
func child(n *yaml.Node, key string) *yaml.Node {
	for k, v := range pairs(n) {
		if strings.EqualFold(k.Value, key) {
			return v
		}
	}
	return nil
}

// text returns a scalar as actionlint would; nil for anything else.
func text(n *yaml.Node) *actionlint.String {
	if n == nil || n.Kind != yaml.ScalarNode {
		return nil
	}
	return &actionlint.String{Value: n.Value, Quoted: n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0, Pos: &actionlint.Pos{Line: n.Line, Col: n.Column}}
}

// twice returns a key that stands twice in one mapping, or that merges another
// into it: which one a reader believes is anybody's guess.
func twice(n *yaml.Node) (*yaml.Node, string) {
	keys := map[string]bool{}
	for k := range pairs(n) {
		name := strings.ToLower(k.Value)
		if keys[name] || name == "<<" {
			return k, k.Value
		}
		keys[name] = true
	}
	for _, c := range n.Content {
		if c.Kind != yaml.AliasNode { // what it stands for is elsewhere in the file
			if bad, key := twice(c); bad != nil {
				return bad, key
			}
		}
	}
	return nil, ""
}

// scalars visits the text of a node, keys left out.
func scalars(n *yaml.Node, fn func(n *yaml.Node)) {
	n = resolve(n)
	switch {
	case n == nil:
	case n.Kind == yaml.ScalarNode:
		fn(n)
	case n.Kind == yaml.MappingNode:
		for _, v := range pairs(n) {
			scalars(v, fn)
		}
	default:
		for _, c := range n.Content {
			scalars(c, fn)
		}
	}
}

// at is a finding at a place of the file.
func (f *file) at(p *actionlint.Pos, fix, format string, args ...any) judge.Finding {
	return judge.Finding{Path: f.path, Line: p.Line, Column: p.Col, Message: fmt.Sprintf(format, args...), Fix: fix}
}

// warn is a finding that alone fails nothing.
func (f *file) warn(p *actionlint.Pos, fix, format string, args ...any) judge.Finding {
	x := f.at(p, fix, format, args...)
	x.Warning = true
	return x
}

// locate returns where a piece of a text stands. A block of text begins a line
// below its key, and only the file knows how it was folded.
func (f *file) locate(s *actionlint.String, piece string) *actionlint.Pos {
	piece, _, _ = strings.Cut(strings.TrimSpace(piece), "\n")
	for i := max(s.Pos.Line, 1) - 1; piece != "" && i < len(f.lines); i++ {
		if c := strings.Index(f.lines[i], piece); c >= 0 && (i >= s.Pos.Line || c+1 >= s.Pos.Col) {
			return &actionlint.Pos{Line: i + 1, Col: c + 1}
		}
	}
	return s.Pos
}

// judged is a check of which everything that there is was looked at. Without
// findings it passes only if everything could be read.
func (s *Set) judged(id, claim, detail string, findings []judge.Finding) judge.Check {
	c := judge.Judged(id, claim, detail, findings...)
	if len(s.broken) > 0 && c.Status == judge.Pass {
		c.Status = judge.Error
		c.Detail = fmt.Sprintf("not judged: %d of the files could not be read, such as %s", len(s.broken), where(s.broken[0]))
	}
	return c
}

func where(f judge.Finding) string {
	at := f.Path
	if f.Line > 0 {
		at = fmt.Sprintf("%s:%d", f.Path, f.Line)
	}
	return at + ": " + f.Message
}
