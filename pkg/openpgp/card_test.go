package openpgp

import (
	"bufio"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	v2 "github.com/ProtonMail/go-crypto/openpgp/v2"
	"gotest.tools/v3/assert"
)

const (
	cardSerial = "D2760001240103040006123456780000"
	// cardEnv makes the test binary the card's reader: the file of its key.
	cardEnv = "OPENPGP_TEST_CARD"
)

// serveCard is scdaemon with one OpenPGP card of one key in it, as far as
// gpg-agent talks to it (Assuan, with the commands of scd/command.c). The card is
// gone while there is no file of its key, which it notices when it is to sign.
func serveCard(file string, in io.Reader, out io.Writer) {
	fmt.Fprintln(out, "OK ready")
	var data []byte
	for lines := bufio.NewScanner(in); lines.Scan(); {
		command, args, _ := strings.Cut(lines.Text(), " ")
		der, err := os.ReadFile(file)
		switch {
		case command == "PKSIGN" && err != nil:
			fmt.Fprintln(out, "ERR 100663408 Card not present <SCD>")
			continue
		case command == "SERIALNO":
			fmt.Fprintln(out, "S SERIALNO "+cardSerial)
		case command == "SETDATA":
			data, _ = hex.DecodeString(args)
		case command == "PKSIGN":
			key, err := x509.ParsePKCS1PrivateKey(der)
			var signature []byte
			if err == nil { // the agent has put the digest into its DigestInfo
				signature, err = rsa.SignPKCS1v15(nil, key, crypto.Hash(0), data)
			}
			if err != nil {
				fmt.Fprintln(out, "ERR 100663404 Card error <SCD>")
				continue
			}
			for part := range slices.Chunk(signature, 300) {
				fmt.Fprintf(out, "D %s\n", strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A").Replace(string(part)))
			}
		case command == "BYE":
			fmt.Fprintln(out, "OK")
			return
		}
		fmt.Fprintln(out, "OK")
	}
}

// sexp is a canonical S-expression.
func sexp(parts ...any) []byte {
	b := []byte("(")
	for _, p := range parts {
		switch p := p.(type) {
		case []byte: // an expression itself
			b = append(b, p...)
		case string:
			b = fmt.Appendf(b, "%d:%s", len(p), p)
		}
	}
	return append(b, ')')
}

func mpi(n *big.Int) string { return string(append([]byte{0}, n.Bytes()...)) }

func TestAKeyOnACardSigns(t *testing.T) {
	// A home of its own: here gpg never has the key itself. Its path is short.
	home, err := os.MkdirTemp("", "g")
	assert.NilError(t, err)
	run := Exec(gpgEnv(home))
	must := func(program string, args ...string) string {
		t.Helper()
		out, stderr, err := run(t.Context(), program, args, nil)
		assert.NilError(t, err, "%s", stderr)
		return string(out)
	}
	t.Cleanup(func() {
		_, _, _ = run(t.Context(), "gpgconf", []string{"--kill", "gpg-agent"}, nil)
		_ = os.RemoveAll(home)
	})

	secret, err := os.Open(filepath.Join("testdata", "rsa3072.sec.asc"))
	assert.NilError(t, err)
	defer secret.Close()
	entities, err := v2.ReadArmoredKeyRing(secret)
	assert.NilError(t, err)
	if entities[0].PrivateKey.Encrypted {
		assert.NilError(t, entities[0].PrivateKey.Decrypt([]byte(passphrase)))
	}
	key, ok := entities[0].PrivateKey.PrivateKey.(*rsa.PrivateKey)
	assert.Assert(t, ok)
	write := func(name string, data []byte, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(home, name)
		assert.NilError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		assert.NilError(t, os.WriteFile(path, data, mode))
		return path
	}
	card := write("card", x509.MarshalPKCS1PrivateKey(key), 0o600)
	self, err := os.Executable()
	assert.NilError(t, err)
	reader := write("scdaemon", fmt.Appendf(nil, "#!/bin/sh\n%s='%s' exec '%s'\n", cardEnv, card, self), 0o700)
	write("gpg-agent.conf", []byte("scdaemon-program "+reader+"\n"), 0o600)

	known := public(t, "rsa3072")
	must("gpg", "--batch", "--quiet", "--no-tty", "--import", write("public", known.Binary(), 0o600))
	grip := regexp.MustCompile(`(?m)^grp:+([0-9A-F]{40}):`).FindStringSubmatch(must("gpg", "--batch", "--with-colons", "--with-keygrip", "--list-keys"))
	assert.Assert(t, grip != nil)
	serial, err := hex.DecodeString(cardSerial)
	assert.NilError(t, err)
	write("private-keys-v1.d/"+grip[1]+".key", sexp("shadowed-private-key", sexp("rsa",
		sexp("n", mpi(key.N)), sexp("e", mpi(big.NewInt(int64(key.E)))),
		sexp("shadowed", "t1-v1", sexp(string(serial), "OPENPGP.1")))), 0o600)
	assert.Assert(t, strings.Contains(must("gpg", "--batch", "--with-colons", "--list-secret-keys"), ":"+cardSerial+":"))

	at := func(args []string) []string {
		return append([]string{"--faked-system-time", now.Format("20060102T150405") + "!"}, args...)
	}
	s, err := FromGPG(t.Context(), "gpg:"+string(known.Fingerprint()), "gpg", func(ctx context.Context, path string, args []string, stdin []byte) ([]byte, []byte, error) {
		return run(ctx, path, at(args), stdin)
	}, clock(now))
	assert.NilError(t, err)
	v, err := Verify(ring(t, known), known.Fingerprint(), message, sign(t, s, message), VerifyOptions{Now: now})
	assert.NilError(t, err)
	assert.Equal(t, v.SigningKey, known.Fingerprint())

	// The card is pulled.
	assert.NilError(t, os.Remove(card))
	_, err = s.Sign(t.Context(), message)
	assert.ErrorContains(t, err, "gpg does not sign with "+string(known.Fingerprint()))
	assert.ErrorContains(t, err, "Card not present")
}
