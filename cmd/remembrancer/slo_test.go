package main

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/vaultmesh/remembrancer/pkg/slo"
	"github.com/vaultmesh/remembrancer/pkg/slo/slotest"
)

// prometheusOf is the key of a script's Prometheus.
type prometheusOf struct{}

const prometheusUsage = "prometheus serve SPEC WINDOW | is CASE | is well | asks NAME PASSWORD"

// prometheusServer can ask for credentials.
type prometheusServer struct {
	slotest.Server
	user, password string
}

func (s *prometheusServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if user, password, _ := r.BasicAuth(); user != s.user || password != s.password {
		http.Error(w, "who are you", http.StatusUnauthorized)
		return
	}
	s.Server.ServeHTTP(w, r)
}

// cmdPrometheus runs a Prometheus beside the script that has the answers to one
// spec, about a service of the revision that HEAD is now.
//
//	prometheus serve SPEC WINDOW   serve it at $PROMETHEUS
//	prometheus is CASE             from here on, this is wrong; see slotest.Cases
//	prometheus is well             nothing is
//	prometheus asks NAME PASSWORD  from here on, it wants these
func cmdPrometheus(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 2, prometheusUsage)
	s := ts.Value(prometheusOf{}).(*prometheusServer)
	switch {
	case args[0] == "serve" && len(args) == 3:
		spec, err := slo.ParseSpec(filepath.Base(args[1]), []byte(ts.ReadFile(args[1])))
		ts.Check(err)
		window, err := slo.ParseDuration(args[2])
		ts.Check(err)
		ts.Check(ts.Exec("git", "rev-parse", "HEAD"))
		s.Spec, s.Window, s.Revision, s.Now = spec, window, strings.TrimSpace(ts.ReadFile("stdout")), time.Now
		server := httptest.NewServer(s)
		ts.Defer(server.Close)
		ts.Setenv("PROMETHEUS", server.URL)
	case args[0] == "is":
		if !s.Set(strings.TrimPrefix(args[1], "well")) {
			ts.Fatalf("there is no case %s", args[1])
		}
	case args[0] == "asks" && len(args) == 3:
		s.user, s.password = args[1], args[2]
	default:
		ts.Fatalf("usage: %s", prometheusUsage)
	}
}
