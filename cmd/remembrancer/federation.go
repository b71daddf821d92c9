package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/action"
	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/config"
	"github.com/vaultmesh/remembrancer/pkg/durable"
	"github.com/vaultmesh/remembrancer/pkg/federate"
	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
	"github.com/vaultmesh/remembrancer/pkg/legacy"
	"github.com/vaultmesh/remembrancer/pkg/merge"
	"github.com/vaultmesh/remembrancer/pkg/node"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

// syncExit says what the exit status of a sync means beyond the table of all verbs.
const syncExit = "0 when the sets are one and the receipt of the merge is there; 1 when the peer was found wanting: it shows two histories or other keys than those pinned, breaks the protocol, or computes another merge; " +
	"3 when nothing was judged: the peer cannot be reached or cannot sign, its key is not the anchor's, trust differs, the deadline passed."

// anchorInput is the peer's key, from a source other than the peer.
var anchorInput = action.Input{Name: "trust-anchor", Kind: action.List, Usage: "Public key of the peer, as a file; - is standard input"}

// anchors reads files of public keys.
func (w *world) anchors(files []string) ([]*openpgp.Key, error) {
	var all []*openpgp.Key
	for _, f := range files {
		var data []byte
		var err error
		if f == "-" {
			data, err = io.ReadAll(io.LimitReader(w.stdin, maxAnchor))
		} else {
			data, err = os.ReadFile(w.path(f))
		}
		if err != nil {
			return nil, fmt.Errorf("trust anchor: %w", err)
		}
		keys, err := merge.KeysOf(data)
		if err != nil {
			return nil, fmt.Errorf("trust anchor %s: %w", f, err)
		}
		for _, k := range keys {
			if !slices.ContainsFunc(all, func(o *openpgp.Key) bool { return o.Fingerprint() == k.Fingerprint() }) {
				all = append(all, k)
			}
		}
	}
	return all, nil
}

// maxAnchor bounds a file of keys, in bytes.
const maxAnchor = 1 << 20

var verifyMergeVerb = verb{
	spec: action.Spec{
		Verb: "federation verify-merge", Summary: "verify the receipt of a merge, alone and offline",
		Description: "Recomputes the roots and counts of both sides from the list of ids beside the receipt (FILE.ids), and verifies the signatures of both sides and of the operator, " +
			"their checkpoints and set notes, and that it follows the merge before it, where that lies beside it.\n\n" +
			"Whose keys these must be, the receipt cannot say: --trust-anchor does, or else the certificates of this repository or of the node.",
		Args: "FILE",
		Inputs: append([]action.Input{
			{Name: "trust-anchor", Kind: action.List, Usage: "Public key of a party, as a file; both are needed"},
			{Name: "ids", Usage: "The list of ids; FILE.ids when left out."},
			{Name: "previous", Usage: "The merge before it; looked for beside FILE when left out."},
			{Name: "json", Kind: action.Bool, Usage: "Print the verdict as JSON.", CLIOnly: true},
		}, homeInputs()...),
		Exit:     "3 with the verdict CONDITIONAL when nothing is wrong, but the parties' keys are not known.",
		Examples: []string{"remembrancer federation verify-merge --trust-anchor a.asc --trust-anchor b.asc ops/receipts/federation/2025-11-26-a-b.receipt"},
	},
	run: verifyMerge,
}

func verifyMerge(w *world, v *action.Values, _ *action.Runner) error {
	if len(v.Args()) != 1 {
		return misused("want one FILE: the receipt of a merge")
	}
	name := v.Args()[0]
	file, err := readBounded(w.path(name), maxMergeFile)
	if err != nil {
		return err
	}
	ids, err := readBounded(w.path(cmp.Or(v.String("ids"), name+".ids")), maxMergeIDs)
	if err != nil && (v.String("ids") != "" || !errors.Is(err, fs.ErrNotExist)) {
		return err
	}
	keys, err := w.anchors(v.List("trust-anchor"))
	if err != nil {
		return err
	}
	from := "as given"
	if len(keys) == 0 {
		if keys, from, err = w.knownKeys(v); err != nil {
			return err
		}
	}
	ring, err := openpgp.NewKeyring(keys...)
	if err != nil {
		return err
	}
	var previous *merge.Receipt
	if p := v.String("previous"); p != "" {
		data, err := readBounded(w.path(p), maxMergeFile)
		if err != nil {
			return err
		}
		if previous, err = merge.Parse(data); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
	} else if r, err := merge.Parse(file); err == nil && r.Body.Previous != "" {
		previous = mergeBefore(filepath.Dir(w.path(name)), r.Body.Previous)
	}
	verdict := merge.Verify(file, ids, ring, previous)
	code := exitPass
	switch verdict.Status() {
	case judge.Pass:
	case judge.Fail:
		code = exitFail
	default:
		code = exitUnjudged
	}
	development := []openpgp.Fingerprint{}
	if ring != nil && verdict.Receipt != nil {
		b := verdict.Receipt.Body
		for _, f := range ring.Development() {
			if slices.Contains([]openpgp.Fingerprint{b.A.Fingerprint, b.B.Fingerprint, b.Operator}, f) {
				development = append(development, f)
			}
		}
	}
	if v.Bool("json") {
		if err := w.sayJSON(map[string]any{"file": name, "verdict": strings.ToLower(verdict.Outcome()), "anchored": verdict.Anchored, "anchors": from, "development_keys": development, "checks": verdict.Checks}); err != nil {
			return err
		}
		return quietly(code)
	}
	for i, c := range verdict.Checks {
		if i == mergeClaims {
			w.say("")
		}
		w.say("%s %s", c.Mark(), c.Claim)
		if i >= mergeClaims || c.Status != judge.Pass {
			w.say("   %s", action.Defang(c.Detail))
		}
	}
	w.say("")
	line := fmt.Sprintf("%s  %s", verdict.Outcome(), action.Defang(name))
	if r := verdict.Receipt; r != nil {
		line += fmt.Sprintf("; %d receipts, root %s", r.Body.Total, r.Body.Merged)
	}
	w.say("%s; anchors %s", line, from)
	if len(development) > 0 {
		w.say("      ⚠️  signed for development, which proves nothing to others: %v", development)
	}
	if verdict.Conditional() {
		w.say("nothing is wrong, but whose keys these are is not known here: give them with --trust-anchor FILE, from a source other than this receipt")
	}
	return quietly(code)
}

// Bounds of what is read to verify a merge, in bytes.
const (
	maxMergeFile = 1 << 20
	maxMergeIDs  = 1 << 30
)

// mergeClaims is how many of the first checks of a merge are the claims that
// everybody asks about; the others say what they rest on.
const mergeClaims = 3

func readBounded(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("%s: more than %d bytes", path, most)
	}
	return data, err
}

