package publish

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/covenant"
	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

func TestWhatIsNotValidIsQuarantinedAndTheRestLands(t *testing.T) {
	w := newWorld(t)
	good := w.add(receipt.Deploy)
	files := map[string]string{}
	put := func(more map[string]string) {
		for name, content := range more {
			files[name] = content
		}
	}
	sigOf := func(r *receipt.Receipt, by openpgp.Signer) string {
		return layout.Receipt(r.SignatureFile(by.Fingerprint()))
	}
	want := map[string]string{} // path → words of the reason

	unsigned := w.receipt(receipt.Deploy, w.colleague)
	put(w.filed(unsigned))
	want[layout.Receipt(unsigned.File())] = "not signed by its issuer " + string(w.colleague.Fingerprint()) + ": the issuer signs it with: remembrancer sign ops/receipts/deploy/thing-2.receipt"

	unknown := w.receipt(receipt.Deploy, w.stranger)
	put(w.filed(unknown, w.stranger))
	want[layout.Receipt(unknown.File())] = "its issuer's signature does not hold"
	want[sigOf(unknown, w.stranger)] = string(w.stranger.Fingerprint())

	forged := w.receipt(receipt.ADR, w.colleague)
	put(w.filed(forged))
	files[sigOf(forged, w.colleague)] = w.filed(good, w.colleague)[sigOf(good, w.colleague)]
	want[layout.Receipt(forged.File())] = "its issuer's signature does not hold"
	want[sigOf(forged, w.colleague)] = ""

	endorsed := w.receipt(receipt.ADR, w.colleague)
	put(w.filed(endorsed, w.issuer))
	want[layout.Receipt(endorsed.File())] = "not signed by its issuer"

	notCanonical := w.receipt(receipt.Incident, w.colleague)
	put(w.filed(notCanonical, w.colleague))
	files[layout.Receipt(notCanonical.File())] += "\n"
	want[layout.Receipt(notCanonical.File())] = "canonical"

	wrongKind := w.receipt(receipt.Incident, w.colleague)
	files["ops/receipts/deploy/"+wrongKind.Name()+".receipt"] = string(wrongKind.Bytes())
	want["ops/receipts/deploy/"+wrongKind.Name()+".receipt"] = "belongs at " + layout.Receipt(wrongKind.File())

	wrongName := w.receipt(receipt.Incident, w.colleague)
	files["ops/receipts/incident/other.receipt"] = string(wrongName.Bytes())
	want["ops/receipts/incident/other.receipt"] = "belongs at " + layout.Receipt(wrongName.File())

	reserved := w.receipt(receipt.Snapshot, w.colleague)
	put(w.filed(reserved, w.colleague))
	want[layout.Receipt(reserved.File())] = "kind snapshot comes only from the publisher " + string(w.issuer.Fingerprint())

	noChange := w.receipt(receipt.KeyRotation, w.colleague)
	put(w.filed(noChange, w.colleague))
	want[layout.Receipt(noChange.File())] = `event is "", want rotation or revocation`

	notASignature := w.receipt(receipt.Discovery, w.colleague)
	put(w.filed(notASignature))
	files[sigOf(notASignature, w.colleague)] = "not a signature\n"
	want[layout.Receipt(notASignature.File())] = "not signed by its issuer"
	want[sigOf(notASignature, w.colleague)] = ""

	absent := w.receipt(receipt.Discovery, w.colleague)
	files[sigOf(absent, w.colleague)] = w.filed(absent, w.colleague)[sigOf(absent, w.colleague)]
	want[sigOf(absent, w.colleague)] = "signs a receipt that is not there: " + layout.Receipt(absent.File())

	w.edit(mainRef, files)
	res := w.run()
	assert.DeepEqual(t, idsOf(res.Sequenced), []receipt.ID{good.ID()})
	var got, named []string
	for _, q := range res.Quarantined {
		got = append(got, q.Path)
		assert.Assert(t, strings.Contains(q.Reason, want[q.Path]), "%s: %s, want %q", q.Path, q.Reason, want[q.Path])
	}
	for p := range want {
		named = append(named, p)
	}
	slices.Sort(got)
	slices.Sort(named)
	assert.DeepEqual(t, got, named)
	assert.DeepEqual(t, w.ids(), []receipt.ID{good.ID()})

	// They stay named while they stay as they are,
	again := w.run()
	assert.DeepEqual(t, again.Quarantined, res.Quarantined)
	assert.Assert(t, again.Commit.IsZero())
	// and a signature is all that some of them lack.
	w.edit(mainRef, map[string]string{
		sigOf(unsigned, w.colleague): w.filed(unsigned, w.colleague)[sigOf(unsigned, w.colleague)],
		sigOf(endorsed, w.colleague): w.filed(endorsed, w.colleague)[sigOf(endorsed, w.colleague)],
	})
	later := w.run()
	assert.DeepEqual(t, sorted(idsOf(later.Sequenced)), sorted([]receipt.ID{unsigned.ID(), endorsed.ID()}))
	assert.Equal(t, len(later.Quarantined), len(res.Quarantined)-2)
	w.verify()
}

