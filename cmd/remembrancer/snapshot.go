package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/action"
	"github.com/vaultmesh/remembrancer/pkg/covenant"
	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/publish"
	"github.com/vaultmesh/remembrancer/pkg/release"
	"github.com/vaultmesh/remembrancer/pkg/snapshot"
	"github.com/vaultmesh/remembrancer/pkg/tsa"
)

var snapshotCreateVerb = verb{
	spec: action.Spec{
		Name: "ledger-snapshot", Verb: "snapshot create",
		Summary: "commit today's signed and time-stamped snapshot of the ledger",
		Description: "Publishes what is pending, as publish does, and then commits ops/ledger/snapshots/YYYY-MM-DD.json: checkpoint, size and root, the digest of the snapshot before " +
			"and the proof that the log grew from there, and the newest SLO report's receipt with its proof of inclusion. It is signed, and stamped by the pinned time-stamping authorities.\n\n" +
			"The day is today by the clock, in UTC. A day that was missed is named in the next snapshot and never made up for; today's, once it is there, is never written again.",
		Inputs: append([]action.Input{
			remoteInput, pushTokenInput, logKeyInput,
			policyIDInput,
		}, keyInputs()...),
		Outputs: []action.Output{
			{Name: "snapshot", Usage: "Path of today's snapshot."},
			{Name: "created", Usage: "true when this run made it."},
			{Name: "missed", Usage: "Number of days since the one before that have none."},
		},
		Exit:     "3 when the log has not begun, or the time-stamping authorities that the configuration demands do not answer: then nothing is committed.",
		Examples: []string{"remembrancer snapshot create"},
	},
	run: runSnapshotCreate,
}

var snapshotVerifyVerb = verb{
	spec: action.Spec{
		Verb: "snapshot verify", Summary: "verify every snapshot of the ledger against the ledger",
		Description: "Audits the ledger of a commit, and then verifies of each snapshot that it is signed by a trust anchor and time-stamped, that it extends the one before, and that it is a part of this log.",
		Inputs: []action.Input{
			{Name: "rev", Default: "HEAD", Usage: "Commit to verify."},
			policyIDInput,
			{Name: "json", Kind: action.Bool, Usage: "Print the verdict as JSON."},
		},
		Exit: "3 when there is no snapshot.",
	},
	run: runSnapshotVerify,
}

// snapshotFolder is where snapshots are.
func snapshotFolder(l covenant.Layout) string { return l.Ledger(snapshot.Folder) }

// daily makes the annex of one run: today's snapshot.
type daily struct {
	w      *world
	p      *project
	signer openpgp.Signer

	date  time.Time
	made  map[string][]byte // kept over lost races: an authority is asked once
	of    string            // the checkpoint that it was made of
	found *snapshot.Previous
}

func (d *daily) annex(ctx context.Context, s publish.State) (map[string][]byte, error) {
	folder := snapshotFolder(d.p.layout)
	last, err := snapshot.Newest(s.Tree, folder)
	if err != nil {
		return nil, err
	}
	if last != nil && last.Snapshot.Date().Equal(d.date) {
		d.found = last
		return nil, nil
	}
	if d.made != nil && d.of == string(s.Checkpoint.Note()) {
		return d.made, nil
	}
	snap, err := snapshot.New(d.date, s.Checkpoint, s.Trust.ID(), s.Entries, last)
	if err != nil {
		return nil, failed("%w", err)
	}
	data := snap.Marshal()
	packet, err := d.signer.Sign(ctx, data)
	if err != nil {
		return nil, err
	}
	at := d.p.layout.Ledger(snapshot.Path(snap.File()))
	files := map[string][]byte{at: data, at + ".asc": openpgp.Armor(packet)}
	stamps, err := d.stamp(ctx, s, at, data)
	if err != nil {
		return nil, err
	}
	maps.Copy(files, stamps)
	series, err := d.w.series(d.p, s.Tree, s.Trust)
	if err != nil {
		return nil, err
	}
	series.Entries = s.Entries
	// What is about to be committed is judged as a stranger will judge it.
	if verdict := judge.Sum(series.With(files).Verify(), nil); verdict.Status != judge.Pass {
		return nil, fmt.Errorf("the snapshots would not verify, so none is committed:\n%s", verdict.Text())
	}
	d.made, d.of = files, string(s.Checkpoint.Note())
	return files, nil
}

func (d *daily) stamp(ctx context.Context, s publish.State, at string, data []byte) (map[string][]byte, error) {
	authorities, err := release.Authorities(s.Tree, tsaFolder(d.p.layout))
	if err != nil {
		return nil, err
	}
	if len(authorities) == 0 && len(d.p.cfg.Release.Authorities) == 0 {
		return nil, nil // nobody is asked for
	}
	quorum, err := release.ParseQuorum(d.p.cfg.Release.Timestamps)
	if err != nil {
		return nil, err
	}
	if authorities, err = release.Select(authorities, d.p.cfg.Release.Authorities); err != nil {
		return nil, misused("%v", err)
	}
	tokens, err := tsa.Stamp(ctx, bytes.NewReader(data), authorities, quorum, nil, d.w.tsaOptions(0))
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, t := range tokens {
		files[t.Authority.TokenFile(at)] = t.Response
	}
	return files, nil
}