// mergeBefore looks for the receipt of the merge whose signed bytes have this
// digest among the files of a directory.
func mergeBefore(dir, digest string) *merge.Receipt {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".receipt") {
			continue
		}
		data, err := readBounded(filepath.Join(dir, e.Name()), maxMergeFile)
		if err != nil {
			continue
		}
		r, err := merge.Parse(data)
		if err != nil {
			continue
		}
		if got, err := r.Body.Digest(); err == nil && got == digest {
			return r
		}
	}
	return nil
}

// knownKeys are the keys that this repository, or the node, trusts for merges.
func (w *world) knownKeys(v *action.Values) (keys []*openpgp.Key, from string, err error) {
	h, err := w.nodeHome(v.String("data"), v.String("repo"), false)
	if err != nil {
		return nil, "", err
	}
	dirs := []string{filepath.Join(h.dir, "certs")}
	from = "of the node in " + h.dir
	if h.p != nil {
		dirs = []string{filepath.Join(h.p.root, filepath.FromSlash(h.p.layout.Certs())), filepath.Join(h.p.root, filepath.FromSlash(h.p.layout.PeerCerts()))}
		from = "of this repository"
	}
	var files []string
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, "", err
		}
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), ".asc") && e.Type().IsRegular() {
				files = append(files, filepath.Join(dir, e.Name()))
			}
		}
	}
	if keys, err = w.anchors(files); err != nil {
		return nil, "", err
	}
	if len(keys) == 0 {
		from = "none"
	}
	return keys, from, nil
}

// withNode carries out what needs the data of a node: inside of the node that has it
// in its hands, or here, with what is on disk.
func (w *world) withNode(spec action.Spec, v *action.Values, do func(*world, *holding) error) error {
	if w.held != nil {
		return do(w, w.held)
	}
	h, err := w.nodeHome(v.String("data"), v.String("repo"), false)
	if err != nil {
		return err
	}
	if err := w.passOn(h.dir, spec, v); !errors.Is(err, errNobody) {
		return err
	}
	switch begun, err := h.begun(); {
	case err != nil:
		return err
	case !begun && !slices.Contains([]string{federationInit, federationJoinSpec.Verb, federationSyncSpec.Verb}, spec.Verb):
		return fmt.Errorf("there is no node in %s: make one with remembrancer federation init, or name another with --data or --repo", w.near(h.dir))
	}
	o, err := w.hold(h, v, nodeName(spec, v), "")
	if err != nil {
		return err
	}
	return errors.Join(do(w, o), o.store.Close())
}

const federationInit = "federation init"

var federationInitSpec = action.Spec{
	Verb: federationInit, Summary: "make the node that speaks for this repository, or for a data directory",
	Description: "Makes the keys and the empty log of a node, unless they are there, and federation.yaml, which names peers. " +
		"In a repository under the covenant the node issues with the repository's key, and remembrancer node serves that repository from then on.",
	Inputs: append(append(homeInputs(), action.Input{Name: "node-id", Usage: "Name of the node and of its log, as example.org/name; local/node-XXXXXXXX when left out. It stays."}), keyInputs()...),
}

var federationInitVerb = verb{spec: federationInitSpec, run: func(w *world, v *action.Values, _ *action.Runner) error {
	return w.withNode(federationInitSpec, v, func(w *world, o *holding) error {
		if err := o.gather(w); err != nil {
			return err
		}
		id := o.store.Identity()
		if name := v.String("node-id"); name != "" && name != id.Node { // of a node that serves
			return failed("the node in %s is called %s, not %s: a log keeps its name", o.dir, id.Node, name)
		}
		if _, err := os.Lstat(o.file); errors.Is(err, fs.ErrNotExist) {
			text, err := templates.ReadFile("templates/federation.yaml")
			if err != nil {
				return err
			}
			if err := durable.Put(o.file, bytes.ReplaceAll(text, []byte("[[.Node]]"), []byte(id.Node)), 0o644); err != nil {
				return err
			}
			w.say("   wrote    %s", w.near(o.file))
		} else if err != nil {
			return err
		}
		w.say("✅ node %s", id.Node)
		w.say("   key      %s", id.Fingerprint)
		w.say("   data     %s", w.near(o.dir))
		w.say("   next: give peers the public key (remembrancer federation trust --export), take theirs, and type")
		w.say("         remembrancer federation join --peer URL --trust-anchor FILE, here and there")
		return nil
	})
}}

// nodeName is the name that a verb gives to a node that it may make.
func nodeName(spec action.Spec, v *action.Values) string {
	if spec.Verb == federationInit {
		return v.String("node-id")
	}
	return ""
}

// near writes a path as somebody in the working directory would.
func (w *world) near(path string) string {
	if rel, err := filepath.Rel(w.dir, path); err == nil && filepath.IsLocal(rel) {
		return filepath.ToSlash(rel)
	}
	return path
}

var federationTrustSpec = action.Spec{
	Verb: "federation trust", Summary: "show whose receipts the node believes",
	Description: "The trust state is the keys whose receipts are valid, each perhaps only up to a cutoff. Two nodes merge only under equal trust states: compare the hash. " +
		"federation join adds a key, federation revoke cuts one off.",
	Inputs: append(append([]action.Input{
		{Name: "export", Kind: action.Bool, Usage: "Print the node's own public key, to give to peers."},
		{Name: "json", Kind: action.Bool, Usage: "Print JSON.", CLIOnly: true},
	}, homeInputs()...), keyInputs()...),
	Examples: []string{"remembrancer federation trust --export > alice.asc"},
}

var federationTrustVerb = verb{spec: federationTrustSpec, run: func(w *world, v *action.Values, _ *action.Runner) error {
	return w.withNode(federationTrustSpec, v, func(w *world, o *holding) error {
		if err := o.gather(w); err != nil {
			return err
		}
		t := o.store.Trust()
		switch {
		case v.Bool("export"):
			_, err := w.stdout.Write(o.issuer.Public().Armored())
			return err
		case v.Bool("json"):
			return w.sayJSON(trustJSON(t))
		}
		w.say("trust state %s", t.Hash())
		for _, m := range t.Members() {
			w.say("  %s  %s", m.Key.Fingerprint(), action.Defang(o.describe(m)))
		}
		return nil
	})
}}

// describe says in words who a member of the trust state is.
func (o *holding) describe(m merge.Member) string {
	name := m.Node
	if name == "" {
		name = strings.Join(m.Key.UserIDs(), ", ")
	}
	if m.Key.Fingerprint() == o.issuer.Fingerprint() {
		name += " (this node)"
	}
	if m.Cutoff != nil {
		name += fmt.Sprintf(", cut off at size %d, root %x of its log", m.Cutoff.Size, m.Cutoff.Root[:])
	}
	return name
}

