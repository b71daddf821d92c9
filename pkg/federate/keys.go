package federate

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/durable"
	"github.com/vaultmesh/remembrancer/pkg/merge"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
)

// The files of a node's keys, each with mode 0600.
const (
	issuerPath  = "keys/issuer.asc" // OpenPGP secret key, armored
	logPath     = "keys/log.key"    // these three: one signed-note signing key, and a newline
	witnessPath = "keys/witness.key"
	setPath     = "keys/set.key"
	trustPath   = "trust.json"
)

// identity derives what the keys say of the node, and checks that they belong
// together.
func (k Keys) identity(endpoint string) (Identity, *checkpoint.Cosigner, error) {
	fail := func(err error) (Identity, *checkpoint.Cosigner, error) { return Identity{}, nil, err }
	if k.Issuer == nil {
		return fail(errors.New("store: the node has no key to issue receipts with"))
	}
	log, err := checkpoint.NewSigner(k.Log)
	if err != nil {
		return fail(err)
	}
	id := Identity{Node: log.Origin(), Fingerprint: string(k.Issuer.Fingerprint()), Log: log.VerifierKey(), Endpoint: endpoint}
	named := func(skey, suffix string) error {
		s, err := checkpoint.NewSigner(skey)
		if err != nil {
			return fmt.Errorf("%s key: %w", suffix, err)
		}
		if s.Origin() != id.Node+"/"+suffix {
			return fmt.Errorf("%s key is named %s, want %s/%s", suffix, s.Origin(), id.Node, suffix)
		}
		if suffix == "set" {
			id.Set = s.VerifierKey()
		}
		return nil
	}
	if err := errors.Join(named(k.Set, "set"), named(k.Witness, "witness")); err != nil {
		return fail(err)
	}
	// A signing key is PRIVATE+KEY+<name>+<hash>+<base64 of an algorithm byte and a seed>.
	seed, err := base64.StdEncoding.DecodeString(strings.SplitN(strings.TrimSpace(k.Witness), "+", 5)[4])
	if err != nil || len(seed) != 1+ed25519.SeedSize {
		return fail(errors.New("witness key: want an Ed25519 signing key"))
	}
	w, err := checkpoint.NewCosigner(id.Node+"/witness", ed25519.NewKeyFromSeed(seed[1:]))
	if err != nil {
		return fail(err)
	}
	id.Witness = w.VerifierKey()
	return id, w, nil
}

// InitStore makes the keys of a new node, and a trust state of itself alone, in a
// directory, which need not exist. An empty name becomes local/node-<8 hex digits>.
// It refuses where a node is. The trust state is written last: what a crash left
// before is taken up again, so that no key is lost that somebody may have seen.
func InitStore(ctx context.Context, dir, node string, random io.Reader, now time.Time) error {
	files, err := durable.CreateDir(dir)
	if err != nil {
		return err
	}
	defer files.Close()
	unlock, err := files.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	for _, name := range []string{trustPath, "checkpoint", "claim"} {
		if _, err := files.Get(name); !errors.Is(err, fs.ErrNotExist) {
			if err == nil {
				err = fmt.Errorf("%s: a node is there already (%s): choose another directory", dir, name)
			}
			return err
		}
	}
	// keep returns the file that is there, or makes it.
	keep := func(name string, make func() ([]byte, error)) ([]byte, error) {
		data, err := files.Get(name)
		if !errors.Is(err, fs.ErrNotExist) {
			return data, err
		}
		if data, err = make(); err != nil {
			return nil, err
		}
		return data, durable.Put(filepath.Join(dir, filepath.FromSlash(name)), data, 0o600)
	}
	noteKey := func(name string) func() ([]byte, error) {
		return func() ([]byte, error) {
			skey, _, err := checkpoint.GenerateKey(random, name)
			return []byte(skey + "\n"), err
		}
	}
	log, err := keep(logPath, func() ([]byte, error) {
		if node == "" {
			var b [4]byte
			if _, err := io.ReadFull(random, b[:]); err != nil {
				return nil, err
			}
			node = fmt.Sprintf("local/node-%x", b)
		}
		return noteKey(node)()
	})
	if err != nil {
		return err
	}
	signer, err := checkpoint.NewSigner(string(log))
	if err != nil {
		return fmt.Errorf("%s: %w", logPath, err)
	}
	if node == "" {
		node = signer.Origin()
	}
	if signer.Origin() != node {
		return fmt.Errorf("%s is the key of %s, want %s: remove it if it was never used", logPath, signer.Origin(), node)
	}
	keys := Keys{Log: string(log)}
	for _, k := range []struct {
		path, suffix string
		to           *string
	}{{witnessPath, "witness", &keys.Witness}, {setPath, "set", &keys.Set}} {
		data, err := keep(k.path, noteKey(node+"/"+k.suffix))
		if err != nil {
			return err
		}
		*k.to = string(data)
	}
	secret, err := keep(issuerPath, func() ([]byte, error) {
		secret, _, err := openpgp.Generate(node, "", now, random)
		return secret, err
	})
	if err != nil {
		return err
	}
	if keys.Issuer, err = openpgp.FromArmored(secret, nil, func() time.Time { return now }); err != nil {
		return fmt.Errorf("%s: %w", issuerPath, err)
	}
	if _, _, err := keys.identity(""); err != nil {
		return err
	}
	trust, err := merge.NewTrust(merge.Member{Node: node, Key: keys.Issuer.Public()})
	if err != nil {
		return err
	}
	if err := putCerts(files, trust, trust); err != nil {
		return err
	}
	return putTrust(files, trust)
}

