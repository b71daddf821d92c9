package covenant

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

// MaxWaiver is the longest that a waiver can last after it was issued.
const MaxWaiver = 90 * 24 * time.Hour

// Waiver lets one failed check pass, for a time. It is a receipt of kind waiver,
// whose predicate has
//
//	check     id of the check: hygiene/links
//	path      of the findings that are meant; absent: the whole check
//	reason    why, for those who read it at every run
//	expires   RFC 3339 time in UTC, at most 90 days after vaultmesh_issued
type Waiver struct {
	Check, Path, Reason string
	Expires             time.Time
	Issuer              openpgp.Fingerprint
	File                string // of the receipt, in the tree
}

// String says who lets it pass, until when and why.
func (w Waiver) String() string {
	return fmt.Sprintf("by %s until %s: %s (%s)", w.Issuer, w.Expires.UTC().Format(time.RFC3339), w.Reason, w.File)
}

// Predicate returns the fields of the waiver's receipt.
func (w Waiver) Predicate() map[string]any {
	m := map[string]any{"check": w.Check, "reason": w.Reason, "expires": w.Expires.UTC().Format(time.RFC3339)}
	if w.Path != "" {
		m["path"] = w.Path
	}
	return m
}

var checkID = regexp.MustCompile(`^([a-z][a-z-]*)/[a-z0-9][a-z0-9-]*$`)

// Waivable says whether a check of this id can be waived, and if not, why. What
// keeps the ledger honest cannot; of the integrity checks only gate-owned and
// documents can.
func Waivable(id string) error {
	m := checkID.FindStringSubmatch(id)
	switch {
	case m == nil || !slices.Contains(judge.Covenants(), m[1]):
		return fmt.Errorf("%q is not the id of a check, such as hygiene/links", id)
	case m[1] == "integrity" && id != claims[12].id && id != "integrity/documents":
		return fmt.Errorf("%s cannot be waived: it keeps the ledger honest", id)
	}
	return nil
}

// Waivers returns the waivers in force of a tree, and a finding for each one that
// is not: unsigned, signed by nobody trusted, expired, too long, or about what
// cannot be waived. Trust is the tree's own. The tree must be a change's base: a
// change must not bring along what lets it pass. An error means that it is not
// known which waivers there are.
func Waivers(base Tree, l Layout, now time.Time) (valid []Waiver, ignored []judge.Finding, err error) {
	folder := l.Receipt(string(receipt.Waiver))
	var paths []string
	if err := base.Walk(folder, func(p string, _ fs.FileMode, _ string) error {
		if strings.HasSuffix(p, ".receipt") {
			paths = append(paths, p)
		}
		return nil
	}); err != nil {
		return nil, nil, err
	}
	if len(paths) == 0 {
		return nil, nil, nil
	}
	trust, err := LoadTrust(base, l)
	if err != nil {
		return nil, nil, err
	}
	for _, p := range paths {
		w, err := readWaiver(base, l, p, trust, now)
		var unread unreadable
		switch {
		case errors.As(err, &unread):
			return nil, nil, err
		case err != nil:
			ignored = append(ignored, judge.Finding{Path: p, Message: "this waiver does not count: " + err.Error(), Warning: true})
		default:
			valid = append(valid, w)
		}
	}
	return valid, ignored, nil
}

func readWaiver(t Tree, l Layout, p string, trust *Trust, now time.Time) (Waiver, error) {
	data, err := read(t, p)
	if err != nil {
		return Waiver{}, err
	}
	r, err := receipt.Parse(data)
	if err != nil {
		return Waiver{}, err
	}
	if r.Kind() != receipt.Waiver || l.Receipt(r.File()) != p {
		return Waiver{}, fmt.Errorf("it is %s %s, which belongs elsewhere", r.Kind(), r.ID())
	}
	w := Waiver{Check: r.Field("check"), Path: r.Field("path"), Reason: r.Field("reason"), Issuer: r.Issuer(), File: p}
	expires := r.Field("expires")
	if w.Expires, err = time.Parse(time.RFC3339, expires); err != nil || w.Expires.UTC().Format(time.RFC3339) != expires {
		return Waiver{}, fmt.Errorf("expires is %q, want an RFC 3339 time in UTC, as 2006-01-02T15:04:05Z", expires)
	}
	if err := w.check(r.Issued(), now); err != nil {
		return Waiver{}, err
	}
	armored, err := read(t, l.Receipt(r.SignatureFile(r.Issuer())))
	if errors.Is(err, fs.ErrNotExist) {
		return Waiver{}, fmt.Errorf("its issuer %s has not signed it: remembrancer sign %s", r.Issuer(), p)
	}
	if err != nil {
		return Waiver{}, err
	}
	packet, err := openpgp.Dearmor(armored)
	if err != nil {
		return Waiver{}, err
	}
	return w, receipt.VerifySignature(r, receipt.Signature{Fingerprint: r.Issuer(), Packet: packet}, trust.Keys, now)
}

// check says what is wrong with a waiver that was issued at a time, by the
// verifier's clock.
func (w Waiver) check(issued, now time.Time) error {
	if err := Waivable(w.Check); err != nil {
		return err
	}
	switch {
	case strings.TrimSpace(w.Reason) == "":
		return errors.New("it gives no reason")
	case w.Path != "" && (!fs.ValidPath(w.Path) || path.Clean(w.Path) != w.Path):
		return fmt.Errorf("path %q is none of the repository", w.Path)
	case issued.After(now.Add(5 * time.Minute)):
		// A date in the future would let it last longer than any may.
		return fmt.Errorf("it was issued in the future, at %s", issued.UTC().Format(time.RFC3339))
	case !w.Expires.After(now):
		return fmt.Errorf("it expired at %s", w.Expires.UTC().Format(time.RFC3339))
	case w.Expires.Sub(issued) > MaxWaiver:
		return fmt.Errorf("it lasts %d days, want at most %d", int(w.Expires.Sub(issued).Hours()/24), int(MaxWaiver.Hours()/24))
	}
	return nil
}

// Waive returns the checks, with Waived set on the failed ones that waivers in
// force cover: as a whole, or all their findings by their paths. Their status
// stays fail. What could not be judged cannot be waived.
func Waive(checks []judge.Check, waivers []Waiver) []judge.Check {
	checks = slices.Clone(checks)
	for i := range checks {
		if c := &checks[i]; c.Status == judge.Fail && Waivable(c.ID) == nil {
			c.Waived = covering(*c, waivers)
		}
	}
	return checks
}

// covering says who covers all of a failed check, "" if nobody does.
func covering(c judge.Check, waivers []Waiver) string {
	var used []string
	covered := map[string]bool{}
	for _, w := range waivers {
		if w.Check != c.ID {
			continue
		}
		if w.Path == "" {
			return w.String()
		}
		if slices.ContainsFunc(c.Findings, func(f judge.Finding) bool { return f.Path == w.Path }) {
			covered[w.Path] = true
			used = append(used, w.String())
		}
	}
	for _, f := range c.Findings {
		if !f.Warning && !covered[f.Path] {
			return ""
		}
	}
	return strings.Join(used, "; ")
}