func trustJSON(t *merge.Trust) map[string]any {
	members := []any{}
	for _, m := range t.Members() {
		one := map[string]any{"fingerprint": m.Key.Fingerprint(), "node": m.Node, "user_ids": m.Key.UserIDs()}
		if m.Cutoff != nil {
			one["cutoff"] = m.Cutoff
		}
		members = append(members, one)
	}
	return map[string]any{"hash": t.Hash(), "members": members}
}

var federationRevokeSpec = action.Spec{
	Verb: "federation revoke", Summary: "believe a key's receipts only up to a point of its log",
	Description: "What the key issued above the cutoff is not valid any more, and leaves the federated set; nothing is deleted. The cutoff is a size and the root of the log of the node that issues with this key: " +
		"federation status shows the newest checkpoint that was seen of it. A cutoff of size 0 takes all trust away. Peers must set the same cutoff before they merge again.",
	Args: "FINGERPRINT",
	Inputs: append(append([]action.Input{
		{Name: "cutoff-size", Kind: action.Int, Usage: "Number of entries of its log up to which the key counts. Required."},
		{Name: "cutoff-root", Usage: "Root of its log at that size, in hex; not needed for size 0."},
	}, homeInputs()...), keyInputs()...),
	Examples: []string{"remembrancer federation revoke 0123456789ABCDEF0123456789ABCDEF01234567 --cutoff-size 0"},
}

