package openpgp

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// gpgHome is a GnuPG home with the test keys, made by the first test that asks.
// Its path is short: the agent's socket below it may have 108 bytes.
var gpgHome = sync.OnceValues(func() (string, error) {
	for _, tool := range []string{"gpg", "gpgv", "gpgconf"} {
		if _, err := exec.LookPath(tool); err != nil {
			return "", fmt.Errorf("these tests need GnuPG 2.2 or later (apt install gnupg gpgv): %w", err)
		}
	}
	dir, err := os.MkdirTemp("", "g")
	if err != nil {
		return "", err
	}
	args := []string{"--batch", "--quiet", "--no-tty", "--import"}
	for _, name := range []string{"ed25519", "rsa3072", "rsa4096", "nistp256", "nistp384", "offline", "certonly", "expired", "subexpired", "revoked-soft"} {
		args = append(args, filepath.Join("testdata", name+".sec.asc"))
	}
	_, stderr, err := Exec(gpgEnv(dir))(context.Background(), "gpg", args, nil)
	if err != nil {
		return dir, fmt.Errorf("import test keys: %w: %s", err, stderr)
	}
	return dir, nil
})

// gpgAsked tells TestMain that there is a home to clean up.
var gpgAsked bool

func TestMain(m *testing.M) {
	if file := os.Getenv(cardEnv); file != "" {
		serveCard(file, os.Stdin, os.Stdout)
		return
	}
	status := m.Run()
	if gpgAsked {
		if dir, _ := gpgHome(); dir != "" {
			_, _, _ = Exec(gpgEnv(dir))(context.Background(), "gpgconf", []string{"--kill", "gpg-agent"}, nil)
			_ = os.RemoveAll(dir)
		}
	}
	os.Exit(status)
}

func gpgEnv(home string) []string {
	return append(os.Environ(), "GNUPGHOME="+home, "LC_ALL=C")
}

// gpg runs a GnuPG program in the home with the test keys, and gpg at the time
// now and with the passphrase.
func gpg(t *testing.T) Run {
	t.Helper()
	return gpgAt(t, now)
}

// gpgAt is gpg with the clock at another time.
func gpgAt(t *testing.T, at time.Time) Run {
	t.Helper()
	gpgAsked = true
	home, err := gpgHome()
	if err != nil {
		t.Fatal(err)
	}
	run := Exec(gpgEnv(home))
	return func(ctx context.Context, path string, args []string, stdin []byte) ([]byte, []byte, error) {
		if path == "gpg" {
			args = append([]string{
				"--pinentry-mode", "loopback", "--passphrase", passphrase,
				"--faked-system-time", at.Format("20060102T150405") + "!",
			}, args...)
		}
		return run(ctx, path, args, stdin)
	}
}

// gpgv has stock GnuPG check a signature file and returns the VALIDSIG fields.
func gpgv(t *testing.T, key *Key, sig, message []byte) (signing, primary Fingerprint) {
	t.Helper()
	dir := t.TempDir()
	file := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		assert.NilError(t, os.WriteFile(path, data, 0o600))
		return path
	}
	out, stderr, err := gpg(t)(t.Context(), "gpgv", []string{
		"--status-fd", "1", "--keyring", file("k.gpg", key.Binary()),
		file("m.sig", sig), file("m", message),
	}, nil)
	assert.NilError(t, err, "%s%s", out, stderr)
	assert.Assert(t, strings.Contains(string(out), "[GNUPG:] GOODSIG "), "%s", out)
	for line := range strings.Lines(string(out)) {
		if rest, ok := strings.CutPrefix(line, "[GNUPG:] VALIDSIG "); ok {
			fields := strings.Fields(rest)
			return Fingerprint(fields[0]), Fingerprint(fields[len(fields)-1])
		}
	}
	t.Fatalf("no VALIDSIG in %s", out)
	return "", ""
}

func TestGPGVAcceptsOurSignatures(t *testing.T) {
	secret, _, err := Generate("Alice Example", "alice@example.org", created, rand.Reader)
	assert.NilError(t, err)
	generated, err := FromArmored(secret, nil, clock(now))
	assert.NilError(t, err)

	for _, name := range []string{"generated", "ed25519", "rsa3072", "rsa4096", "nistp256", "nistp384", "offline", "stub"} {
		s := generated
		if name != "generated" {
			s = signer(t, name, now)
		}
		sig := sign(t, s, message)
		v, err := Verify(ring(t, s.Public()), s.Fingerprint(), message, sig, VerifyOptions{Now: now})
		assert.NilError(t, err)
		// Armored is where GnuPG 2.2 fails without the CRC-24 line, whenever
		// the length is a multiple of three: always with rsa3072's.
		for _, form := range [][]byte{sig, Armor(sig)} {
			signing, primary := gpgv(t, s.Public(), form, message)
			assert.Equal(t, signing, v.SigningKey, name)
			assert.Equal(t, primary, v.Fingerprint, name)
		}
	}
}

