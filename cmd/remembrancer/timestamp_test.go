package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/timestamp"
	"github.com/vaultmesh/remembrancer/pkg/tsa/tsatest"
)

// tsas is the key of a script's time-stamping authorities by name.
type tsas struct{}

// scriptTSA is what an authority needs of a script.
type scriptTSA struct{ *testscript.TestScript }

func (s scriptTSA) Helper()           {}
func (s scriptTSA) Cleanup(fn func()) { s.Defer(fn) }

func (s scriptTSA) TempDir() string {
	dir, err := os.MkdirTemp("", "tsa")
	s.Check(err)
	s.Defer(func() { _ = os.RemoveAll(dir) })
	return dir
}

const tsaUsage = `tsa serve NAME | under NAME OLD | pin NAME DIR [AS] | next NAME STATUS TEXT [TIMES] | rotate NAME | hide-root NAME |
	root NAME FILE | token NAME DATA FILE | asked NAME N`

// cmdTSA runs time-stamping authorities beside the script.
//
//	tsa serve NAME                  $NAME_URL is its address, $NAME_ROOT the SHA-256 of its root's key, $NAME_CERT that of the certificate
//	tsa under NAME OLD              another one under the root of OLD
//	tsa pin NAME DIR [AS]           pin it in a folder such as ops/certs/tsa
//	tsa next NAME STATUS TEXT [N]   answer the next N requests with this
//	tsa rotate NAME                 sign with a new key
//	tsa hide-root NAME              carry no root along
//	tsa root NAME FILE              write its root as PEM
//	tsa token NAME DATA FILE        stamp DATA, without a nonce
//	tsa asked NAME N                demand the number of requests so far
func cmdTSA(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 2, tsaUsage)
	all := ts.Value(tsas{}).(map[string]*tsatest.TSA)
	known := func(name string) *tsatest.TSA {
		s := all[name]
		if s == nil {
			ts.Fatalf("no authority %s is served", name)
		}
		return s
	}
	number := func(s string) int {
		n, err := strconv.Atoi(s)
		ts.Check(err)
		return n
	}
	name, rest := args[1], args[2:]
	if need := map[string]int{"under": 1, "pin": 1, "next": 2, "root": 1, "token": 2, "asked": 1}[args[0]]; len(rest) < need {
		ts.Fatalf("usage: %s", tsaUsage)
	}
	serve := func(s *tsatest.TSA) {
		all[name] = s
		spki, sum := timestamp.SPKI(s.Root), sha256.Sum256(s.Root.Raw)
		ts.Setenv(name+"_URL", s.URL)
		ts.Setenv(name+"_ROOT", hex.EncodeToString(spki[:]))
		ts.Setenv(name+"_CERT", hex.EncodeToString(sum[:]))
	}
	switch args[0] {
	case "serve":
		serve(tsatest.New(scriptTSA{ts}))
	case "under":
		serve(known(rest[0]).Under())
	case "pin":
		known(name).Pin(ts.MkAbs(rest[0]), append(rest, name)[min(1, len(rest)):][0])
	case "next":
		code, text, times := number(rest[0]), rest[1], 1
		if len(rest) > 2 {
			times = number(rest[2])
		}
		for range times {
			known(name).Next(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "text/html")
				w.WriteHeader(code)
				_, _ = w.Write([]byte(text))
			})
		}
	case "rotate":
		known(name).Rotate()
	case "hide-root":
		known(name).HideRoot()
	case "root":
		ts.Check(os.WriteFile(ts.MkAbs(rest[0]), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: known(name).Root.Raw}), 0o600))
	case "token":
		ts.Check(os.WriteFile(ts.MkAbs(rest[1]), known(name).Token([]byte(ts.ReadFile(rest[0]))), 0o600))
	case "asked":
		if got, want := known(name).Asked(), number(rest[0]); got != want {
			ts.Fatalf("%s was asked %d times, want %d", name, got, want)
		}
	default:
		ts.Fatalf("usage: %s", tsaUsage)
	}
}

func TestNumbersOfOptionsAreReadStrictly(t *testing.T) {
	for _, good := range []string{"0", "ff", "FF", "00ff", strings.Repeat("f", 128)} {
		_, err := parseNonce(good)
		assert.NilError(t, err)
	}
	for _, bad := range []string{"-1", "+1", "0x1", "g", "1_0", " 1", strings.Repeat("f", 129)} {
		_, err := parseNonce(bad)
		assert.ErrorContains(t, err, "wanted hex digits")
	}
	for _, good := range []string{"1.2", "1.2.3.4.1", "2.16.840.1.101"} {
		id, err := parseOID(good)
		assert.NilError(t, err)
		assert.Equal(t, id.String(), good)
	}
	for _, bad := range []string{"", "1", "1.", ".1", "1.02", "1.-2", "1.a", "1..2", "1.99999999999"} {
		_, err := parseOID(bad)
		assert.ErrorContains(t, err, "wanted an object identifier")
	}
}