var federationRevokeVerb = verb{spec: federationRevokeSpec, run: func(w *world, v *action.Values, _ *action.Runner) error {
	if len(v.Args()) != 1 {
		return misused("want one FINGERPRINT of a member: remembrancer federation trust lists them")
	}
	f, err := openpgp.ParseFingerprint(v.Args()[0])
	if err != nil {
		return misused("%v", err)
	}
	size := v.Int("cutoff-size")
	if !v.Given("cutoff-size") || size < 0 {
		return misused("want --cutoff-size N, the number of entries of its log up to which the key counts")
	}
	cutoff := &merge.Cutoff{Size: int64(size)}
	switch root, err := hex.DecodeString(v.String("cutoff-root")); {
	case err != nil || len(root) != 0 && len(root) != len(cutoff.Root):
		return misused("--cutoff-root %q: want 64 hex digits", v.String("cutoff-root"))
	case len(root) == 0 && size > 0:
		return misused("want --cutoff-root HEX, the root of its log at size %d", size)
	case len(root) == 0:
		cutoff.Root = ledger.Empty("").Root
	default:
		cutoff.Root = checkpoint.Hash(root)
	}
	return w.withNode(federationRevokeSpec, v, func(w *world, o *holding) error {
		if err := o.gather(w); err != nil {
			return err
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		m, ok := o.store.Trust().Lookup(f)
		switch {
		case !ok:
			return failed("%s is not in the trust state: remembrancer federation trust lists who is", f)
		case f == o.issuer.Fingerprint():
			return failed("%s is this node's own key: make a node with another one, and have the peers revoke this one", f)
		case m.Cutoff != nil && *m.Cutoff == *cutoff:
			w.say("ℹ️  %s is cut off there already", f)
			return nil
		case m.Cutoff != nil && m.Cutoff.Size < cutoff.Size:
			return failed("%s is cut off at size %d already: a cutoff is not moved forward", f, m.Cutoff.Size)
		}
		m.Cutoff = cutoff
		next, err := o.store.Trust().With(m)
		if err != nil {
			return err
		}
		before, err := o.store.Snapshot()
		if err != nil {
			return err
		}
		if err := o.store.SetTrust(w.ctx, next); err != nil {
			return err
		}
		after, err := o.store.Snapshot()
		if err != nil {
			return err
		}
		w.say("✅ %s is cut off at size %d", f, cutoff.Size)
		w.say("   receipts %d, before %d", after.Count, before.Count)
		w.say("   trust    %s", next.Hash())
		w.say("   peers merge again once they have typed the same: remembrancer federation revoke %s --cutoff-size %d --cutoff-root %x", f, cutoff.Size, cutoff.Root[:])
		return nil
	})
}}

var federationHistorySpec = action.Spec{
	Verb: "federation history", Summary: "list the merges of the node",
	Inputs: append(append([]action.Input{
		{Name: "json", Kind: action.Bool, Usage: "Print JSON, one object a line.", CLIOnly: true},
	}, homeInputs()...), keyInputs()...),
}

var federationHistoryVerb = verb{spec: federationHistorySpec, run: func(w *world, v *action.Values, _ *action.Runner) error {
	return w.withNode(federationHistorySpec, v, func(w *world, o *holding) error {
		names, err := o.merges()
		if err != nil {
			return err
		}
		type past struct {
			file string
			m    *merge.Receipt
		}
		var all []past
		for _, name := range names {
			_, _, m, err := o.merge(name)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			all = append(all, past{o.mergePath(w, name), m})
		}
		slices.SortStableFunc(all, func(a, b past) int { return a.m.Body.Time.Compare(b.m.Body.Time) })
		for _, one := range all {
			b := one.m.Body
			peer, came, went := b.B, b.AddedToA, b.AddedToB
			if b.A.Fingerprint != o.issuer.Fingerprint() {
				peer, came, went = b.A, b.AddedToB, b.AddedToA
			}
			if v.Bool("json") {
				line, err := marshalLine(map[string]any{
					"time": b.Time.UTC().Format(time.RFC3339), "peer": peer.Node, "fingerprint": peer.Fingerprint, "root": b.Merged.String(), "total": b.Total,
					"came": came, "went": went, "conflicts": b.Conflicts, "trust": b.Trust, "file": one.file,
				})
				if err != nil {
					return err
				}
				w.say("%s", line)
				continue
			}
			w.say("%s  %s  +%d here, +%d there, %d receipts, root %.16s…  %s", b.Time.UTC().Format(time.RFC3339), action.Defang(peer.Node), came, went, b.Total, b.Merged, one.file)
		}
		if len(all) == 0 && !v.Bool("json") {
			w.note("no merge yet")
		}
		return nil
	})
}}

// mergePath is where a person finds the receipt of a merge: in the repository, if
// the node is of one.
func (o *holding) mergePath(w *world, name string) string {
	path := filepath.Join(o.dir, "receipts", mergeFolder, name)
	if o.p != nil {
		in := filepath.Join(o.p.root, filepath.FromSlash(o.p.layout.Merges()+"/"+name))
		if _, err := os.Lstat(in); err == nil {
			path = in
		}
	}
	return w.near(path)
}

var federationStatusSpec = action.Spec{
	Verb: "federation status", Summary: "show what the node holds, and how it stands with its peers",
	Inputs: append(append([]action.Input{
		{Name: "json", Kind: action.Bool, Usage: "Print JSON.", CLIOnly: true},
	}, homeInputs()...), keyInputs()...),
	Exit: "1 when a peer is stopped, because it showed two histories.",
}

// peerStatus is how the node stands with one peer.
type peerStatus struct {
	Node        string `json:"node"`
	Fingerprint string `json:"fingerprint"`
	URL         string `json:"url"`
	Pinned      bool   `json:"pinned"`
	LogSize     int64  `json:"log_size"` // of its newest checkpoint that was seen
	LogRoot     string `json:"log_root"`
	LastMerge   string `json:"last_merge"` // file
	Stopped     string `json:"stopped"`
}

func (o *holding) peerStatus(w *world, p federate.PeerState) peerStatus {
	s := peerStatus{Node: p.Node, Fingerprint: p.Fingerprint, URL: p.URL, Pinned: p.Identity != nil, Stopped: p.Stopped}
	if b, err := bodyOf(p.LastSeen); err == nil {
		s.LogSize, s.LogRoot = b.Size, fmt.Sprintf("%x", b.Root[:])
	}
	if p.LastMergeFile != "" {
		s.LastMerge = o.mergePath(w, path.Base(p.LastMergeFile))
	}
	return s
}

var federationStatusVerb = verb{spec: federationStatusSpec, run: func(w *world, v *action.Values, _ *action.Runner) error {
	return w.withNode(federationStatusSpec, v, func(w *world, o *holding) error {
		if err := o.gather(w); err != nil {
			return err
		}
		snap, err := o.store.Snapshot()
		if err != nil {
			return err
		}
		id, trust, q := o.store.Identity(), o.store.Trust(), o.store.Quarantine()
		var peers []peerStatus
		code := exitPass
		for _, p := range o.store.Peers() {
			s := o.peerStatus(w, p)
			if s.Stopped != "" {
				code = exitFail
			}
			peers = append(peers, s)
		}
		conflicts := o.store.Conflicts()
		witnesses := cosigners(o.store.Cosigned())
		if v.Bool("json") {
			named := []any{}
			for _, c := range conflicts {
				ids := []string{}
				for _, id := range c.IDs {
					ids = append(ids, id.String())
				}
				named = append(named, map[string]any{"file": c.File, "ids": ids})
			}
			if peers == nil {
				peers = []peerStatus{}
			}
			if err := w.sayJSON(map[string]any{
				"node": id.Node, "fingerprint": id.Fingerprint, "log": id.Log, "data": o.dir, "endpoint": id.Endpoint, "served": w.held != nil,
				"log_size": snap.Size, "receipts": snap.Count, "root": snap.Root.String(), "trust": trustJSON(trust),
				"conflicts": named, "quarantine": q, "peers": peers, "cosigned_by": witnesses,
			}); err != nil {
				return err
			}
			return quietly(code)
		}
		w.say("node      %s", id.Node)
		w.say("key       %s", id.Fingerprint)
		served := "nothing serves it now"
		if w.held != nil {
			served = "served by process " + fmt.Sprint(os.Getpid())
		}
		w.say("data      %s, %s", w.near(o.dir), served)
		w.say("receipts  %d, root %s", snap.Count, snap.Root)
		w.say("log       %d entries, cosigned by %s", snap.Size, cmp.Or(strings.Join(witnesses, ", "), "nobody else"))
		w.say("trust     %s, %d keys", trust.Hash(), len(trust.Members()))
		for _, c := range conflicts {
			w.say("⚠️  conflict: %d receipts are called %s; all are kept", len(c.IDs), action.Defang(c.File))
			for _, id := range c.IDs {
				w.say("            %s", id)
			}
		}
		refused := 0
		for _, n := range q.Counts {
			refused += n
		}
		if refused > 0 {
			w.say("⚠️  quarantine: %d receipts were refused, and are neither held nor passed on", refused)
			for _, reason := range slices.Sorted(maps.Keys(q.Counts)) {
				w.say("            %-15s %d", reason, q.Counts[reason])
			}
			for _, one := range q.Newest[:min(len(q.Newest), shownQuarantine)] {
				w.say("            %s  %s, from %s", action.Defang(one.ID), one.Reason, action.Defang(one.From))
			}
		}
		if len(peers) == 0 {
			w.say("peers     none yet: remembrancer federation join")
		}
		for _, p := range peers {
			w.say("peer      %s  %s", action.Defang(cmp.Or(p.Node, p.Fingerprint)), action.Defang(p.URL))
			if p.Node != "" {
				w.say("          key %s", p.Fingerprint)
			}
			switch {
			case p.Stopped != "":
				w.say("          ❌ stopped: %s", action.Defang(p.Stopped))
				w.say("          once this is explained: remembrancer federation join --resume --peer URL --trust-anchor FILE")
			case !p.Pinned:
				w.say("          not reached yet")
			case p.LogSize > 0:
				w.say("          its log was seen at size %d, root %s", p.LogSize, p.LogRoot)
			}
			if p.LastMerge != "" {
				w.say("          last merge %s", p.LastMerge)
			}
		}
		return quietly(code)
	})
}}

// shownQuarantine is how many of the newest refused receipts a person is shown.
const shownQuarantine = 5

// cosigners names who else signed a checkpoint that is known to be our own.
func cosigners(note []byte) []string {
	names := []string{}
	_, sigs, _ := strings.Cut(string(note), "\n\n")
	for i, line := range strings.Split(strings.TrimSuffix(sigs, "\n"), "\n") {
		if rest, ok := strings.CutPrefix(line, "— "); ok && i > 0 {
			name, _, _ := strings.Cut(rest, " ")
			names = append(names, name)
		}
	}
	return names
}

// peerSpec is a peer that somebody names: where it is, and whose key it must have.
type peerSpec struct {
	url  string
	keys []*openpgp.Key
	dial node.DialOptions
}

// dialInputs say how a peer is reached.
func dialInputs() []action.Input {
	return []action.Input{
		{Name: "token-file", Usage: "File with the bearer token that the peer wants."},
		{Name: "ca", Usage: "Certificates that vouch for an HTTPS peer; those of the system when left out."},
		{Name: "client-cert", Usage: "Certificate to show to an HTTPS peer that wants one."},
		{Name: "client-key", Usage: "Its key."},
	}
}

// dialOptions reads how a peer is reached.
func (w *world) dialOptions(v *action.Values) (node.DialOptions, error) {
	if (v.String("client-cert") == "") != (v.String("client-key") == "") {
		return node.DialOptions{}, misused("want both --client-cert and --client-key, or neither")
	}
	return w.dialFiles(v.String("token-file"), v.String("ca"), v.String("client-cert"), v.String("client-key"))
}

// dialFiles reads the files that say how a peer is reached; "" for none.
func (w *world) dialFiles(token, ca, cert, key string) (o node.DialOptions, err error) {
	if token != "" {
		secret, err := readBounded(w.path(token), 1<<16)
		if err != nil {
			return o, err
		}
		o.Token = strings.TrimSpace(string(secret))
	}
	if ca != "" {
		if o.RootCAs, err = w.certPool(ca); err != nil {
			return o, err
		}
	}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(w.path(cert), w.path(key))
		if err != nil {
			return o, err
		}
		o.Certificate = &pair
	}
	return o, nil
}

