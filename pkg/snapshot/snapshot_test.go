package snapshot_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
	"github.com/vaultmesh/remembrancer/pkg/snapshot"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const folder = "ops/ledger/snapshots"

// tree is a commit's tree in memory.
type tree map[string][]byte

func (t tree) Blob(p string) ([]byte, error) {
	if b, ok := t[p]; ok {
		return b, nil
	}
	return nil, fs.ErrNotExist
}

func (t tree) Walk(below string, fn func(string, fs.FileMode, string) error) error {
	for _, p := range slices.Sorted(maps.Keys(t)) {
		if strings.HasPrefix(p, below+"/") {
			if err := fn(p, 0o644, p); err != nil {
				return err
			}
		}
	}
	return nil
}

// world is a log that grows, and its snapshots.
type world struct {
	t       *testing.T
	signer  openpgp.Signer
	log     *checkpoint.Signer
	policy  *checkpoint.Policy
	entries []receipt.Entry
	files   tree
}

func newWorld(t *testing.T) *world {
	t.Helper()
	secret, _, err := openpgp.Generate("Issuer", "", noon.Add(-time.Hour), rand.Reader)
	assert.NilError(t, err)
	w := &world{t: t, files: tree{}}
	w.signer, err = openpgp.FromArmored(secret, nil, func() time.Time { return noon })
	assert.NilError(t, err)
	w.log, w.policy = newLog(t)
	return w
}

func newLog(t *testing.T) (*checkpoint.Signer, *checkpoint.Policy) {
	t.Helper()
	skey, vkey, err := checkpoint.GenerateKey(rand.Reader, "example.org/log")
	assert.NilError(t, err)
	log, err := checkpoint.NewSigner(skey)
	assert.NilError(t, err)
	policy, err := checkpoint.ParsePolicy(checkpoint.NewPolicy(vkey))
	assert.NilError(t, err)
	return log, policy
}

func (w *world) grow(kinds ...receipt.Kind) {
	w.t.Helper()
	for _, k := range kinds {
		r, err := receipt.New(receipt.Statement{
			Kind: k, Issuer: w.signer.Fingerprint(), Issued: noon,
			Subjects:  []receipt.Subject{{Name: "file", SHA256: strings.Repeat("ab", 32)}},
			Predicate: map[string]any{"n": int64(len(w.entries))},
		})
		assert.NilError(w.t, err)
		s, err := receipt.Sign(w.t.Context(), r, w.signer)
		assert.NilError(w.t, err)
		e, err := receipt.NewEntry(r, s)
		assert.NilError(w.t, err)
		w.entries = append(w.entries, e)
	}
}

func (w *world) head() checkpoint.Verified {
	w.t.Helper()
	var leaves []checkpoint.Hash
	for _, e := range w.entries {
		leaves = append(leaves, ledger.RecordHash(e.Line()))
	}
	note, err := w.log.Sign(checkpoint.Body{Origin: w.log.Origin(), Size: int64(len(leaves)), Root: ledger.Root(leaves)})
	assert.NilError(w.t, err)
	v, err := w.policy.Open(note)
	assert.NilError(w.t, err)
	return v
}

func (w *world) try(day int) (*snapshot.Snapshot, error) {
	last, err := snapshot.Newest(w.files, folder)
	assert.NilError(w.t, err)
	return snapshot.New(noon.AddDate(0, 0, day), w.head(), strings.Repeat("0", 64), w.entries, last)
}

// take makes the snapshot of a day and puts it into the tree.
func (w *world) take(day int) *snapshot.Snapshot {
	w.t.Helper()
	s, err := w.try(day)
	assert.NilError(w.t, err)
	w.put(s.File(), s.Marshal())
	return s
}

func (w *world) put(base string, data []byte) {
	w.t.Helper()
	packet, err := w.signer.Sign(w.t.Context(), data)
	assert.NilError(w.t, err)
	w.files[folder+"/"+base] = data
	w.files[folder+"/"+base+".asc"] = openpgp.Armor(packet)
}

func (w *world) series() snapshot.Series {
	w.t.Helper()
	ring, err := openpgp.NewKeyring(w.signer.Public())
	assert.NilError(w.t, err)
	return snapshot.Series{
		Tree: w.files, Folder: folder, Policy: w.policy, Keys: []*openpgp.Keyring{ring, nil}, Entries: w.entries, Now: noon.AddDate(1, 0, 0),
		Stamps: func(string, []byte, []string, func(string) ([]byte, error)) ([]string, string, error) {
			return []string{"stamped"}, "", nil
		},
	}
}

