package merge_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"iter"
	"os"
	"sync"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
	"github.com/vaultmesh/remembrancer/pkg/merge"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
	"github.com/vaultmesh/remembrancer/pkg/set"
)

var now = time.Date(2025, 11, 26, 12, 0, 0, 0, time.UTC)

func clock() time.Time { return now }

// secrets are the files of the test keys: a and b are two nodes, c is another.
var secrets = map[string]string{
	"a": "../receipt/testdata/issuer.sec.asc",
	"b": "../receipt/testdata/endorser.sec.asc",
	"c": "../openpgp/testdata/ed25519.sec.asc",
}

var signers = func() map[string]func() (openpgp.Signer, error) {
	all := map[string]func() (openpgp.Signer, error){}
	for name, file := range secrets {
		all[name] = sync.OnceValues(func() (openpgp.Signer, error) {
			secret, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			return openpgp.FromArmored(secret, nil, clock)
		})
	}
	return all
}()

func signer(t testing.TB, name string) openpgp.Signer {
	t.Helper()
	s, err := signers[name]()
	assert.NilError(t, err)
	return s
}

func public(t testing.TB, name string) *openpgp.Key {
	t.Helper()
	return signer(t, name).Public()
}

func keyring(t testing.TB, names ...string) *openpgp.Keyring {
	t.Helper()
	var keys []*openpgp.Key
	for _, n := range names {
		keys = append(keys, public(t, n))
	}
	ring, err := openpgp.NewKeyring(keys...)
	assert.NilError(t, err)
	return ring
}

func trust(t testing.TB, names ...string) *merge.Trust {
	t.Helper()
	var members []merge.Member
	for _, n := range names {
		members = append(members, merge.Member{Node: n, Key: public(t, n)})
	}
	state, err := merge.NewTrust(members...)
	assert.NilError(t, err)
	return state
}

// noteKey derives a signing key of notes, and its public half, from one byte.
func noteKey(t testing.TB, name string, seed byte) (skey, vkey string) {
	t.Helper()
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
	pub := append([]byte{1}, key.Public().(ed25519.PublicKey)...)
	hash := sha256.Sum256(append([]byte(name+"\n"), pub...))
	skey = fmt.Sprintf("PRIVATE+KEY+%s+%x+%s", name, hash[:4], base64.StdEncoding.EncodeToString(append([]byte{1}, key.Seed()...)))
	s, err := checkpoint.NewSigner(skey)
	assert.NilError(t, err)
	return skey, s.VerifierKey()
}

func id(n byte) receipt.ID { return sha256.Sum256([]byte{n}) }

func setOf(ids ...receipt.ID) *set.Set {
	var s set.Set
	for _, id := range ids {
		s.Add(id)
	}
	return &s
}

// party is one side of the example, with its secret keys.
type party struct {
	name       string
	seed       byte
	ids        []receipt.ID
	logSize    int
	setSecret  string
	logSecret  string
	side       merge.Side
	checkpoint checkpoint.Body
}

func (p *party) describe(t testing.TB, name string, trust string) {
	t.Helper()
	p.logSecret, p.side.Log = noteKey(t, p.name, p.seed)
	p.setSecret, p.side.Set = noteKey(t, p.name+"/set", p.seed+10)
	p.side.Node = p.name
	p.side.Fingerprint = signer(t, name).Fingerprint()
	p.side.RootBefore = set.Root(p.ids)
	p.side.Count = len(p.ids)
	p.side.Nonce = fmt.Sprintf("%064x", p.seed)
	p.setNote(t, trust)
	p.grow(t, p.logSize)
}

// setNote signs what the side says of its set.
func (p *party) setNote(t testing.TB, trust string) {
	t.Helper()
	note, err := checkpoint.SignNote(p.setSecret, merge.SetNoteText(p.side.Node, trust, p.side.Count, p.side.RootBefore))
	assert.NilError(t, err)
	p.side.SetNote = string(note)
}

// grow gives the log of the side a size.
func (p *party) grow(t testing.TB, size int) {
	t.Helper()
	var leaves []checkpoint.Hash
	for i := range size {
		leaves = append(leaves, ledger.RecordHash(fmt.Appendf(nil, "%s %d", p.name, i)))
	}
	p.checkpoint = checkpoint.Body{Origin: p.name, Size: int64(size), Root: ledger.Root(leaves)}
	p.head(t)
}

