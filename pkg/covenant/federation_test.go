package covenant_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/covenant"
	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/merge"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
	"github.com/vaultmesh/remembrancer/pkg/set"
)

// peer is the test key of a node that is no trust anchor.
const peer = "../../openpgp/testdata/ed25519"

// merged is a merge of the repository's node with a peer, as files.
type merged struct {
	name                   string
	body                   merge.Body
	file, ids              string
	lines                  string
	signA, signB, operator string
}

// side is a node that holds some receipts, in a log of size entries.
func side(t testing.TB, name, key string, seed byte, size int64, ids []receipt.ID) merge.Side {
	t.Helper()
	log, sets := logKey(t, name, seed), logKey(t, name+"/set", seed+1)
	trust := strings.Repeat("0", 64)
	text := merge.SetNoteText(name, trust, len(ids), set.Root(ids))
	setNote, err := checkpoint.SignNote(logSecret(name+"/set", seed+1), text)
	assert.NilError(t, err)
	return merge.Side{
		Node: name, Endpoint: "http://localhost:8001/mcp", Fingerprint: signer(t, key).Fingerprint(),
		Log: log.VerifierKey(), Checkpoint: string(note(t, log, checkpoint.Body{Origin: name, Size: size, Root: checkpoint.Hash{byte(size)}})),
		Set: sets.VerifierKey(), SetNote: string(setNote), RootBefore: set.Root(ids), Count: len(ids), Nonce: strings.Repeat("1", 64),
	}
}

// peersEntry is a receipt that only the peer had.
func peersEntry(t testing.TB, name string) receipt.Entry {
	t.Helper()
	r, err := receipt.New(receipt.Statement{
		Kind: receipt.Deploy, Issuer: signer(t, peer).Fingerprint(), Name: name, Issued: now.Add(-time.Hour),
		Subjects: []receipt.Subject{{Name: "artifact", SHA256: digest([]byte(name))}},
	})
	assert.NilError(t, err)
	return entry(t, r, peer)
}

func newMerge(t testing.TB, name string, ours, theirs []receipt.ID, previous string, size int64) *merged {
	t.Helper()
	var a, b set.Set
	for _, id := range ours {
		a.Add(id)
	}
	for _, id := range theirs {
		b.Add(id)
	}
	s := merge.NewSidecar(&a, &b, nil)
	return &merged{
		name: name, ids: string(s.Marshal()), signA: "issuer", signB: peer, operator: "issuer",
		body: merge.Body{
			Time: now, A: side(t, "local/ours", "issuer", 20, size, ours), B: side(t, "local/theirs", peer, 30, size, theirs),
			Merged: set.Root(s.Union()), Total: len(s.Union()), AddedToA: len(s.OnlyB), AddedToB: len(s.OnlyA),
			Trust: strings.Repeat("0", 64), Previous: previous, IDs: s.Digest(), Operator: signer(t, "issuer").Fingerprint(),
		},
	}
}

func (m *merged) sign(t testing.TB) *merged {
	t.Helper()
	body, err := m.body.Bytes()
	assert.NilError(t, err)
	by := func(name string) []byte {
		sig, err := signer(t, name).Sign(context.Background(), merge.PAE(body))
		assert.NilError(t, err)
		return sig
	}
	file, err := (&merge.Receipt{Body: m.body, SigA: by(m.signA), SigB: by(m.signB), SigOperator: by(m.operator)}).Marshal()
	assert.NilError(t, err)
	m.file = string(file)
	return m
}

func (m *merged) digest(t testing.TB) string {
	t.Helper()
	sum, err := m.body.Digest()
	assert.NilError(t, err)
	return sum
}

// put writes the files of the merge.
func (m *merged) put(r *tree) {
	p := "ops/receipts/federation/" + m.name + ".receipt"
	r.put(p, m.file)
	r.put(p+".ids", m.ids)
	if m.lines != "" {
		r.put(p+".lines", m.lines)
	}
}

// record is the receipt that says that a merge was made.
func (m *merged) record(t testing.TB) *receipt.Receipt {
	t.Helper()
	return statement(t, receipt.FederationMerge, m.name, nil,
		receipt.Subject{Name: m.name + ".receipt", SHA256: digest([]byte(m.file))},
		receipt.Subject{Name: m.name + ".receipt.ids", SHA256: digest([]byte(m.ids))})
}