func runSnapshotCreate(w *world, v *action.Values, r *action.Runner) error {
	p, err := w.openProject()
	if err != nil {
		return err
	}
	pinned, err := pinnedPolicy(v)
	if err != nil {
		return err
	}
	pub, err := w.publisher(p, v, r, pinned)
	if err != nil {
		return err
	}
	d := &daily{w: w, p: p, signer: pub.Issuer, date: w.now().UTC().Truncate(24 * time.Hour)}
	pub.Annex = d.annex
	ctx, cancel := context.WithTimeout(w.ctx, 10*time.Minute)
	defer cancel()
	res, err := pub.Run(ctx)
	if err != nil {
		return explainPublish(err)
	}
	if d.found == nil {
		return fmt.Errorf("the log has not begun: there is nothing to make a snapshot of; record something and publish it")
	}
	s := d.found.Snapshot
	path := p.layout.Ledger(snapshot.Path(s.File()))
	created := d.made != nil && bytes.Equal(d.made[path], d.found.Data)
	for name, value := range map[string]string{"snapshot": path, "created": fmt.Sprint(created), "missed": fmt.Sprint(len(s.Missed()))} {
		if err := r.SetOutput(name, value); err != nil {
			return err
		}
	}
	b := s.Body()
	line := fmt.Sprintf("%s: size %d, root %x", path, b.Size, b.Root[:])
	if created {
		w.say("✅ Ledger snapshot committed: %s", line)
		w.say("   commit %s on %s", res.Commit, p.target())
	} else {
		w.say("ℹ️  today's snapshot is there already: %s", line)
	}
	for _, day := range s.Missed() {
		w.say("⚠️  %s has no snapshot, and gets none: nothing is dated back", day)
	}
	if r.InActions() {
		if err := r.Summary(fmt.Sprintf("### ledger-snapshot\n\n`%s`\n\n| size | root | missed days |\n|---|---|---|\n| %d | `%x` | %d |\n", path, b.Size, b.Root[:], len(s.Missed()))); err != nil {
			return err
		}
	}
	w.sayQuarantine(res.Quarantined)
	return nil
}

// series is the snapshots of a tree, as far as they need no entries.
func (w *world) series(p *project, t covenant.Tree, trust *covenant.Trust) (snapshot.Series, error) {
	s := snapshot.Series{
		Tree: t, Folder: snapshotFolder(p.layout), Policy: trust.Policy,
		Keys: []*openpgp.Keyring{trust.Keys, trust.Retired}, Now: w.now(),
	}
	authorities, err := release.Authorities(t, tsaFolder(p.layout))
	if err != nil {
		return s, err
	}
	if len(authorities) > 0 || len(p.cfg.Release.Authorities) > 0 {
		c := &covenants{w: w, p: p, head: &head{tree: t}}
		if s.Stamps, err = c.stamps(); err != nil {
			return s, err
		}
	}
	return s, nil
}

// snapshots makes the checks of a commit's snapshots.
func (w *world) snapshots(p *project, h *head, r *covenant.Report) []judge.Check {
	const id, claim = "integrity/snapshots", "dated snapshots bear the ledger out"
	trust, err := covenant.LoadTrust(h.tree, p.layout)
	if err != nil {
		return []judge.Check{judge.Unjudged(id, claim, err)}
	}
	s, err := w.series(p, h.tree, trust)
	if err != nil {
		return []judge.Check{judge.Unjudged(id, claim, err)}
	}
	if r.Status() != covenant.Pass {
		return []judge.Check{judge.Unjudged(id, claim, fmt.Errorf("the ledger does not pass its audit: remembrancer verify-audit"))}
	}
	s.Entries = r.Entries
	return s.Verify()
}

func runSnapshotVerify(w *world, v *action.Values, _ *action.Runner) error {
	p, err := w.openProject()
	if err != nil {
		return err
	}
	pinned, err := pinnedPolicy(v)
	if err != nil {
		return err
	}
	h, err := p.head(v.String("rev"))
	if err != nil {
		return err
	}
	r, err := w.audit(p, h, pinned)
	if err != nil {
		return err
	}
	verdict := judge.Sum(w.snapshots(p, h, r), nil)
	if v.Bool("json") {
		out, err := json.MarshalIndent(verdict, "", "  ")
		if err != nil {
			return err
		}
		w.say("%s", out)
	} else {
		w.say("%s", verdict.Text())
	}
	switch verdict.Status {
	case judge.Pass:
		return nil
	case judge.Fail:
		return quietly(exitFail)
	}
	return quietly(exitUnjudged)
}
