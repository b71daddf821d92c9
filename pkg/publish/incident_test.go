package publish

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

// inspector is a forge that finds fault with some commits, and keeps what it was
// asked about.
type inspector struct {
	bad   map[string]bool
	err   error
	asked []string
	then  func() // after the next question, once
}

func (i *inspector) examine(_ context.Context, commits []gitrepo.Hash) (found []Incident, err error) {
	for _, c := range commits {
		i.asked = append(i.asked, c.String())
		if i.bad[c.String()] {
			found = append(found, Incident{Commit: c, Title: "bypassed", At: noon.Add(-time.Minute), Observed: map[string]any{"pull": int64(7)}})
		}
	}
	if then := i.then; then != nil {
		i.then = nil
		then()
	}
	return found, i.err
}

func (i *inspector) on(p *Publisher) { p.Examine = i.examine }

// push commits code to main past everything.
func (w *world) push(content string) string {
	w.t.Helper()
	return w.edit(mainRef, map[string]string{"code": content})
}

// incidents returns the commits of the incidents that the log holds.
func (w *world) incidents() []string {
	w.t.Helper()
	var commits []string
	for _, e := range w.verify().Entries {
		if e.Receipt.Kind() == receipt.Incident {
			commits = append(commits, e.Receipt.Subjects()[0].Commit)
		}
	}
	return commits
}

func TestACommitThatWentPastTheChecksIsRecordedOnce(t *testing.T) {
	w := newWorld(t)
	w.add(receipt.Deploy)
	i := &inspector{bad: map[string]bool{}}
	assert.Equal(t, w.run(i.on).Examined, 0, "what was before the covenant could not go past it")
	assert.Equal(t, len(i.asked), 0)

	good := w.push("good")
	bad := w.push("bad")
	i.bad[bad] = true
	res := w.run(i.on)
	assert.DeepEqual(t, i.asked, []string{bad, good})
	assert.Equal(t, res.Examined, 2)
	assert.Equal(t, res.Unexamined, "")
	assert.DeepEqual(t, w.incidents(), []string{bad})
	var kinds []string
	for _, e := range res.Sequenced {
		kinds = append(kinds, string(e.Receipt.Kind()))
	}
	assert.DeepEqual(t, kinds, []string{"incident", "observed"})
	assert.Equal(t, string(res.Sequenced[0].Receipt.Predicate()), fmt.Sprintf(
		`{"title":"bypassed","vaultmesh_issued":"2025-03-01T11:59:00Z","vaultmesh_issuer":"%s","vaultmesh_observed":{"commit":"%s","pull":7}}`, w.issuer.Fingerprint(), bad))
	var a about
	assert.NilError(t, unmarshal(res.Sequenced[1].Receipt.Predicate(), &a))
	assert.Equal(t, a.Observed.Commit, bad)
	assert.Equal(t, *a.Observed.Examined, int64(2))

	// Nothing new, nothing asked, nothing published.
	res = w.run(i.on)
	assert.Equal(t, len(i.asked), 2)
	assert.Equal(t, len(res.Sequenced), 0)

	// Another run that lost its memory asks of the same commits, and the log knows.
	remembered := w.verify().Entries
	assert.Assert(t, recordedIncidents(remembered)[bad])
	last, known := lastExamined(remembered)
	assert.Assert(t, known && last.String() == bad)
}

// An examination that finds nothing is kept with the next entry: alone it makes
// no commit, and what it covers is examined again until then.
func TestAnExaminationAloneMakesNoCommit(t *testing.T) {
	w := newWorld(t)
	w.add(receipt.Deploy)
	i := &inspector{}
	w.run(i.on)
	good := w.push("good")
	before := w.refs()
	res := w.run(i.on)
	assert.Equal(t, res.Examined, 1)
	assert.Equal(t, w.refs(), before)
	w.run(i.on, func(p *Publisher) { p.Observations = []Observation{w.observation()} })
	assert.DeepEqual(t, i.asked, []string{good, good})
	w.run(i.on)
	assert.Equal(t, len(i.asked), 2)
	w.verify()
}

func TestWhatCouldNotBeExaminedIsExaminedLater(t *testing.T) {
	w := newWorld(t)
	w.add(receipt.Deploy)
	i := &inspector{bad: map[string]bool{}, err: errors.New("forbidden")}
	w.run() // as before there was anything to ask
	bad := w.push("bad")
	i.bad[bad] = true
	w.add(receipt.Deploy)
	res := w.run(i.on)
	assert.Equal(t, res.Unexamined, "forbidden")
	assert.Equal(t, res.Examined, 0)
	assert.Equal(t, len(res.Sequenced), 2, "the publication goes on, and keeps where to begin")
	assert.Equal(t, len(i.asked), 2, "it is asked once a run")
	assert.Equal(t, len(w.incidents()), 0)
	w.add(receipt.Deploy)
	assert.Equal(t, len(w.run(i.on).Sequenced), 1)

	i.err = nil
	res = w.run(i.on)
	assert.Equal(t, res.Unexamined, "")
	assert.DeepEqual(t, w.incidents(), []string{bad})
}

