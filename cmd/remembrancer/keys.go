package main

import (
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

// keyInputs are how a key reaches a verb that signs.
func keyInputs() []action.Input {
	return []action.Input{
		{Name: "key", Usage: "Sign through gpg with this key: a fingerprint, key id or e-mail, also as gpg:KEYID.", Env: "REMEMBRANCER_KEY_ID"},
		{Name: "signing-key", Kind: action.Secret, Usage: "Armored OpenPGP secret key to sign with.", Env: "REMEMBRANCER_SIGNING_KEY"},
		{Name: "passphrase", Kind: action.Secret, Usage: "Passphrase of that key.", Env: "REMEMBRANCER_PASSPHRASE"},
		{Name: "key-fd", Usage: "File descriptor to read the armored secret key from.", CLIOnly: true},
		{Name: "passphrase-fd", Usage: "File descriptor to read the passphrase from.", CLIOnly: true},
	}
}

// errNoKey says that no signing key was given by any way.
var errNoKey = errors.New("no signing key: set REMEMBRANCER_SIGNING_KEY (armored, with REMEMBRANCER_PASSPHRASE) or REMEMBRANCER_KEY_ID (through gpg), or run remembrancer init, which makes one")

// signer finds the OpenPGP key to sign with: given, or made by init for this log.
func (w *world) signer(v *action.Values, p *project) (openpgp.Signer, error) {
	secret, passphrase := []byte(v.String("signing-key")), []byte(v.String("passphrase"))
	var err error
	if fd := v.String("key-fd"); fd != "" {
		if secret, err = w.readFD(fd); err != nil {
			return nil, err
		}
		if len(secret) == 0 {
			return nil, fmt.Errorf("file descriptor %s: found nothing, want an armored secret key", fd)
		}
	}
	if fd := v.String("passphrase-fd"); fd != "" {
		if passphrase, err = w.readFD(fd); err != nil {
			return nil, err
		}
		passphrase = []byte(strings.TrimRight(string(passphrase), "\r\n"))
	}
	id := v.String("key")
	switch {
	case len(secret) > 0 && id != "" && v.Given("key"):
		return nil, misused("both an armored key and --key are given: want one")
	case len(secret) > 0:
		return openpgp.FromArmored(secret, passphrase, w.now)
	case id != "":
		return openpgp.FromGPG(w.ctx, strings.TrimPrefix(id, "gpg:"), "gpg", openpgp.Exec(w.environ), w.now)
	}
	origin, err := p.origin()
	if err != nil {
		return nil, err
	}
	stored, err := w.storedKey(origin, issuerKey)
	if err != nil {
		return nil, err
	}
	if stored == nil {
		return nil, errNoKey
	}
	return openpgp.FromArmored(stored, nil, w.now)
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
