package publish

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/covenant"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
	"github.com/vaultmesh/remembrancer/pkg/smoke"
)

// Quarantined is a receipt file, or a signature of one, that is not sequenced.
type Quarantined struct {
	Path   string
	Reason string
}

// found is a receipt file with its signature files.
type found struct {
	receipt *receipt.Receipt
	path    string
	sigs    []receipt.Signature
}

// pending returns the entries to append: the receipts of the tree, and the
// publisher's own, that the log does not have. What may not be sequenced is
// quarantined: named, and left where it is.
func (p *Publisher) pending(ctx context.Context, v *view, res *Result) ([]receipt.Entry, []Quarantined, error) {
	pending, quarantined, err := Pending(v.source, p.Layout, v.trust.Keys, p.Issuer.Fingerprint(), v.entries, p.Now())
	if err != nil {
		return nil, nil, err
	}
	own := make([]*receipt.Receipt, 0, len(p.Observations))
	for _, o := range p.Observations {
		r, err := o.receipt(p, v)
		if err != nil {
			return nil, nil, err
		}
		own = append(own, r)
	}
	incidents, examined, err := p.examine(ctx, v, res)
	if err != nil {
		return nil, nil, err
	}
	own = append(own, incidents...)
	logged := map[receipt.ID]bool{}
	for _, e := range v.entries {
		logged[e.Receipt.ID()] = true
	}
	own = slices.DeleteFunc(own, func(r *receipt.Receipt) bool {
		known := logged[r.ID()]
		logged[r.ID()] = true
		return known
	})
	if examined != nil && !logged[examined.ID()] && len(pending)+len(own) > 0 {
		own = append(own, examined)
	}
	if cutoff, there := covenant.Cutoffs(slices.Concat(v.entries, pending))[p.Issuer.Fingerprint()]; there {
		return nil, nil, &Refusal{What: fmt.Sprintf("the publisher's own key %s is revoked from entry %d on: publish with another trust anchor", p.Issuer.Fingerprint(), cutoff)}
	}
	for _, r := range own {
		e, err := p.issue(ctx, v, r)
		if err != nil {
			return nil, nil, err
		}
		pending = append(pending, e)
	}
	return pending, quarantined, nil
}

// issue signs a receipt of the publisher's own, once.
func (p *Publisher) issue(ctx context.Context, v *view, r *receipt.Receipt) (receipt.Entry, error) {
	e, ok := p.issued[r.ID()]
	if !ok {
		s, err := receipt.Sign(ctx, r, p.Issuer)
		if err != nil {
			return e, err
		}
		if e, err = receipt.NewEntry(r, s); err != nil {
			return e, err
		}
		if p.issued == nil {
			p.issued = map[receipt.ID]receipt.Entry{}
		}
		p.issued[r.ID()] = e
	}
	if _, err := e.Verify(v.trust.Keys, p.Now()); err != nil {
		return e, &Refusal{What: fmt.Sprintf("the publisher's own key is not a trust anchor: %v; %s holds %v", err, p.Layout.Certs(), v.trust.Keys.Fingerprints()), Unreadable: true}
	}
	return e, nil
}