func (w *world) certPool(file string) (*x509.CertPool, error) {
	data, err := readBounded(w.path(file), maxAnchor)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, misused("%s: found no certificate, want PEM", file)
	}
	return pool, nil
}

// identityType is the payload type that a node signs its identity as.
const identityType = "application/vnd.vaultmesh.node-identity+json"

// farFuture is later than any signature can claim to be: whether a peer is who it
// says does not depend on whose clock is right.
var farFuture = time.Unix(1<<32, 0)

// reach opens a session with a peer and has it prove who it is, by one of the keys.
func (w *world) reach(ctx context.Context, p peerSpec) (*node.Client, federate.Identity, error) {
	c, err := node.Dial(ctx, p.url, p.dial)
	if err != nil {
		return nil, federate.Identity{}, fmt.Errorf("cannot connect to the peer: %w", err)
	}
	id, err := identify(ctx, c, p.keys)
	if err != nil {
		_ = c.Close() // why it was left is what matters
		return nil, id, err
	}
	return c, id, nil
}

// identify asks who a peer is, and verifies that one of the keys signed it. What the
// keys of the identity are good for, a sync verifies.
func identify(ctx context.Context, c federate.Caller, keys []*openpgp.Key) (federate.Identity, error) {
	var out federate.IdentityOut
	if err := c.Call(ctx, federate.ToolIdentity, federate.IdentityIn{}, &out); err != nil {
		return federate.Identity{}, err
	}
	untrusted := func(format string, args ...any) (federate.Identity, error) {
		return federate.Identity{}, &federate.Untrusted{Err: fmt.Errorf(format, args...)}
	}
	var id federate.Identity
	dec := json.NewDecoder(strings.NewReader(out.Identity))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&id); err != nil {
		return untrusted("its identity is not readable: %w", err)
	}
	var names []string
	for _, k := range keys {
		if names = append(names, string(k.Fingerprint())); string(k.Fingerprint()) != id.Fingerprint {
			continue
		}
		ring, err := openpgp.NewKeyring(k)
		if err != nil {
			return id, err
		}
		sig, err := base64.StdEncoding.Strict().DecodeString(out.Signature)
		if err != nil {
			return untrusted("the signature of its identity is not base64")
		}
		pae := fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(identityType), identityType, len(out.Identity), out.Identity)
		if _, err := openpgp.Verify(ring, k.Fingerprint(), pae, sig, openpgp.VerifyOptions{Now: farFuture}); err != nil {
			return untrusted("its identity: %w", err)
		}
		return id, nil
	}
	return untrusted("it says that its key is %.64q, the trust anchor is %s", id.Fingerprint, strings.Join(names, ", "))
}

// trustKeys takes keys into the trust state, each under a name for people. Of a key
// that is there already a newer certificate takes the place, a cutoff stays.
func (o *holding) trustKeys(ctx context.Context, name string, keys []*openpgp.Key) (added []*openpgp.Key, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	next := o.store.Trust()
	for _, k := range keys {
		m, there := next.Lookup(k.Fingerprint())
		if there && (bytes.Equal(m.Key.Binary(), k.Binary()) || k.Fingerprint() == o.issuer.Fingerprint()) {
			continue
		}
		if m.Key = k; name != "" {
			m.Node = name
		}
		if next, err = next.With(m); err != nil {
			return nil, err
		}
		added = append(added, k)
	}
	if len(added) == 0 {
		return nil, nil
	}
	return added, o.store.SetTrust(ctx, next)
}

var federationJoinSpec = action.Spec{
	Verb: "federation join", Summary: "trust a peer's key, and remember where the peer is",
	Description: "Takes the key into the trust state and, if the peer can be reached, pins the keys of its log, its sets and its witness, which its OpenPGP key signs. " +
		"Both sides must join each other: two nodes merge only when they trust the same keys.\n\n" +
		"Get the peer's key from its operator, not from the peer: remembrancer federation trust --export prints it there.",
	Inputs: append(append(append([]action.Input{
		{Name: "peer", Usage: "URL of the peer's MCP server, as http://localhost:8002/mcp. Required."},
		anchorInput,
		{Name: "resume", Kind: action.Bool, Usage: "Go on with a peer that was stopped because it showed two histories, with the one it shows now."},
	}, dialInputs()...), homeInputs()...), keyInputs()...),
	Exit:     "0 also when the peer cannot be reached yet: the first sync pins its keys.",
	Examples: []string{"remembrancer federation join --peer http://localhost:8002/mcp --trust-anchor bob.asc"},
}

var federationJoinVerb = verb{spec: federationJoinSpec, run: func(w *world, v *action.Values, _ *action.Runner) error {
	return w.withNode(federationJoinSpec, v, func(w *world, o *holding) error {
		p, err := w.namedPeer(v)
		if err != nil {
			return err
		}
		return w.join(o, p, v.Bool("resume"))
	})
}}

// namedPeer reads the peer that --peer and --trust-anchor name.
func (w *world) namedPeer(v *action.Values) (p peerSpec, err error) {
	if p.url = v.String("peer"); p.url == "" {
		return p, misused("want the peer: --peer URL, as http://localhost:8002/mcp")
	}
	files := v.List("trust-anchor")
	if len(files) == 0 {
		return p, fmt.Errorf("no trust anchor: want the peer's public key from its operator, with --trust-anchor FILE; what answers at %s proves nothing by itself", p.url)
	}
	if p.keys, err = w.anchors(files); err != nil {
		return p, err
	}
	p.dial, err = w.dialOptions(v)
	return p, err
}

// joinTime is how long a peer that is joined has to answer.
const joinTime = 15 * time.Second