// change makes a receipt about a key.
func (w *world) change(issuer openpgp.Signer, c covenant.KeyChange) *receipt.Receipt {
	w.t.Helper()
	w.serial++
	r, err := receipt.New(receipt.Statement{
		Kind: receipt.KeyRotation, Issuer: issuer.Fingerprint(), Name: fmt.Sprintf("change-%d", w.serial), Issued: noon,
		Subjects: []receipt.Subject{{Name: "key", SHA256: digest([]byte("key"))}}, Predicate: c.Predicate(),
	})
	assert.NilError(w.t, err)
	return r
}

func TestAKeyChangeOfAnyTrustAnchorLandsIfTheRightOnesSignedIt(t *testing.T) {
	w := newWorld(t)
	w.add(receipt.Deploy)
	w.run()
	body := w.verify().Checkpoint.Body()
	size, root := body.Size, body.Root

	// To a stranger's key: nobody who is trusted vouches for it.
	stranger := w.change(w.colleague, covenant.KeyChange{Old: w.colleague.Fingerprint(), New: w.stranger.Fingerprint()})
	// By the thief of the key.
	thief := w.change(w.colleague, covenant.KeyChange{Old: w.colleague.Fingerprint(), Reason: openpgp.Retired, Size: size, Root: root})
	// With a cutoff in the future, over which the log would fail for ever.
	future := w.change(w.issuer, covenant.KeyChange{Old: w.colleague.Fingerprint(), Reason: openpgp.Retired, Size: size + 1, Root: root})
	for _, files := range []map[string]string{w.filed(stranger, w.colleague, w.stranger), w.filed(thief, w.colleague), w.filed(future, w.issuer)} {
		w.edit(mainRef, files)
	}
	res := w.run()
	assert.Equal(t, len(res.Sequenced), 0)
	reasons := map[string]string{}
	for _, q := range res.Quarantined {
		reasons[q.Path] = q.Reason
	}
	for r, want := range map[*receipt.Receipt]string{
		stranger: "is not signed by its successor", thief: "want another trust anchor", future: "the log had 1 entries",
	} {
		assert.Assert(t, strings.Contains(reasons[layout.Receipt(r.File())], want), "%s: %s", r.File(), reasons[layout.Receipt(r.File())])
	}

	// The colleague, who is not the publisher, hands over to it.
	handover := w.change(w.colleague, covenant.KeyChange{Old: w.colleague.Fingerprint(), New: w.issuer.Fingerprint()})
	w.edit(mainRef, w.filed(handover, w.colleague, w.issuer))
	revoked := w.change(w.issuer, covenant.KeyChange{Old: w.stranger.Fingerprint(), Reason: openpgp.Compromised, Size: size, Root: root})
	w.edit(mainRef, w.filed(revoked, w.issuer))
	res = w.run()
	assert.DeepEqual(t, sorted(idsOf(res.Sequenced)), sorted([]receipt.ID{handover.ID(), revoked.ID()}))

	// From where its revocation lands on, nothing that a key signed is taken.
	late := w.receipt(receipt.Deploy, w.colleague)
	w.edit(mainRef, w.filed(late, w.colleague))
	body = w.verify().Checkpoint.Body()
	gone := w.change(w.issuer, covenant.KeyChange{Old: w.colleague.Fingerprint(), Reason: openpgp.Retired, Size: body.Size, Root: body.Root})
	w.edit(mainRef, w.filed(gone, w.issuer))
	res = w.run()
	assert.DeepEqual(t, idsOf(res.Sequenced), []receipt.ID{gone.ID()})
	reasons = map[string]string{}
	for _, q := range res.Quarantined {
		reasons[q.Path] = q.Reason
	}
	assert.Assert(t, strings.Contains(reasons[layout.Receipt(late.File())], "the log revokes key"), "%v", reasons)
	w.verify()
}

