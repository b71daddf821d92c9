package bench

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/timestamp"
)

// BenchmarkVerifyTimestamp compares verifying a real token of FreeTSA (RSA-4096,
// SHA-512, its signer expired since) in the process with forking openssl at the
// time that the token states, which is what a script has to do. Both read the
// same files in one run.
//
// It fails under three times openssl's speed.
func BenchmarkVerifyTimestamp(b *testing.B) {
	const floor = 3
	dir := filepath.Join("..", "pkg", "timestamp", "testdata", "freetsa")
	root, data, token := filepath.Join(dir, "root.pem"), filepath.Join(dir, "test-app.tar.gz"), filepath.Join(dir, "test-app.tar.gz.tsr")
	read := func(path string) []byte {
		content, err := os.ReadFile(path)
		assert.NilError(b, err)
		return content
	}
	verify := func() *timestamp.Verified {
		block, _ := pem.Decode(read(root))
		ca, err := x509.ParseCertificate(block.Bytes)
		assert.NilError(b, err)
		v, err := timestamp.Verify(read(token), bytes.NewReader(read(data)), timestamp.Options{Roots: []*x509.Certificate{ca}, Now: time.Now()})
		assert.NilError(b, err)
		return v
	}
	at := strconv.FormatInt(verify().Time.Unix(), 10)

	var ours, openssl times
	for b.Loop() {
		ours.add(func() { verify() })
		openssl.add(func() {
			out, err := exec.Command("openssl", "ts", "-verify", "-attime", at, "-data", data, "-in", token, "-CAfile", root).CombinedOutput()
			assert.NilError(b, err, "%s", out)
		})
	}
	reportAgainst(b, floor, ours, openssl)
}
