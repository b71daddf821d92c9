package merge_test

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/golden"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/merge"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
)

// certificate returns the public half of a secret key of package openpgp's tests.
func certificate(t testing.TB, name string) *openpgp.Key {
	t.Helper()
	secret, err := os.ReadFile("../openpgp/testdata/" + name + ".sec.asc")
	assert.NilError(t, err)
	s, err := openpgp.FromArmored(secret, nil, clock)
	assert.NilError(t, err)
	return s.Public()
}

// revoked returns the public key of a revoked certificate.
func revoked(t testing.TB) *openpgp.Key {
	t.Helper()
	secret, err := os.ReadFile(secrets["c"])
	assert.NilError(t, err)
	cert, err := openpgp.Revoke(secret, nil, openpgp.Compromised, "", now)
	assert.NilError(t, err)
	k, err := public(t, "c").WithRevocation(cert)
	assert.NilError(t, err)
	return k
}

func with(t testing.TB, s *merge.Trust, m merge.Member) *merge.Trust {
	t.Helper()
	s, err := s.With(m)
	assert.NilError(t, err)
	return s
}

func TestTheHashOfATrustStateIsFrozen(t *testing.T) {
	s := with(t, trust(t, "a"), merge.Member{Key: public(t, "b"), Cutoff: &merge.Cutoff{Size: 12, Root: checkpoint.Hash{1, 2, 3}}})
	named, err := json.Marshal(s.Named())
	assert.NilError(t, err)
	golden.Assert(t, string(named)+"\n"+s.Hash()+"\n", "trust.golden.txt")
	var back []merge.Named
	assert.NilError(t, json.Unmarshal(named, &back))
	assert.DeepEqual(t, back, s.Named())
	assert.NilError(t, merge.CheckNamed(back, s.Hash()))
	assert.Equal(t, s.Hash(), digest(append([]byte("remembrancer/trust/v1\n"), canonical(named)...)))
}

// canonical puts the keys of the members in order, by hand.
func canonical(named []byte) []byte {
	named = bytes.ReplaceAll(named, []byte(`,"cutoff":null}`), []byte("}"))
	var out []string
	for _, m := range strings.Split(strings.Trim(string(named), "[]"), `},{"f`) {
		m = strings.Trim(m, "{}")
		m = strings.TrimPrefix(m, `"f`)
		body, cutoff, ok := strings.Cut(m, `,"cutoff":`)
		if !ok {
			cutoff = "null"
		} else {
			cutoff += "}"
		}
		out = append(out, `{"cutoff":`+cutoff+`,"f`+body+"}")
	}
	return []byte("[" + strings.Join(out, ",") + "]")
}

func TestATrustStateIsItsMembersWithoutTheirLabels(t *testing.T) {
	a, b := merge.Member{Node: "a", Key: public(t, "a")}, merge.Member{Node: "b", Key: public(t, "b")}
	one, err := merge.NewTrust(a, b)
	assert.NilError(t, err)
	a.Node = "another name"
	two, err := merge.NewTrust(b, a)
	assert.NilError(t, err)
	assert.Equal(t, one.Hash(), two.Hash())
	assert.DeepEqual(t, one.Named(), two.Named())
	assert.Assert(t, slices.IsSortedFunc(one.Members(), func(a, b merge.Member) int {
		return strings.Compare(string(a.Key.Fingerprint()), string(b.Key.Fingerprint()))
	}))
	got, ok := two.Lookup(a.Key.Fingerprint())
	assert.Assert(t, ok)
	assert.Equal(t, got.Node, "another name")
	_, ok = two.Lookup(public(t, "c").Fingerprint())
	assert.Assert(t, !ok)

	cut := func(size int64) *merge.Trust {
		return with(t, one, merge.Member{Key: a.Key, Cutoff: &merge.Cutoff{Size: size}})
	}
	hashes := map[string]bool{one.Hash(): true}
	for _, s := range []*merge.Trust{
		cut(0), cut(1), with(t, cut(1), merge.Member{Key: a.Key, Cutoff: &merge.Cutoff{Size: 1, Root: checkpoint.Hash{1}}}),
		with(t, one, merge.Member{Key: public(t, "c")}), with(t, one, merge.Member{Key: revoked(t)}), trust(t, "a"), trust(t),
	} {
		assert.Assert(t, !hashes[s.Hash()])
		hashes[s.Hash()] = true
	}
	assert.Equal(t, with(t, cut(1), merge.Member{Key: a.Key}).Hash(), one.Hash())
	assert.Equal(t, with(t, trust(t), merge.Member{Key: a.Key}).Hash(), trust(t, "a").Hash())
}

