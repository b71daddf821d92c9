package release

import (
	"crypto/x509"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/timestamp"
)

// renewalName is the folder of a renewal: its year, or its day when the year had
// one before. The names sort as they follow each other.
var renewalName = regexp.MustCompile(`^[0-9]{4}(-[0-9]{2}-[0-9]{2})?$`)

// Renewal is a seal over a whole bundle, tokens and earlier renewals included.
// New tokens for it, made before the old algorithms or authorities lose their
// worth, carry the old proof on (the idea of RFC 4998, in plain files).
type Renewal struct {
	Folder string // in the bundle
	Seal   []byte // content of SEAL in the folder
}

// NewRenewal seals a bundle as it is now. One in which something is wrong is
// refused: a renewal would only make it look better.
func NewRenewal(files fs.FS, now time.Time) (Renewal, error) {
	r, err := VerifyBundle(files, Anchors{}, now)
	if err != nil {
		return Renewal{}, err
	}
	if r.Verdict == Failed {
		return Renewal{}, fmt.Errorf("the bundle does not hold, so there is nothing to renew: remembrancer verify-bundle shows why")
	}
	b := &bundle{files: files, sizes: map[string]int64{}, digests: map[string]string{}, anchors: Anchors{}, now: now, report: &BundleReport{}}
	if err := b.layout(); err != nil {
		return Renewal{}, err
	}
	name := now.UTC().Format("2006")
	if slices.Contains(b.renewals, name) {
		name = now.UTC().Format(time.DateOnly)
	}
	slices.Sort(b.renewals)
	if n := len(b.renewals); n > 0 && b.renewals[n-1] >= name {
		return Renewal{}, fmt.Errorf("the bundle was renewed in %s already, want a later day than that", b.renewals[n-1])
	}
	all := map[string]string{}
	for p := range b.sizes {
		if all[p], err = b.digest(p); err != nil {
			return Renewal{}, err
		}
	}
	return Renewal{"renewals/" + name, renderListing(all)}, nil
}

// checkRenewals holds each renewal to what there was before it.
func (b *bundle) checkRenewals() {
	if len(b.renewals) == 0 {
		return
	}
	slices.Sort(b.renewals)
	var found []judge.Finding
	var evidence []string
	last := latest(b.first)
	for i, name := range b.renewals {
		folder := "renewals/" + name
		var list map[string]string
		list, found = b.listing(folder+"/"+bundleSeal, found)
		found = append(found, b.compare(list, "")...)
		for p := range b.sizes {
			later := slices.ContainsFunc(b.renewals[i:], func(n string) bool { return strings.HasPrefix(p, "renewals/"+n+"/") })
			if _, ok := list[p]; ok == later {
				found = append(found, at(p, "%s", map[bool]string{true: "is sealed by " + folder + ", which is not later", false: "is not sealed by " + folder}[later]))
			}
		}
		tokens, ev, f := b.stamps(folder, last)
		evidence, found = append(evidence, ev...), append(found, f...)
		if t := latest(tokens); t.After(last) {
			last = t
		}
	}
	b.judged("renewals", "each renewal seals all that was there, and is later", strings.Join(b.renewals, ", "), evidence, found...)
}

func latest(tokens []*timestamp.Verified) (t time.Time) {
	for _, v := range tokens {
		if v.Time.After(t) {
			t = v.Time
		}
	}
	return t
}

func pemOf(c *x509.Certificate) []byte { return renderCertificates([]*x509.Certificate{c}) }
