package publish

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
	"github.com/vaultmesh/remembrancer/pkg/gitrepo/gitservertest"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

var faults = []struct {
	name  string
	fault gitservertest.Fault
}{
	{"request dropped", gitservertest.DropRequest},
	{"gateway refuses", gitservertest.RefuseGateway},
	{"answer lost", gitservertest.LoseAnswer},
	{"answer lost at the gateway", gitservertest.LoseAnswerGateway},
	{"answer empty", gitservertest.EmptyAnswer},
	{"answer cut", gitservertest.CutAnswer},
}

var moments = []moment{beforeClaim, afterClaim, beforeSign, beforeLand, afterLand}

// TestNoFaultOfAWriteLosesOrRepeatsAnEntry breaks each write of a run at the
// sizes where segments open, fill and seal: the write is not persisted, is
// persisted and reported failed, or the process dies around it. The same or
// another publisher then goes on.
func TestNoFaultOfAWriteLosesOrRepeatsAnEntry(t *testing.T) {
	sizes := []int{0, 1, 254, 255, 256, 257, 258, 511, 512, 513}
	if testing.Short() { // under the race detector, which the sizes do not matter to
		sizes = []int{1, 256}
	}
	for i, size := range sizes {
		t.Run(fmt.Sprint("size ", size), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.begin(size)
			base := map[string]string{mainRef: w.at(mainRef), claimRef: w.at(claimRef)}
			// Each case begins at the same commits.
			fresh := func(t *testing.T) *world {
				for ref, commit := range base {
					switch {
					case commit != "":
						w.Git("update-ref", ref, commit)
					case w.at(ref) != "":
						w.Git("update-ref", "-d", ref)
					}
				}
				again := *w
				again.t = t
				again.forget()
				return &again
			}
			check := func(w *world, first, second Observation) {
				w.t.Helper()
				entries := w.verify().Entries
				assert.Equal(w.t, len(entries), size+2)
				assert.Equal(w.t, entries[size].Receipt.Issued(), first.At)
				assert.Equal(w.t, runOf(entries[size]), first.RunID)
				assert.Equal(w.t, runOf(entries[size+1]), second.RunID)
			}
			for j, f := range faults {
				for k, write := range []string{"claim", "commit"} {
					// Without REMEMBRANCER_LONG each size meets one fault of each
					// write and one kill, and each fault and kill several sizes.
					if !long() && (i+j+3*k)%6 != 0 {
						continue
					}
					t.Run(f.name+", "+write, func(t *testing.T) {
						w := fresh(t)
						first, second := w.observation(), w.observation()
						if write == "commit" {
							p := w.publisher(observing(first))
							p.at = func(m moment) error {
								if m == beforeLand { // the claim went through
									w.FailPush(f.fault)
									p.at = nil
								}
								return nil
							}
							_, err := p.Run(t.Context())
							assert.NilError(t, err)
						} else {
							w.FailPush(f.fault)
							w.run(observing(first))
						}
						w.run(observing(first, second))
						check(w, first, second)
					})
				}
			}
			for j, m := range moments {
				if !long() && (i+j)%5 != 0 {
					continue
				}
				t.Run("killed "+string(m), func(t *testing.T) {
					w := fresh(t)
					first, second := w.observation(), w.observation()
					_, err := w.publisher(observing(first), killedAt(m)).Run(t.Context())
					assert.ErrorIs(t, err, errKilled)
					if m == beforeClaim {
						// Nothing is known of the receipt: whoever saw the run says it again.
						w.run(observing(first))
					}
					w.run(observing(second))
					check(w, first, second)
				})
			}
		})
	}
}

// runOf returns the run id of an observed receipt.
func runOf(e receipt.Entry) int64 {
	var p struct {
		Observed struct {
			RunID int64 `json:"run_id"`
		} `json:"vaultmesh_observed"`
	}
	must(unmarshal(e.Receipt.Predicate(), &p))
	return p.Observed.RunID
}

// TestSixteenRacingPublishersSignOneRootPerSize lets publishers, writers of code
// and kills race on one server of real git.
func TestSixteenRacingPublishersSignOneRootPerSize(t *testing.T) {
	rounds, perWriter := 1, 2
	if long() {
		rounds, perWriter = 4, 12
	}
	for round := range rounds {
		t.Run(fmt.Sprint("round ", round), func(t *testing.T) {
			race(t, 16, 3, perWriter, uint64(round))
		})
	}
}