// What a caller does to its own values does not change a trust state.
func TestATrustStateNeverChanges(t *testing.T) {
	cutoff := &merge.Cutoff{Size: 1}
	s := with(t, trust(t, "b"), merge.Member{Key: public(t, "a"), Cutoff: cutoff})
	before := s.Named()
	cutoff.Size = 2
	s.Named()[0].KeySHA256 = "x"
	s.Members()[0].Node = "x"
	assert.DeepEqual(t, s.Named(), before)
}

func TestTrustStatesAreRefused(t *testing.T) {
	a := merge.Member{Node: "a", Key: public(t, "a")}
	for name, c := range map[string]struct {
		members []merge.Member
		err     string
	}{
		"no key":             {[]merge.Member{{Node: "x"}}, `trust: member "x" has no key`},
		"a key twice":        {[]merge.Member{a, {Key: a.Key, Cutoff: &merge.Cutoff{}}}, "trust: " + string(a.Key.Fingerprint()) + " is a member twice: keep one"},
		"a cutoff too far":   {[]merge.Member{{Key: a.Key, Cutoff: &merge.Cutoff{Size: 1 << 53}}}, "trust: " + string(a.Key.Fingerprint()) + ": cutoff at size 9007199254740992, want 0 to 2^53-1"},
		"a cutoff below":     {[]merge.Member{{Key: a.Key, Cutoff: &merge.Cutoff{Size: -1}}}, "trust: " + string(a.Key.Fingerprint()) + ": cutoff at size -1, want 0 to 2^53-1"},
		"revoked and cutoff": {[]merge.Member{{Key: revoked(t), Cutoff: &merge.Cutoff{}}}, "trust: " + string(public(t, "c").Fingerprint()) + " has a cutoff, and its certificate holds a revocation: give the certificate as it was before"},
	} {
		s, err := merge.NewTrust(c.members...)
		assert.Assert(t, s == nil)
		assert.Error(t, err, c.err, name)
	}
	_, err := trust(t, "a").With(merge.Member{Node: "x"})
	assert.Error(t, err, `trust: member "x" has no key`)
}

func TestCutoffsAreRefused(t *testing.T) {
	root := strings.Repeat("0", 64)
	for _, text := range []string{
		`{"root":"00","size":1}`, `{"root":"` + strings.Repeat("A", 64) + `","size":1}`, `{"root":"` + root + `","size":-1}`,
		`{"root":"` + root + `","size":9007199254740992}`, `{"root":"` + root + `","size":1,"x":1}`, `{"size":1}`, `[]`,
	} {
		var c merge.Cutoff
		assert.ErrorContains(t, json.Unmarshal([]byte(text), &c), "cutoff", text)
		assert.DeepEqual(t, c, merge.Cutoff{})
	}
}

func TestMembersThatAnotherShowsMustBeThoseItNames(t *testing.T) {
	s := trust(t, "a", "b")
	for name, c := range map[string]struct {
		edit func(n []merge.Named) []merge.Named
		err  string
	}{
		"one less":      {func(n []merge.Named) []merge.Named { return n[1:] }, "make the trust state"},
		"none":          {func([]merge.Named) []merge.Named { return nil }, "make the trust state"},
		"out of order":  {func(n []merge.Named) []merge.Named { return []merge.Named{n[1], n[0]} }, "not in ascending order"},
		"twice":         {func(n []merge.Named) []merge.Named { return append(n, n[1]) }, "not in ascending order"},
		"small letters": {func(n []merge.Named) []merge.Named { n[0].Fingerprint = strings.ToLower(n[0].Fingerprint); return n }, "want upper-case hex digits"},
		"no name":       {func(n []merge.Named) []merge.Named { n[0].Fingerprint = ""; return n }, "trust: "},
		"no digest":     {func(n []merge.Named) []merge.Named { n[0].KeySHA256 = ""; return n }, "key_sha256"},
		"a cutoff":      {func(n []merge.Named) []merge.Named { n[0].Cutoff = &merge.Cutoff{}; return n }, "make the trust state"},
	} {
		assert.ErrorContains(t, merge.CheckNamed(c.edit(s.Named()), s.Hash()), c.err, name)
	}
	assert.NilError(t, merge.CheckNamed(nil, trust(t).Hash()))
}