// A push between the question and the commit of the answer is below that commit,
// and still not examined.
func TestACommitThatCameMeanwhileIsExaminedLater(t *testing.T) {
	w := newWorld(t)
	w.add(receipt.Deploy)
	i := &inspector{bad: map[string]bool{}}
	w.run(i.on)
	w.push("good")
	w.add(receipt.Deploy)
	var late string
	i.then = func() { late = w.push("late"); i.bad[late] = true }
	w.run(i.on) // its own last round sees it
	assert.DeepEqual(t, w.incidents(), []string{late})
	w.run(i.on)
	assert.DeepEqual(t, w.incidents(), []string{late})

	// The same, but the run ends as soon as its commit has landed.
	w.add(receipt.Deploy)
	i.then = func() { late = w.push("later"); i.bad[late] = true }
	p := w.publisher(i.on, killedAt(afterLand))
	_, err := p.Run(t.Context())
	assert.ErrorIs(t, err, errKilled)
	assert.Equal(t, len(w.incidents()), 1)
	w.run(i.on)
	assert.Equal(t, len(w.incidents()), 2)
	assert.Equal(t, w.incidents()[1], late)
}

func TestKilledRunsRecordAnIncidentOnce(t *testing.T) {
	for _, m := range []moment{afterClaim, beforeLand, afterLand} {
		t.Run(string(m), func(t *testing.T) {
			w := newWorld(t)
			w.add(receipt.Deploy)
			i := &inspector{bad: map[string]bool{}}
			w.run(i.on)
			bad := w.push("bad")
			i.bad[bad] = true
			_, err := w.publisher(i.on, killedAt(m)).Run(t.Context())
			assert.ErrorIs(t, err, errKilled)
			w.run(i.on)
			w.run(i.on)
			assert.DeepEqual(t, w.incidents(), []string{bad})
		})
	}
}

// Who calls a commit the publisher's hides nothing in it.
func TestACommitThatCallsItselfThePublishersIsExamined(t *testing.T) {
	w := newWorld(t)
	w.add(receipt.Deploy)
	i := &inspector{}
	w.run(i.on)
	entries := w.verify().Entries
	publish := func(files map[string]string) string {
		c := w.commitOn(w.at(mainRef), Subject+"\n\nRemembrancer-Size: 1\n", files)
		w.Git("update-ref", mainRef, c)
		return c
	}
	var want []string
	for _, files := range []map[string]string{
		{"code": "x"},
		{"ops/status/badge.json": "{}\n", "code": "y"},
		{"ops/receipts/adr/x": ""},
		{"ops/certs/x.asc": ""},
		{"docs/REMEMBRANCER.md": strings.Replace(w.blob(mainRef, "docs/REMEMBRANCER.md"), "The end.", "Another end.", 1)},
	} {
		want = append([]string{publish(files)}, want...)
	}
	publish(map[string]string{"ops/status/badge.json": "{}\n"})
	publish(nil)
	p := w.publisher(i.on)
	tips, err := p.Remote.Fetch(t.Context(), mainRef)
	assert.NilError(t, err)
	since, err := p.unexamined(&view{tips: tips, entries: entries})
	assert.NilError(t, err)
	assert.Equal(t, since.left, 0)
	var got []string
	for _, c := range since.commits {
		got = append(got, c.String())
	}
	assert.DeepEqual(t, got, want)
}

func TestOnlySoManyCommitsAreExaminedAndTheRestIsSaid(t *testing.T) {
	w := newWorld(t)
	w.add(receipt.Deploy)
	i := &inspector{}
	w.run(i.on)
	var b strings.Builder
	for n := range maxExamined + 5 {
		fmt.Fprintf(&b, "commit %s\ncommitter A <a@example.org> 1740830400 +0000\ndata 1\nx\n", mainRef)
		if n == 0 {
			fmt.Fprintf(&b, "from %s\n", w.at(mainRef))
		}
		fmt.Fprintf(&b, "M 100644 inline code\ndata %d\n%d\n", len(fmt.Sprint(n)), n)
	}
	w.imports(b.String())
	w.add(receipt.Deploy)
	res := w.run(i.on)
	assert.Equal(t, len(i.asked), maxExamined)
	assert.Equal(t, res.Unexamined, fmt.Sprintf("6 commits older than the newest %d", maxExamined))
	res = w.run(i.on)
	assert.Equal(t, res.Unexamined, "")
	assert.Equal(t, len(i.asked), maxExamined)
}

func TestALedgerBranchIsExaminedFromItsFirstPublicationOn(t *testing.T) {
	w := newWorld(t)
	w.add(receipt.Deploy)
	i := &inspector{bad: map[string]bool{}}
	apart := func(p *Publisher) { p.Target = "refs/heads/ledger" }
	w.run(i.on, apart)
	assert.Equal(t, len(i.asked), 0)
	bad := w.push("bad")
	i.bad[bad] = true
	res := w.run(i.on, apart)
	assert.DeepEqual(t, i.asked, []string{bad})
	assert.Equal(t, len(res.Sequenced), 2)
	assert.Equal(t, len(w.run(i.on, apart).Sequenced), 0)
	assert.Equal(t, len(i.asked), 1)
}

// imports commits what git's importer reads.
func (w *world) imports(stream string) {
	w.t.Helper()
	cmd := exec.CommandContext(w.t.Context(), "git", "fast-import", "--quiet")
	cmd.Dir, cmd.Env, cmd.Stdin = w.Dir(), w.Env(), strings.NewReader(stream)
	out, err := cmd.CombinedOutput()
	assert.NilError(w.t, err, "%s", out)
}