func race(t *testing.T, publishers, writers, perWriter int, seed uint64) {
	w := newWorld(t)
	// Everything that needs the test's own goroutine is made before the race.
	type change struct {
		id    receipt.ID
		files map[string]string
	}
	var (
		want    []receipt.ID
		changes = make([][]change, writers)
		clones  = make([]string, writers)
	)
	for i := range writers {
		clones[i] = w.Clone(t)
		for j := range perWriter {
			r := w.receipt([]receipt.Kind{receipt.Deploy, receipt.ADR, receipt.Incident, receipt.Discovery}[j%4], w.colleague)
			want = append(want, r.ID())
			changes[i] = append(changes[i], change{r.ID(), w.filed(r, w.colleague)})
		}
	}
	// All publishers have seen one run, and every fourth one of its own.
	seen := make([][]Observation, publishers)
	all := []Observation{w.observation()}
	for i := range seen {
		seen[i] = all[:1:1]
		if i%4 == 0 {
			all = append(all, w.observation())
			seen[i] = append(seen[i], all[len(all)-1])
		}
	}

	var (
		writing, publishing sync.WaitGroup
		quiet               atomic.Bool // all receipts are pushed: no more kills
		kills               [16]atomic.Int64
	)
	for i := range writers {
		writing.Go(func() {
			for _, c := range changes[i] {
				if err := pushFiles(w, clones[i], c.files); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range publishers {
		publishing.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(i)))
			for {
				clean := quiet.Load()
				time.Sleep(time.Duration(random.IntN(400)) * time.Millisecond) // as schedulers start them
				err := func() error {
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					remote, err := gitrepo.Dial(ctx, gitrepo.Options{URL: w.URL()})
					if err != nil {
						return err
					}
					p := &Publisher{
						Remote: remote, Layout: layout, Branch: mainRef, Target: mainRef, Claim: claimRef, LogKey: w.logKey, Issuer: w.issuer,
						AuthorName: "Remembrancer Bot", AuthorEmail: "bot@vaultmesh.org", Now: clock,
						Observations: seen[i],
						sign:         w.signed.signer(w.logKey),
					}
					p.at = func(m moment) error {
						if clean || random.IntN(4) > 0 {
							return nil
						}
						for i, known := range moments {
							if known == m {
								kills[i].Add(1)
							}
						}
						if random.IntN(2) == 0 {
							cancel() // in the midst of the next request
							return nil
						}
						return errKilled
					}
					_, err = p.Run(ctx)
					return err
				}()
				switch {
				case err == nil && clean:
					return
				case err != nil && (clean || !errors.Is(err, errKilled) && !errors.Is(err, context.Canceled)):
					t.Errorf("publisher %d: %v", i, err)
					return
				}
			}
		})
	}
	writing.Wait()
	quiet.Store(true)
	publishing.Wait()
	if t.Failed() {
		return
	}
	for _, o := range all {
		p := w.publisher()
		tips, err := p.Remote.Fetch(t.Context(), mainRef)
		assert.NilError(t, err)
		r, err := o.receipt(p, &view{tips: tips})
		assert.NilError(t, err)
		want = append(want, r.ID())
	}
	assert.DeepEqual(t, sorted(w.ids()), sorted(want))
	var killed int64
	for i := range moments {
		killed += kills[i].Load()
	}
	assert.Assert(t, killed > 0, "nobody was killed")
	t.Logf("%d receipts, %d signatures of %d sizes, %d kills", len(want), w.signed.made(), len(w.signed.roots), killed)
}

// pushFiles commits files in a clone and pushes them, as people do.
func pushFiles(w *world, clone string, files map[string]string) error {
	for name, content := range files {
		path := filepath.Join(clone, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
			return err
		}
	}
	if _, err := tryGit(w, clone, "add", "-A"); err != nil {
		return err
	}
	if _, err := tryGit(w, clone, "commit", "-q", "-m", "record something"); err != nil {
		return err
	}
	for range 100 {
		if _, err := tryGit(w, clone, "push", "-q", "origin", "main"); err == nil {
			return nil
		}
		if out, err := tryGit(w, clone, "pull", "-q", "--rebase", "origin", "main"); err != nil {
			return fmt.Errorf("pull: %w: %s", err, out)
		}
	}
	return errors.New("lost a hundred races")
}