// status is the outcomes of the checks, in order.
func status(checks []judge.Check) string {
	var b strings.Builder
	for _, c := range checks {
		b.WriteString(strings.ToUpper(c.Status.String()[:1]))
	}
	return b.String()
}

func said(checks []judge.Check) string {
	var b strings.Builder
	for _, c := range checks {
		fmt.Fprintln(&b, c.ID, c.Status, c.Detail)
		for _, f := range c.Findings {
			fmt.Fprintln(&b, f.Path, f.Message)
		}
	}
	return b.String()
}

func TestSnapshotsFollowOneAnotherAndMissedDaysAreNamed(t *testing.T) {
	w := newWorld(t)
	assert.Equal(t, status(w.series().Verify()), "U")
	w.grow(receipt.Deploy, receipt.SLO, receipt.ADR)
	first := w.take(0)
	assert.Equal(t, first.File(), "2026-03-01.json")
	w.take(1) // the log did not grow
	w.grow(receipt.SLO, receipt.Deploy)
	third := w.take(4)
	assert.DeepEqual(t, third.Missed(), []string{"2026-03-03", "2026-03-04"})
	checks := w.series().Verify()
	assert.Equal(t, status(checks), "PPPP", said(checks))
	assert.Assert(t, strings.Contains(said(checks), "2 days before it have no snapshot: 2026-03-03, 2026-03-04"))

	var f struct {
		Size     int64
		Previous struct {
			Date string
			Size int64
		}
		Report struct{ Index int64 } `json:"slo_report"`
	}
	assert.NilError(t, json.Unmarshal(third.Marshal(), &f))
	assert.Equal(t, f.Size, int64(5))
	assert.Equal(t, f.Previous.Date, "2026-03-02")
	assert.Equal(t, f.Previous.Size, int64(3))
	assert.Equal(t, f.Report.Index, int64(3))
}

func TestNoSnapshotIsDatedBackOrOfALogThatShrank(t *testing.T) {
	w := newWorld(t)
	_, err := w.try(0)
	assert.ErrorContains(t, err, "0 entries")
	w.grow(receipt.Deploy, receipt.Deploy)
	w.take(3)
	for _, day := range []int{3, 2, -400} {
		_, err := w.try(day)
		assert.ErrorContains(t, err, "nothing is dated back")
	}
	w.entries = w.entries[:1]
	_, err = w.try(4)
	assert.ErrorContains(t, err, "rolled back")
	w.entries = nil
	w.grow(receipt.ADR, receipt.ADR, receipt.ADR)
	_, err = w.try(4)
	assert.ErrorContains(t, err, "does not extend")
}