// pending puts a record where the publisher finds it.
func pending(t testing.TB, r *tree, rec *receipt.Receipt, by string) {
	t.Helper()
	s, err := receipt.Sign(context.Background(), rec, signer(t, by))
	assert.NilError(t, err)
	r.put(layout.Receipt(rec.File()), string(rec.Bytes()))
	r.put(layout.Receipt(rec.SignatureFile(rec.Issuer())), string(openpgp.Armor(s.Packet)))
}

// federated is a sound repository with two merges: the first recorded in the log,
// the second on its way there.
func federated(t testing.TB) (r *tree, first, second *merged) {
	t.Helper()
	ours, theirs := vectorIDs(0, 1, 2), vectorIDs(2, 3)
	brought := peersEntry(t, "their-v1")
	theirs = append(theirs, brought.Receipt.ID())
	first = newMerge(t, "2025-10-22-ours-theirs", ours, theirs, "", 6)
	first.lines = string(brought.Line()) + "\n"
	first.sign(t)
	all := vectorIDs(0, 1, 2, 3)
	all = append(all, brought.Receipt.ID())
	second = newMerge(t, "2025-10-22-ours-theirs-2", all, all, first.digest(t), 9).sign(t)
	r = repo(t, append(slices.Clone(entries()), entry(t, first.record(t), "issuer")))
	first.put(r)
	second.put(r)
	pending(t, r, second.record(t), "issuer")
	r.put("ops/certs/peers/theirs.asc", string(signer(t, peer).Public().Armored()))
	return r, first, second
}

func vectorIDs(ns ...byte) (ids []receipt.ID) {
	for _, n := range ns {
		ids = append(ids, receipt.ID{n, 1})
	}
	return ids
}

func judged(t testing.TB, r *tree) judge.Check {
	t.Helper()
	return covenant.Federation(r, layout, covenant.Audit(r, options()))[1]
}

func TestMergesThatBothSidesSignedPass(t *testing.T) {
	r, _, _ := federated(t)
	audit := covenant.Audit(r, options())
	assert.Equal(t, audit.Status(), covenant.Pass, "%v", audit.Failures())
	c := judged(t, r)
	assert.DeepEqual(t, c, judge.Judged("federation/receipts", "every merge is signed by both sides", "2 merges, verified with the keys of 3 trust anchors and peers"))

	// A trust anchor among the certificates of peers is one key.
	r.put("ops/certs/peers/issuer.asc", string(signer(t, "issuer").Public().Armored()))
	assert.Equal(t, judged(t, r).Status, judge.Pass)
	// Peers are believed in merges only.
	trust, err := covenant.LoadTrust(r, layout)
	assert.NilError(t, err)
	_, ok := trust.Keys.Lookup(signer(t, peer).Fingerprint())
	assert.Assert(t, !ok)
	r.put("ops/receipts/deploy/their-v1.receipt", string(peersEntry(t, "their-v1").Receipt.Bytes()))
	assert.Equal(t, judged(t, r).Status, judge.Pass)
}