func TestACodePushBetweenClaimAndCommitKeepsTheLedgerBytes(t *testing.T) {
	w := newWorld(t)
	w.begin(3)
	w.add(receipt.Deploy)
	w.BeforePush(func() {})
	w.BeforePush(func() { w.edit(mainRef, map[string]string{"README": "Another line of code.\n"}) })
	pushes := w.Pushes()
	res := w.run()
	assert.Equal(t, w.Pushes()-pushes, 3, "want a claim, a lost commit and a second one")
	assert.Equal(t, w.signed.made(), 1+2)
	assert.Equal(t, len(w.signed.notes), 2, "one note of each size")
	assert.Equal(t, w.blob("main", "README"), "Another line of code.\n")
	assert.Equal(t, w.blob("main", "ops/ledger/log/00/00/00.jsonl"), w.blob(claimRef, "00/00/00.jsonl"))
	assert.Equal(t, len(res.Sequenced), 1)
	w.verify()
}

func TestARefusingHookIsNotAskedTwice(t *testing.T) {
	w := newWorld(t)
	want := w.add(receipt.Deploy)
	w.Hook("pre-receive", "#!/bin/sh\nwhile read old new ref; do\n  if [ $ref = refs/heads/main ]; then echo 'GH013: main is for the release team' >&2; exit 1; fi\ndone\n")
	before, pushes := w.at(mainRef), w.Pushes()
	_, err := w.publisher().Run(t.Context())
	var refused *gitrepo.RefusedError
	assert.Assert(t, errors.As(err, &refused), "%v", err)
	assert.Equal(t, refused.Ref, mainRef)
	assert.Assert(t, strings.Contains(err.Error(), "GH013: main is for the release team"), err.Error())
	assert.Equal(t, w.Pushes()-pushes, 2, "want one claim and one commit")
	assert.Equal(t, w.at(mainRef), before)
	claim := w.at(claimRef)
	assert.Assert(t, claim != "")

	w.Hook("pre-receive", "#!/bin/sh\nexit 0\n")
	res := w.run()
	assert.Assert(t, res.Healed)
	assert.Equal(t, w.at(claimRef), claim)
	assert.DeepEqual(t, w.ids(), []receipt.ID{want.ID()})
}

func TestARefusedClaimSignsNothing(t *testing.T) {
	w := newWorld(t)
	w.add(receipt.Deploy)
	w.Hook("pre-receive", "#!/bin/sh\necho 'not this branch' >&2\nexit 1\n")
	pushes := w.Pushes()
	_, err := w.publisher().Run(t.Context())
	assert.ErrorContains(t, err, "not this branch")
	assert.Equal(t, w.Pushes()-pushes, 1)
	assert.Equal(t, w.signed.made(), 0)
}

func TestTwoPublishersOfOneClaimMakeOneNote(t *testing.T) {
	w := newWorld(t)
	w.add(receipt.Deploy)
	p := w.publisher()
	p.at = func(m moment) error {
		if m == beforeLand {
			p.at = nil
			w.run() // finishes the claim first
		}
		return nil
	}
	res, err := p.Run(t.Context())
	assert.NilError(t, err)
	assert.Equal(t, w.signed.made(), 2)
	assert.Equal(t, len(w.signed.notes), 1)
	assert.Equal(t, len(res.Sequenced), 1)
	w.verify()
}

func TestAnIssuersSignatureIsMadeOncePerRun(t *testing.T) {
	w := newWorld(t)
	counting := &countingSigner{Signer: w.issuer}
	for range 3 {
		w.FailPush(gitservertest.RefuseGateway)
	}
	w.run(observing(w.observation()), func(p *Publisher) { p.Issuer = counting })
	assert.Equal(t, counting.n, 1)
	w.verify()
}

type countingSigner struct {
	openpgp.Signer
	n int
}

func (c *countingSigner) Sign(ctx context.Context, message []byte) ([]byte, error) {
	c.n++
	return c.Signer.Sign(ctx, message)
}
