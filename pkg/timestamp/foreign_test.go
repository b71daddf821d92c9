package timestamp

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

func pemCert(t testing.TB, path string) *x509.Certificate {
	t.Helper()
	b, err := os.ReadFile(path)
	assert.NilError(t, err)
	block, _ := pem.Decode(b)
	assert.Assert(t, block != nil)
	c, err := x509.ParseCertificate(block.Bytes)
	assert.NilError(t, err)
	return c
}

func TestARealTokenIsGoodAfterItsSignerExpired(t *testing.T) {
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join("testdata", "freetsa", name))
		assert.NilError(t, err)
		return b
	}
	request, err := ParseRequest(read("test-app.tar.gz.tsq"))
	assert.NilError(t, err)
	again, err := request.Marshal()
	assert.NilError(t, err)
	assert.DeepEqual(t, again, read("test-app.tar.gz.tsq"))

	opts := Options{
		Roots: []*x509.Certificate{pemCert(t, "testdata/freetsa/root.pem")}, Nonce: request.Nonce,
		Now: time.Date(2040, 1, 1, 0, 0, 0, 0, time.UTC), Policy: asn1.ObjectIdentifier{1, 2, 3, 4, 1},
	}
	v, err := Verify(read("test-app.tar.gz.tsr"), bytes.NewReader(read("test-app.tar.gz")), opts)
	assert.NilError(t, err)
	assert.Equal(t, v.Time, time.Date(2025, 10, 19, 20, 16, 18, 0, time.UTC))
	assert.Equal(t, v.Signer.NotAfter, time.Date(2026, 3, 11, 1, 57, 39, 0, time.UTC))

	_, err = Verify(read("test-app.tar.gz.tsr"), strings.NewReader("tampered"), opts)
	assert.ErrorContains(t, err, "it is of other data")
}

// openssl is run in a folder of its own with the files of a TSA.
type openssl struct {
	t   testing.TB
	dir string
}

func (o openssl) run(args ...string) (string, error) {
	cmd := exec.Command("openssl", args...)
	cmd.Dir = o.dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (o openssl) must(args ...string) {
	o.t.Helper()
	out, err := o.run(args...)
	assert.NilError(o.t, err, "openssl %s\n%s", strings.Join(args, " "), out)
}

func (o openssl) write(name, content string) {
	o.t.Helper()
	assert.NilError(o.t, os.WriteFile(filepath.Join(o.dir, name), []byte(content), 0o600))
}

func (o openssl) read(name string) []byte {
	o.t.Helper()
	b, err := os.ReadFile(filepath.Join(o.dir, name))
	assert.NilError(o.t, err)
	return b
}

func TestTokensOfOpensslVerify(t *testing.T) {
	o := openssl{t, t.TempDir()}
	o.write("tsa.cnf", `
[tsa]
default_tsa = one
[one]
serial = serial
crypto_device = builtin
signer_digest = sha256
default_policy = 1.2.3.4
digests = sha256, sha384, sha512
accuracy = secs:1, millisecs:500
ordering = yes
tsa_name = yes
ess_cert_id_chain = no
ess_cert_id_alg = sha256
[ext]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = critical,timeStamping
`)
	o.write("serial", "01\n")
	o.write("data", string(data))
	o.must("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=root", "-days", "30")
	for _, kind := range [][]string{{"rsa:2048"}, {"ec", "-pkeyopt", "ec_paramgen_curve:P-256"}} {
		t.Run(kind[0], func(t *testing.T) {
			o.must(append([]string{"req", "-newkey", kind[0], "-nodes", "-keyout", "tsa.key", "-out", "tsa.csr", "-subj", "/CN=tsa"}, kind[1:]...)...)
			o.must("x509", "-req", "-in", "tsa.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", "tsa.pem", "-extfile", "tsa.cnf", "-extensions", "ext", "-days", "7")
			r, err := NewRequest(bytes.NewReader(data), strings.NewReader("8 bytes!"))
			assert.NilError(t, err)
			b, err := r.Marshal()
			assert.NilError(t, err)
			o.write("q.tsq", string(b))
			o.must("ts", "-reply", "-config", "tsa.cnf", "-section", "one", "-queryfile", "q.tsq", "-inkey", "tsa.key", "-signer", "tsa.pem", "-out", "q.tsr")
			opts := Options{Roots: []*x509.Certificate{pemCert(t, filepath.Join(o.dir, "ca.pem"))}, Nonce: r.Nonce, Now: time.Now()}
			v, err := verifyWith(o.read("q.tsr"), opts)
			assert.NilError(t, err)
			assert.Equal(t, v.Accuracy, 1500*time.Millisecond)
			o.must("ts", "-verify", "-queryfile", "q.tsq", "-in", "q.tsr", "-CAfile", "ca.pem")
		})
	}
}

// Where openssl, told to look at the token's own time, believes what is refused
// here. The table is the reason for not leaving the verdict to it.
func TestOpensslBelievesWhatIsRefusedHere(t *testing.T) {
	a := newAuthority(t, "p256", nil)
	o := openssl{t, t.TempDir()}
	o.write("root.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.root.Raw})))
	o.write("data", string(data))
	believes := func(response []byte, at time.Time) bool {
		o.write("r.tsr", string(response))
		_, err := o.run("ts", "-verify", "-data", "data", "-in", "r.tsr", "-CAfile", "root.pem", "-attime", fmt.Sprint(at.Unix()))
		return err == nil
	}
	assert.Assert(t, believes(a.recipe(data).response(t), minted), "openssl does not verify a good token")
	var table strings.Builder
	for _, tc := range []struct {
		name    string
		edit    func(*recipe)
		at      time.Time
		openssl bool
	}{
		{"bytes after the response", func(r *recipe) { r.afterResponse = []byte{0} }, minted, true},
		{"bytes after TSTInfo", func(r *recipe) { r.afterInfo = []byte{5, 0} }, minted, true},
		{"signed content type is data", func(r *recipe) { r.attrContentType = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1} }, minted, true},
		{"critical extension", func(r *recipe) {
			r.ex = tlv(tagContext1, tlv(tagSequence, oid(asn1.ObjectIdentifier{1, 2, 3}), tlv(tagBoolean, []byte{0xff}), tlv(tagOctets, nil)))
		}, minted, true},
		{"signed data version", func(r *recipe) { r.signedVersion = 1 }, minted, true},
		{"eleven months in the future", func(r *recipe) { r.time = tlv(tagTime, []byte("20270201120000Z")) }, minted.AddDate(0, 11, 0), true},
		{"another signed digest", func(r *recipe) { r.wrongDigest = true }, minted, false},
		{"two signers", func(r *recipe) { r.signers = 2 }, minted, false},
		{"signature", func(r *recipe) { r.spoilSignature = true }, minted, false},
	} {
		r := a.recipe(data)
		tc.edit(r)
		response := r.response(t)
		_, err := verifyWith(response, a.options())
		assert.Check(t, err != nil, tc.name)
		found := believes(response, tc.at)
		fmt.Fprintf(&table, "%-30s openssl %-8v here refused\n", tc.name, map[bool]string{true: "believes", false: "refuses"}[found])
		assert.Check(t, found == tc.openssl, "%s: openssl believes: %v", tc.name, found)
	}
	t.Logf("\n%s", table.String())
}
