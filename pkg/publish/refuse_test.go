package publish

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"testing"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

const (
	segment0 = "ops/ledger/log/00/00/00.jsonl"
	segment1 = "ops/ledger/log/00/00/01.jsonl"
)

// swap replaces one occurrence, and wants that there is one.
func swap(t *testing.T, s, old, new string) string {
	t.Helper()
	assert.Assert(t, strings.Contains(s, old), "%q is not in\n%s", old, s)
	return strings.Replace(s, old, new, 1)
}

// flip changes one letter of a text so that it still decodes.
func flip(s string, at int) string {
	b := []byte(s)
	if b[at] == 'A' {
		b[at] = 'B'
	} else {
		b[at] = 'A'
	}
	return string(b)
}

func TestNothingIsSignedOverATamperedLedger(t *testing.T) {
	w := newWorld(t)
	w.begin(255)
	early := w.at(mainRef)
	deployed := w.add(receipt.Deploy)
	w.run()
	w.begin(2)
	w.add(receipt.ADR) // pending in every case: there is something to sign
	base := map[string]string{mainRef: w.at(mainRef), claimRef: w.at(claimRef)}
	note, oldNote := w.blob("main", "ops/ledger/checkpoint"), w.blob(early, "ops/ledger/checkpoint")
	root := rootOf(t, note)
	claimed := w.claimed(claimRef)
	file := layout.Receipt(deployed.File())
	doc := w.blob("main", "docs/REMEMBRANCER.md")
	changed := swap(t, string(deployed.Bytes()), `"v`, `"w`)

	cases := []struct {
		name  string
		files map[string]string
		want  []string // the evidence
	}{
		{"edge flipped", map[string]string{"ops/ledger/edge": flip(w.blob("main", "ops/ledger/edge"), 8)}, []string{"do not hash to the signed root", root, "files say root", note, claimed}},
		{"edge gone", map[string]string{"ops/ledger/edge": gone}, nil}, // it may lag: see below
		{"edge leads", map[string]string{"ops/ledger/edge": "512\n" + strings.Repeat("A", 43) + "=\n"}, []string{"leads the checkpoint", note}},
		{"first segment flipped", map[string]string{segment0: flip(w.blob("main", segment0), 100)}, []string{"do not hash to the signed root", root, "files say root", note, claimed}},
		{"last segment flipped", map[string]string{segment1: flip(w.blob("main", segment1), 100)}, []string{"do not hash to the signed root", root, "files say root", note, claimed}},
		{"first segment gone", map[string]string{segment0: gone}, []string{"00.jsonl", note}},
		{"last segment gone", map[string]string{segment1: gone}, []string{"01.jsonl", note}},
		{"line above the checkpoint", map[string]string{segment1: w.blob("main", segment1) + "{}\n"}, []string{"holds 3 entries, want 2", root}},
		{"segment above the checkpoint", map[string]string{"ops/ledger/log/00/00/02.jsonl": "{}\n"}, []string{"above the checkpoint", root}},
		{"checkpoint's body flipped", map[string]string{"ops/ledger/checkpoint": swap(t, note, "\n258\n", "\n257\n")}, []string{"\n257\n", claimed}},
		{"checkpoint's signature flipped", map[string]string{"ops/ledger/checkpoint": flip(note, len(note)-20)}, []string{"checkpoint", claimed}},
		{"checkpoint gone", map[string]string{"ops/ledger/checkpoint": gone}, []string{"there are entries, but no checkpoint", claimed}},
		{"checkpoint rolled back alone", map[string]string{"ops/ledger/checkpoint": oldNote}, []string{oldNote, claimed}},
		{"edge and checkpoint of different times", map[string]string{"ops/ledger/edge": w.blob("main", "ops/ledger/edge"), "ops/ledger/checkpoint": oldNote}, []string{oldNote, claimed}},
		{"segment rolled back alone", map[string]string{segment0: w.blob(early, segment0)}, []string{"holds 255 entries, want 256", note, claimed}},
		{"root line changed", map[string]string{"docs/REMEMBRANCER.md": swap(t, doc, root, strings.Repeat("ab", 32))}, []string{"states root abab", root}},
		{"two root lines", map[string]string{"docs/REMEMBRANCER.md": doc + "Merkle Root: " + root + "\n"}, []string{"2 lines", note}},
		{"no root line", map[string]string{"docs/REMEMBRANCER.md": "# Nothing\n"}, []string{"0 lines", note}},
		{"receipt file changed", map[string]string{file: changed}, []string{"sha256:" + digest(deployed.Bytes()), "sha256:" + digest([]byte(changed))}},
		{"receipt file gone", map[string]string{file: gone}, []string{file + " was sequenced as entry 255 and is gone"}},
		{"symlink in the ledger", map[string]string{"ops/ledger/log/00/00/02.jsonl": symlink + "00.jsonl"}, []string{"symbolic link"}},
		{"symlink for the checkpoint", map[string]string{"ops/ledger/checkpoint": symlink + "policy"}, []string{"symbolic link"}},
		{"attributes in the ledger", map[string]string{"ops/ledger/.gitattributes": "* text\n"}, []string{"would change how git stores"}},
		{"stray file in the ledger", map[string]string{"ops/ledger/log/notes": "x\n"}, []string{"has no place there"}},
		{"policy of another key", map[string]string{"ops/ledger/policy": string(checkpoint.NewPolicy(w.otherLogKey.VerifierKey()))}, []string{"want a key of the policy"}},
		{"policy gone", map[string]string{"ops/ledger/policy": gone}, []string{"run remembrancer init"}},
		{"issuer's certificate gone", map[string]string{"ops/certs/" + cert(w.colleague): gone}, []string{"entry 255", string(w.colleague.Fingerprint())}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := *w
			w.t = t
			for ref, commit := range base {
				w.Git("update-ref", ref, commit)
			}
			w.edit(mainRef, c.files)
			if c.want == nil {
				w.run()
				w.verify()
				return
			}
			text := w.refusal()
			for _, want := range c.want {
				assert.Assert(t, strings.Contains(text, want), "want %q in\n%s", want, text)
			}
		})
	}
}

