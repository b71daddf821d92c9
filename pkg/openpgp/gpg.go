package openpgp

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// Run runs a program with arguments and standard input to its end. The error
// is not nil if it cannot be started or does not exit with status 0; stdout and
// stderr are what it wrote until then.
type Run func(ctx context.Context, path string, args []string, stdin []byte) (stdout, stderr []byte, err error)

// Exec is Run on this machine, with the given environment; nil inherits the
// process's own. gpg finds its home and agent through HOME and GNUPGHOME.
func Exec(env []string) Run {
	return func(ctx context.Context, path string, args []string, stdin []byte) ([]byte, []byte, error) {
		cmd := exec.CommandContext(ctx, path, args...)
		cmd.Env = env
		cmd.Stdin = bytes.NewReader(stdin)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		// An agent that gpg starts may keep our pipes open; that is no failure.
		cmd.WaitDelay = 2 * time.Second
		err := cmd.Run()
		if errors.Is(err, exec.ErrWaitDelay) {
			err = nil
		}
		return stdout.Bytes(), stderr.Bytes(), err
	}
}

// FromGPG makes a signer that asks gpg, so the secret key stays with its agent
// or card. keyID is a fingerprint, a long key id or an e-mail address, with or
// without a leading "gpg:", and must name exactly one secret key. A fingerprint
// or id of a subkey chooses that subkey; otherwise the newest that can sign now
// is taken, and the primary key last.
//
// The passphrase, if any, is the agent's business. gpg sets the creation time
// from its own clock; each signature is verified here, against the exported
// public key and clock, before it is returned.
func FromGPG(ctx context.Context, keyID, gpgPath string, run Run, clock func() time.Time) (Signer, error) {
	g := &gpgSigner{path: gpgPath, run: run, clock: clock}
	query, err := gpgQuery(keyID)
	if err != nil {
		return nil, err
	}
	listing, stderr, err := g.gpg(ctx, nil, "--with-colons", "--fixed-list-mode", "--fingerprint", "--list-secret-keys", "--", query)
	found := parseListing(listing)
	switch {
	case err != nil && len(found) == 0 && isMissing(err):
		return nil, fmt.Errorf("gpg cannot be run: %w\nhint: install GnuPG 2.2 or later", err)
	case len(found) == 0:
		return nil, fmt.Errorf("gpg has no secret key %s%s\nhint: gpg --list-secret-keys", query, said(stderr))
	case len(found) > 1:
		var list strings.Builder
		for _, k := range found {
			fmt.Fprintf(&list, "\n  %s  %s", k.primary, strings.Join(k.userIDs, ", "))
		}
		return nil, fmt.Errorf("%s names %d secret keys, wanted one: give a fingerprint:%s", query, len(found), list.String())
	}
	listed := found[0]

	public, stderr, err := g.gpg(ctx, nil, "--no-armor", "--export", "--", string(listed.primary))
	if err != nil {
		return nil, fmt.Errorf("export %s: %w%s", listed.primary, err, said(stderr))
	}
	if g.key, err = ParsePublic(public); err != nil {
		return nil, fmt.Errorf("export %s: %w", listed.primary, err)
	}
	if g.key.Fingerprint() != listed.primary {
		return nil, fmt.Errorf("export %s: gpg wrote %s", listed.primary, g.key.Fingerprint())
	}
	now := clock()
	if g.key.Revoked() {
		return nil, fmt.Errorf("%w: primary key %s", ErrRevoked, listed.primary)
	}
	if g.key.primary.expiredAt(now) {
		return nil, fmt.Errorf("key %s expired at %s\nhint: gpg --quick-set-expire %[1]s 2y", listed.primary, stamp(g.key.Expires()))
	}
	// If the query is a subkey's name, that subkey and no other.
	only := func(c *component) bool { return true }
	for _, c := range g.key.subkeys {
		if strings.HasSuffix(string(c.fingerprint), strings.TrimPrefix(query, "0x")) {
			only = func(other *component) bool { return other == c }
		}
	}
	chosen, err := g.key.chooseSigner(now, func(c *component) error {
		switch {
		case !only(c):
			return fmt.Errorf("not the key that %s names", query)
		case !listed.secret[c.fingerprint]:
			return errors.New("gpg does not have its secret half")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	g.signing = chosen.fingerprint
	g.digest = map[crypto.Hash]string{crypto.SHA256: "SHA256", crypto.SHA384: "SHA384", crypto.SHA512: "SHA512"}[digestFor(chosen.public)]
	return g, nil
}

type gpgSigner struct {
	path    string
	run     Run
	clock   func() time.Time
	key     *Key
	signing Fingerprint
	digest  string
}

func (g *gpgSigner) Fingerprint() Fingerprint { return g.key.Fingerprint() }

func (g *gpgSigner) Public() *Key { return g.key }

func (g *gpgSigner) Sign(ctx context.Context, message []byte) ([]byte, error) {
	// The exclamation mark keeps gpg from choosing another subkey. The other
	// options undo what a gpg.conf may say about the form of signatures.
	sig, stderr, err := g.gpg(ctx, message,
		"--status-fd", "2", "--local-user", string(g.signing)+"!", "--digest-algo", g.digest,
		"--no-armor", "--no-textmode", "--default-sig-expire", "0", "--no-ask-sig-expire",
		"--output", "-", "--detach-sign")
	if err != nil {
		return nil, fmt.Errorf("gpg does not sign with %s: %w%s\nhint: is the passphrase in the agent? try: gpg --local-user %s! --detach-sign", g.signing, err, said(stderr), g.signing)
	}
	v, err := g.key.verify(message, sig, g.clock())
	if err != nil {
		return nil, fmt.Errorf("gpg signed with %s, but the signature does not verify: %w", g.signing, err)
	}
	if v.SigningKey != g.signing {
		return nil, fmt.Errorf("gpg signed with %s, wanted %s", v.SigningKey, g.signing)
	}
	return sig, nil
}

func (g *gpgSigner) gpg(ctx context.Context, stdin []byte, args ...string) (stdout, stderr []byte, err error) {
	return g.run(ctx, g.path, append([]string{"--batch", "--no-tty"}, args...), stdin)
}

// gpgQuery turns what people call a key into what gpg takes for exactly that.
// Parts of names are refused: they mean whatever the keyring holds today.
func gpgQuery(keyID string) (string, error) {
	id := strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(keyID), "gpg:"))
	if f, err := ParseFingerprint(id); err == nil {
		return string(f), nil
	}
	digits := strings.ToUpper(strings.TrimPrefix(strings.TrimPrefix(id, "0x"), "0X"))
	if len(digits) == 16 && strings.Trim(digits, "0123456789ABCDEF") == "" {
		return "0x" + digits, nil
	}
	if strings.Count(id, "@") == 1 && !strings.ContainsAny(id, "<> \t\r\n") {
		return "<" + id + ">", nil // the whole address, not a part of one
	}
	return "", fmt.Errorf("key %q: wanted a fingerprint, a long key id (16 hexadecimal digits) or an e-mail address\nhint: gpg --list-secret-keys --keyid-format long", keyID)
}

// A listedKey is one secret key in gpg's listing.
type listedKey struct {
	primary Fingerprint
	secret  map[Fingerprint]bool // parts whose secret half gpg can reach
	userIDs []string
}

// parseListing reads the colon format (doc/DETAILS in GnuPG's sources): a sec
// or ssb record, with "#" in field 15 if the secret half is missing, then an
// fpr record with the fingerprint in field 10.
func parseListing(out []byte) []listedKey {
	var keys []listedKey
	var primary, reachable bool
	for line := range strings.Lines(string(out)) {
		fields := strings.Split(strings.TrimRight(line, "\r\n"), ":")
		if len(fields) < 10 {
			continue
		}
		switch fields[0] {
		case "sec", "ssb":
			primary = fields[0] == "sec"
			reachable = len(fields) < 15 || fields[14] != "#"
			if primary {
				keys = append(keys, listedKey{secret: map[Fingerprint]bool{}})
			}
		case "fpr":
			f, err := ParseFingerprint(fields[9])
			if err != nil || len(keys) == 0 {
				continue
			}
			k := &keys[len(keys)-1]
			if primary && k.primary == "" {
				k.primary = f
			}
			k.secret[f] = reachable
		case "uid":
			if len(keys) > 0 {
				k := &keys[len(keys)-1]
				k.userIDs = append(k.userIDs, printable(fields[9]))
			}
		}
	}
	return keys
}

func isMissing(err error) bool {
	var exit *exec.ExitError
	return !errors.As(err, &exit)
}

// said is what gpg told people, without its status lines, for the end of an
// error.
func said(stderr []byte) string {
	var b strings.Builder
	for line := range strings.Lines(string(stderr)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "[GNUPG:]") && b.Len() < 2000 {
			b.WriteString("\n  " + printable(line))
		}
	}
	return b.String()
}
