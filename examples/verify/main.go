// Verify checks, offline, that a receipt was admitted to a log:
//
//	go run ./examples/verify receipt.tlog-proof policy
//
// The policy names the log's key. It must be yours, from a place you trust: one
// that comes with the bundle proves nothing. Exit status: 0 pass, 1 fail, 2 bad
// arguments, 3 could not judge.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/proof"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	if len(args) != 2 {
		fmt.Fprintln(stderr, "usage: verify BUNDLE POLICY")
		return 2
	}
	bundle, err1 := os.ReadFile(args[0])
	policy, err2 := os.ReadFile(args[1])
	if err := errors.Join(err1, err2); err != nil {
		fmt.Fprintln(stderr, err)
		return 3
	}
	verdict, err := proof.Verify(bundle, policy, proof.Options{Now: time.Now()})
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 3
	}
	for _, f := range verdict.Findings {
		fmt.Fprintf(stdout, "%-5t %s: %s\n", f.OK, f.Name, f.Detail)
	}
	if !verdict.Pass() {
		return 1
	}
	fmt.Fprintf(stdout, "%s\n", verdict.Receipt.Bytes())
	return 0
}
