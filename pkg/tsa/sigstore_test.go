package tsa_test

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/release"
	"github.com/vaultmesh/remembrancer/pkg/timestamp"
	"github.com/vaultmesh/remembrancer/pkg/tsa"
	"github.com/vaultmesh/remembrancer/pkg/tsa/tsatest"
)

// sigstore builds and runs Sigstore's own authority, and returns its address. It
// is a program beside this one, since its modules are several hundred.
func sigstore(t *testing.T) string {
	t.Helper()
	bin := t.TempDir()
	install := exec.CommandContext(t.Context(), "go", "install", "github.com/sigstore/timestamp-authority/v2/cmd/timestamp-server@v2.1.3")
	install.Dir = bin // in no module
	install.Env = append(os.Environ(), "GOBIN="+bin, "GOFLAGS=-mod=mod")
	out, err := install.CombinedOutput()
	assert.NilError(t, err, "%s", out)

	l, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	address := l.Addr().String()
	assert.NilError(t, l.Close())
	_, port, err := net.SplitHostPort(address)
	assert.NilError(t, err)
	var log bytes.Buffer
	serve := exec.Command(filepath.Join(bin, "timestamp-server"), "serve", "--host", "127.0.0.1", "--port", port,
		"--timestamp-signer", "memory", "--disable-ntp-monitoring")
	serve.Stdout, serve.Stderr, serve.Dir = &log, &log, bin
	assert.NilError(t, serve.Start())
	t.Cleanup(func() {
		assert.NilError(t, serve.Process.Kill())
		_ = serve.Wait()
		if t.Failed() {
			t.Logf("timestamp-server:\n%s", log.String())
		}
	})
	for range 100 {
		resp, err := http.Get("http://" + address + "/ping")
		if err == nil {
			assert.NilError(t, resp.Body.Close())
			return "http://" + address + "/api/v1/timestamp"
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal("timestamp-server does not answer")
	return ""
}

// Its building takes minutes, so this is among the long tests.
func TestTwoAuthoritiesOfTwoMakersAreTwo(t *testing.T) {
	if os.Getenv("REMEMBRANCER_LONG") == "" {
		return
	}
	url := sigstore(t)
	opts, _ := patience()
	ca, err := tsa.FetchCertificates(t.Context(), url+"/certchain", opts)
	assert.NilError(t, err)
	p, err := tsa.Propose(t.Context(), "sigstore", url, ca, opts)
	assert.NilError(t, err)
	t.Logf("\n%s", p.Text())
	spki := timestamp.SPKI(p.Root)
	assert.NilError(t, p.Confirm(fmt.Sprintf("%x", spki[:])))
	_, err = tsa.Propose(t.Context(), "sigstore", url, nil, opts)
	assert.ErrorContains(t, err, "found no root among 1 certificates", "its tokens carry the signer's alone")

	authorities := []release.Authority{p.Authority, tsatest.New(t).Authority("openssl")}
	tokens, err := tsa.Stamp(t.Context(), bytes.NewReader(data), authorities, quorum(t, "2"), nil, opts)
	assert.NilError(t, err)
	assert.Assert(t, timestamp.Independent(2, tokens[0].Verified, tokens[1].Verified))
	dir := t.TempDir()
	write := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		assert.NilError(t, os.WriteFile(path, content, 0o600))
		return path
	}
	file := write("data", data)
	for _, token := range tokens {
		_, err := token.Authority.Verify(token.Response, bytes.NewReader(data), time.Now())
		assert.NilError(t, err)
		_, err = token.Authority.Verify(token.Response, strings.NewReader("other"), time.Now())
		assert.ErrorContains(t, err, "it is of other data")
		files := token.Authority.Files()
		args := []string{"ts", "-verify", "-data", file, "-in", write("tsr", token.Response), "-CAfile", write("ca.pem", files[release.RootsFile])}
		if between := files[release.UntrustedFile]; between != nil {
			args = append(args, "-untrusted", write("untrusted.pem", between))
		}
		out, err := exec.CommandContext(t.Context(), "openssl", args...).CombinedOutput()
		assert.NilError(t, err, "%s", out)
	}
}