func TestEachFlawOfAMergeIsFound(t *testing.T) {
	const one, two = "ops/receipts/federation/2025-10-22-ours-theirs.receipt", "ops/receipts/federation/2025-10-22-ours-theirs-2.receipt"
	for name, c := range map[string]struct {
		flaw   func(t *testing.T, r *tree, first, second *merged)
		status judge.Status
		says   string // part of the first finding, or of why it was not judged
	}{
		"a root edited": {func(_ *testing.T, r *tree, first, _ *merged) {
			r.edit(one, first.body.Merged.String(), set.Empty.String())
		}, judge.Fail, "not so: Both nodes computed same merged_root"},
		"a count edited": {func(_ *testing.T, r *tree, _, _ *merged) {
			r.edit(two, `"receipt_count": 5`, `"receipt_count": 6`)
		}, judge.Fail, "not so: "},
		"no receipt of a merge": {func(_ *testing.T, r *tree, _, _ *merged) {
			r.put(one, "{}")
		}, judge.Fail, "not so: The file is a merge receipt in its exact form"},
		"an id left out": {func(_ *testing.T, r *tree, _, _ *merged) {
			r.edit(one+".ids", " a\n", " ab\n")
		}, judge.Fail, "not so: Both nodes computed same merged_root"},
		"no list of ids": {func(_ *testing.T, r *tree, _, _ *merged) {
			r.remove(two + ".ids")
		}, judge.Error, two + ": Both nodes computed same merged_root: not judged: the list of ids is missing"},
		"a list of ids that cannot be read": {func(_ *testing.T, r *tree, _, _ *merged) {
			r.broken[two+".ids"] = errGone
		}, judge.Error, errGone.Error()},
		"a merge that cannot be read": {func(_ *testing.T, r *tree, _, _ *merged) {
			r.broken[one] = errGone
		}, judge.Error, errGone.Error()},
		"a folder that cannot be read": {func(_ *testing.T, r *tree, _, _ *merged) {
			r.broken["walk ops/receipts/federation"] = errGone
		}, judge.Error, errGone.Error()},
		"no certificate of the peer": {func(_ *testing.T, r *tree, _, _ *merged) {
			r.remove("ops/certs/peers/theirs.asc")
		}, judge.Error, "is not among the trust anchors"},
		"a certificate that is none": {func(_ *testing.T, r *tree, _, _ *merged) {
			r.put("ops/certs/peers/theirs.asc", "trust me")
		}, judge.Error, "ops/certs/peers/theirs.asc: "},
		"a certificate twice": {func(t *testing.T, r *tree, _, _ *merged) {
			r.put("ops/certs/peers/again.asc", r.text("ops/certs/peers/theirs.asc"))
		}, judge.Error, "ops/certs/peers/again.asc and ops/certs/peers/theirs.asc both hold "},
		"a certificate that cannot be read": {func(_ *testing.T, r *tree, _, _ *merged) {
			r.broken["ops/certs/peers/theirs.asc"] = errGone
		}, judge.Error, errGone.Error()},
		"signed by one side twice": {func(t *testing.T, r *tree, first, _ *merged) {
			first.signB = "issuer"
			first.sign(t).put(r)
		}, judge.Fail, "not so: Both nodes computed same merged_root"},
		"signed by a trust anchor for the peer": {func(t *testing.T, r *tree, first, _ *merged) {
			first.signB = "endorser"
			first.sign(t).put(r)
		}, judge.Fail, "not so: Both nodes computed same merged_root"},
		"signed by another operator": {func(t *testing.T, r *tree, _, second *merged) {
			second.operator = "endorser"
			second.sign(t).put(r)
			pending(t, r, second.record(t), "issuer")
		}, judge.Fail, "not so: The operator signed what both parties signed"},
		"not recorded": {func(_ *testing.T, r *tree, _, second *merged) {
			r.remove("ops/receipts/federation-merge/" + second.name + ".receipt")
		}, judge.Fail, "no receipt of kind federation-merge records it"},
		"recorded without its ids": {func(t *testing.T, r *tree, _, second *merged) {
			pending(t, r, statement(t, receipt.FederationMerge, second.name, nil, receipt.Subject{Name: "x", SHA256: digest([]byte(second.file))}), "issuer")
		}, judge.Fail, "no receipt of kind federation-merge records it"},
		"recorded by a peer": {func(t *testing.T, r *tree, _, second *merged) {
			rec, err := receipt.New(receipt.Statement{
				Kind: receipt.FederationMerge, Issuer: signer(t, peer).Fingerprint(), Name: second.name, Issued: now,
				Subjects: second.record(t).Subjects(),
			})
			assert.NilError(t, err)
			pending(t, r, rec, peer)
		}, judge.Fail, "no receipt of kind federation-merge records it"},
		"recorded in the name of the repository": {func(t *testing.T, r *tree, _, second *merged) {
			pending(t, r, second.record(t), "endorser")
		}, judge.Fail, "no receipt of kind federation-merge records it"},
		"a record that is not signed": {func(t *testing.T, r *tree, _, second *merged) {
			rec := second.record(t)
			r.remove(layout.Receipt(rec.SignatureFile(rec.Issuer())))
		}, judge.Fail, "no receipt of kind federation-merge records it"},
		"a record that is none": {func(_ *testing.T, r *tree, _, second *merged) {
			r.put("ops/receipts/federation-merge/"+second.name+".receipt", "{}")
		}, judge.Fail, "no receipt of kind federation-merge records it"},
		"a record under another name": {func(t *testing.T, r *tree, _, second *merged) {
			rec := second.record(t)
			r.put("ops/receipts/federation-merge/x.receipt", string(rec.Bytes()))
		}, judge.Fail, "holds receipt "},
		"a merge of the log that is gone": {func(_ *testing.T, r *tree, _, _ *merged) {
			for _, suffix := range []string{"", ".ids", ".lines"} {
				r.remove(one + suffix)
			}
		}, judge.Fail, " records a merge that is not in ops/receipts/federation"},
		"a merge on its way that is gone": {func(_ *testing.T, r *tree, _, _ *merged) {
			r.remove(two)
			r.remove(two + ".ids")
		}, judge.Fail, " records a merge that is not in ops/receipts/federation"},
		"ids of no merge": {func(_ *testing.T, r *tree, first, _ *merged) {
			r.put("ops/receipts/federation/x.receipt.ids", first.ids)
		}, judge.Fail, "belongs to a merge receipt that is not there"},
		"lines of no merge": {func(_ *testing.T, r *tree, first, _ *merged) {
			r.put("ops/receipts/federation/x.receipt.lines", first.lines)
		}, judge.Fail, "belongs to a merge receipt that is not there"},
		"a file of another name": {func(_ *testing.T, r *tree, _, _ *merged) {
			r.put("ops/receipts/federation/merge-1.json", "{}")
		}, judge.Fail, "has no place there: want NAME.receipt, NAME.receipt.ids or NAME.receipt.lines"},
		"a link": {func(_ *testing.T, r *tree, _, _ *merged) {
			r.link("ops/receipts/federation/x.receipt", "../../../README.md")
		}, judge.Fail, "is not a regular file"},
		"a line of a stranger": {func(t *testing.T, r *tree, _, _ *merged) {
			r.put(one+".lines", strings.Replace(r.text(one+".lines"), string(signer(t, peer).Fingerprint()), strings.Repeat("0", 40), 1))
		}, judge.Fail, "is not valid: "},
		"a line that is none":        {func(_ *testing.T, r *tree, _, _ *merged) { r.put(one+".lines", "x\n") }, judge.Fail, "is not valid: malformed: "},
		"an empty line":              {func(_ *testing.T, r *tree, first, _ *merged) { r.put(one+".lines", first.lines+"\n") }, judge.Fail, "is not valid: malformed: "},
		"a line without its newline": {func(_ *testing.T, r *tree, first, _ *merged) { r.put(one+".lines", strings.TrimSpace(first.lines)) }, judge.Fail, "does not end in a newline"},
		"a line that was not merged": {func(t *testing.T, r *tree, _, _ *merged) { r.put(one+".lines", string(peersEntry(t, "x").Line())+"\n") }, judge.Fail, " was not merged"},
		"lines beside a broken list": {func(_ *testing.T, r *tree, _, _ *merged) { r.remove(one + ".ids") }, judge.Error, "not judged: "},
		"lines that cannot be read":  {func(_ *testing.T, r *tree, _, _ *merged) { r.broken[one+".lines"] = errGone }, judge.Error, errGone.Error()},
		"two that follow one another": {func(t *testing.T, r *tree, first, second *merged) {
			third := newMerge(t, "2025-10-22-ours-theirs-3", vectorIDs(0, 1, 2, 3, 4), vectorIDs(0, 1, 2, 3, 4), first.digest(t), 9).sign(t)
			third.put(r)
			pending(t, r, third.record(t), "issuer")
		}, judge.Fail, "follows the same merge as "},
		"a set that shrank": {func(t *testing.T, r *tree, first, second *merged) {
			*second = *newMerge(t, second.name, vectorIDs(0), vectorIDs(1), first.digest(t), 9).sign(t)
			second.put(r)
			pending(t, r, second.record(t), "issuer")
		}, judge.Fail, "not so: It follows the merge of these two before it: local/ours had 5 receipts after the merge before, and has 1: some are gone"},
		"a log that was cut": {func(t *testing.T, r *tree, first, second *merged) {
			*second = *newMerge(t, second.name, vectorIDs(0, 1, 2, 3, 4), vectorIDs(0, 1, 2, 3, 4), first.digest(t), 5).sign(t)
			second.put(r)
			pending(t, r, second.record(t), "issuer")
		}, judge.Fail, "it was cut or forked"},
		"a log that cannot be audited": {func(_ *testing.T, r *tree, _, _ *merged) {
			r.edit(segment, "payload", "pajload")
		}, judge.Error, "there is no sound ledger to judge by"},
	} {
		t.Run(name, func(t *testing.T) {
			r, first, second := federated(t)
			c.flaw(t, r, first, second)
			got := judged(t, r)
			assert.Equal(t, got.Status, c.status, "%s\n%s", got.Detail, strings.Join(messages(got), "\n"))
			said := append(messages(got), got.Detail)
			assert.Assert(t, slices.ContainsFunc(said, func(s string) bool { return strings.Contains(s, c.says) }), "%q in %q", c.says, said)
		})
	}
}

