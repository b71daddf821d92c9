package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/covenant"
	"github.com/vaultmesh/remembrancer/pkg/durable"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
	"github.com/vaultmesh/remembrancer/pkg/merge"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/publish"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

// gather brings what the repository's log and its committed receipts hold to its
// node, if there is something new at HEAD.
func (o *holding) gather(w *world) error {
	if o.p == nil {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	// Mostly nothing is new, which the name of a commit tells.
	if o.seen != nil && o.p.cfg.Publish.PublishRef == "" {
		if now, err := o.p.repo.Resolve("HEAD"); err == nil && now == o.seen.commit {
			return nil
		}
	}
	h, err := o.p.head("HEAD")
	if err != nil {
		return err
	}
	if o.seen != nil && !h.commit.IsZero() && o.seen.commit == h.commit && o.seen.ledger == h.ledger {
		return nil
	}
	trust, err := covenant.LoadTrust(h.tree, o.p.layout)
	if err != nil {
		return err
	}
	lines, err := logLines(h.tree, o.p.layout, trust)
	if err != nil {
		return fmt.Errorf("the log of %s: %w; remembrancer verify-audit says more", h.where, err)
	}
	entries := make([]receipt.Entry, len(lines))
	leaves := make([]checkpoint.Hash, len(lines))
	for i, l := range lines {
		leaves[i] = ledger.RecordHash(l)
		if entries[i], err = receipt.ParseLine(l); err != nil {
			return fmt.Errorf("the log of %s: entry %d: %w", h.where, i, err)
		}
	}
	cutoffs, err := o.believe(w, trust, entries, leaves)
	if err != nil {
		return err
	}
	pending, _, err := publish.Pending(h.tree, o.p.layout, trust.Keys, "", entries, w.now())
	if err != nil {
		return err
	}
	tree := ledger.NewTree(leaves)
	var items []merge.Item
	for i, e := range entries {
		if !merge.Federated(e.Receipt.Kind()) {
			continue
		}
		it := merge.Item{Line: string(lines[i])}
		if c, cut := cutoffs[e.Receipt.Issuer()]; cut && int64(i) < c.Size {
			hashes, err := tree.Inclusion(c.Size, int64(i))
			if err != nil {
				return err
			}
			it.Proof = merge.NewHomeProof(int64(i), hashes)
		}
		items = append(items, it)
	}
	for _, e := range pending {
		if merge.Federated(e.Receipt.Kind()) {
			items = append(items, merge.Item{Line: string(e.Line())})
		}
	}
	added, rejected := 0, 0
	for part := range slices.Chunk(items, 1024) {
		in, err := o.store.Add(w.ctx, "repository", part)
		if err != nil {
			return err
		}
		added += in.Added
		rejected += len(in.Rejected)
	}
	if added > 0 {
		w.note("%d receipts of the repository are new to its node", added)
	}
	if rejected > 0 {
		w.note("⚠️  %d receipts of the repository are in the node's quarantine: remembrancer federation status", rejected)
	}
	o.seen = h
	return nil
}

// logLines returns the lines of a tree's log, proven by its checkpoint.
func logLines(t covenant.Tree, l covenant.Layout, trust *covenant.Trust) ([][]byte, error) {
	note, err := t.Blob(l.Ledger(ledger.CheckpointPath))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // it has not begun
	}
	if err != nil {
		return nil, err
	}
	cp, err := trust.Policy.Open(note)
	if err != nil {
		return nil, err
	}
	if _, err := ledger.Verify(l.LedgerReader(t), cp.Body()); err != nil {
		return nil, err
	}
	var lines [][]byte
	err = ledger.Lines(l.LedgerReader(t), cp.Body(), func(_ int64, line []byte) error {
		lines = append(lines, bytes.Clone(line))
		return nil
	})
	return lines, err
}

// believe has the node trust the issuers of the repository's log, each as far as
// that log says: its own issuers are members of the trust state without being asked
// for, since without them nothing that the repository holds is valid.
func (o *holding) believe(w *world, trust *covenant.Trust, entries []receipt.Entry, leaves []checkpoint.Hash) (map[openpgp.Fingerprint]merge.Cutoff, error) {
	ends := covenant.Cutoffs(entries)
	for i, e := range entries {
		c, err := covenant.ParseKeyChange(e.Receipt)
		if err != nil || c.Reason != "" || c.Old == c.New {
			continue
		}
		// A key that was rotated away vouches for what it signed before.
		if _, still := trust.Keys.Lookup(c.Old); !still {
			if end, there := ends[c.Old]; !there || int64(i)+1 < end {
				ends[c.Old] = int64(i) + 1
			}
		}
	}
	cutoffs := map[openpgp.Fingerprint]merge.Cutoff{}
	for f, size := range ends {
		cutoffs[f] = merge.Cutoff{Size: size, Root: ledger.Root(leaves[:size])}
	}
	next := o.store.Trust()
	for _, ring := range []*openpgp.Keyring{trust.Keys, trust.Retired} {
		if ring == nil {
			continue
		}
		for _, f := range ring.Fingerprints() {
			m := merge.Member{Node: o.store.Identity().Node}
			m.Key, _ = ring.Lookup(f)
			if c, cut := cutoffs[f]; cut {
				if before, ok := trust.Retired.Lookup(f); ok {
					m.Key = before // as it was before it was revoked
				}
				m.Cutoff = &c
			} else if ring == trust.Retired {
				continue // nothing in the log says how far it counts
			}
			was, there := next.Lookup(f)
			if there && bytes.Equal(was.Key.Binary(), m.Key.Binary()) && (was.Cutoff != nil || m.Cutoff == nil) {
				continue
			}
			var err error
			if next, err = next.With(m); err != nil {
				return nil, err
			}
		}
	}
	if next.Hash() == o.store.Trust().Hash() {
		return cutoffs, nil
	}
	if err := o.store.SetTrust(w.ctx, next); err != nil {
		return nil, err
	}
	w.note("the issuers of the repository's log changed the trust state of its node to %s: peers need the same, remembrancer federation trust", next.Hash())
	return cutoffs, nil
}