func TestEachWayToTamperWithSnapshotsIsFound(t *testing.T) {
	replace := func(base, old, by string) func(*world) {
		return func(w *world) {
			p := folder + "/" + base
			was := w.files[p]
			w.files[p] = bytes.Replace(was, []byte(old), []byte(by), 1)
			assert.Assert(w.t, !bytes.Equal(was, w.files[p]), "%s has no %s", was, old)
		}
	}
	resigned := func(base, old, by string) func(*world) {
		return func(w *world) {
			replace(base, old, by)(w)
			w.put(base, w.files[folder+"/"+base])
		}
	}
	drop := func(bases ...string) func(*world) {
		return func(w *world) {
			for _, b := range bases {
				delete(w.files, folder+"/"+b)
			}
		}
	}
	for _, c := range []struct {
		name string
		do   func(*world)
		want string
		says string
	}{
		{"a byte of the policy id", replace("2026-03-01.json", `"policy_id": "0`, `"policy_id": "1`), "FPFP", "no trust anchor signed 2026-03-01.json"},
		{"the same, signed again", resigned("2026-03-01.json", `"policy_id": "0`, `"policy_id": "1`), "FPPP", "follows one of 2026-03-01"},
		{"the newest, signed again", resigned("2026-03-03.json", `"size": 4`, `"size": 3`), "PFPP", "another size or root"},
		{"one removed", drop("2026-03-02.json", "2026-03-02.json.asc"), "FPPP", "follows one of 2026-03-02"},
		{"the first removed", drop("2026-03-01.json", "2026-03-01.json.asc"), "FPPP", "is not there"},
		{"a file removed and its signature left", drop("2026-03-03.json"), "FPPP", "belongs to no snapshot"},
		{"a signature removed", drop("2026-03-02.json.asc"), "PPFP", "2026-03-02.json.asc is missing"},
		{"a signature of another", func(w *world) {
			other := newWorld(w.t)
			other.put("2026-03-02.json", w.files[folder+"/2026-03-02.json"])
			w.files[folder+"/2026-03-02.json.asc"] = other.files[folder+"/2026-03-02.json.asc"]
		}, "PPFP", "no trust anchor signed"},
		{"the log rewritten", func(w *world) {
			w.entries = w.entries[:1]
			w.grow(receipt.ADR, receipt.ADR, receipt.ADR)
		}, "PFPP", "the log was rewritten"},
		{"the log cut", func(w *world) { w.entries = w.entries[:3] }, "PFPP", "entries were removed"},
		{"another log key", func(w *world) { _, w.policy = newLog(w.t) }, "PFPP", "its checkpoint"},
		{"a report that is not the newest", resigned("2026-03-03.json", `"index": 2`, `"index": 0`), "PFPP", "the newest report is entry 2"},
		{"keys out of order", resigned("2026-03-03.json", "{\n  \"v\": 1,", "{\n  \"date\": \"2026-03-03\",\n  \"v\": 1,"), "E", "keys in order"},
		{"an unknown key", resigned("2026-03-03.json", "{\n", "{\n  \"w\": 1,\n"), "E", "unknown field"},
		{"another day", func(w *world) {
			w.put("2026-03-05.json", w.files[folder+"/2026-03-03.json"])
		}, "E", "it is of 2026-03-03"},
		{"missed days left out", func(w *world) {
			s := w.take(9)
			w.put(s.File(), bytes.Replace(s.Marshal(), []byte("    \"2026-03-04\",\n"), nil, 1))
		}, "E", "missed says"},
		{"only evidence left", drop("2026-03-01.json", "2026-03-02.json", "2026-03-03.json"), "E", "and none"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.grow(receipt.Deploy, receipt.Deploy)
			w.take(0)
			w.take(1)
			w.grow(receipt.SLO, receipt.Deploy)
			w.take(2)
			checks := w.series().Verify()
			assert.Equal(t, status(checks), "PPPP", said(checks))
			c.do(w)
			checks = w.series().Verify()
			assert.Equal(t, status(checks), c.want, said(checks))
			assert.Assert(t, strings.Contains(said(checks), c.says), said(checks))
		})
	}
}

func TestTokensAreJudgedByPinnedAuthoritiesOnly(t *testing.T) {
	w := newWorld(t)
	w.grow(receipt.Deploy)
	s := w.take(0)
	series := w.series()
	series.Stamps = nil
	assert.Equal(t, status(series.Verify()), "PPPU")
	w.files[folder+"/"+s.File()+".one.tsr"] = []byte("x")
	assert.Equal(t, status(series.Verify()), "PPPE")
	series.Stamps = func(string, []byte, []string, func(string) ([]byte, error)) ([]string, string, error) {
		return nil, "its time stamp is of another file", nil
	}
	assert.Equal(t, status(series.Verify()), "PPPF")
	series.Stamps = func(string, []byte, []string, func(string) ([]byte, error)) ([]string, string, error) {
		return nil, "", errors.New("no")
	}
	assert.Equal(t, status(series.Verify()), "PPPE")
}

func TestASeriesCanBeJudgedBeforeItIsCommitted(t *testing.T) {
	w := newWorld(t)
	w.grow(receipt.Deploy)
	s := w.take(0)
	files := maps.Clone(w.files)
	clear(w.files)
	assert.Equal(t, status(w.series().Verify()), "U")
	assert.Equal(t, status(w.series().With(files).Verify()), "PPPP")
	delete(files, folder+"/"+s.File()+".asc")
	assert.Equal(t, status(w.series().With(files).Verify()), "PPFP")
}

func FuzzWhatDecodesEncodesToTheSameBytes(f *testing.F) {
	f.Add("2026-03-01.json", []byte("{\n  \"v\": 1,\n  \"date\": \"2026-03-01\",\n  \"origin\": \"o\",\n  \"size\": 1,\n  \"root\": \""+strings.Repeat("0", 64)+"\",\n  \"checkpoint\": \"\",\n  \"policy_id\": \"\"\n}\n"))
	f.Fuzz(func(t *testing.T, base string, data []byte) {
		s, err := snapshot.Parse(base, data)
		if err != nil {
			assert.Assert(t, s == nil)
			return
		}
		assert.Equal(t, string(s.Marshal()), string(data))
		assert.Equal(t, s.File(), base)
	})
}
