package publish

import (
	"fmt"
	"strings"
	"testing"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/covenant"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

func TestARunAppendsEveryPendingReceiptInOneCommit(t *testing.T) {
	w := newWorld(t)
	idle := w.run()
	assert.Equal(t, idle.To.Size, int64(0))
	assert.Assert(t, idle.Commit.IsZero())
	assert.Equal(t, w.refs(), mainRef+" "+w.at(mainRef), "a run with nothing to do made a branch")

	// Several merges, and no run in between.
	want := []receipt.ID{
		w.add(receipt.Deploy).ID(), w.add(receipt.ADR).ID(), w.add(receipt.Incident).ID(), w.add(receipt.Release).ID(),
	}
	before := w.at(mainRef)
	res := w.run()
	assert.DeepEqual(t, sorted(idsOf(res.Sequenced)), sorted(want))
	assert.Equal(t, res.From.Size, int64(0))
	assert.Equal(t, res.To.Size, int64(4))
	assert.Equal(t, len(res.Quarantined), 0)
	assert.Assert(t, res.FirstUse && !res.Healed)
	assert.Equal(t, res.Commit.String(), w.at(mainRef))
	assert.DeepEqual(t, sorted(w.ids()), sorted(want))

	commit := w.Git("cat-file", "commit", "main")
	assert.Assert(t, strings.Contains(commit, "\nparent "+before+"\nauthor Remembrancer Bot <bot@vaultmesh.org> 1740830400 +0000\n"), commit)
	assert.Equal(t, w.Git("log", "-1", "--format=%B", "main"), fmt.Sprintf(
		"chore(merkle): auto-publish root [skip ci]\n\nRemembrancer-Log: example.org/log\nRemembrancer-Size: 4\nRemembrancer-Merkle-Root: %x\n", res.To.Root[:]))
	assert.Equal(t, w.Git("log", "-1", "--format=%s", "main"), Subject)
	assert.Equal(t, w.Git("diff", "--name-only", "main~1", "main"),
		"docs/REMEMBRANCER.md\nops/ledger/checkpoint\nops/ledger/edge\nops/ledger/log/00/00/00.jsonl")
	assert.Equal(t, w.blob("main", "docs/REMEMBRANCER.md"), fmt.Sprintf("# The Remembrancer\n\nMerkle Root: %x\n\nThe end.\n", res.To.Root[:]))
	assert.Equal(t, w.Git("ls-tree", "-r", "--name-only", claimRef), "00/00/00.jsonl")
	assert.Equal(t, w.claimed(claimRef), string(res.To.Text()))

	at := w.refs()
	again := w.run()
	assert.Equal(t, w.refs(), at, "a second run wrote")
	assert.Equal(t, again.From, res.To)
	assert.Equal(t, again.To, res.To)
	assert.Equal(t, len(again.Sequenced), 0)

	// The next commit proves that it extends this one.
	last := w.add(receipt.Deploy)
	w.run(func(p *Publisher) { p.PolicyID = res.PolicyID })
	assert.DeepEqual(t, sorted(w.ids()), sorted(append(want, last.ID())))
	trailer := w.Git("log", "-1", "--format=%(trailers:key=Remembrancer-Consistency,valueonly)", "main")
	assert.Assert(t, strings.HasPrefix(trailer, "4 "), trailer)
}

func TestALogIsPublishedToABranchOfItsOwn(t *testing.T) {
	w := newWorld(t)
	const ledgerRef = "refs/heads/remembrancer/ledger"
	aside := func(p *Publisher) { p.Target = ledgerRef }
	idle := w.run(aside)
	assert.Equal(t, idle.To.Size, int64(0))
	assert.Equal(t, w.at(ledgerRef), "")

	a := w.add(receipt.Deploy)
	before := w.at(mainRef)
	w.run(aside)
	b := w.add(receipt.ADR)
	merged := w.at(mainRef)
	res := w.run(aside)
	assert.Equal(t, w.at(mainRef), merged, "main was written")
	assert.Assert(t, before != merged)
	assert.DeepEqual(t, w.Git("ls-tree", "-r", "--name-only", ledgerRef),
		"docs/REMEMBRANCER.md\nops/ledger/checkpoint\nops/ledger/edge\nops/ledger/log/00/00/00.jsonl")

	p := w.publisher(aside)
	tips, err := p.Remote.Fetch(t.Context(), mainRef, ledgerRef)
	assert.NilError(t, err)
	source, err := p.tree(tips[mainRef])
	assert.NilError(t, err)
	over, err := p.tree(tips[ledgerRef])
	assert.NilError(t, err)
	r := covenant.Audit(WithLedger(source, over, layout), covenant.Options{Layout: layout, PolicyID: res.PolicyID, Badge: Badge, Now: noon})
	assert.DeepEqual(t, failures(r), []string(nil))
	assert.DeepEqual(t, idsOf(r.Entries), []receipt.ID{a.ID(), b.ID()})
	w.Fsck()

	w.edit(mainRef, map[string]string{layout.Receipt(a.File()): gone})
	assert.Assert(t, strings.Contains(w.refusal(aside), a.File()))
}

func TestAPolicyOfAnotherLogOrKeyIsRefusedBeforeAnythingIsClaimed(t *testing.T) {
	w := newWorld(t)
	w.add(receipt.Deploy)
	text := w.refusal(func(p *Publisher) { p.LogKey = w.otherLogKey })
	assert.Assert(t, strings.Contains(text, w.otherLogKey.VerifierKey()), text)
	// Named in a comment is not listed.
	w.edit(mainRef, map[string]string{"ops/ledger/policy": "# was log " + w.otherLogKey.VerifierKey() + "\nlog " + w.logKey.VerifierKey() + "\nquorum none\n"})
	w.refusal(func(p *Publisher) { p.LogKey = w.otherLogKey })
	w.run()
}
