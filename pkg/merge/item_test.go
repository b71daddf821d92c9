package merge_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
	"github.com/vaultmesh/remembrancer/pkg/merge"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

func statement(t testing.TB, kind receipt.Kind, issuer, name string) *receipt.Receipt {
	t.Helper()
	r, err := receipt.New(receipt.Statement{
		Kind: kind, Issuer: signer(t, issuer).Fingerprint(), Issued: now,
		Subjects: []receipt.Subject{{Name: name, SHA256: digest([]byte(name))}},
	})
	assert.NilError(t, err)
	return r
}

// line is a receipt with signatures of these keys; "x for y" is a signature of x
// under the name of y.
func line(t testing.TB, r *receipt.Receipt, by ...string) string {
	t.Helper()
	var sigs []receipt.Signature
	for _, name := range by {
		name, other, ok := strings.Cut(name, " for ")
		s, err := receipt.Sign(context.Background(), r, signer(t, name))
		assert.NilError(t, err)
		if ok {
			s.Fingerprint = signer(t, other).Fingerprint()
		}
		sigs = append(sigs, s)
	}
	e, err := receipt.NewEntry(r, sigs...)
	assert.NilError(t, err)
	return string(e.Line())
}

func signed(e receipt.Entry) (by []openpgp.Fingerprint) {
	for _, s := range e.Signatures {
		by = append(by, s.Fingerprint)
	}
	return by
}

func TestOnlyWhatAMemberSignedIsValid(t *testing.T) {
	adr := statement(t, receipt.ADR, "a", "x")
	fpr := func(names ...string) []openpgp.Fingerprint { return keyring(t, names...).Fingerprints() }
	for name, c := range map[string]struct {
		line  string
		trust *merge.Trust
		want  merge.Reason
		by    []openpgp.Fingerprint
	}{
		"signed by its issuer":            {line(t, adr, "a"), trust(t, "a", "b"), "", fpr("a")},
		"endorsed by a member":            {line(t, adr, "a", "b"), trust(t, "a", "b"), "", fpr("a", "b")},
		"endorsed by a stranger":          {line(t, adr, "a", "b"), trust(t, "a"), "", fpr("a")},
		"endorsed in the name of another": {line(t, adr, "a", "c for b"), trust(t, "a", "b"), "", fpr("a")},
		"endorsed by one with a cutoff":   {line(t, adr, "a", "b"), with(t, trust(t, "a"), merge.Member{Key: public(t, "b"), Cutoff: &merge.Cutoff{Size: 9}}), "", fpr("a")},
		"endorsed by one who is revoked":  {line(t, adr, "a", "c"), with(t, trust(t, "a"), merge.Member{Key: revoked(t)}), "", fpr("a")},
		"of a stranger":                   {line(t, adr, "a"), trust(t, "b"), merge.UnknownIssuer, nil},
		"of a stranger, endorsed":         {line(t, adr, "a", "b"), trust(t, "b"), merge.UnknownIssuer, nil},
		"endorsed only":                   {line(t, adr, "b"), trust(t, "a", "b"), merge.Unsigned, nil},
		"signed by another":               {line(t, adr, "b for a"), trust(t, "a", "b"), merge.BadSignature, nil},
		"a signature of something else": {
			strings.Replace(line(t, adr, "a"), base64.StdEncoding.EncodeToString(adr.Bytes()), base64.StdEncoding.EncodeToString(statement(t, receipt.ADR, "a", "y").Bytes()), 1),
			trust(t, "a"), merge.BadSignature, nil,
		},
		"of one who is revoked": {line(t, statement(t, receipt.ADR, "c", "x"), "c"), with(t, trust(t, "a"), merge.Member{Key: revoked(t)}), merge.Revoked, nil},
		"of one with a cutoff":  {line(t, adr, "a"), with(t, trust(t), merge.Member{Key: public(t, "a"), Cutoff: &merge.Cutoff{Size: 9}}), merge.Revoked, nil},
		"of a merge":            {line(t, statement(t, receipt.FederationMerge, "a", "x"), "a"), trust(t, "a"), merge.NotFederated, nil},
		"of a snapshot":         {line(t, statement(t, receipt.Snapshot, "a", "x"), "a"), trust(t, "a"), merge.NotFederated, nil},
		"no line":               {"{}", trust(t, "a"), merge.Malformed, nil},
		"a newline":             {line(t, adr, "a") + "\n", trust(t, "a"), merge.Malformed, nil},
		"too much":              {strings.Repeat(" ", receipt.MaxLine+1), trust(t, "a"), merge.Malformed, nil},
	} {
		t.Run(name, func(t *testing.T) {
			e, r := c.trust.Judge(merge.Item{Line: c.line})
			if c.want == "" {
				assert.Assert(t, r == nil, "%v", r)
				assert.DeepEqual(t, signed(e), c.by)
				// What is kept is valid again, as it is.
				back, r := c.trust.Judge(merge.Item{Line: string(e.Line())})
				assert.Assert(t, r == nil)
				assert.Equal(t, string(back.Line()), string(e.Line()))
				return
			}
			assert.Assert(t, e.Receipt == nil && e.Signatures == nil)
			assert.Equal(t, r.Reason, c.want)
			assert.Equal(t, r.ID == "", c.want == merge.Malformed)
			assert.Assert(t, strings.HasPrefix(r.Error(), map[bool]string{true: "malformed: ", false: "receipt " + r.ID + ": " + string(c.want) + ": "}[r.ID == ""]), r.Error())
			assert.Assert(t, errors.Unwrap(r) != nil)
		})
	}
}