// Pending returns the receipts of a tree that a log of these entries does not
// hold, oldest first, and what is quarantined. publisher is the one issuer whose
// receipts of reserved kinds are admitted; empty admits those of any trusted one,
// for a plan that nobody signs. Only key rotations may come from every trust
// anchor: see [covenant.KeyChange] for who must have signed one.
func Pending(t covenant.Tree, l covenant.Layout, keys *openpgp.Keyring, publisher openpgp.Fingerprint, entries []receipt.Entry, now time.Time) ([]receipt.Entry, []Quarantined, error) {
	all, quarantined, err := readReceipts(t, l)
	if err != nil {
		return nil, nil, err
	}
	type seal struct {
		id     receipt.ID
		signer openpgp.Fingerprint
	}
	logged, ids := map[seal]bool{}, map[receipt.ID]bool{}
	for _, e := range entries {
		ids[e.Receipt.ID()] = true
		for _, s := range e.Signatures {
			logged[seal{e.Receipt.ID(), s.Fingerprint}] = true
		}
	}
	var pending []receipt.Entry
	// Revocations go first: from where one lands on, its key may sign nothing.
	slices.SortStableFunc(all, func(a, b found) int { return cmp.Compare(rank(a.receipt), rank(b.receipt)) })
	revoked := covenant.Cutoffs(entries)
	for _, f := range all {
		r := f.receipt
		var good []receipt.Signature
		issued := ids[r.ID()]
		why := fmt.Sprintf("not signed by its issuer %s: the issuer signs it with: remembrancer sign %s", r.Issuer(), f.path)
		for _, s := range f.sigs {
			if logged[seal{r.ID(), s.Fingerprint}] {
				continue
			}
			err := receipt.VerifySignature(r, s, keys, now)
			if cutoff, there := revoked[s.Fingerprint]; there && err == nil {
				err = fmt.Errorf("the log revokes key %s from entry %d on", s.Fingerprint, cutoff)
			}
			if err != nil {
				quarantined = append(quarantined, Quarantined{f.path + "." + string(s.Fingerprint) + ".asc", err.Error()})
				if s.Fingerprint == r.Issuer() {
					why = fmt.Sprintf("its issuer's signature does not hold: %v", err)
				}
				continue
			}
			good = append(good, s)
			issued = issued || s.Fingerprint == r.Issuer()
		}
		switch {
		case !issued:
			quarantined = append(quarantined, Quarantined{f.path, why})
			continue
		case len(good) == 0:
			continue
		case r.Kind().Reserved() && r.Kind() != receipt.KeyRotation && publisher != "" && r.Issuer() != publisher:
			quarantined = append(quarantined, Quarantined{f.path, fmt.Sprintf("kind %s comes only from the publisher %s", r.Kind(), publisher)})
			continue
		}
		e, err := receipt.NewEntry(r, good...)
		if err == nil && r.Kind() == receipt.KeyRotation {
			// A key's fate is any trust anchor's business, but what would make the
			// log fail its audit for ever is not sequenced.
			err = covenant.CheckKeyChange(e, entries, pending)
		}
		if err != nil {
			quarantined = append(quarantined, Quarantined{f.path, err.Error()})
			continue
		}
		pending = append(pending, e)
		for f, cutoff := range covenant.Cutoffs([]receipt.Entry{e}) {
			revoked[f] = cutoff
		}
	}
	slices.SortStableFunc(pending, func(a, b receipt.Entry) int {
		ia, ib := a.Receipt.ID(), b.Receipt.ID()
		return cmp.Or(a.Receipt.Issued().Compare(b.Receipt.Issued()), bytes.Compare(ia[:], ib[:]))
	})
	return pending, quarantined, nil
}

func rank(r *receipt.Receipt) int {
	c, err := covenant.ParseKeyChange(r)
	switch {
	case err == nil && c.Reason != "":
		return 0
	case err == nil:
		return 1
	}
	return 2
}

// readReceipts reads every receipt file of a tree, sorted by path.
func readReceipts(t covenant.Tree, l covenant.Layout) ([]found, []Quarantined, error) {
	var paths []string
	folder := l.Ops + "/receipts"
	if err := t.Walk(folder, func(p string, _ fs.FileMode, _ string) error {
		paths = append(paths, p)
		return nil
	}); err != nil {
		return nil, nil, err
	}
	slices.Sort(paths)
	var (
		all  []found
		bad  []Quarantined
		sigs = map[string][]string{} // receipt path → signature paths
	)
	for _, p := range paths {
		if strings.HasSuffix(p, ".asc") {
			stem := strings.TrimSuffix(p, ".asc")
			stem = strings.TrimSuffix(stem, path.Ext(stem))
			sigs[stem] = append(sigs[stem], p)
		}
	}
	for _, p := range slices.Sorted(maps.Keys(sigs)) {
		if _, there := slices.BinarySearch(paths, p); !there {
			bad = append(bad, Quarantined{sigs[p][0], "it signs a receipt that is not there: " + p})
		}
	}
	for _, p := range paths {
		// What two nodes signed about a merge is of a format of its own, which the
		// federation covenant judges; its record, of kind federation-merge, is a
		// receipt as any other.
		if !strings.HasSuffix(p, ".receipt") || strings.HasPrefix(p, l.Merges()+"/") {
			continue
		}
		data, err := t.Blob(p)
		if err != nil {
			return nil, nil, err
		}
		r, err := receipt.Parse(data)
		if err != nil {
			bad = append(bad, Quarantined{p, err.Error()})
			continue
		}
		if want := l.Receipt(r.File()); r.File() == "" || want != p {
			bad = append(bad, Quarantined{p, fmt.Sprintf("it is receipt %s and belongs at %s", r.ID(), want)})
			continue
		}
		f := found{receipt: r, path: p}
		for _, sp := range sigs[p] {
			s, err := readSignature(t, p, sp)
			if err != nil {
				bad = append(bad, Quarantined{sp, err.Error()})
				continue
			}
			f.sigs = append(f.sigs, s)
		}
		all = append(all, f)
	}
	return all, bad, nil
}