// rootOf returns the root of a note in hex.
func rootOf(t testing.TB, note string) string {
	t.Helper()
	text, _, _ := strings.Cut(note, "\n\n")
	b, err := checkpoint.ParseBody([]byte(text + "\n"))
	assert.NilError(t, err)
	return fmt.Sprintf("%x", b.Root[:])
}

func TestAForkedHistoryIsRefusedWithBothHeads(t *testing.T) {
	w := newWorld(t)
	start := w.at(mainRef)
	w.begin(5)
	for _, size := range []int{3, 5, 7} {
		t.Run(fmt.Sprint("fork of size ", size, " over 5"), func(t *testing.T) {
			w := *w
			w.t = t
			honest := map[string]string{mainRef: w.at(mainRef), claimRef: w.at(claimRef)}
			// The same key signs another history, as a stolen one would.
			const fork, forkClaim = "refs/heads/fork", "refs/heads/fork-claim"
			w.Git("update-ref", fork, start)
			var os []Observation
			for range size {
				o := w.observation()
				o.Commit, _ = gitrepo.ParseHash(start)
				os = append(os, o)
			}
			w.run(observing(os...), func(p *Publisher) { p.Branch, p.Target, p.Claim = fork, fork, forkClaim })
			w.Git("update-ref", mainRef, w.at(fork))

			text := w.refusal(observing(os[0]))
			assert.Assert(t, strings.Contains(text, w.blob("main", "ops/ledger/checkpoint")), text)
			assert.Assert(t, strings.Contains(text, w.claimed(claimRef)), text)

			w.Git("update-ref", "-d", fork)
			w.Git("update-ref", "-d", forkClaim)
			w.Git("update-ref", mainRef, honest[mainRef])
			w.run()
		})
	}
}