func TestDifferencesAreInWordsWithWhatToType(t *testing.T) {
	ours := with(t, trust(t, "a", "b"), merge.Member{Key: certificate(t, "nistp256")})
	assert.DeepEqual(t, merge.Differences(ours.Named(), ours.Named()), []string(nil))
	theirs := with(t, with(t, with(t, trust(t, "a", "c"), merge.Member{Key: public(t, "a"), Cutoff: &merge.Cutoff{Size: 3}}),
		merge.Member{Key: revoked(t)}), merge.Member{Key: certificate(t, "nistp256")})
	lines := merge.Differences(ours.Named(), theirs.Named())
	golden.Assert(t, strings.Join(lines, "\n")+"\n", "differences.golden.txt")
	assert.Equal(t, len(lines), 3)
	both := with(t, ours, merge.Member{Key: public(t, "c")})
	other := with(t, ours, merge.Member{Key: revoked(t)})
	lines = merge.Differences(both.Named(), other.Named())
	assert.Equal(t, len(lines), 1)
	assert.Assert(t, strings.Contains(lines[0], "the certificates differ"))
}

func TestKeysOfReadsBlockAfterBlock(t *testing.T) {
	a, b := public(t, "a"), public(t, "b")
	names := func(keys []*openpgp.Key) (all []openpgp.Fingerprint) {
		for _, k := range keys {
			all = append(all, k.Fingerprint())
		}
		return all
	}
	want := keyring(t, "a", "b").Fingerprints()
	for name, data := range map[string][]byte{
		"one after another":      slices.Concat(a.Armored(), b.Armored()),
		"the other way":          slices.Concat(b.Armored(), a.Armored()),
		"with empty lines":       slices.Concat([]byte("\n"), a.Armored(), []byte("\r\n\n"), b.Armored(), []byte("\n\n")),
		"without a last newline": slices.Concat(a.Armored(), bytes.TrimSpace(b.Armored())),
	} {
		keys, err := merge.KeysOf(data)
		assert.NilError(t, err, name)
		assert.DeepEqual(t, names(keys), want)
	}
	for _, one := range [][]byte{a.Armored(), a.Binary()} {
		keys, err := merge.KeysOf(one)
		assert.NilError(t, err)
		assert.DeepEqual(t, names(keys), []openpgp.Fingerprint{a.Fingerprint()})
	}
	secret, err := os.ReadFile(secrets["a"])
	assert.NilError(t, err)
	for name, c := range map[string]struct {
		data []byte
		err  string
	}{
		"nothing":            {nil, ""},
		"a word":             {[]byte("trust me"), ""},
		"a secret key":       {secret, ""},
		"a key twice":        {slices.Concat(a.Armored(), a.Armored()), "key 2: " + string(a.Fingerprint()) + " is there twice: keep one"},
		"text between":       {slices.Concat(a.Armored(), []byte("and\n"), b.Armored()), "key 2: want a block"},
		"text before":        {slices.Concat([]byte("and\n"), a.Armored()), "key 1: want a block"},
		"text after":         {slices.Concat(a.Armored(), []byte("and")), "key 2: want a block"},
		"a block cut off":    {slices.Concat(a.Armored(), b.Armored()[:200]), "key 2: want a block"},
		"a broken block":     {slices.Concat(a.Armored(), bytes.Replace(b.Armored(), []byte("xjMEa"), []byte("xjMEb"), 1), []byte("x")), "key "},
		"a secret one too":   {slices.Concat(a.Armored(), secret), "key 2: want a block"},
		"a block in a block": {slices.Concat([]byte("-----BEGIN PGP PUBLIC KEY BLOCK-----\n"), a.Armored()), "key 1: "},
	} {
		keys, err := merge.KeysOf(c.data)
		assert.Assert(t, keys == nil, name)
		assert.ErrorContains(t, err, c.err, name)
	}
}

func FuzzKeysOfNeverPanics(f *testing.F) {
	f.Add([]byte("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n=\n-----END PGP PUBLIC KEY BLOCK-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := merge.KeysOf(data)
		assert.Assert(t, (err == nil) == (len(keys) > 0))
	})
}
