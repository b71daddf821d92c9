package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/vaultmesh/remembrancer/pkg/action"
	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
)

var (
	passphraseInput   = action.Input{Name: "passphrase", Kind: action.Secret, Usage: "Passphrase of that key.", Env: "REMEMBRANCER_PASSPHRASE"}
	passphraseFDInput = action.Input{Name: "passphrase-fd", Usage: "File descriptor to read the passphrase from; - is standard input.", CLIOnly: true}
)

// keyInputs are how a key reaches a verb that signs: never as an argument, which
// every process of the machine can read.
func keyInputs() []action.Input {
	return []action.Input{
		{Name: "key", Usage: "Sign through gpg with this key: a fingerprint, key id or e-mail, also as gpg:KEYID.", Env: "REMEMBRANCER_KEY_ID"},
		{Name: "signing-key", Kind: action.Secret, Usage: "Armored OpenPGP secret key to sign with.", Env: "REMEMBRANCER_SIGNING_KEY"},
		passphraseInput,
		{Name: "key-fd", Usage: "File descriptor to read the armored secret key from; - is standard input.", CLIOnly: true},
		passphraseFDInput,
	}
}

// descriptors are the secrets that came through file descriptors.
type descriptors struct{ key, passphrase []byte }

// takeSecrets reads the secrets that come through file descriptors, closes them
// and masks what they held, before a verb does anything: a command that it runs
// would inherit an open one, and what it prints could show its content.
func (w *world) takeSecrets(spec action.Spec, v *action.Values, r *action.Runner) error {
	given := map[string]string{}
	for _, in := range spec.Inputs {
		if in.Name == "key-fd" || in.Name == "passphrase-fd" {
			given[in.Name] = strings.TrimSpace(v.String(in.Name))
		}
		if given[in.Name] == "-" {
			given[in.Name] = "0"
		}
	}
	key, passphrase := given["key-fd"], given["passphrase-fd"]
	if key != "" && key == passphrase {
		return misused("--key-fd and --passphrase-fd are both %s: want two", key)
	}
	take := func(fd string) ([]byte, error) {
		b, err := w.readFD(fd)
		if err != nil {
			return nil, err
		}
		return b, r.Mask(string(b))
	}
	var err error
	if key != "" {
		if w.fd.key, err = take(key); err != nil {
			return err
		}
		if len(w.fd.key) == 0 {
			return fmt.Errorf("file descriptor %s: found nothing, want an armored secret key", key)
		}
	}
	if passphrase != "" {
		if w.fd.passphrase, err = take(passphrase); err != nil {
			return err
		}
		w.fd.passphrase = bytes.TrimRight(w.fd.passphrase, "\r\n")
	}
	return nil
}

// passphrase returns the one given, by variable or descriptor.
func (w *world) passphrase(v *action.Values) []byte {
	if w.fd.passphrase != nil {
		return w.fd.passphrase
	}
	return []byte(v.String("passphrase"))
}

// errNoKey says that no signing key was given by any way.
var errNoKey = errors.New("no signing key: set REMEMBRANCER_SIGNING_KEY (armored, with REMEMBRANCER_PASSPHRASE) or REMEMBRANCER_KEY_ID (through gpg), or run remembrancer init, which makes one")

// signer finds the OpenPGP key to sign with: given, or made by init for this log.
func (w *world) signer(v *action.Values, p *project) (openpgp.Signer, error) {
	secret, id, err := w.secretKey(v, p)
	if err != nil {
		return nil, err
	}
	var s openpgp.Signer
	if secret == nil {
		s, err = openpgp.FromGPG(w.ctx, strings.TrimPrefix(id, "gpg:"), "gpg", openpgp.Exec(w.childEnviron()), w.now)
	} else {
		s, err = openpgp.FromArmored(secret, w.passphrase(v), w.now)
	}
	if errors.Is(err, openpgp.ErrNoPassphrase) {
		err = fmt.Errorf("%w\nhint: give it as REMEMBRANCER_PASSPHRASE or with --passphrase-fd", err)
	}
	if err != nil {
		return nil, err
	}
	// What such a key signs is worth nothing here yet, which may be intended: it
	// is said, and whoever takes the signature decides.
	if _, trust, err := p.standingTrust(); err == nil {
		if err := wrongKey(p.layout, trust, s.Fingerprint()); err != nil {
			w.note("⚠️  %v", err)
		}
	}
	return s, nil
}

// secretKey returns the secret key to sign with, or gpg's name for it.
func (w *world) secretKey(v *action.Values, p *project) (secret []byte, gpgID string, err error) {
	secret = []byte(v.String("signing-key"))
	if w.fd.key != nil {
		secret = w.fd.key
	}
	id := v.String("key")
	switch {
	case len(secret) > 0 && id != "" && v.Given("key"):
		return nil, "", misused("both an armored key and --key are given: want one")
	case len(secret) > 0:
		return secret, "", nil
	case id != "":
		return nil, id, nil
	}
	origin, err := p.origin()
	if err != nil {
		return nil, "", err
	}
	stored, err := w.storedKey(origin, issuerKey)
	if err == nil && stored == nil {
		err = errNoKey
	}
	return stored, "", err
}

// readFD reads a secret from a file descriptor; 0 is standard input.
func (w *world) readFD(fd string) ([]byte, error) {
	n, err := strconv.ParseUint(fd, 10, 31)
	if err != nil {
		return nil, misused("file descriptor %q: want a number", fd)
	}
	in := w.stdin
	if n != 0 {
		f := os.NewFile(uintptr(n), "fd "+fd)
		if f == nil {
			return nil, misused("file descriptor %s is not open", fd)
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("file descriptor %s: %w", fd, err)
	}
	return b, nil
}

// logKey finds the key that signs checkpoints: given, or made by init.
func (w *world) logKey(v *action.Values, p *project) (*checkpoint.Signer, error) {
	text := v.String("log-key")
	if text == "" {
		origin, err := p.origin()
		if err != nil {
			return nil, err
		}
		stored, err := w.storedKey(origin, logKeyFile)
		if err != nil {
			return nil, err
		}
		if stored == nil {
			return nil, fmt.Errorf("no log key for %s: set REMEMBRANCER_LOG_KEY; it was made by remembrancer init and a fork has none (remembrancer init --fork begins a log of its own)", origin)
		}
		text = string(stored)
	}
	return checkpoint.NewSigner(text)
}

// The keys that init makes, per log.
const (
	issuerKey  = "issuer.asc"
	logKeyFile = "log.key"
)

func keyPath(origin, name string) string { return "keys/" + shortHash(origin) + "/" + name }

// storedKey returns a key that init made for a log, or nil.
func (w *world) storedKey(origin, name string) ([]byte, error) {
	d, err := w.state()
	if err != nil {
		return nil, err
	}
	defer d.Close()
	b, err := d.Get(keyPath(origin, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}