// home is a log of a, and the trust state that cuts it off after size entries.
func home(t testing.TB, lines []string, size int) (*ledger.Tree, *merge.Trust) {
	t.Helper()
	var leaves []checkpoint.Hash
	for _, l := range lines[:size] {
		leaves = append(leaves, ledger.RecordHash([]byte(l)))
	}
	return ledger.NewTree(leaves), with(t, trust(t, "b"), merge.Member{Key: public(t, "a"), Cutoff: &merge.Cutoff{Size: int64(size), Root: ledger.Root(leaves)}})
}

func TestACutoffKeepsWhatWasInTheHomeLogBefore(t *testing.T) {
	var lines []string
	for _, n := range []string{"0", "1", "2", "3", "4", "5", "6"} {
		by := []string{"a"}
		if n == "2" {
			by = append(by, "c") // an endorsement that nobody can check
		}
		lines = append(lines, line(t, statement(t, receipt.ADR, "a", n), by...))
	}
	tree, state := home(t, lines, 5)
	prove := func(i int) *merge.HomeProof {
		hashes, err := tree.Inclusion(5, int64(i))
		assert.NilError(t, err)
		return merge.NewHomeProof(int64(i), hashes)
	}
	for i := range 5 {
		it := merge.Item{Line: lines[i], Proof: prove(i)}
		data, err := json.Marshal(it)
		assert.NilError(t, err)
		var back merge.Item
		assert.NilError(t, json.Unmarshal(data, &back))
		assert.DeepEqual(t, back, it)
		e, r := state.Judge(back)
		assert.Assert(t, r == nil, "%v", r)
		assert.Equal(t, string(e.Line()), lines[i])
	}
	good := prove(3)
	edit := func(f func(p *merge.HomeProof)) *merge.HomeProof {
		p := prove(3)
		f(p)
		return p
	}
	for name, it := range map[string]merge.Item{
		"no proof":              {Line: lines[3]},
		"the proof of another":  {Line: lines[3], Proof: prove(2)},
		"another index":         {Line: lines[3], Proof: edit(func(p *merge.HomeProof) { p.Index = 2 })},
		"an index below":        {Line: lines[3], Proof: edit(func(p *merge.HomeProof) { p.Index = -1 })},
		"an index beyond":       {Line: lines[3], Proof: edit(func(p *merge.HomeProof) { p.Index = 5 })},
		"a hash less":           {Line: lines[3], Proof: edit(func(p *merge.HomeProof) { p.Hashes = p.Hashes[1:] })},
		"a hash more":           {Line: lines[3], Proof: edit(func(p *merge.HomeProof) { p.Hashes = append(p.Hashes, p.Hashes[0]) })},
		"no hash":               {Line: lines[3], Proof: &merge.HomeProof{Index: 3}},
		"a hash that is none":   {Line: lines[3], Proof: edit(func(p *merge.HomeProof) { p.Hashes[0] = "x" })},
		"a short hash":          {Line: lines[3], Proof: edit(func(p *merge.HomeProof) { p.Hashes[0] = "AAAA" })},
		"a later line":          {Line: lines[5], Proof: good},
		"the line, signed anew": {Line: line(t, statement(t, receipt.ADR, "a", "2"), "a"), Proof: prove(2)},
		"endorsed later":        {Line: line(t, statement(t, receipt.ADR, "a", "3"), "a", "b"), Proof: good},
	} {
		e, r := state.Judge(it)
		assert.Assert(t, e.Receipt == nil, name)
		assert.Equal(t, r.Reason, merge.Revoked, name)
	}

	// A line that is in the log, but that the issuer has not signed, is not saved.
	forged := []string{line(t, statement(t, receipt.ADR, "a", "0"), "b for a"), line(t, statement(t, receipt.ADR, "a", "1"), "b")}
	tree, state = home(t, forged, 2)
	for i, want := range []merge.Reason{merge.BadSignature, merge.Unsigned} {
		hashes, err := tree.Inclusion(2, int64(i))
		assert.NilError(t, err)
		_, r := state.Judge(merge.Item{Line: forged[i], Proof: merge.NewHomeProof(int64(i), hashes)})
		assert.Equal(t, r.Reason, want)
	}
}