func (w *world) join(o *holding, p peerSpec, resume bool) error {
	if err := o.gather(w); err != nil {
		return err
	}
	for _, k := range p.keys {
		if k.Fingerprint() == o.issuer.Fingerprint() {
			return failed("%s is this node's own key: want the peer's", k.Fingerprint())
		}
	}
	ctx, cancel := context.WithTimeout(w.ctx, joinTime)
	defer cancel()
	c, id, cause := w.reach(ctx, p)
	var untrusted *federate.Untrusted
	if errors.As(cause, &untrusted) {
		return cause // nothing was changed
	}
	added, err := o.trustKeys(w.ctx, id.Node, p.keys)
	if err != nil {
		return err
	}
	for _, k := range p.keys {
		if o.p != nil {
			if err := o.layCertificate(k); err != nil {
				return err
			}
		}
		word := "trusted already"
		if slices.Contains(added, k) {
			word = "trusted"
		}
		w.say("✅ %s %s: %s", word, k.Fingerprint(), action.Defang(strings.Join(k.UserIDs(), ", ")))
	}
	f := p.keys[0].Fingerprint()
	if cause == nil {
		f = openpgp.Fingerprint(id.Fingerprint)
	}
	state, _ := o.store.Peer(f)
	if resume && state.Stopped != "" {
		w.say("✅ resumed %s, stopped because %s", action.Defang(state.Node), action.Defang(state.Stopped))
		if err := o.store.Resume(f); err != nil {
			return err
		}
		state, _ = o.store.Peer(f)
	}
	state.Fingerprint, state.URL = string(f), p.url
	if cause == nil {
		if was := state.Identity; was != nil && (was.Log != id.Log || was.Witness != id.Witness || was.Set != id.Set) {
			w.say("⚠️  its keys were others: log %s, witness %s, sets %s", was.Log, was.Witness, was.Set)
			state.LastSeen, state.TailSize = nil, 0
		}
		state.Node, state.Identity = id.Node, &id
	}
	if err := o.store.PutPeer(state); err != nil {
		return err
	}
	agreed := false
	if cause != nil {
		w.say("⚠️  %s cannot be reached now; the first sync pins its keys", p.url)
		w.say("   %s", action.Defang(cause.Error()))
	} else {
		w.say("✅ pinned %s at %s", action.Defang(id.Node), p.url)
		w.say("   log      %s", action.Defang(id.Log))
		w.say("   witness  %s", action.Defang(id.Witness))
		w.say("   sets     %s", action.Defang(id.Set))
		if agreed, err = w.compareTrust(ctx, o, c); err != nil {
			w.say("⚠️  %s", action.Defang(err.Error()))
		}
		_ = c.Close()
	}
	own := o.store.Identity()
	w.say("   trust    %s", o.store.Trust().Hash())
	if agreed {
		return nil
	}
	w.say("   there: remembrancer federation join --peer %s --trust-anchor FILE", cmp.Or(own.Endpoint, "URL-OF-THIS-NODE"))
	w.say("   where FILE is this node's key %s: remembrancer federation trust --export", own.Fingerprint)
	return nil
}

// compareTrust says in what the peer's trust state differs from ours, and reports
// whether it is the same.
func (w *world) compareTrust(ctx context.Context, o *holding, c federate.Caller) (bool, error) {
	var out federate.TrustOut
	if err := c.Call(ctx, federate.ToolTrust, federate.TrustIn{}, &out); err != nil {
		return false, err
	}
	differences := merge.Differences(o.store.Trust().Named(), out.Members)
	if len(differences) == 0 {
		w.say("✅ both trust the same keys")
		return true, nil
	}
	w.say("ℹ️  the trust states differ still:")
	for _, d := range differences {
		w.say("     %s", action.Defang(d))
	}
	return false, nil
}

var federationSyncSpec = action.Spec{
	Verb: "federation sync", Summary: "exchange receipts with a peer, and both sign what came of it",
	Description: "Takes what the peer has and we lack, gives what we have and it lacks, and makes a receipt of the merge that both sides sign. What was taken stays when a sync is cut off: the next one goes on from there. " +
		"A key that --trust-anchor or federation.yaml names is taken into the trust state when the peer has proven that it has it.\n\n" +
		"While a node serves the data, it is that node which syncs.",
	Inputs: append(append(append([]action.Input{
		{Name: "peer", Usage: "URL of the peer's MCP server, as http://localhost:8002/mcp."},
		anchorInput,
		{Name: "all", Kind: action.Bool, Usage: "Sync with each peer of federation.yaml, and with each that was joined."},
		{Name: "deadline", Kind: action.Duration, Default: "30m", Usage: "How long one sync may take."},
		{Name: "interval", Kind: action.Duration, Usage: "Go on, and sync again after this time; after a failure sooner, as retry_backoff of federation.yaml says."},
		{Name: "self-test", Kind: action.Bool, Usage: "Sync throw-away nodes with each other instead, and lie to them; see federation self-test."},
		{Name: "nodes", Kind: action.Int, Default: "2", Usage: "For --self-test: how many nodes come to one root."},
		{Name: "unsigned", Kind: action.Bool, Usage: "Take memories from a peer that has only the ancestor's tools, whose word is all there is for them."},
		{Name: "json", Kind: action.Bool, Usage: "Print the result as JSON.", CLIOnly: true},
	}, dialInputs()...), homeInputs()...), keyInputs()...),
	Exit:     syncExit,
	Examples: []string{"remembrancer federation sync --peer http://localhost:8002/mcp --trust-anchor bob.asc"},
}

var federationSyncVerb = verb{spec: federationSyncSpec, run: func(w *world, v *action.Values, _ *action.Runner) error {
	once := func(ctx context.Context) error {
		one := *w
		one.ctx = ctx
		return one.withNode(federationSyncSpec, v, func(w *world, o *holding) error { return w.syncPeers(o, v) })
	}
	if v.Bool("self-test") {
		if v.Bool("all") || v.String("peer") != "" {
			return misused("--self-test syncs throw-away nodes: want it without --peer and --all")
		}
		verdict, err := w.selfTest(v.Int("nodes"), v.Bool("json"))
		if err != nil {
			return err
		}
		return quietly(verdictExit(verdict.Status))
	}
	if v.Bool("all") == (v.String("peer") != "") {
		return misused("want --peer URL with --trust-anchor FILE, or --all, or --self-test")
	}
	if v.Duration("interval") == 0 {
		return once(w.ctx)
	}
	h, err := w.nodeHome(v.String("data"), v.String("repo"), false)
	if err != nil {
		return err
	}
	fed, _, err := h.federation()
	if err != nil {
		return err
	}
	schedule := federate.Schedule{Interval: v.Duration("interval"), Backoff: fed.Backoff}
	err = schedule.Run(w.ctx, once, func(err error, next time.Duration) {
		if err != nil && !errors.Is(err, errSaid) {
			w.note("remembrancer federation sync: %s", action.Defang(err.Error()))
		}
		w.note("next in %v", next)
	})
	if w.ctx.Err() != nil {
		return nil // told to end
	}
	return err
}}