func readSignature(t covenant.Tree, receiptPath, p string) (receipt.Signature, error) {
	name := strings.TrimSuffix(strings.TrimPrefix(p, receiptPath+"."), ".asc")
	f, err := openpgp.ParseFingerprint(name)
	if err != nil || string(f) != name {
		return receipt.Signature{}, errors.New("want <receipt>.<fingerprint>.asc")
	}
	data, err := t.Blob(p)
	if err != nil {
		return receipt.Signature{}, err
	}
	packet, err := openpgp.Dearmor(data)
	if err != nil {
		return receipt.Signature{}, err
	}
	return receipt.Signature{Fingerprint: f, Packet: packet}, nil
}

// Badge is the rule by which status files follow from the log: those of the last
// observed run that handed over a smoke report. It is what an audit recomputes.
func Badge(e receipt.Entry) (map[string][]byte, bool) {
	report, ok := Reported(e.Receipt)
	if !ok {
		return nil, false
	}
	return map[string][]byte{
		covenant.BadgeFile:   smoke.Badge(report),
		covenant.ShieldsFile: smoke.ShieldsBadge(report),
	}, true
}

// firstDocument is the index document where people made none.
const firstDocument = "# The Remembrancer\n\nThe ledger's root, written by the publisher:\n\n"

func derivedFiles(t covenant.Tree, l covenant.Layout, body checkpoint.Body, entries []receipt.Entry) (map[string][]byte, error) {
	files := map[string][]byte{}
	put := func(p string, want []byte) error {
		got, err := t.Blob(p)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if exists := err == nil; exists != (want != nil) || !bytes.Equal(got, want) {
			files[p] = want
		}
		return nil
	}
	doc, err := t.Blob(l.Docs)
	if errors.Is(err, fs.ErrNotExist) {
		doc, err = []byte(firstDocument), nil
	}
	if err != nil {
		return nil, err
	}
	if doc, err = covenant.WithRoot(doc, body.Root); err != nil {
		return nil, &Refusal{What: fmt.Sprintf("%s: %v", l.Docs, err)}
	}
	if err := put(l.Docs, doc); err != nil {
		return nil, err
	}
	for name, want := range covenant.StatusFiles(entries, Badge) {
		if err := put(l.Status(name), want); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// Filed is a receipt file of a tree. Issued says that its issuer is trusted and
// has signed it.
type Filed struct {
	Path    string
	Receipt *receipt.Receipt
	Issued  bool
}

// Receipts lists the receipt files of a tree, sequenced or not, and those files
// that hold none.
func Receipts(t covenant.Tree, l covenant.Layout, keys *openpgp.Keyring, now time.Time) ([]Filed, []Quarantined, error) {
	all, bad, err := readReceipts(t, l)
	if err != nil {
		return nil, nil, err
	}
	filed := make([]Filed, len(all))
	for i, f := range all {
		filed[i] = Filed{Path: f.path, Receipt: f.receipt, Issued: slices.ContainsFunc(f.sigs, func(s receipt.Signature) bool {
			return s.Fingerprint == f.receipt.Issuer() && receipt.VerifySignature(f.receipt, s, keys, now) == nil
		})}
	}
	return filed, bad, nil
}