func TestALaterEndorsementIsANewLineOfTheSameReceipt(t *testing.T) {
	w := newWorld(t)
	r := w.add(receipt.Release)
	w.run()
	w.edit(mainRef, w.filed(r, w.issuer))
	res := w.run()
	assert.Equal(t, len(res.Sequenced), 1)
	e := res.Sequenced[0]
	assert.DeepEqual(t, e.Receipt.Bytes(), r.Bytes())
	assert.Equal(t, len(e.Signatures), 1)
	assert.Equal(t, e.Signatures[0].Fingerprint, w.issuer.Fingerprint())
	assert.DeepEqual(t, w.ids(), []receipt.ID{r.ID(), r.ID()})
	assert.Equal(t, len(w.run().Sequenced), 0)

	// One that nobody can check is named and stays where it is.
	w.edit(mainRef, w.filed(r, w.stranger))
	res = w.run()
	assert.Equal(t, len(res.Sequenced), 0)
	assert.Equal(t, len(res.Quarantined), 1)
	assert.Equal(t, res.Quarantined[0].Path, layout.Receipt(r.SignatureFile(w.stranger.Fingerprint())))
}

func TestPendingReceiptsAreSequencedOldestFirst(t *testing.T) {
	w := newWorld(t)
	var want []receipt.ID
	files := map[string]string{}
	for i, name := range []string{"c", "a", "b"} {
		r, err := receipt.New(receipt.Statement{
			Kind: receipt.Deploy, Issuer: w.colleague.Fingerprint(), Name: name, Issued: noon.AddDate(0, 0, i-5),
			Subjects: []receipt.Subject{{Name: name, SHA256: digest([]byte(name))}},
		})
		assert.NilError(t, err)
		want = append(want, r.ID())
		for p, content := range w.filed(r, w.colleague) {
			files[p] = content
		}
	}
	w.edit(mainRef, files)
	w.run()
	assert.DeepEqual(t, w.ids(), want)
}

func TestAnObservationIsOneReceiptWhoeverPublishesIt(t *testing.T) {
	w := newWorld(t)
	o := w.observation()
	o.Report = w.report(o.Commit, 27, 27)
	other := w.observation()
	w.run(observing(o, o))
	w.run(observing(other, o))
	entries := w.verify().Entries
	assert.Equal(t, len(entries), 2)
	assert.Equal(t, runOf(entries[0]), o.RunID)

	// The race of two that saw the same.
	third := w.observation()
	p := w.publisher(observing(third))
	p.at = func(m moment) error {
		if m == beforeClaim {
			p.at = nil
			w.run(observing(third))
		}
		return nil
	}
	_, err := p.Run(t.Context())
	assert.NilError(t, err)
	entries = w.verify().Entries
	assert.Equal(t, len(entries), 3)

	r := entries[0].Receipt
	assert.Equal(t, r.Kind(), receipt.Observed)
	assert.Equal(t, r.Name(), "")
	assert.Equal(t, r.Issued(), o.At)
	assert.DeepEqual(t, r.Subjects(), []receipt.Subject{{Name: "commit", Commit: o.Commit.String()}})
	var seen struct {
		Observed map[string]any `json:"vaultmesh_observed"`
	}
	assert.NilError(t, unmarshal(r.Predicate(), &seen))
	assert.DeepEqual(t, seen.Observed, map[string]any{
		"commit": o.Commit.String(), "workflow": o.Workflow, "workflow_blob": w.Git("rev-parse", o.Commit.String()+":"+o.Workflow),
		"run_id": float64(o.RunID), "run_attempt": 1.0, "event": "push", "conclusion": "success",
	})
	report, ok := Reported(r)
	assert.Assert(t, ok)
	assert.Equal(t, report.Passed, int64(27))
	_, ok = Reported(entries[1].Receipt)
	assert.Assert(t, !ok, "a run without a report has none")
}

