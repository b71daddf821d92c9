// Command tsa serves throw-away time-stamping authorities over http on loopback,
// for workflows that stamp while they are tried out. It writes trust in each into
// FOLDER/NAME, prints "ready", and serves until its standard input ends.
//
//	tsa FOLDER NAME...
//
// Each is the openssl program under a root of its own, marked as one for
// development: its clock is this machine's, and proves nothing to anybody.
package main

import (
	"fmt"
	"io"
	"os"

	"github.com/vaultmesh/remembrancer/pkg/tsa/tsatest"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintf(os.Stderr, "tsa: want FOLDER NAME..., found %d arguments\n", len(os.Args)-1)
		os.Exit(2)
	}
	e := &ending{}
	for _, name := range os.Args[2:] {
		tsatest.New(e).Pin(os.Args[1], name)
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
	e.end()
}

// ending is what tsatest asks of a test, for a program.
type ending struct{ cleanups []func() }

func (*ending) Helper() {}

func (e *ending) Cleanup(f func()) { e.cleanups = append(e.cleanups, f) }

func (e *ending) Fatalf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "tsa: "+format+"\n", args...)
	e.end()
	os.Exit(1)
}

func (e *ending) TempDir() string {
	dir, err := os.MkdirTemp("", "tsa")
	if err != nil {
		e.Fatalf("%v", err)
	}
	e.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (e *ending) end() {
	for i := len(e.cleanups) - 1; i >= 0; i-- {
		e.cleanups[i]()
	}
}
