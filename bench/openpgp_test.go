package bench

import (
	"context"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/openpgp"
)

// BenchmarkVerifySignature compares verifying a detached signature in the
// process, its key parsed once as an audit does it, with what a script does:
// forking gpg. Both judge the same bytes in one run. ratio-gpgv is the same
// against gpgv, ratio-parsed with the key parsed anew each time.
//
// It fails under ten times gpg's speed for the keys that we make. Of an rsa4096
// verification the arithmetic is the larger part, and gpg's is the faster one:
// there it fails under five.
func BenchmarkVerifySignature(b *testing.B) {
	now := time.Now().Add(-time.Minute)
	clock := func() time.Time { return now }
	message := []byte("a message to be signed\n")
	split, err := openpgp.GenerateSplit("Bench", "", 365*24*time.Hour, nil, now, rand.Reader)
	assert.NilError(b, err)
	rsa, err := os.ReadFile(filepath.Join("..", "pkg", "openpgp", "testdata", "rsa4096.sec.asc"))
	assert.NilError(b, err)
	for _, c := range []struct {
		name   string
		secret []byte
		floor  float64
	}{{"ed25519", split.Signing, 10}, {"rsa4096", rsa, 5}} {
		s, err := openpgp.FromArmored(c.secret, []byte("correct horse"), clock)
		assert.NilError(b, err)
		sig, err := s.Sign(context.Background(), message)
		assert.NilError(b, err)
		b.Run(c.name, func(b *testing.B) {
			dir, err := os.MkdirTemp("", "g") // a short path: an agent's socket may lie below it
			assert.NilError(b, err)
			defer os.RemoveAll(dir)
			file := func(name string, data []byte) string {
				path := filepath.Join(dir, name)
				assert.NilError(b, os.WriteFile(path, data, 0o600))
				return path
			}
			armored, public := openpgp.Armor(sig), s.Public().Armored()
			keyFile, sigFile, messageFile := file("k.gpg", s.Public().Binary()), file("m.asc", armored), file("m", message)
			run := func(program string, args ...string) {
				cmd := exec.Command(program, args...)
				cmd.Env = append(os.Environ(), "GNUPGHOME="+dir)
				out, err := cmd.CombinedOutput()
				assert.NilError(b, err, "%s", out)
			}
			parse := func() *openpgp.Keyring {
				key, err := openpgp.ParsePublic(public)
				assert.NilError(b, err)
				ring, err := openpgp.NewKeyring(key)
				assert.NilError(b, err)
				return ring
			}
			verify := func(ring *openpgp.Keyring) {
				packet, err := openpgp.Dearmor(armored)
				assert.NilError(b, err)
				_, err = openpgp.Verify(ring, s.Fingerprint(), message, packet, openpgp.VerifyOptions{Now: now})
				assert.NilError(b, err)
			}

			ring := parse()
			var ours, parsed, gpg, gpgv times
			for b.Loop() {
				ours.add(func() { verify(ring) })
				parsed.add(func() { verify(parse()) })
				gpg.add(func() {
					run("gpg", "--batch", "--no-default-keyring", "--keyring", keyFile, "--trust-model", "always", "--verify", sigFile, messageFile)
				})
				gpgv.add(func() { run("gpgv", "--keyring", keyFile, sigFile, messageFile) })
			}
			reportAgainst(b, c.floor, ours, gpg)
			b.ReportMetric(gpgv.median()/ours.median(), "ratio-gpgv")
			b.ReportMetric(gpg.median()/parsed.median(), "ratio-parsed")
		})
	}
}

// reportAgainst reports how many times longer theirs took than ours, and fails
// below the floor.
func reportAgainst(b *testing.B, floor float64, ours, theirs times) {
	b.Helper()
	ratio := theirs.median() / ours.median()
	b.ReportMetric(1e6*ours.median(), "µs-ours")
	b.ReportMetric(1e6*theirs.median(), "µs-theirs")
	b.ReportMetric(ratio, "ratio")
	if len(ours) >= 10 && ratio < floor {
		b.Errorf("%.1f times as fast, want at least %.0f", ratio, floor)
	}
}