// A proof that nobody asked for changes nothing.
func TestWithoutACutoffAProofIsNotLookedAt(t *testing.T) {
	l := line(t, statement(t, receipt.ADR, "a", "x"), "a", "c")
	e, r := trust(t, "a").Judge(merge.Item{Line: l, Proof: &merge.HomeProof{Index: 7}})
	assert.Assert(t, r == nil)
	assert.DeepEqual(t, signed(e), keyring(t, "a").Fingerprints())
}

// No clock decides: a signature from the far future is as valid here as there.
func TestNoClockDecidesWhatIsValid(t *testing.T) {
	for _, at := range []time.Time{time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2105, 12, 31, 0, 0, 0, 0, time.UTC)} {
		secret, key, err := openpgp.Generate("later", "", at, zeros{})
		assert.NilError(t, err)
		s, err := openpgp.FromArmored(secret, nil, func() time.Time { return at })
		assert.NilError(t, err)
		r, err := receipt.New(receipt.Statement{Kind: receipt.ADR, Issuer: key.Fingerprint(), Issued: at, Subjects: []receipt.Subject{{Name: "x", SHA256: digest(nil)}}})
		assert.NilError(t, err)
		sig, err := receipt.Sign(t.Context(), r, s)
		assert.NilError(t, err)
		e, err := receipt.NewEntry(r, sig)
		assert.NilError(t, err)
		_, rejected := with(t, trust(t), merge.Member{Key: key}).Judge(merge.Item{Line: string(e.Line())})
		assert.Assert(t, rejected == nil, "%v", rejected)
	}
}

func BenchmarkJudge(b *testing.B) {
	it := merge.Item{Line: line(b, statement(b, receipt.ADR, "a", "x"), "a")}
	state := trust(b, "a", "b")
	for b.Loop() {
		if _, r := state.Judge(it); r != nil {
			b.Fatal(r)
		}
	}
}

// zeros is a source of randomness for keys that only tests see.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