func TestALostOrRolledBackClaimIsRefused(t *testing.T) {
	w := newWorld(t)
	w.begin(2)
	older := w.at(claimRef)
	w.begin(1)
	newer := w.at(claimRef)
	pending := w.add(receipt.Deploy)
	note := w.blob("main", "ops/ledger/checkpoint")

	w.Git("update-ref", claimRef, older)
	text := w.refusal()
	assert.Assert(t, strings.Contains(text, "was not made through the claim branch"), text)
	assert.Assert(t, strings.Contains(text, note) && strings.Contains(text, w.claimed(older)), text)
	w.refusal(func(p *Publisher) { p.RestoreClaim = true }) // it is not lost: it contradicts

	w.Git("update-ref", "-d", claimRef)
	text = w.refusal()
	assert.Assert(t, strings.Contains(text, "--restore-claim"), text)
	assert.Assert(t, strings.Contains(text, note), text)

	// Either somebody still has it,
	w.Git("update-ref", claimRef, newer)
	w.run()
	// or it begins anew, with and without something to append.
	w.Git("update-ref", "-d", claimRef)
	res := w.run(func(p *Publisher) { p.RestoreClaim = true })
	assert.Equal(t, res.From, res.To)
	assert.Equal(t, w.Git("rev-parse", claimRef+"^{tree}"), w.Git("rev-parse", "main:ops/ledger/log"))
	w.verify()
	w.Git("update-ref", "-d", claimRef)
	last := w.add(receipt.Incident)
	w.run(func(p *Publisher) { p.RestoreClaim = true })
	ids := w.ids()
	assert.DeepEqual(t, ids[3:], []receipt.ID{pending.ID(), last.ID()})
}

// claimLines claims lines as a publisher would.
func (w *world) claimLines(lines ...[]byte) {
	w.t.Helper()
	text, err := checkpoint.ParseBody([]byte(w.claimed(claimRef)))
	assert.NilError(w.t, err)
	p := w.publisher()
	tips, err := p.Remote.Fetch(w.t.Context(), mainRef)
	assert.NilError(w.t, err)
	tree, err := p.tree(tips[mainRef])
	assert.NilError(w.t, err)
	state, _, err := ledger.Load(layout.LedgerReader(tree), text)
	assert.NilError(w.t, err)
	u, err := state.Append(lines...)
	assert.NilError(w.t, err)
	files := map[string]string{}
	for _, f := range u.Segments {
		files[strings.TrimPrefix(f.Path, "log/")] = string(f.Data)
	}
	w.claim(string(u.State.Body().Text()), files)
}

func (w *world) line(r *receipt.Receipt, by ...openpgp.Signer) []byte {
	w.t.Helper()
	var sigs []receipt.Signature
	for _, s := range by {
		sig, err := receipt.Sign(w.t.Context(), r, s)
		assert.NilError(w.t, err)
		sigs = append(sigs, sig)
	}
	e, err := receipt.NewEntry(r, sigs...)
	assert.NilError(w.t, err)
	return e.Line()
}