func TestWeAcceptGPGSignatures(t *testing.T) {
	for _, name := range []string{"ed25519", "rsa3072", "rsa4096", "nistp256", "nistp384", "offline"} {
		key := public(t, name)
		want := Verified{Fingerprint: key.Fingerprint(), SigningKey: key.Fingerprint(), Created: now}
		if name == "offline" {
			want.SigningKey = key.subkeys[0].fingerprint
		}
		s, err := FromGPG(t.Context(), "gpg:"+string(key.Fingerprint()), "gpg", gpg(t), clock(now))
		assert.NilError(t, err, name)
		assert.Equal(t, s.Fingerprint(), key.Fingerprint())
		assert.DeepEqual(t, s.Public().Binary(), key.Binary())
		v, err := Verify(ring(t, key), key.Fingerprint(), message, sign(t, s, message), VerifyOptions{Now: now})
		assert.NilError(t, err, name)
		assert.Equal(t, v, want)

		if name != "ed25519" && name != "offline" {
			continue
		}
		// As a person signs at a terminal.
		armored, stderr, err := gpg(t)(t.Context(), "gpg", []string{
			"--batch", "--no-tty", "--armor", "--local-user", string(key.Fingerprint()), "--detach-sign",
		}, message)
		assert.NilError(t, err, "%s", stderr)
		sig, err := Dearmor(armored)
		assert.NilError(t, err)
		v, err = Verify(ring(t, key), key.Fingerprint(), message, sig, VerifyOptions{Now: now})
		assert.NilError(t, err, name)
		assert.Equal(t, v, want)
	}
}

func TestNoBitOfAGPGSignatureIsFree(t *testing.T) {
	key := public(t, "ed25519")
	s, err := FromGPG(t.Context(), string(key.Fingerprint()), "gpg", gpg(t), clock(now))
	assert.NilError(t, err)
	sig := sign(t, s, message)
	for i := range len(sig) * 8 {
		flipped := slices.Clone(sig)
		flipped[i/8] ^= 1 << (i % 8)
		_, err := Verify(ring(t, key), key.Fingerprint(), message, flipped, VerifyOptions{Now: now})
		assert.Assert(t, err != nil, "bit %d of byte %d", i%8, i/8)
	}
}

func TestGPGSignaturesOfOtherKindsAreRefused(t *testing.T) {
	key := public(t, "ed25519")
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--digest-algo", "SHA1", "--detach-sign"}, "digest SHA-1 is refused"},
		{[]string{"--textmode", "--detach-sign"}, "signature type 0x01, wanted 0x00"},
		{[]string{"--default-sig-expire", "1d", "--detach-sign"}, "signature expires"},
		{[]string{"--sig-notation", "!x@test.invalid=1", "--detach-sign"}, "critical notation"},
		{[]string{"--armor", "--detach-sign"}, "is armored text"},
		{[]string{"--compress-algo", "none", "--sign"}, "packet type 4, wanted a signature (2)"},
	} {
		args := append([]string{"--batch", "--no-tty", "--local-user", string(key.Fingerprint())}, c.args...)
		sig, stderr, err := gpg(t)(t.Context(), "gpg", args, message)
		assert.NilError(t, err, "%s", stderr)
		_, err = Verify(ring(t, key), key.Fingerprint(), message, sig, VerifyOptions{Now: now})
		assert.ErrorContains(t, err, c.want)
	}
}

func TestGPGImportsAndUsesAGeneratedKey(t *testing.T) {
	secret, key, err := Generate("Bob Example", "bob@example.org", created, rand.Reader)
	assert.NilError(t, err)
	_, stderr, err := gpg(t)(t.Context(), "gpg", []string{"--batch", "--no-tty", "--import"}, secret)
	assert.NilError(t, err, "%s", stderr)

	long := string(key.Fingerprint()[24:])
	for _, id := range []string{"bob@example.org", "gpg:bob@example.org", string(key.Fingerprint()), long, "0x" + strings.ToLower(long)} {
		s, err := FromGPG(t.Context(), id, "gpg", gpg(t), clock(now))
		assert.NilError(t, err, id)
		assert.Equal(t, s.Fingerprint(), key.Fingerprint())
		sign(t, s, message)
	}
	// Only the whole address names a key.
	_, err = FromGPG(t.Context(), "ob@example.org", "gpg", gpg(t), clock(now))
	assert.ErrorContains(t, err, "gpg has no secret key <ob@example.org>")
	assert.ErrorContains(t, err, "hint: gpg --list-secret-keys")

	second, other, err := Generate("Bob Other", "bob@example.org", created, rand.Reader)
	assert.NilError(t, err)
	_, stderr, err = gpg(t)(t.Context(), "gpg", []string{"--batch", "--no-tty", "--import"}, second)
	assert.NilError(t, err, "%s", stderr)
	_, err = FromGPG(t.Context(), "bob@example.org", "gpg", gpg(t), clock(now))
	assert.ErrorContains(t, err, "<bob@example.org> names 2 secret keys, wanted one")
	for _, k := range []*Key{key, other} {
		assert.ErrorContains(t, err, fmt.Sprintf("\n  %s  %s", k.Fingerprint(), k.UserIDs()[0]))
	}
}