// mergeFolder is where a node's data has its merge receipts, below receipts.
const mergeFolder = "federation"

// lay writes the merges of the node that are not in the repository yet into its work
// tree, and returns the paths of their receipts. Beside each receipt it lays the list
// of ids (.ids), the receipts that came from the peer as log lines (.lines), the
// peer's certificate, and a receipt of kind federation-merge that binds them by
// digest: that one, once committed, is sequenced by publish. A peer's receipts are
// never entries of the repository's own log.
func (o *holding) lay(w *world) (paths []string, err error) {
	if o.p == nil {
		return nil, nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	names, err := o.merges()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		rel := o.p.layout.Merges() + "/" + name
		path, err := o.p.file(rel)
		if err != nil {
			return nil, err
		}
		if _, err := os.Lstat(path); err == nil {
			continue
		}
		if err := o.layOne(w, name, path); err != nil {
			return nil, fmt.Errorf("%s: %w", rel, err)
		}
		paths = append(paths, rel)
	}
	return paths, nil
}

func (o *holding) layOne(w *world, name, path string) error {
	file, ids, m, err := o.merge(name)
	if err != nil {
		return err
	}
	list, err := merge.ParseSidecar(ids)
	if err != nil {
		return err
	}
	own := o.issuer.Fingerprint()
	other, brought := m.Body.B.Fingerprint, list.OnlyB
	if m.Body.A.Fingerprint != own {
		other, brought = m.Body.A.Fingerprint, list.OnlyA
	}
	items, err := o.store.Items(brought)
	if err != nil {
		return err
	}
	if len(items) != len(brought) {
		return fmt.Errorf("the node holds %d of the %d receipts that the merge brought", len(items), len(brought))
	}
	var lines bytes.Buffer
	for _, it := range items {
		lines.WriteString(it.Line + "\n")
	}
	if peer, ok := o.store.Trust().Lookup(other); ok {
		if err := o.layCertificate(peer.Key); err != nil {
			return err
		}
	}
	// The receipt comes last: it is what says that the others are there.
	if lines.Len() > 0 {
		if err := durable.Put(path+".lines", lines.Bytes(), 0o644); err != nil {
			return err
		}
	}
	if err := durable.Put(path+".ids", ids, 0o644); err != nil {
		return err
	}
	if err := o.layRecord(file, ids); err != nil {
		return err
	}
	return durable.Put(path, file, 0o644)
}

// layRecord writes the receipt of kind federation-merge that the node issued about a
// merge, with its signature.
func (o *holding) layRecord(file, ids []byte) error {
	wanted := []string{digest(file), digest(ids)}
	for _, e := range o.store.Entries() {
		r := e.Receipt
		if r.Kind() != receipt.FederationMerge || r.File() == "" || r.Issuer() != o.issuer.Fingerprint() {
			continue
		}
		if !slices.ContainsFunc(r.Subjects(), func(s receipt.Subject) bool { return s.SHA256 == wanted[0] }) {
			continue
		}
		path, err := o.p.file(o.p.layout.Receipt(r.File()))
		if err != nil {
			return err
		}
		for _, s := range e.Signatures {
			sig, err := o.p.file(o.p.layout.Receipt(r.SignatureFile(s.Fingerprint)))
			if err != nil {
				return err
			}
			if err := durable.Put(sig, openpgp.Armor(s.Packet), 0o644); err != nil {
				return err
			}
		}
		return durable.Put(path, r.Bytes(), 0o644)
	}
	return fmt.Errorf("the node's log holds no receipt about the merge sha256:%s", wanted[0])
}

// layCertificate writes the certificate of a peer beside those of the repository,
// unless it is one of them.
func (o *holding) layCertificate(k *openpgp.Key) error {
	name := string(k.Fingerprint()) + ".asc"
	own, err := o.p.file(o.p.layout.Certs() + "/" + name)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(own); err == nil {
		return nil
	}
	path, err := o.p.file(o.p.layout.PeerCerts() + "/" + name)
	if err != nil {
		return err
	}
	if was, err := os.ReadFile(path); err == nil && bytes.Equal(was, k.Armored()) {
		return nil
	}
	return durable.Put(path, k.Armored(), 0o644)
}

// merges names the receipts of the node's merges, oldest first.
func (o *holding) merges() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(o.dir, "receipts", mergeFolder))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".receipt") {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// merge reads one of them, with its list of ids.
func (o *holding) merge(name string) (file, ids []byte, m *merge.Receipt, err error) {
	path := filepath.Join(o.dir, "receipts", mergeFolder, name)
	if file, err = readBounded(path, maxMergeFile); err != nil {
		return nil, nil, nil, err
	}
	if ids, err = readBounded(path+".ids", maxMergeIDs); err != nil {
		return nil, nil, nil, err
	}
	m, err = merge.Parse(file)
	return file, ids, m, err
}
