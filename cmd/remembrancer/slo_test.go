package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/slo"
	"github.com/vaultmesh/remembrancer/pkg/slo/slotest"
)

// prometheusOf is the key of a script's Prometheus.
type prometheusOf struct{}

const prometheusUsage = "prometheus serve SPEC WINDOW | is CASE | is well | asks NAME PASSWORD | ahead DURATION"

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
//	prometheus is CASE             from here on, this is wrong; see slotest.Cases and slotest.Pictures
//	prometheus is well             nothing is
//	prometheus asks NAME PASSWORD  from here on, it wants these
//	prometheus ahead DURATION      from here on, its clock is ahead, and windows end later
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
	case args[0] == "ahead":
		ahead, err := time.ParseDuration(args[1])
		ts.Check(err)
		s.Now = func() time.Time { return time.Now().Add(ahead) }
	case args[0] == "asks" && len(args) == 3:
		s.user, s.password = args[1], args[2]
	default:
		ts.Fatalf("usage: %s", prometheusUsage)
	}
}

var (
	guideTimes    = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ|\d{8}T\d{6}Z`)
	guideRevision = regexp.MustCompile(`\b[0-9a-f]{12}\b|-[0-9a-f]{8}\b`)
	guideCount    = regexp.MustCompile(`^✅ \d+ files`)
)

// measured is an output without what differs from run to run.
func measured(s string) string {
	s = guideTimes.ReplaceAllString(settled(s), "<time>")
	return guideCount.ReplaceAllString(guideRevision.ReplaceAllString(s, "<rev>"), "<n> files")
}

// TestEveryCommandOfTheSLOGuideDoesWhatItSays types the guide from its beginning to
// its end. Prometheus is elsewhere than it says: at a port that is free.
func TestEveryCommandOfTheSLOGuideDoesWhatItSays(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join(moduleRoot, "docs", "SLO_GUIDE.md"))
	assert.NilError(t, err)
	root, err := filepath.Abs(moduleRoot)
	assert.NilError(t, err)
	env := readmeWorld(t, root)
	dir := readmeProject(t, env)
	sh := func(command string) (stdout, stderr string, err error) {
		var out, errs strings.Builder
		cmd := exec.CommandContext(t.Context(), "bash", "-c", command)
		cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, env, &out, &errs
		err = cmd.Run()
		return out.String(), errs.String(), err
	}
	_, errs, err := sh("remembrancer init --yes --origin example.org/shop && cp " + root + "/examples/slo/aurora-akash-001.yaml slo.yaml && printf 'build/\n' > .gitignore && git add -A && git commit -qm covenant && git push -q")
	assert.NilError(t, err, errs)
	text, err := os.ReadFile(filepath.Join(dir, "slo.yaml"))
	assert.NilError(t, err)
	spec, err := slo.ParseSpec("slo.yaml", text)
	assert.NilError(t, err)
	server := &prometheusServer{Server: slotest.Server{Spec: spec, Window: spec.Window(), Now: time.Now}}
	served := httptest.NewServer(server)
	t.Cleanup(served.Close)
	commands := consoleCommands(string(doc))
	assert.Assert(t, len(commands) >= 13, "found %d commands", len(commands))
	for _, c := range commands {
		head, errs, err := sh("git rev-parse HEAD")
		assert.NilError(t, err, errs)
		server.Revision = strings.TrimSpace(head)
		out, errs, err := sh(strings.ReplaceAll(c.command, "http://127.0.0.1:9090", served.URL))
		assert.NilError(t, err, "SLO_GUIDE.md:%d: %s\n%s%s", c.line, c.command, out, errs)
		assert.Equal(t, measured(out), measured(c.output), "SLO_GUIDE.md:%d: %s", c.line, c.command)
	}
}