func TestAKeyNamedByItsSubkeySignsWithThatSubkey(t *testing.T) {
	key := public(t, "offline")
	sub, encrypting := key.subkeys[0].fingerprint, key.subkeys[1].fingerprint
	s, err := FromGPG(t.Context(), string(sub), "gpg", gpg(t), clock(now))
	assert.NilError(t, err)
	v, err := Verify(ring(t, key), key.Fingerprint(), message, sign(t, s, message), VerifyOptions{Now: now})
	assert.NilError(t, err)
	assert.Equal(t, v.SigningKey, sub)
	_, err = FromGPG(t.Context(), string(encrypting), "gpg", gpg(t), clock(now))
	assert.ErrorContains(t, err, "is not flagged for signing")
	assert.ErrorContains(t, err, "not the key that "+string(encrypting)+" names")
}

func TestKeysThatGPGCannotSignWithSayWhy(t *testing.T) {
	for _, c := range []struct{ id, want string }{
		{"Alice", "wanted a fingerprint, a long key id (16 hexadecimal digits) or an e-mail address"},
		{"A410F340", "wanted a fingerprint"},
		{"--version", "wanted a fingerprint"},
		{"gpg:", "wanted a fingerprint"},
		{"nobody@test.invalid", "gpg has no secret key <nobody@test.invalid>"},
		{strings.Repeat("AB", 20), "gpg has no secret key ABABAB"},
		{"expired@test.invalid", "expired at 2024-01-31T00:00:00Z"},
		{"subexpired@test.invalid", ": expired at 2024-01-31T00:00:00Z"},
		{"revoked-soft@test.invalid", "key is revoked"},
		{"certonly@test.invalid", "is not flagged for signing"},
	} {
		_, err := FromGPG(t.Context(), c.id, "gpg", gpg(t), clock(now))
		assert.ErrorContains(t, err, c.want, c.id)
	}
	_, err := FromGPG(t.Context(), "ed25519@test.invalid", filepath.Join(t.TempDir(), "no-gpg"), gpg(t), clock(now))
	assert.ErrorContains(t, err, "gpg cannot be run")
	assert.ErrorContains(t, err, "hint: install GnuPG")
}

// answers replays what gpg says when listing and exporting the key, and then
// something else when it should sign.
func answers(t *testing.T, sign Run) Run {
	t.Helper()
	real := gpg(t)
	return func(ctx context.Context, path string, args []string, stdin []byte) ([]byte, []byte, error) {
		if slices.Contains(args, "--detach-sign") {
			return sign(ctx, path, args, stdin)
		}
		return real(ctx, path, args, stdin)
	}
}

func TestWhatGPGReturnsIsVerified(t *testing.T) {
	wrong := sign(t, signer(t, "rsa3072", now), message)
	late := signer(t, "ed25519", now.Add(futureTolerance+1e9))
	future := sign(t, late, message)
	for _, c := range []struct {
		name string
		sign Run
		want string
	}{
		{"nothing", func(context.Context, string, []string, []byte) ([]byte, []byte, error) { return nil, nil, nil }, "does not verify: packet is cut short"},
		{"another key", func(context.Context, string, []string, []byte) ([]byte, []byte, error) { return wrong, nil, nil }, "does not verify: made by another key"},
		{"another clock", func(context.Context, string, []string, []byte) ([]byte, []byte, error) { return future, nil, nil }, "more than 5m0s after now"},
		{"failure", func(context.Context, string, []string, []byte) ([]byte, []byte, error) {
			return nil, []byte("[GNUPG:] FAILURE sign 17\ngpg: signing failed: No pinentry\n"), errors.New("exit status 2")
		}, "exit status 2\n  gpg: signing failed: No pinentry\nhint: is the passphrase in the agent?"},
	} {
		s, err := FromGPG(t.Context(), "ed25519@test.invalid", "gpg", answers(t, c.sign), clock(now))
		assert.NilError(t, err)
		_, err = s.Sign(t.Context(), message)
		assert.ErrorContains(t, err, c.want, c.name)
	}
}

func TestGPGIsCalledWithoutATerminalAndTheMessageOnStdin(t *testing.T) {
	var got []string
	s, err := FromGPG(t.Context(), "nistp384@test.invalid", "gpg", answers(t, func(ctx context.Context, path string, args []string, stdin []byte) ([]byte, []byte, error) {
		got = args
		assert.DeepEqual(t, stdin, message)
		return gpg(t)(ctx, path, args, stdin)
	}), clock(now))
	assert.NilError(t, err)
	sign(t, s, message)
	assert.DeepEqual(t, got, []string{
		"--batch", "--no-tty", "--status-fd", "2", "--local-user", string(s.Fingerprint()) + "!", "--digest-algo", "SHA384",
		"--no-armor", "--no-textmode", "--default-sig-expire", "0", "--no-ask-sig-expire", "--output", "-", "--detach-sign",
	})
}
