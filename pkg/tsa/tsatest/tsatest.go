// Package tsatest is a time-stamping authority for tests: the openssl program
// behind an HTTP server.
//
//	one, two := tsatest.New(t), tsatest.New(t)
//	a := one.Authority("one")       // trust in it, with its URL
//	response := one.Token(data)     // a response for data, without the network
//
// Each has a root of its own, which its answers carry along unless [TSA.HideRoot]
// was called; [TSA.Under] makes another one under the same root,
// and [TSA.Rotate] gives it a new signing key. [TSA.Next] puts a fault before the
// next answers. What it answers bears the time of the machine's clock.
package tsatest

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/vaultmesh/remembrancer/pkg/release"
)

// T is what an authority needs of a test.
type T interface {
	Helper()
	Fatalf(format string, args ...any)
	Cleanup(func())
	TempDir() string
}

// TSA is the authority.
type TSA struct {
	URL  string
	Root *x509.Certificate

	t   T
	dir string // files of the openssl program

	mu    sync.Mutex
	next  []http.HandlerFunc
	asked int
}

const configuration = `
[tsa]
default_tsa = one
[one]
serial = serial
crypto_device = builtin
signer_digest = sha256
default_policy = 1.2.3.4
digests = sha256, sha384, sha512
accuracy = secs:1
tsa_name = yes
certs = ca.pem
ess_cert_id_chain = no
ess_cert_id_alg = sha256
[req]
distinguished_name = name
[name]
[root]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[signer]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = critical,timeStamping
`

// New makes an authority with a root of its own, and serves it until the test
// ends.
func New(t T) *TSA {
	t.Helper()
	s := &TSA{t: t, dir: t.TempDir()}
	s.write("tsa.cnf", configuration)
	s.write("serial", "01\n")
	s.openssl("req", "-x509", "-config", "tsa.cnf", "-extensions", "root", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
		"-keyout", "ca.key", "-out", "ca.pem", "-subj", "/O=tsatest/CN=root", "-days", "3650")
	s.start()
	return s
}

// Under makes another authority, with a signing key of its own, under the same
// root.
func (s *TSA) Under() *TSA {
	s.t.Helper()
	other := &TSA{t: s.t, dir: s.t.TempDir()}
	for _, name := range []string{"tsa.cnf", "ca.key", "ca.pem"} {
		other.write(name, string(s.read(name)))
	}
	other.write("serial", "1000\n")
	other.start()
	return other
}

func (s *TSA) start() {
	s.t.Helper()
	s.Root = s.certificate("ca.pem")
	s.Rotate()
	server := httptest.NewServer(s)
	s.t.Cleanup(server.Close)
	s.URL = server.URL + "/tsr"
}

// Rotate gives the authority a new signing key.
func (s *TSA) Rotate() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.openssl("req", "-new", "-config", "tsa.cnf", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
		"-keyout", "tsa.key", "-out", "tsa.csr", "-subj", "/O=tsatest/CN=signer")
	s.openssl("x509", "-req", "-in", "tsa.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", "tsa.pem",
		"-extfile", "tsa.cnf", "-extensions", "signer", "-days", "365")
}

// HideRoot leaves the root out of what is answered from now on.
func (s *TSA) HideRoot() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.write("tsa.cnf", strings.Replace(configuration, "certs = ca.pem\n", "", 1))
}

// Signer returns the certificate of the current signing key.
func (s *TSA) Signer() *x509.Certificate {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.certificate("tsa.pem")
}

// Authority is trust in this authority, marked as one for development.
func (s *TSA) Authority(name string) release.Authority {
	s.t.Helper()
	a, err := release.NewAuthority(name, s.URL, []*x509.Certificate{s.Root}, nil)
	if err != nil {
		s.t.Fatalf("%v", err)
	}
	a.Development = true
	return a
}

// Pin writes trust in this authority into a folder such as ops/certs/tsa.
func (s *TSA) Pin(folder, name string) {
	s.t.Helper()
	dir := filepath.Join(folder, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		s.t.Fatalf("%v", err)
	}
	files := s.Authority(name).Files()
	for _, f := range slices.Sorted(maps.Keys(files)) {
		if err := os.WriteFile(filepath.Join(dir, f), files[f], 0o644); err != nil {
			s.t.Fatalf("%v", err)
		}
	}
}

// Token returns a response for data, without a nonce.
func (s *TSA) Token(data []byte) []byte {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.write("data", string(data))
	s.openssl("ts", "-query", "-data", "data", "-sha256", "-no_nonce", "-cert", "-out", "q.tsq")
	response, err := s.reply()
	if err != nil {
		s.t.Fatalf("%v", err)
	}
	return response
}

// Answer returns the response to a request, whatever [TSA.Next] says.
func (s *TSA) Answer(request []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := os.WriteFile(filepath.Join(s.dir, "q.tsq"), request, 0o600); err != nil {
		return nil, err
	}
	return s.reply()
}

func (s *TSA) reply() ([]byte, error) {
	// Of what it cannot grant it says so, in a response of its own.
	if _, err := s.run("ts", "-reply", "-config", "tsa.cnf", "-section", "one", "-queryfile", "q.tsq", "-inkey", "tsa.key", "-signer", "tsa.pem", "-out", "q.tsr"); err != nil {
		return nil, err
	}
	return os.ReadFile(filepath.Join(s.dir, "q.tsr"))
}

// Next lets these handlers answer the next requests, one each, before the
// authority itself answers again.
func (s *TSA) Next(handlers ...http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = append(s.next, handlers...)
}

// Asked returns how many requests came.
func (s *TSA) Asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// ServeHTTP answers a request.
func (s *TSA) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	var instead http.HandlerFunc
	s.asked++
	if len(s.next) > 0 {
		instead, s.next = s.next[0], s.next[1:]
	}
	s.mu.Unlock()
	if instead != nil {
		instead(w, r)
		return
	}
	request, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/timestamp-query" {
		http.Error(w, "want a time-stamp request", http.StatusBadRequest)
		return
	}
	response, err := s.Answer(request)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/timestamp-reply")
	_, _ = w.Write(response)
}

func (s *TSA) run(args ...string) (string, error) {
	cmd := exec.Command("openssl", args...)
	cmd.Dir = s.dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("openssl %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

func (s *TSA) openssl(args ...string) {
	s.t.Helper()
	if _, err := s.run(args...); err != nil {
		s.t.Fatalf("%v", err)
	}
}

func (s *TSA) write(name, content string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(content), 0o600); err != nil {
		s.t.Fatalf("%v", err)
	}
}

func (s *TSA) read(name string) []byte {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		s.t.Fatalf("%v", err)
	}
	return b
}

func (s *TSA) certificate(name string) *x509.Certificate {
	s.t.Helper()
	block, _ := pem.Decode(s.read(name))
	if block == nil {
		s.t.Fatalf("%s is no PEM", name)
		return nil
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		s.t.Fatalf("%s: %v", name, err)
	}
	return c
}
