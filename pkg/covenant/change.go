package covenant

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

// Change is what the change checks need to know beside the two trees.
type Change struct {
	Layout Layout
	// Owned are the patterns of paths that the gate owns, from the base's
	// configuration: each element is a [path.Match] pattern, and the element **
	// stands for any number of elements.
	Owned []string
	// Approved says that a code owner approved this very head.
	Approved bool
	// ApprovalUnknown says that nobody can know it here, as where the forge may
	// not be asked: a change of what the gate owns is then shown and does not
	// fail. The guard, which can know, must be a check of its own.
	ApprovalUnknown bool
}

// Attributes is the line that keeps git from converting or merging the
// evidence. It must be the last rule of .gitattributes: the last rule wins.
func Attributes(l Layout) string {
	return "/" + l.Ops + "/** -text -merge -filter -ident -eol -working-tree-encoding -export-subst -export-ignore"
}

type file struct {
	mode fs.FileMode
	id   string
}

// CheckChange carries out checks 9 to 13 on a base and the merge result.
func CheckChange(base, merge Tree, c Change) *Report {
	r := &Report{}
	was, err1 := files(base)
	is, err2 := files(merge)
	if err := errors.Join(err1, err2); err != nil {
		for i, name := range []string{"ledger unchanged", "receipts only added", "names and attributes", "gate-owned paths", "reserved kinds"} {
			r.add(9+i, name, "", unreadable{err})
		}
		return r
	}
	l := c.Layout
	r.add(9, "ledger unchanged", "ledger, root line, status and certs equal the base's", checkUnchanged(base, merge, was, is, l))
	added, err := checkAdded(was, is, l)
	r.add(10, "receipts only added", fmt.Sprintf("%d receipt files added, none changed or removed", len(added)), err)
	r.add(11, "names and attributes", "no names that fold together, no attributes on "+l.Ops+"/", checkNames(merge, is, l))
	r.addOwned(was, is, c)
	r.add(13, "reserved kinds", "none added", checkKinds(merge, added, l))
	return r
}

func files(t Tree) (map[string]file, error) {
	m := map[string]file{}
	err := t.Walk("", func(p string, mode fs.FileMode, id string) error {
		if id == "" {
			return fmt.Errorf("%s: its content has no id to compare by", p)
		}
		m[p] = file{mode, id}
		return nil
	})
	return m, err
}

// changed returns the paths, sorted, whose mode or content differ, and that
// match.
func changed(was, is map[string]file, match func(string) bool) []string {
	var paths []string
	for p, f := range was {
		if match(p) && is[p] != f {
			paths = append(paths, p)
		}
	}
	for p := range is {
		if _, ok := was[p]; !ok && match(p) {
			paths = append(paths, p)
		}
	}
	slices.Sort(paths)
	return paths
}

func checkUnchanged(base, merge Tree, was, is map[string]file, l Layout) error {
	paths := changed(was, is, func(p string) bool {
		return strings.HasPrefix(p, l.Ops+"/ledger/") || strings.HasPrefix(p, l.Ops+"/status/") || strings.HasPrefix(p, l.Certs()+"/") ||
			p == l.Ops || p == l.Ops+"/ledger" || p == l.Ops+"/status" || p == l.Certs()
	})
	if len(paths) > 0 {
		return fmt.Errorf("only the publisher writes these: %s; git checkout BASE -- PATH restores them", list(paths))
	}
	before, err := rootIn(base, l)
	if err != nil {
		return err
	}
	after, err := rootIn(merge, l)
	if err != nil {
		return err
	}
	if before != after {
		return fmt.Errorf("%s: root line was %q, is %q: only the publisher writes it", l.Docs, before, after)
	}
	return nil
}

// rootIn returns the root lines of the index document, "" where there is none.
func rootIn(t Tree, l Layout) (string, error) {
	doc, err := read(t, l.Docs)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return string(bytes.Join(rootLine.FindAll(doc, -1), []byte("\n"))), nil
}

// checkAdded is check 10. Paths are compared as they are: a rename is a removal.
func checkAdded(was, is map[string]file, l Layout) (added []string, err error) {
	var bad []string
	for _, p := range changed(was, is, func(p string) bool {
		return p == l.Ops+"/receipts" || strings.HasPrefix(p, l.Ops+"/receipts/")
	}) {
		before, existed := was[p]
		after, exists := is[p]
		rel := strings.TrimPrefix(p, l.Ops+"/receipts/")
		switch {
		case existed && !exists:
			bad = append(bad, p+" was removed or renamed")
		case existed && before != after:
			bad = append(bad, p+" was changed")
		case !after.mode.IsRegular():
			bad = append(bad, p+" is not a regular file")
		default:
			_, _, merged := splitMergePath(rel)
			if _, _, _, ok := splitReceiptPath(rel); !ok && !merged {
				bad = append(bad, p+" has no place there: want "+l.Ops+"/receipts/<kind>/NAME.receipt or its .<fingerprint>.asc")
				continue
			}
			added = append(added, p)
		}
	}
	if len(bad) > 0 {
		return added, errors.New(list(bad))
	}
	return added, nil
}