func TestAnObservationThatDoesNotFitTheBranchIsRefused(t *testing.T) {
	w := newWorld(t)
	aside := w.commitOn(w.at(mainRef), "aside\n", map[string]string{"README": "never merged\n"})
	w.Git("update-ref", "refs/heads/aside", aside)
	off, err := gitrepo.ParseHash(aside)
	assert.NilError(t, err)
	onMain := w.tip()
	for _, c := range []struct {
		name   string
		change func(*Observation)
		want   string
	}{
		{"commit of another branch", func(o *Observation) { o.Commit = off }, aside},
		{"no commit at all", func(o *Observation) { o.Commit = gitrepo.Hash{1} }, gitrepo.Hash{1}.String()},
		{"report about another commit", func(o *Observation) { o.Report = w.report(off, 1, 1) }, fmt.Sprintf("the report is about commit %q", aside)},
		{"report that is none", func(o *Observation) { o.Report = []byte("{}") }, "report: smoke report"},
		{"workflow that the commit has not", func(o *Observation) { o.Workflow = ".github/workflows/other.yml" }, "it has no workflow .github/workflows/other.yml"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := w.observation()
			o.Commit = onMain
			c.change(&o)
			text := w.refusal(observing(o))
			assert.Assert(t, strings.Contains(text, c.want), text)
		})
	}
}

func TestTheBadgeFollowsTheLastReport(t *testing.T) {
	w := newWorld(t)
	publish := func(pass, total int64) {
		t.Helper()
		o := w.observation()
		o.Report = w.report(o.Commit, pass, total)
		w.run(observing(o))
	}
	badge := func() string {
		t.Helper()
		return strings.Join(strings.Fields(w.blob("main", "ops/status/badge.json")), "")
	}

	publish(26, 26)
	assert.Equal(t, badge(), `{"tests":{"pass":26,"total":26,"pct":100.00}}`)
	w.verify()
	publish(20, 26)
	assert.Equal(t, badge(), `{"tests":{"pass":20,"total":26,"pct":76.92}}`)
	shields := w.blob("main", "ops/status/badge.shields.json")
	w.run(observing(w.observation())) // a run that handed nothing over changes nothing
	assert.Equal(t, w.blob("main", "ops/status/badge.shields.json"), shields)
	honest := badge()

	// Derived files are derived again, without a new entry or signature.
	made, size := w.signed.made(), len(w.verify().Entries)
	w.edit(mainRef, map[string]string{"ops/status/badge.json": "{\"tests\":{\"pass\":27,\"total\":27,\"pct\":100.00}}\n", "ops/status/badge.shields.json": gone})
	res := w.run()
	assert.Equal(t, badge(), honest)
	assert.Equal(t, w.blob("main", "ops/status/badge.shields.json"), shields)
	assert.Equal(t, res.Commit.String(), w.at(mainRef))
	assert.Equal(t, w.signed.made(), made)
	assert.Equal(t, len(w.verify().Entries), size)
	assert.Assert(t, w.run().Commit.IsZero())
}

func TestABadgeWithoutAVerdictIsTakenAway(t *testing.T) {
	w := newWorld(t)
	w.begin(1)
	w.edit(mainRef, map[string]string{"ops/status/badge.json": "{}\n"})
	w.run()
	assert.Equal(t, w.Git("ls-tree", "-r", "--name-only", "main", "ops/status"), "")
	w.verify()
}