func TestNoBadClaimIsSigned(t *testing.T) {
	w := newWorld(t)
	filed := w.add(receipt.Deploy)
	w.run()
	base := map[string]string{mainRef: w.at(mainRef), claimRef: w.at(claimRef)}
	logOnly := func(w *world, kind receipt.Kind, issuer openpgp.Signer) *receipt.Receipt {
		w.serial++
		r, err := receipt.New(receipt.Statement{
			Kind: kind, Issuer: issuer.Fingerprint(), Issued: noon,
			Subjects: []receipt.Subject{{Name: "x", SHA256: digest([]byte(fmt.Sprint(w.serial)))}}, Predicate: map[string]any{},
		})
		assert.NilError(w.t, err)
		return r
	}
	good := func(w *world) []byte { return w.line(logOnly(w, receipt.Audit, w.colleague), w.colleague) }
	body := func(w *world) string { return w.claimed(claimRef) }

	cases := []struct {
		name  string
		claim func(w *world)
		want  string
	}{
		{"junk line", func(w *world) { w.claimLines([]byte("junk")) }, "entry 1: log line is not a DSSE envelope"},
		{"junk after a good line", func(w *world) { w.claimLines(good(w), []byte("{}")) }, "entry 2: log line"},
		{"unsigned entry", func(w *world) {
			l := good(w)
			w.claimLines(append(l[:bytes.Index(l, []byte(`"signatures":[`))+14], "]}"...))
		}, "log line has no signature"},
		{"issuer nobody trusts", func(w *world) { w.claimLines(w.line(logOnly(w, receipt.Audit, w.stranger), w.stranger)) }, string(testKeys().stranger.Fingerprint())},
		{"endorsed and not issued", func(w *world) { w.claimLines(w.line(logOnly(w, receipt.Audit, w.colleague), w.issuer)) }, "is endorsed, but its issuer"},
		{"signature of another receipt", func(w *world) {
			r, other := logOnly(w, receipt.Audit, w.colleague), logOnly(w, receipt.Audit, w.colleague)
			s, err := receipt.Sign(w.t.Context(), other, w.colleague)
			assert.NilError(w.t, err)
			e, err := receipt.NewEntry(r, s)
			assert.NilError(w.t, err)
			w.claimLines(e.Line())
		}, "entry 1: receipt"},
		{"reserved kind of another issuer", func(w *world) { w.claimLines(w.line(logOnly(w, receipt.Snapshot, w.colleague), w.colleague)) }, "which only the publisher may issue"},
		{"the same signature again", func(w *world) { w.claimLines(w.line(filed, w.colleague)) }, "repeats the signature"},
		{"receipt whose file is not there", func(w *world) { w.claimLines(w.line(w.receipt(receipt.ADR, w.colleague), w.colleague)) }, "is gone"},
		{"another last entry", func(w *world) {
			other := good(w)
			s := ledger.Empty(origin)
			state, _, err := ledger.Load(func(string) ([]byte, error) { return nil, fs.ErrNotExist }, s)
			assert.NilError(w.t, err)
			u, err := state.Append(other, good(w))
			assert.NilError(w.t, err)
			w.claim(string(u.State.Body().Text()), map[string]string{"00/00/00.jsonl": string(u.Segments[0].Data)})
		}, "two histories exist"},
		{"body that is no body", func(w *world) { w.claim("not a body\n", nil) }, "checkpoint has 1 lines"},
		{"merge of main", func(w *world) {
			w.Git("update-ref", claimRef, w.Git("-c", "user.name=W", "-c", "user.email=w@example.org", "commit-tree", "main^{tree}", "-p", claimRef, "-p", "main", "-m", "Merge main"))
		}, "checkpoint has 1 lines"},
		{"body of another log", func(w *world) {
			w.claim(swap(t, swap(t, body(w), origin, "example.org/other"), "\n1\n", "\n2\n"), nil)
		}, "was not made through the claim branch"},
		{"body that leads its entries", func(w *world) { w.claim(swap(t, body(w), "\n1\n", "\n2\n"), nil) }, "holds 1 entries, want 2"},
		{"symlink in the log", func(w *world) {
			w.claimLines(good(w))
			w.claim(body(w), map[string]string{"00/00/01.jsonl": symlink + "00.jsonl"})
		}, "symbolic link"},
		{"stray file in the log", func(w *world) {
			w.claimLines(good(w))
			w.claim(body(w), map[string]string{"notes": "x"})
		}, "has no place there"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := *w
			w.t = t
			for ref, commit := range base {
				w.Git("update-ref", ref, commit)
			}
			w.edit(mainRef, map[string]string{"README": c.name}) // a commit of its own
			c.claim(&w)
			text := w.refusal()
			assert.Assert(t, strings.Contains(text, c.want), "want %q in\n%s", c.want, text)
		})
	}
	t.Run("a good one", func(t *testing.T) {
		w := *w
		w.t = t
		for ref, commit := range base {
			w.Git("update-ref", ref, commit)
		}
		w.claimLines(good(&w))
		assert.Assert(t, w.run().Healed)
		w.verify()
	})
}

func TestAnIdentityThatIsNotTrustedPublishesNothing(t *testing.T) {
	w := newWorld(t)
	w.add(receipt.Deploy)
	text := w.refusal(observing(w.observation()), func(p *Publisher) { p.Issuer = w.stranger })
	assert.Assert(t, strings.Contains(text, "no trust anchor") || strings.Contains(text, "not a trust anchor"), text)
	assert.Assert(t, strings.Contains(text, string(w.stranger.Fingerprint())), text)

	pinned := strings.Repeat("0", 64)
	text = w.refusal(func(p *Publisher) { p.PolicyID = pinned })
	res := w.run()
	assert.Assert(t, strings.Contains(text, pinned) && strings.Contains(text, res.PolicyID), text)
	w.run(func(p *Publisher) { p.PolicyID = res.PolicyID })

	w.Git("update-ref", "-d", mainRef)
	w.refusal()
}