// checkNames is check 11.
func checkNames(merge Tree, is map[string]file, l Layout) error {
	var bad []string
	// Two names of one folded form are one file on case-insensitive and
	// normalising file systems: a checkout there would replace one by the other.
	fold := cases.Fold()
	seen := map[string]string{}
	done := map[string]bool{}
	for _, p := range slices.Sorted(maps.Keys(is)) {
		for dir := p; dir != "." && !done[dir]; dir = path.Dir(dir) {
			done[dir] = true
			key := norm.NFC.String(fold.String(norm.NFD.String(dir)))
			if other, ok := seen[key]; ok {
				bad = append(bad, fmt.Sprintf("%q and %q are one name on some file systems", other, dir))
				break
			}
			seen[key] = dir
		}
		if strings.HasPrefix(p, l.Ops+"/") && isAttributes(p) {
			bad = append(bad, p+" would change how git stores the evidence")
		}
	}
	above, err := attributesAbove(merge, l)
	if err != nil {
		return err
	}
	bad = append(bad, above...)
	attributes, err := read(merge, ".gitattributes")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	last := ""
	for line := range strings.Lines(string(attributes)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			last = line
		}
	}
	if last != Attributes(l) {
		bad = append(bad, fmt.Sprintf(".gitattributes: the last rule is %q, want %q: rules after it would apply to the evidence", last, Attributes(l)))
	}
	if len(bad) > 0 {
		return errors.New(list(bad))
	}
	return nil
}

// addOwned adds check 12.
func (r *Report) addOwned(was, is map[string]file, c Change) {
	const name, detail = "gate-owned paths", "unchanged, or approved by a code owner at this head"
	paths, err := changedOwned(was, is, c)
	switch {
	case err != nil || len(paths) == 0 || c.Approved:
		r.add(12, name, detail, err)
	case c.ApprovalUnknown:
		const demand = "gate-owned path changed: the guard demands a code owner's approval"
		r.find(12, name, demand+" of "+list(paths), nil)
		var shown []judge.Finding
		for _, p := range paths {
			shown = append(shown, judge.Finding{Path: p, Message: demand, Warning: true})
		}
		r.checks = append(r.checks, judge.Judged(claims[12].id, claims[12].text, fmt.Sprintf("%d changed; approval cannot be known here", len(paths)), shown...))
	default:
		r.add(12, name, "", fmt.Errorf("the gate owns these, a code owner must approve this head: %s", list(paths)))
	}
}

// changedOwned returns the changed paths that the gate owns.
func changedOwned(was, is map[string]file, c Change) ([]string, error) {
	for _, pattern := range c.Owned {
		// A pattern that matches nothing by mistake would leave the gate open.
		bad := func(element string) bool {
			_, err := path.Match(element, "")
			return err != nil || element == ""
		}
		if slices.ContainsFunc(strings.Split(pattern, "/"), bad) {
			return nil, unreadable{fmt.Errorf("%q is not a pattern of paths, such as .github/** or SMOKE_TEST.sh", pattern)}
		}
	}
	return changed(was, is, func(p string) bool {
		// Receipts are added by anyone, and the publisher's folders are check 9's.
		if strings.HasPrefix(p, c.Layout.Ops+"/receipts/") {
			return false
		}
		return slices.ContainsFunc(c.Owned, func(pattern string) bool { return matches(pattern, p) })
	}), nil
}

// matches says whether a pattern of [Change] matches a path.
func matches(pattern, p string) bool {
	return owns(strings.Split(pattern, "/"), strings.Split(p, "/"))
}

// owns matches a path with a pattern, both by elements. "a/**" owns "a" too: it
// may be a link in place of the folder.
func owns(pattern, elements []string) bool {
	switch {
	case len(pattern) == 0:
		return len(elements) == 0
	case pattern[0] == "**":
		return owns(pattern[1:], elements) || len(elements) > 0 && owns(pattern, elements[1:])
	case len(elements) == 0:
		return false
	}
	ok, err := path.Match(pattern[0], elements[0])
	return err == nil && ok && owns(pattern[1:], elements[1:])
}

// checkKinds is check 13: it also opens every added receipt, so that a file of
// another kind cannot hide in an allowed folder.
func checkKinds(merge Tree, added []string, l Layout) error {
	var bad []string
	for _, p := range added {
		rel := strings.TrimPrefix(p, l.Ops+"/receipts/")
		if _, _, merged := splitMergePath(rel); merged {
			bad = append(bad, p+": a receipt of a merge comes only from trusted jobs")
			continue
		}
		kind, name, signer, _ := splitReceiptPath(rel)
		if kind.Reserved() {
			bad = append(bad, fmt.Sprintf("%s: kind %s comes only from trusted jobs", p, kind))
			continue
		}
		if signer != "" {
			continue
		}
		data, err := read(merge, p)
		if err != nil {
			return err
		}
		r, err := receipt.Parse(data)
		switch {
		case err != nil:
			bad = append(bad, fmt.Sprintf("%s: %v", p, err))
		case r.Kind().Reserved():
			bad = append(bad, fmt.Sprintf("%s: holds a receipt of kind %s, which comes only from trusted jobs", p, r.Kind()))
		case r.Kind() != kind || r.Name() != name:
			bad = append(bad, fmt.Sprintf("%s: holds receipt %s, want it at %s", p, r.ID(), l.Receipt(r.File())))
		}
	}
	if len(bad) > 0 {
		return errors.New(list(bad))
	}
	return nil
}