// head signs the checkpoint of the side.
func (p *party) head(t testing.TB) {
	t.Helper()
	log, err := checkpoint.NewSigner(p.logSecret)
	assert.NilError(t, err)
	note, err := log.Sign(p.checkpoint)
	assert.NilError(t, err)
	p.side.Checkpoint = string(note)
}

// example is a merge that both sides can sign.
type example struct {
	a, b    *party
	body    merge.Body
	sidecar *merge.Sidecar
	// who signs in the place of whom
	signA, signB, signOperator string
}

func newExample(t testing.TB) *example {
	t.Helper()
	x := &example{
		a:     &party{name: "local/node-a", seed: 1, logSize: 8, ids: []receipt.ID{id(0), id(1), id(2), id(3), id(4), id(5)}},
		b:     &party{name: "local/node-b", seed: 2, logSize: 5, ids: []receipt.ID{id(3), id(4), id(5), id(6), id(7)}},
		signA: "a", signB: "b", signOperator: "a",
	}
	state := trust(t, "a", "b").Hash()
	x.a.describe(t, "a", state)
	x.b.describe(t, "b", state)
	x.a.side.Endpoint, x.b.side.Endpoint = "http://localhost:8001/mcp", "http://localhost:8002/mcp"
	one := []receipt.ID{id(0), id(7)}
	if bytes.Compare(one[0][:], one[1][:]) > 0 {
		one[0], one[1] = one[1], one[0]
	}
	x.sidecar = merge.NewSidecar(setOf(x.a.ids...), setOf(x.b.ids...), []merge.Conflict{{File: "deploy/app-v1.receipt", IDs: one}})
	x.body = merge.Body{
		Time: now, Merged: set.Root(x.sidecar.Union()), Total: 8, AddedToA: 2, AddedToB: 3, Conflicts: 1,
		Trust: state, Operator: signer(t, "a").Fingerprint(),
	}
	return x
}

// receipt signs the example, and returns what is written.
func (x *example) receipt(t testing.TB) (r *merge.Receipt, file, sidecar []byte) {
	t.Helper()
	x.body.A, x.body.B = x.a.side, x.b.side
	sidecar = x.sidecar.Marshal()
	x.body.IDs = x.sidecar.Digest()
	body, err := x.body.Bytes()
	assert.NilError(t, err)
	sign := func(name string) []byte {
		sig, err := signer(t, name).Sign(context.Background(), merge.PAE(body))
		assert.NilError(t, err)
		return sig
	}
	r = &merge.Receipt{Body: x.body, SigA: sign(x.signA), SigB: sign(x.signB), SigOperator: sign(x.signOperator)}
	file, err = r.Marshal()
	assert.NilError(t, err)
	return r, file, sidecar
}

func pairs(list ...any) iter.Seq2[string, receipt.ID] {
	return func(yield func(string, receipt.ID) bool) {
		for i := 0; i < len(list); i += 2 {
			if !yield(list[i].(string), id(byte(list[i+1].(int)))) {
				return
			}
		}
	}
}

func sorted(ns ...byte) []receipt.ID {
	var ids []receipt.ID
	for _, n := range ns {
		ids = append(ids, id(n))
	}
	return (&merge.Sidecar{Both: ids}).Union()
}

func TestEveryConflictIsListedOnce(t *testing.T) {
	assert.DeepEqual(t, merge.Conflicts(pairs()), []merge.Conflict(nil))
	assert.DeepEqual(t, merge.Conflicts(pairs("x", 1, "x", 1, "", 2, "", 3, "y", 2)), []merge.Conflict(nil))
	assert.DeepEqual(t, merge.Conflicts(pairs("z", 1, "x", 3, "x", 1, "y", 9, "", 2, "z", 2, "x", 2, "x", 1, "", 3)), []merge.Conflict{
		{File: "x", IDs: sorted(1, 2, 3)},
		{File: "z", IDs: sorted(1, 2)},
	})
}

func TestWhatTellsOfMergesIsNotMerged(t *testing.T) {
	for _, k := range receipt.Kinds() {
		assert.Equal(t, merge.Federated(k), k != receipt.FederationMerge && k != receipt.Snapshot, string(k))
	}
}
