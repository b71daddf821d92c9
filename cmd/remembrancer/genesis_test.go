package main

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/vaultmesh/remembrancer/pkg/tsa/tsatest"
)

// authoritiesOf is the key of a script's time-stamping authorities by name.
type authoritiesOf struct{}

// cmdAuthority serves time-stamping authorities and makes them fail:
//
//	authority serve NAME...   serve them, and pin them in ops/certs/tsa of this directory
//	authority pin NAME AS     pin one by another name
//	authority refuses NAME N  answer the next N requests with a page
func cmdAuthority(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 2, "authority serve NAME... | pin NAME AS | refuses NAME N")
	all := ts.Value(authoritiesOf{}).(map[string]*tsatest.TSA)
	folder := ts.MkAbs(filepath.Join("ops", "certs", "tsa"))
	switch {
	case args[0] == "serve":
		for _, name := range args[1:] {
			all[name] = tsatest.New(scriptT{ts})
			all[name].Pin(folder, name)
		}
	case all[args[1]] == nil:
		ts.Fatalf("no authority is called %s", args[1])
	case args[0] == "pin" && len(args) == 3:
		all[args[1]].Pin(folder, args[2])
	case args[0] == "refuses" && len(args) == 3:
		n, err := strconv.Atoi(args[2])
		ts.Check(err)
		all[args[1]].Next(slices.Repeat([]http.HandlerFunc{http.NotFound}, n)...)
	default:
		ts.Fatalf("authority %s: no such command", args[0])
	}
}

// scriptT is a script as a test.
type scriptT struct{ ts *testscript.TestScript }

func (s scriptT) Helper() {}

func (s scriptT) Fatalf(format string, args ...any) { s.ts.Fatalf(format, args...) }

func (s scriptT) Cleanup(f func()) { s.ts.Defer(f) }

func (s scriptT) TempDir() string {
	dir, err := os.MkdirTemp("", "tsa")
	s.ts.Check(err)
	s.ts.Defer(func() { _ = os.RemoveAll(dir) })
	return dir
}