// syncPeers syncs with the peer that was named, or with all.
func (w *world) syncPeers(o *holding, v *action.Values) error {
	fed, there, err := o.federation()
	if err != nil {
		return err
	}
	s := syncing{deadline: v.Duration("deadline"), unsigned: v.Bool("unsigned"), say: w.say, progress: w.progress()}
	if v.Bool("json") {
		s.say = func(string, ...any) {}
	}
	var peers []peerSpec
	dial, err := w.dialOptions(v)
	if err != nil {
		return err
	}
	if v.Bool("all") {
		if peers, err = w.allPeers(o, fed, dial); err != nil {
			return err
		}
		if len(peers) == 0 {
			return fmt.Errorf("there is nobody to sync with: name peers in %s, or remembrancer federation join", w.near(o.file))
		}
	} else {
		p, err := w.namedPeer(v)
		if err != nil {
			return err
		}
		peers = []peerSpec{p}
	}
	code := exitPass
	for i, p := range peers {
		if i > 0 {
			s.say("")
		}
		result, err := w.syncOne(w.ctx, o, p, s)
		if v.Bool("json") {
			if err != nil {
				result["error"] = err.Error()
			}
			result["exit"] = exitCode(err)
			line, merr := marshalLine(result)
			if merr != nil {
				return merr
			}
			w.say("%s", line)
		} else if err != nil && !errors.Is(err, errSaid) {
			w.note("remembrancer federation sync: %s: %s", p.url, action.Defang(err.Error()))
		}
		// What was found wanting outweighs what could not be judged.
		if c := exitCode(err); c == exitFail || code == exitPass {
			code = c
		}
	}
	if there && code == exitPass && !v.Bool("unsigned") {
		if err := w.reachQuorum(o, fed, dial, s); err != nil {
			return err
		}
	}
	return quietly(code)
}

// allPeers are those of federation.yaml and those that were joined. What the file
// says of how a peer is reached goes before dial.
func (w *world) allPeers(o *holding, fed config.Federation, dial node.DialOptions) (peers []peerSpec, err error) {
	beside := *w
	beside.dir = filepath.Dir(o.file)
	known := map[string]bool{}
	for _, p := range fed.Peers {
		one := peerSpec{url: p.URL, dial: dial}
		if one.keys, err = beside.anchors([]string{p.TrustAnchor}); err != nil {
			return nil, fmt.Errorf("%s: peer %s: %w", w.near(o.file), p.URL, err)
		}
		if p.TokenFile != "" || p.CA != "" || p.ClientCert != "" {
			if one.dial, err = beside.dialFiles(p.TokenFile, p.CA, p.ClientCert, p.ClientKey); err != nil {
				return nil, fmt.Errorf("%s: peer %s: %w", w.near(o.file), p.URL, err)
			}
		}
		peers = append(peers, one)
		known[p.URL] = true
	}
	for _, p := range o.store.Peers() {
		m, ok := o.store.Trust().Lookup(openpgp.Fingerprint(p.Fingerprint))
		if !ok || p.URL == "" || known[p.URL] {
			continue
		}
		peers = append(peers, peerSpec{url: p.URL, keys: []*openpgp.Key{m.Key}, dial: dial})
	}
	return peers, nil
}

// syncing is how to sync.
type syncing struct {
	deadline time.Duration // 30 minutes if 0
	unsigned bool          // memories that nobody signed may be taken
	say      func(format string, args ...any)
	progress func(stage string, done, total int64)
}

// syncOne syncs with one peer. The result is what --json shows.
func (w *world) syncOne(ctx context.Context, o *holding, p peerSpec, s syncing) (map[string]any, error) {
	o.syncs.Lock()
	defer o.syncs.Unlock()
	result := map[string]any{"peer": p.url}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(s.deadline, 30*time.Minute))
	defer cancel()
	if err := o.gather(w); err != nil {
		return result, err
	}
	c, id, err := w.reach(ctx, p)
	var untrusted *federate.Untrusted
	if err != nil {
		if errors.As(err, &untrusted) || ctx.Err() != nil {
			return result, err
		}
		return w.syncLegacy(ctx, o, p, s, result, err)
	}
	defer c.Close()
	result["node"], result["fingerprint"] = id.Node, id.Fingerprint
	s.say("✅ Connected to peer: %s", p.url)
	added, err := o.trustKeys(ctx, id.Node, slices.DeleteFunc(slices.Clone(p.keys), func(k *openpgp.Key) bool {
		_, there := o.store.Trust().Lookup(k.Fingerprint())
		return there // a newer certificate is taken by join
	}))
	if err != nil {
		return result, err
	}
	for _, k := range added {
		w.note("trusted from now on: %s, %s", k.Fingerprint(), action.Defang(strings.Join(k.UserIDs(), ", ")))
	}
	res, err := federate.Sync(ctx, o.store, c, federate.SyncOptions{
		Peer: openpgp.Fingerprint(id.Fingerprint), URL: p.url, Now: w.now, Random: w.rand, Timeout: s.deadline, Progress: s.progress,
	})
	w.clearProgress()
	result["fetched"], result["pushed"], result["rejected"] = res.Fetched, res.Pushed, len(res.Rejected)
	result["calls"], result["sent_bytes"], result["received_bytes"] = res.Calls, res.Sent, res.Received
	if err != nil {
		if res.Fetched > 0 {
			s.say("   %d receipts had come and stay", res.Fetched)
		}
		return result, wanting(err)
	}
	if _, err := o.lay(w); err != nil {
		return result, err
	}
	file := o.mergePath(w, path.Base(res.ReceiptFile))
	result["root"], result["count"], result["conflicts"], result["equal"], result["receipt"], result["cosigned"] = res.Root.String(), res.Count, len(res.Conflicts), res.Equal, file, res.Quorum
	root := res.Root.String()
	s.say("✅ Fetched %d receipts from peer", res.Fetched)
	s.say("✅ Merged into local database")
	s.say("✅ Deterministic Merkle root: %s...", root[:16])
	if res.Equal {
		s.say("✅ Federation receipt is there: %s", file)
	} else {
		s.say("✅ Federation receipt generated: %s", file)
	}
	s.say("   peer      %s, key %s", action.Defang(id.Node), id.Fingerprint)
	s.say("   root      %s", root)
	s.say("   receipts  %d; %d came, %d went", res.Count, res.Fetched, res.Pushed)
	if n := len(res.Conflicts); n > 0 {
		s.say("⚠️  conflicts %d names are of several receipts; all are kept: remembrancer federation status", n)
	}
	if n := len(res.Rejected); n > 0 {
		s.say("⚠️  refused   %d receipts of the peer are not valid here: remembrancer federation status", n)
	}
	s.say("   protocol  %d calls, %d bytes sent, %d received; cosigned by %d", res.Calls, res.Sent, res.Received, res.Quorum)
	return result, nil
}

// wanting gives the errors of a sync their exit status: what proves something about
// the peer, against what only kept us from finding out.
func wanting(err error) error {
	var (
		two     *federate.Equivocation
		stopped *federate.Stopped
		changed *federate.IdentityChanged
		broken  *federate.Violation
		refused interface{ ErrorCode() string }
	)
	switch {
	case errors.As(err, &two), errors.As(err, &stopped), errors.As(err, &changed), errors.As(err, &broken):
		return &status{exitFail, err}
	case errors.As(err, &refused) && slices.Contains([]federate.Code{federate.CodeBadRequest, federate.CodeTooLarge}, federate.Code(refused.ErrorCode())):
		// It computes another merge than we do.
		return &status{exitFail, err}
	}
	return err
}