func TestARevertedCommitOfThePublisherIsHealed(t *testing.T) {
	w := newWorld(t)
	w.begin(3)
	w.add(receipt.Deploy)
	w.run()
	segment, note, claim := w.blob("main", segment0), w.blob("main", "ops/ledger/checkpoint"), w.at(claimRef)

	clone := w.Clone(t)
	w.In(clone, "revert", "--no-edit", "HEAD")
	w.In(clone, "push", "-q", "origin", "main")
	assert.Assert(t, w.blob("main", segment0) != segment)
	made := w.signed.made()
	res := w.run()
	assert.Assert(t, res.Healed)
	assert.Equal(t, len(res.Sequenced), 1)
	assert.Equal(t, w.blob("main", segment0), segment)
	assert.Equal(t, w.blob("main", "ops/ledger/checkpoint"), note)
	assert.Equal(t, w.at(claimRef), claim)
	assert.Equal(t, w.signed.made(), made+1)
	assert.Equal(t, len(w.signed.notes), 2)
	// The history goes back and forth; what is published does not.
	w.add(receipt.ADR)
	w.run()
	assert.Equal(t, len(w.verify().Entries), 5)
}

func TestARolledBackMainIsHealed(t *testing.T) {
	w := newWorld(t)
	receipts := w.at(mainRef)
	for i := range 3 {
		w.add(receipt.Deploy)
		if i == 0 {
			receipts = w.at(mainRef) // before anything was published
		}
		w.run()
	}
	// The receipt files stay, the ledger goes back to each earlier state.
	segment, note := w.blob("main", segment0), w.blob("main", "ops/ledger/checkpoint")
	full := w.at(mainRef)
	names := strings.Fields(w.Git("ls-tree", "-r", "--name-only", full, "ops/receipts/"))
	for _, back := range []string{receipts, full + "~2", full + "~4"} {
		w.Git("update-ref", mainRef, w.Git("rev-parse", back))
		files := map[string]string{}
		for _, n := range names {
			files[n] = w.blob(full, n)
		}
		w.edit(mainRef, files)
		w.run()
		assert.Equal(t, w.blob("main", segment0), segment)
		assert.Equal(t, w.blob("main", "ops/ledger/checkpoint"), note)
		assert.Equal(t, len(w.signed.notes), 3)
		w.verify()
	}
	// Without the files of sequenced receipts there is nothing to heal with.
	w.Git("update-ref", mainRef, receipts)
	text := w.refusal()
	assert.Assert(t, strings.Contains(text, "is gone"), text)
	assert.Assert(t, strings.Contains(text, w.claimed(claimRef)), text)
}

// stale is a server that names an old commit for a branch, once: branches are
// listed one after the other, and others write in between.
type stale struct {
	from, to string
	left     int
}

func (s *stale) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil || s.left == 0 || !strings.Contains(r.URL.RawQuery, "git-upload-pack") {
		return res, err
	}
	s.left--
	body, err := io.ReadAll(res.Body)
	res.Body.Close()
	res.Body = io.NopCloser(bytes.NewReader(bytes.ReplaceAll(body, []byte(s.from), []byte(s.to))))
	return res, err
}

func TestAStateThatNeverWasIsLookedAtAgain(t *testing.T) {
	w := newWorld(t)
	w.begin(1)
	older := w.at(claimRef)
	w.begin(1)
	w.add(receipt.Deploy)
	dial := func(times int) func(*Publisher) {
		return func(p *Publisher) {
			remote, err := gitrepo.Dial(t.Context(), gitrepo.Options{URL: w.URL(), HTTP: &stale{w.at(claimRef), older, times}})
			assert.NilError(t, err)
			p.Remote = remote
		}
	}
	w.refusal(dial(2))
	assert.Equal(t, len(w.run(dial(1)).Sequenced), 1)
	w.verify()
}

func TestAClaimBranchThatWasScribbledOnDoesNotLast(t *testing.T) {
	w := newWorld(t)
	w.begin(257)
	// The body is what is published; what lies beside it is not.
	w.claim(w.claimed(claimRef), map[string]string{"00/00/00.jsonl": flip(w.blob(claimRef, "00/00/00.jsonl"), 50), "00/00/01.jsonl": gone, "notes": "x"})
	w.begin(1)
	assert.Equal(t, w.Git("rev-parse", claimRef+"^{tree}"), w.Git("rev-parse", "main:ops/ledger/log"))
	w.verify()
}
