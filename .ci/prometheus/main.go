// Command prometheus is a Prometheus on loopback that has the answers to one spec
// about a service that keeps every promise, for trying out what asks it. It prints
// its address, and serves until its standard input ends.
//
//	prometheus SPEC WINDOW REVISION
//
// Nothing was measured: what is made of its answers proves nothing to anybody.
package main

import (
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/slo"
	"github.com/vaultmesh/remembrancer/pkg/slo/slotest"
)

func main() {
	if err := serve(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "prometheus:", err)
		os.Exit(2)
	}
}

func serve(args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("want SPEC WINDOW REVISION, found %d arguments", len(args))
	}
	data, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	s := &slotest.Server{Revision: args[2], Now: time.Now}
	if s.Spec, err = slo.ParseSpec(filepath.Base(args[0]), data); err != nil {
		return err
	}
	if s.Window, err = slo.ParseDuration(args[1]); err != nil {
		return err
	}
	server := httptest.NewServer(s)
	defer server.Close()
	fmt.Println(server.URL)
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}