// progress shows on a terminal how far a sync is.
func (w *world) progress() func(stage string, done, total int64) {
	if !watched(w.stderr) {
		return nil
	}
	return func(stage string, done, total int64) {
		of := ""
		if total > 0 {
			of = fmt.Sprintf(" of %d", total)
		}
		fmt.Fprintf(w.stderr, "\r\x1b[K   %s %d%s", stage, done, of)
	}
}

func (w *world) clearProgress() {
	if watched(w.stderr) {
		fmt.Fprint(w.stderr, "\r\x1b[K")
	}
}

// syncLegacy takes the memories of a peer that has only the ancestor's tools. Nobody
// signed them and nobody there can sign a merge, so they become receipts that this
// node issues, which say whose word they are.
func (w *world) syncLegacy(ctx context.Context, o *holding, p peerSpec, s syncing, result map[string]any, cause error) (map[string]any, error) {
	if !s.unsigned {
		return result, fmt.Errorf("%w\nIf that is a node of the ancestor, whose memories nobody signed: --unsigned takes them, as its word", cause)
	}
	known := map[string]bool{}
	for _, e := range o.store.Entries() {
		if e.Receipt.Kind() == receipt.Memory && e.Receipt.Issuer() == o.issuer.Fingerprint() {
			known[e.Receipt.Field("legacy_leaf")] = true
		}
	}
	var records []legacy.Record
	if _, err := node.LegacyMemories(ctx, p.url, p.dial, func(r legacy.Record) error {
		records = append(records, r)
		return nil
	}); err != nil {
		return result, fmt.Errorf("%w; and as a node of the ancestor: %w", cause, err)
	}
	s.say("✅ Connected to peer: %s", p.url)
	root, fetched := legacy.Root(records), 0
	for _, r := range records {
		name, predicate, subject := memoryOf(r, root)
		if known[predicate["legacy_leaf"].(string)] {
			continue
		}
		known[predicate["legacy_leaf"].(string)] = true
		predicate["source"], predicate["signed_by_peer"] = p.url, false
		if _, err := o.store.Record(ctx, receipt.Memory, name, []receipt.Subject{subject}, predicate); err != nil {
			return result, err
		}
		fetched++
	}
	snap, err := o.store.Snapshot()
	if err != nil {
		return result, err
	}
	if _, err := o.lay(w); err != nil {
		return result, err
	}
	result["fetched"], result["root"], result["count"], result["legacy_root"] = fetched, snap.Root.String(), snap.Count, root
	s.say("✅ Fetched %d receipts from peer", fetched)
	s.say("✅ Merged into local database")
	s.say("✅ Deterministic Merkle root: %s...", snap.Root.String()[:16])
	s.say("⚠️  no federation receipt: the peer has only the ancestor's tools and cannot sign one")
	s.say("   %d memories, legacy root %s; each is a receipt of this node, and the peer's word is all there is for it", len(records), root)
	return result, nil
}

// reachQuorum sees to it that as many nodes vouch for our newest checkpoint as
// federation.yaml demands, this one among them. A merge brings the cosignature of one
// peer; the others are asked for theirs, as any witness is (c2sp.org/tlog-witness).
func (w *world) reachQuorum(o *holding, fed config.Federation, dial node.DialOptions, s syncing) error {
	head, err := o.store.Head()
	if err != nil || head == nil {
		return err
	}
	peers, err := w.allPeers(o, fed, dial)
	if err != nil {
		return err
	}
	want := fed.MinQuorum - 1
	var refused []string
	for _, p := range peers {
		if len(o.cosigned(head)) >= want {
			break
		}
		if err := w.askWitness(o, p, head); err != nil {
			refused = append(refused, p.url+": "+err.Error())
		}
	}
	have := o.cosigned(head)
	if len(have) >= want {
		s.say("   quorum    %d nodes vouch for this node's log, %d must", len(have)+1, fed.MinQuorum)
		return nil
	}
	return fmt.Errorf("the merge stands, but %d nodes vouch for this node's log, and %d must: min_quorum of %s\n%s",
		len(have)+1, fed.MinQuorum, config.FederationFile, strings.Join(refused, "\n"))
}

// cosigned names who cosigned the newest checkpoint, which is given.
func (o *holding) cosigned(head []byte) []string {
	note := o.store.Cosigned()
	was, err1 := bodyOf(note)
	now, err2 := bodyOf(head)
	if err1 != nil || err2 != nil || was != now {
		return nil
	}
	return cosigners(note)
}

// askWitness asks a peer to cosign our newest checkpoint.
func (w *world) askWitness(o *holding, p peerSpec, head []byte) error {
	base, ok := strings.CutSuffix(strings.TrimSuffix(p.url, "/"), node.MCPPath)
	if !ok {
		return fmt.Errorf("its URL does not end in %s, so where its witness is is not known", node.MCPPath)
	}
	body, err := bodyOf(head)
	if err != nil {
		return err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: p.dial.RootCAs}
	if p.dial.Certificate != nil {
		config.Certificates = []tls.Certificate{*p.dial.Certificate}
	}
	client := http.Client{Timeout: joinTime, Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
	ask := func(old int64) (status int, answer string, err error) {
		var proof []checkpoint.Hash
		if old > 0 && old < body.Size {
			if proof, err = o.store.Consistency(old, body.Size); err != nil {
				return 0, "", err
			}
		}
		var b strings.Builder
		fmt.Fprintf(&b, "old %d\n", old)
		for _, h := range proof {
			b.WriteString(base64.StdEncoding.EncodeToString(h[:]) + "\n")
		}
		b.WriteString("\n" + string(head))
		req, err := http.NewRequestWithContext(w.ctx, http.MethodPost, base+"/add-checkpoint", strings.NewReader(b.String()))
		if err != nil {
			return 0, "", err
		}
		if p.dial.Token != "" {
			req.Header.Set("Authorization", "Bearer "+p.dial.Token)
		}
		resp, err := client.Do(req)
		if err != nil {
			return 0, "", err
		}
		defer resp.Body.Close()
		data, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
		return resp.StatusCode, string(data), err
	}
	code, answer, err := ask(0)
	if err == nil && code == http.StatusConflict {
		// It has cosigned before, and says up to where.
		old, perr := strconv.ParseInt(strings.TrimSpace(answer), 10, 64)
		if perr != nil || old < 0 || old > body.Size {
			return fmt.Errorf("it has cosigned a log of %.20q entries under this node's name, this one has %d", strings.TrimSpace(answer), body.Size)
		}
		code, answer, err = ask(old)
	}
	if err != nil {
		return err
	}
	if code != http.StatusOK {
		return fmt.Errorf("HTTP status %d: %.200s", code, strings.TrimSpace(answer))
	}
	return o.store.AddCosignature(slices.Concat(head, []byte(answer)))
}