// A merge whose predecessor was never kept here is not wrong, but is told of.
func TestAMergeThatFollowsAnUnknownOneIsAWarning(t *testing.T) {
	r, _, _ := federated(t)
	other := newMerge(t, "2025-10-21-ours-theirs", vectorIDs(0, 1), vectorIDs(1, 2), strings.Repeat("a", 64), 9).sign(t)
	other.put(r)
	pending(t, r, other.record(t), "issuer")
	c := judged(t, r)
	assert.Equal(t, c.Status, judge.Pass)
	assert.DeepEqual(t, messages(c), []string{"ops/receipts/federation/" + other.name + ".receipt: the merge before it, sha256:" + strings.Repeat("a", 64) + ", is not there"})
	// A warning does not hide that something else could not be judged.
	r.remove("ops/certs/peers/theirs.asc")
	assert.Equal(t, judged(t, r).Status, judge.Error)
}

// What was archived by a receipt is not missed.
func TestAnArchivedMergeIsNotMissed(t *testing.T) {
	first := newMerge(t, "2025-10-22-ours-theirs", vectorIDs(0), vectorIDs(1), "", 6).sign(t)
	rec := first.record(t)
	archive := statement(t, receipt.Archive, "", nil, receipt.Subject{Name: first.name + ".receipt", SHA256: digest([]byte(first.file))})
	r := repo(t, append(slices.Clone(entries()), entry(t, rec, "issuer"), entry(t, archive, "issuer")))
	assert.Equal(t, judged(t, r).Status, judge.Pass)
	r = repo(t, append(slices.Clone(entries()), entry(t, rec, "issuer")))
	assert.Equal(t, judged(t, r).Status, judge.Fail)
}