// LoadStore opens the store of a node that [InitStore] made. Close closes the
// directory too. A nil issuer is the one in keys/issuer.asc; another one becomes a
// member of the trust state.
func LoadStore(ctx context.Context, dir string, o StoreOptions, issuer openpgp.Signer) (*Store, error) {
	if o.Now == nil {
		return nil, errNoClock
	}
	files, err := durable.OpenDir(dir)
	if err != nil {
		return nil, err
	}
	s, err := loadStore(ctx, files, o, issuer)
	if err != nil {
		_ = files.Close()
		return nil, fmt.Errorf("node in %s: %w", dir, err)
	}
	s.owned = true
	return s, nil
}

func loadStore(ctx context.Context, files *durable.Dir, o StoreOptions, issuer openpgp.Signer) (*Store, error) {
	trust, err := getTrust(files)
	if err != nil {
		return nil, err
	}
	var keys Keys
	for path, to := range map[string]*string{logPath: &keys.Log, witnessPath: &keys.Witness, setPath: &keys.Set} {
		data, err := files.Get(path)
		if err != nil {
			return nil, err
		}
		*to = string(data)
	}
	if keys.Issuer = issuer; issuer == nil {
		secret, err := files.Get(issuerPath)
		if err != nil {
			return nil, err
		}
		if keys.Issuer, err = openpgp.FromArmored(secret, nil, o.Now); err != nil {
			return nil, fmt.Errorf("%s: %w", issuerPath, err)
		}
	}
	believed := trust
	if _, ok := trust.Lookup(keys.Issuer.Fingerprint()); !ok && issuer != nil {
		if believed, err = trust.With(merge.Member{Node: o.Node, Key: issuer.Public()}); err != nil {
			return nil, err
		}
	}
	s, err := OpenStore(ctx, files, keys, believed, o)
	if err != nil {
		return nil, err
	}
	// The lock is held now. The trust state may have been changed before that.
	if again, err := getTrust(files); err != nil || again.Hash() != trust.Hash() {
		s.log.Close()
		return nil, errors.Join(err, errors.New("the trust state has just been changed: try again"))
	}
	if believed != trust {
		err = putTrust(files, believed)
	}
	if err = errors.Join(err, putCerts(files, trust, believed)); err != nil {
		s.log.Close()
		return nil, err
	}
	return s, nil
}

// trustFile is trust.json. It is whole in itself, so that no crash can part a
// member from its key.
type trustFile struct {
	Members []trustMember `json:"members"` // in order of their fingerprints
}

type trustMember struct {
	Node        string        `json:"node"`
	Fingerprint string        `json:"fingerprint"`
	Key         string        `json:"key"` // armored
	Cutoff      *merge.Cutoff `json:"cutoff"`
}

func putTrust(files *durable.Dir, trust *merge.Trust) error {
	f := trustFile{Members: []trustMember{}}
	for _, m := range trust.Members() {
		f.Members = append(f.Members, trustMember{m.Node, string(m.Key.Fingerprint()), string(m.Key.Armored()), m.Cutoff})
	}
	data, err := encode(f)
	if err != nil {
		return err
	}
	return files.Put(trustPath, data)
}

func getTrust(files *durable.Dir) (*merge.Trust, error) {
	data, err := files.Get(trustPath)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no node is here: make one with remembrancer federation init: %w", err)
	}
	if err != nil {
		return nil, err
	}
	trust, err := parseTrust(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", trustPath, err)
	}
	return trust, nil
}

func parseTrust(data []byte) (*merge.Trust, error) {
	var f trustFile
	if err := decode(data, &f); err != nil {
		return nil, err
	}
	var members []merge.Member
	for i, m := range f.Members {
		key, err := openpgp.ParsePublic([]byte(m.Key))
		if err != nil {
			return nil, fmt.Errorf("member %s: %w", m.Fingerprint, err)
		}
		if string(key.Fingerprint()) != m.Fingerprint {
			return nil, fmt.Errorf("member %s has the key of %s", m.Fingerprint, key.Fingerprint())
		}
		if i > 0 && f.Members[i-1].Fingerprint >= m.Fingerprint {
			return nil, errors.New("the members are not in order of their fingerprints")
		}
		members = append(members, merge.Member{Node: m.Node, Key: key, Cutoff: m.Cutoff})
	}
	return merge.NewTrust(members...)
}

// putCerts shows the keys of a trust state in the folder certs, and takes away
// those that were of the one before. Nothing reads them.
func putCerts(files *durable.Dir, before, now *merge.Trust) error {
	path := func(m merge.Member) string { return "certs/" + string(m.Key.Fingerprint()) + ".asc" }
	for _, m := range now.Members() {
		if data, err := files.Get(path(m)); err == nil && bytes.Equal(data, m.Key.Armored()) {
			continue
		}
		if err := files.Put(path(m), m.Key.Armored()); err != nil {
			return err
		}
	}
	for _, m := range before.Members() {
		if _, ok := now.Lookup(m.Key.Fingerprint()); ok {
			continue
		}
		if err := files.Remove(path(m)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
