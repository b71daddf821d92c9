package covenant_test

import (
	"context"
	"crypto/rand"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/covenant"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

// person is a key that can be rotated and revoked.
type person struct {
	openpgp.Signer
	secret []byte
}

// people are those of these tests: made once, since that proves nothing more.
var people = sync.OnceValue(func() map[string]person {
	all := map[string]person{}
	for _, name := range []string{"old", "new", "third"} {
		secret, _, err := openpgp.Generate(name, "", now.Add(-48*time.Hour), rand.Reader)
		if err != nil {
			panic(err)
		}
		s, err := openpgp.FromArmored(secret, nil, func() time.Time { return now })
		if err != nil {
			panic(err)
		}
		all[name] = person{s, secret}
	}
	return all
})

func fpr(name string) openpgp.Fingerprint { return people()[name].Fingerprint() }

// by is an entry of a kind, issued by the first and signed by all.
func by(t testing.TB, kind receipt.Kind, fields map[string]any, names ...string) receipt.Entry {
	t.Helper()
	r, err := receipt.New(receipt.Statement{
		Kind: kind, Issuer: fpr(names[0]), Issued: now.Add(-time.Hour),
		Subjects: []receipt.Subject{{Name: "it", SHA256: strings.Repeat("ab", 32)}}, Predicate: fields,
	})
	assert.NilError(t, err)
	var sigs []receipt.Signature
	for _, name := range names {
		s, err := receipt.Sign(context.Background(), r, people()[name])
		assert.NilError(t, err)
		sigs = append(sigs, s)
	}
	e, err := receipt.NewEntry(r, sigs...)
	assert.NilError(t, err)
	return e
}

// then is a log with more entries, in memory of its own.
func then(log []receipt.Entry, more ...receipt.Entry) []receipt.Entry {
	return slices.Concat(log, more)
}

func leavesOf(entries []receipt.Entry) []checkpoint.Hash {
	var all []checkpoint.Hash
	for _, e := range entries {
		all = append(all, ledger.RecordHash(e.Line()))
	}
	return all
}

func rotation(old, successor string) map[string]any {
	return covenant.KeyChange{Old: fpr(old), New: fpr(successor)}.Predicate()
}

// revocation is one with its cutoff at the log of these entries.
func revocation(t testing.TB, name string, before []receipt.Entry) map[string]any {
	t.Helper()
	c := covenant.KeyChange{Old: fpr(name), Reason: openpgp.Compromised, Size: int64(len(before)), Root: ledger.Root(nil)}
	if len(before) > 0 {
		var err error
		c.Root, err = ledger.NewTree(leavesOf(before)).Root(c.Size)
		assert.NilError(t, err)
	}
	return c.Predicate()
}

func revokedCert(t testing.TB, name string) *openpgp.Key {
	t.Helper()
	certificate, err := openpgp.Revoke(people()[name].secret, nil, openpgp.Compromised, "", now.Add(-time.Minute))
	assert.NilError(t, err)
	key, err := people()[name].Public().WithRevocation(certificate)
	assert.NilError(t, err)
	return key
}

// TestAKeyCountsWhereTheLogSaysSo is check 5 over every fate of a key. anchors
// and retired are the certificates; a name with a minus has its revocation.
func TestAKeyCountsWhereTheLogSaysSo(t *testing.T) {
	plain := func(name string) receipt.Entry {
		return by(t, receipt.Smoke, map[string]any{"n": time.Now().String()}, name)
	}
	old := []receipt.Entry{plain("old"), plain("old")}
	handed := then(old, by(t, receipt.KeyRotation, rotation("old", "new"), "old", "new"))
	again := covenant.KeyChange{Old: fpr("old"), New: fpr("new"), NewSubkey: fpr("third")}.Predicate()
	foreign := revocation(t, "old", old)
	foreign["cutoff"] = map[string]any{"root": strings.Repeat("00", 32), "size": int64(2)}
	for _, c := range []struct {
		name             string
		anchors, retired string
		entries          []receipt.Entry
		want             string // empty: check 5 passes
	}{
		{"an anchor counts everywhere", "old", "", old, ""},
		{"an anchor that was taken away counts nowhere", "new", "", old, "unknown issuer"},
		{"not even with its certificate", "new", "old", old, "unknown issuer"},
		{"a revoked anchor counts nowhere", "-old new", "", old, "key is revoked"},
		{"not even with its copy from before", "-old new", "old", old, "key is revoked"},

		{"both are anchors while keys change hands", "old new", "", then(handed, plain("old"), plain("new")), ""},
		{"what was signed before the rotation stands", "new", "old", then(handed, plain("new")), ""},
		{"without its certificate nothing can be said", "new", "", then(handed, plain("new")), "unknown issuer"},
		{"what was signed after it does not", "new", "old", then(handed, plain("old")), "counts below entry 3 only"},
		{"unless keys change hands again", "new", "old", then(handed, plain("old"), by(t, receipt.KeyRotation, again, "old", "new")), ""},
		{"a key that only vouches for itself stays out", "new", "old", then(old, by(t, receipt.KeyRotation, rotation("old", "new"), "old"), plain("new")), "unknown issuer"},
		{"a rotation to a key that is no anchor brings in neither", "third", "old new", handed, "unknown issuer"},
		{"two rotations make a chain", "third", "old new", then(handed, plain("new"), by(t, receipt.KeyRotation, rotation("new", "third"), "new", "third")), ""},
		{"a chain ends where a key was taken away", "third", "old new", then(handed, by(t, receipt.KeyRotation, rotation("new", "third"), "new", "third"), plain("new")), "counts below entry 4 only"},
		{"a rotation does not bring back a revoked anchor", "-old new", "old", handed, "key is revoked"},
		{"a retired copy that is revoked is no copy from before", "new", "-old", handed, "key is revoked"},

		{"what was signed below the cutoff stands", "-old new", "old", then(old, by(t, receipt.KeyRotation, revocation(t, "old", old), "new")), ""},
		{"what was signed at the cutoff does not", "-old new", "old", then(old, by(t, receipt.KeyRotation, revocation(t, "old", old[:1]), "new")), "counts below entry 1 only"},
		{"nor what was signed after it", "-old new", "old", then(old, by(t, receipt.KeyRotation, revocation(t, "old", old), "new"), plain("old")), "counts below entry 2 only"},
		{"the lowest cutoff counts", "-old new", "old", then(old, by(t, receipt.KeyRotation, revocation(t, "old", old[:1]), "new"), by(t, receipt.KeyRotation, revocation(t, "old", old), "new")), "counts below entry 1 only"},
		{"a cutoff holds without the revocation", "old new", "old", then(old, by(t, receipt.KeyRotation, revocation(t, "old", old[:1]), "new")), "counts below entry 1 only"},
		{"a cutoff holds for a key that was rotated away", "new", "old", then(handed, by(t, receipt.KeyRotation, revocation(t, "old", old[:1]), "new")), "counts below entry 1 only"},
		{"a thief cannot choose the cutoff", "-old new", "old", then(old, by(t, receipt.KeyRotation, revocation(t, "old", old), "old")), "key is revoked"},
		{"nor can a key that is no anchor", "-old third", "old", then(old, by(t, receipt.KeyRotation, revocation(t, "old", old), "new")), "key is revoked"},
		{"two keys that revoke each other are both out", "-old -new", "old new", then(old, by(t, receipt.KeyRotation, revocation(t, "old", old), "new"), by(t, receipt.KeyRotation, revocation(t, "new", old), "old")), "key is revoked"},
		{"a cutoff of another log", "-old new", "old", then(old, by(t, receipt.KeyRotation, foreign, "new")), "entry 2: the revocation of key"},
		{"a cutoff in the future", "-old new", "old", then(old[:1], by(t, receipt.KeyRotation, revocation(t, "old", old), "new")), "the log had 1 entries"},
		{"an event that is not known", "new", "", []receipt.Entry{by(t, receipt.KeyRotation, map[string]any{"event": "rumour"}, "new")}, "want rotation or revocation"},
	} {
		r := newTree()
		key := logKey(t, origin, 1)
		r.put("ops/ledger/policy", string(checkpoint.NewPolicy(key.VerifierKey())))
		for folder, names := range map[string]string{"ops/certs/": c.anchors, "ops/certs/retired/": c.retired} {
			for _, name := range strings.Fields(names) {
				bare := strings.TrimPrefix(name, "-")
				cert := people()[bare].Public()
				if bare != name {
					cert = revokedCert(t, bare)
				}
				r.put(folder+string(fpr(bare))+".asc", string(cert.Armored()))
			}
		}
		r.seal(t, key, lines(c.entries))
		// What an audit remembers must not outlive what it was believed for.
		var proven covenant.Proven
		o := options()
		o.Badge, o.Proven = nil, &proven
		for range 2 {
			f := finding(t, covenant.Audit(r, o), 5)
			if c.want == "" {
				assert.Equal(t, f.Status, "pass", "%s: %s", c.name, f.Detail)
			} else {
				assert.Equal(t, f.Status, "fail", "%s: %s", c.name, f.Detail)
				assert.Assert(t, strings.Contains(f.Detail, c.want), "%s: %s", c.name, f.Detail)
			}
		}
	}
}

func TestWhatWasProvenIsHeldToALaterRevocation(t *testing.T) {
	all := []receipt.Entry{by(t, receipt.Smoke, nil, "old"), by(t, receipt.Smoke, map[string]any{"n": int64(2)}, "new")}
	r := newTree()
	key := logKey(t, origin, 1)
	r.put("ops/ledger/policy", string(checkpoint.NewPolicy(key.VerifierKey())))
	for _, name := range []string{"old", "new"} {
		r.put("ops/certs/"+string(fpr(name))+".asc", string(people()[name].Public().Armored()))
	}
	r.seal(t, key, lines(all))
	var proven covenant.Proven
	o := options()
	o.Badge, o.Proven = nil, &proven
	assert.Equal(t, finding(t, covenant.Audit(r, o), 5).Status, "pass")
	r.seal(t, key, lines(then(all, by(t, receipt.KeyRotation, revocation(t, "old", nil), "new"))))
	assert.Equal(t, finding(t, covenant.Audit(r, o), 5).Status, "fail")
}

// A pinned policy id must go on meaning what it meant.
func TestThePolicyIDIsOfLogPolicyAndAnchorsAlone(t *testing.T) {
	const pinned = "aac24220fd4208644113b4e45295b98a5f5ee2bd3706313f2b953c7f1d7b6b28"
	r := sound(t)
	assert.Equal(t, trust(t, r).ID(), pinned)
	r.put("ops/certs/retired/"+string(fpr("old"))+".asc", string(people()["old"].Public().Armored()))
	assert.Equal(t, trust(t, r).ID(), pinned)
	assert.DeepEqual(t, trust(t, r).Retired.Fingerprints(), []openpgp.Fingerprint{fpr("old")})
	r.put("ops/certs/"+string(fpr("new"))+".asc", string(people()["new"].Public().Armored()))
	assert.Assert(t, trust(t, r).ID() != pinned)

	r = sound(t)
	r.put("ops/certs/retired/old.asc", string(people()["old"].Public().Armored()))
	_, err := covenant.LoadTrust(r, layout)
	assert.ErrorContains(t, err, "want it in a file of that name")
	r.put("ops/certs/retired/old.asc", "hello\n")
	_, err = covenant.LoadTrust(r, layout)
	assert.ErrorContains(t, err, "ops/certs/retired/old.asc: key file")
}

func TestAKeyChangeReadsBackAsItWasWritten(t *testing.T) {
	for _, c := range []covenant.KeyChange{
		{Old: fpr("old"), New: fpr("new")},
		{Old: fpr("old"), New: fpr("old"), NewSubkey: fpr("third")},
		{Old: fpr("old"), Reason: openpgp.Retired, Size: 7, Root: checkpoint.Hash{1}},
	} {
		got, err := covenant.ParseKeyChange(by(t, receipt.KeyRotation, c.Predicate(), "new").Receipt)
		assert.NilError(t, err)
		assert.DeepEqual(t, got, c)
	}
	_, err := covenant.ParseKeyChange(by(t, receipt.Smoke, nil, "new").Receipt)
	assert.ErrorContains(t, err, "is of kind smoke, want key-rotation")
	good := covenant.KeyChange{Old: fpr("old"), Reason: openpgp.Retired, Size: 7, Root: checkpoint.Hash{1}}.Predicate()
	for field, bad := range map[string]any{
		"event": "retirement", "key": "ABCD", "reason": "unstated", "cutoff": map[string]any{"size": int64(7)},
	} {
		p := map[string]any{}
		for k, v := range good {
			p[k] = v
		}
		p[field] = bad
		_, err := covenant.ParseKeyChange(by(t, receipt.KeyRotation, p, "new").Receipt)
		assert.Assert(t, err != nil, field)
	}
}

func TestOnlyAKeyChangeOfTheRightPeopleIsTaken(t *testing.T) {
	log := []receipt.Entry{by(t, receipt.Smoke, nil, "old")}
	for _, c := range []struct {
		fields map[string]any
		names  []string
		want   string
	}{
		{rotation("old", "new"), []string{"old", "new"}, ""},
		{rotation("old", "new"), []string{"old"}, "is not signed by its successor"},
		{rotation("old", "new"), []string{"new"}, "want the old key itself"},
		{rotation("old", "old"), []string{"old"}, ""},
		{revocation(t, "old", log), []string{"new"}, ""},
		{revocation(t, "third", nil), []string{"new"}, ""},
		{revocation(t, "old", nil), []string{"new"}, "entry 0 is signed by that key"},
		{revocation(t, "old", log), []string{"old"}, "want another trust anchor"},
		{revocation(t, "old", then(log, log...)), []string{"new"}, "the log had 1 entries"},
	} {
		err := covenant.CheckKeyChange(by(t, receipt.KeyRotation, c.fields, c.names...), log, nil)
		if c.want == "" {
			assert.NilError(t, err)
		} else {
			assert.ErrorContains(t, err, c.want)
		}
	}
}

// What is read says the same when it is written again.
func FuzzParseKeyChange(f *testing.F) {
	f.Add("rotation", string(fpr("old")), string(fpr("new")), "", "", int64(0), "")
	f.Add("revocation", string(fpr("old")), "", "", "retired", int64(7), strings.Repeat("ab", 32))
	f.Fuzz(func(t *testing.T, event, old, successor, subkey, reason string, size int64, root string) {
		p := map[string]any{"event": event, "old": old, "key": old, "new": successor, "new_subkey": subkey, "reason": reason, "cutoff": map[string]any{"root": root, "size": size}}
		r, err := receipt.New(receipt.Statement{
			Kind: receipt.KeyRotation, Issuer: fpr("old"), Issued: now, Predicate: p,
			Subjects: []receipt.Subject{{Name: "it", SHA256: strings.Repeat("ab", 32)}},
		})
		if err != nil {
			return
		}
		c, err := covenant.ParseKeyChange(r)
		if err != nil {
			assert.Equal(t, c, covenant.KeyChange{})
			return
		}
		again, err := receipt.New(receipt.Statement{
			Kind: receipt.KeyRotation, Issuer: fpr("old"), Issued: now, Predicate: c.Predicate(),
			Subjects: []receipt.Subject{{Name: "it", SHA256: strings.Repeat("ab", 32)}},
		})
		assert.NilError(t, err)
		back, err := covenant.ParseKeyChange(again)
		assert.NilError(t, err)
		assert.Equal(t, back, c)
	})
}