// A merge that was signed with a key that is retired by now goes on verifying.
func TestARetiredKeysMergesStayGood(t *testing.T) {
	r, _, _ := federated(t)
	f := signer(t, peer).Fingerprint()
	r.put(fmt.Sprintf("ops/certs/retired/%s.asc", f), r.text("ops/certs/peers/theirs.asc"))
	r.remove("ops/certs/peers/theirs.asc")
	assert.Equal(t, judged(t, r).Status, judge.Pass)
}

func TestMergesHaveTheirPlaces(t *testing.T) {
	r, _, _ := federated(t)
	grammar := func(r *tree) string { return finding(t, covenant.Audit(r, options()), 1).Status }
	assert.Equal(t, grammar(r), "pass")
	for _, p := range []string{
		"federation/x.json", "federation/x.receipt.txt", "federation/.receipt", "federation/x.ids", "federation/a/x.receipt",
		"federation/x.receipt.ids.asc", "federation/nul.receipt", "federation/x..y.receipt", "deploy/x.receipt.ids", "Federation/x.receipt",
	} {
		r := r.clone()
		r.put("ops/receipts/"+p, "x")
		assert.Equal(t, grammar(r), "fail", p)
	}
	r.link("ops/receipts/federation/x.receipt.lines", "y")
	assert.Equal(t, grammar(r), "fail")
}

// Only trusted jobs bring merges.
func TestAChangeAddsNoMerge(t *testing.T) {
	_, first, _ := federated(t)
	base := sound(t)
	for _, suffix := range []string{"", ".ids", ".lines"} {
		m := base.clone()
		m.put("ops/receipts/federation/"+first.name+".receipt"+suffix, first.file)
		r := covenant.CheckChange(base, m, covenant.Change{Layout: layout})
		assert.Equal(t, letters(r), "PPPPF", suffix)
		assert.Equal(t, finding(t, r, 13).Detail, "ops/receipts/federation/"+first.name+".receipt"+suffix+": a receipt of a merge comes only from trusted jobs")
	}
	m := base.clone()
	m.put("ops/certs/peers/theirs.asc", string(signer(t, peer).Public().Armored()))
	assert.Equal(t, letters(covenant.CheckChange(base, m, covenant.Change{Layout: layout})), "FPPPP")
}
