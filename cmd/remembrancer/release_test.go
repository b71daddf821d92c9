package main

import (
	"bytes"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/config"
	"github.com/vaultmesh/remembrancer/pkg/forge/forgetest"
	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
	"github.com/vaultmesh/remembrancer/pkg/smoke"
)

// smokeReport is a report of three tests about a commit.
func smokeReport(t *testing.T, commit gitrepo.Hash, passed int64) map[string]any {
	t.Helper()
	zero, at := 0, time.Unix(1e9, 0).UTC()
	r := smoke.Judge(smoke.Execution{Command: "true", ExitCode: &zero, OutputSHA256: digest(nil), Started: at, Finished: at},
		smoke.Counts{Passed: passed, Failed: 3 - passed, Total: 3, Format: "tap"}, smoke.Expect{})
	r.Commit = commit.String()
	text, err := smoke.EncodeReport(r)
	assert.NilError(t, err)
	return map[string]any{"sha256": digest(text), "text": string(text), "type": "smoke"}
}

func TestTheLastEvidenceOfACommitCounts(t *testing.T) {
	commit, other := gitrepo.Hash{1}, gitrepo.Hash{2}
	n := 0
	about := func(kind receipt.Kind, commit gitrepo.Hash, predicate map[string]any) receipt.Entry {
		n++
		r, err := receipt.New(receipt.Statement{
			Kind: kind, Issuer: openpgp.Fingerprint(strings.Repeat("A", 40)), Issued: time.Unix(int64(1e9+n), 0),
			Subjects: []receipt.Subject{{Name: "commit", Commit: commit.String()}}, Predicate: predicate,
		})
		assert.NilError(t, err)
		e, err := receipt.NewEntry(r, receipt.Signature{Fingerprint: r.Issuer(), Packet: []byte{1}})
		assert.NilError(t, err)
		return e
	}
	observed := func(of gitrepo.Hash, conclusion string, report map[string]any) receipt.Entry {
		p := map[string]any{"vaultmesh_observed": map[string]any{"commit": of.String()}}
		if conclusion != "" {
			p["vaultmesh_observed"] = map[string]any{"commit": of.String(), "run_id": 7, "run_attempt": 1, "conclusion": conclusion}
		}
		if report != nil {
			p["vaultmesh_reported"] = report
		}
		return about(receipt.Observed, of, p)
	}
	green, red := smokeReport(t, commit, 3), smokeReport(t, commit, 2)
	passed := observed(commit, "success", green)
	for _, tc := range []struct {
		name    string
		entries []receipt.Entry
		says    string
		err     string
	}{
		{"nothing", nil, "", "the log has no observation of it"},
		{"of another commit", []receipt.Entry{observed(other, "", smokeReport(t, other, 3))}, "", "the log has no observation of it"},
		{"reported only", []receipt.Entry{observed(commit, "", green)}, "smoke: #0 reports 3 of 3; no run was observed", ""},
		{"observed", []receipt.Entry{passed}, "smoke: #0 reports 3 of 3; run 7, attempt 1: success", ""},
		{"a run that failed", []receipt.Entry{observed(commit, "failure", green)}, "", "#0, is of a run that did not succeed: run 7, attempt 1: failure"},
		{"a run without a report", []receipt.Entry{observed(commit, "success", nil)}, "", "#0, has no smoke report"},
		{"another commit's report", []receipt.Entry{observed(commit, "", smokeReport(t, other, 3))}, "", "has a report of commit"},
		{"red", []receipt.Entry{observed(commit, "", red)}, "", "#0, reports fail, 2 of 3"},
		{"red, then green", []receipt.Entry{observed(commit, "", red), passed}, "smoke: #1 reports 3 of 3; run 7, attempt 1: success", ""},
		{"green, then red", []receipt.Entry{passed, observed(commit, "", red)}, "", "#1, reports fail, 2 of 3"},
		{"green, red, and green endorsed", []receipt.Entry{passed, observed(commit, "", red), passed}, "", "#1, reports fail, 2 of 3"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			says, err := (&trusted{entries: tc.entries}).observed(commit)
			assert.Equal(t, says, tc.says)
			if tc.err == "" {
				assert.NilError(t, err)
			} else {
				assert.ErrorContains(t, err, tc.err)
			}
		})
	}
	verdict := func(of gitrepo.Hash, result string) receipt.Entry {
		return about(receipt.Covenant, of, map[string]any{"verificationResult": result})
	}
	for _, tc := range []struct {
		name    string
		entries []receipt.Entry
		says    string
		err     string
	}{
		{"never", []receipt.Entry{passed}, "covenants: unclaimed, the log has no covenant receipt of any commit", ""},
		{"of others only", []receipt.Entry{verdict(other, "PASSED")}, "", "the log has covenant receipts, and none of it"},
		{"passed", []receipt.Entry{verdict(other, "FAILED"), verdict(commit, "PASSED")}, "covenants: #1 says PASSED", ""},
		{"failed since", []receipt.Entry{verdict(commit, "PASSED"), verdict(commit, "FAILED")}, "", `its last receipt, #1, says "FAILED"`},
		{"nothing said", []receipt.Entry{about(receipt.Covenant, commit, nil)}, "", `#0, says ""`},
	} {
		t.Run("covenants "+tc.name, func(t *testing.T) {
			says, err := (&trusted{entries: tc.entries}).covenants(commit)
			assert.Equal(t, says, tc.says)
			if tc.err == "" {
				assert.NilError(t, err)
			} else {
				assert.ErrorContains(t, err, tc.err)
			}
		})
	}
}

func TestAVersionNamesItsTag(t *testing.T) {
	for _, tc := range []struct{ prefix, version, tag string }{
		{"v", "1.2.0", "v1.2.0"},
		{"v", "v1.2.0-rc.1+x", "v1.2.0-rc.1+x"},
		{"", "1.2.0", "1.2.0"},
		{"app/v", "1.2", "app/v1.2"},
		{"app/v", "app/v1.2", "app/v1.2"},
		{"app/v", "v1.2", ""},
		{"v", "", ""},
		{"v", "v", ""},
		{"v", "1..2", ""},
		{"v", "1.2.", ""},
		{"v", "1.lock", ""},
		{"v", "1 2", ""},
		{"v", "../1", ""},
		{"v", "-1", ""},
	} {
		got, err := (&project{cfg: config.Config{Release: config.Release{TagPrefix: tc.prefix}}}).tagName(tc.version)
		assert.Equal(t, got, tc.tag, tc.version)
		assert.Equal(t, err == nil, tc.tag != "", tc.version)
		if err != nil {
			assert.Equal(t, exitCode(err), exitUsage)
		}
	}
}

func TestMessagesThatStartNoWorkflowAreKnown(t *testing.T) {
	for message, want := range map[string]bool{
		"fix": false, "fix [skip ci]": true, "a\n\n[no ci]\n": true, "[ci skip] a": true, "[skip actions]": true, "[actions skip]": true,
		"a\n\nskip-checks: true\n": true, "say skip ci": false, "skip-checks: false": false,
	} {
		assert.Equal(t, skipsCI.MatchString(message), want, message)
	}
}

// releasesOf is the key of a script's forge with releases.
type releasesOf struct{}

type releaseForge struct {
	scriptForge
	all *forgetest.Releases
}

const releasesUsage = `releases serve | add TAG | draft TAG | tag TAG REV | put TAG NAME FILE | half TAG NAME | fail N STATUS | pass N |
	holds TAG NAME FILE | count TAG N | writes N`

// cmdReleases runs a forge with the repository acme/app and its releases, which
// the program finds by GITHUB_API_URL. Its token "uploads" may write contents.
//
//	releases add TAG              make a release; releases draft TAG a draft of one
//	releases tag TAG REV          let a tag name what a revision does here
//	releases put TAG NAME FILE    attach a file, as somebody else would
//	releases half TAG NAME        cut an upload short that was done
//	releases pass N               let N requests through before what fails
//	releases fail N STATUS        answer N requests with this status
//	releases holds TAG NAME FILE  demand an attached file with these bytes
//	releases count TAG N          demand this number of attached files
//	releases writes N             demand this number of writes since it was last asked
func cmdReleases(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 1, releasesUsage)
	f := ts.Value(releasesOf{}).(*releaseForge)
	if args[0] == "serve" {
		f.fake = forgetest.New(f)
		f.all = f.fake.AddReleases(f.fake.AddRepo("acme/app"))
		for _, end := range f.ends {
			ts.Defer(end)
		}
		f.fake.AddToken("uploads", forgetest.App, "contents:write")
		f.fake.AddToken("plain", forgetest.App, "contents:read")
		ts.Setenv("GITHUB_API_URL", f.fake.URL)
		ts.Setenv("REMEMBRANCER_TOKEN", "uploads")
		return
	}
	f.mu.Lock()
	said := f.errors
	f.mu.Unlock()
	if len(said) > 0 {
		ts.Fatalf("%v", said)
	}
	need, ok := map[string]int{"add": 2, "draft": 2, "tag": 3, "put": 4, "half": 3, "fail": 3, "pass": 2, "holds": 4, "count": 3, "writes": 2}[args[0]]
	if !ok || len(args) != need {
		ts.Fatalf("usage: %s", releasesUsage)
	}
	number := func(s string) int {
		n, err := strconv.Atoi(s)
		ts.Check(err)
		return n
	}
	release := func() *forgetest.Release {
		for _, r := range f.all.List {
			if r.Tag == args[1] {
				return r
			}
		}
		ts.Fatalf("no release of tag %s", args[1])
		return nil
	}
	asset := func() *forgetest.Asset {
		for _, a := range release().Assets {
			if a.Name == args[2] {
				return a
			}
		}
		ts.Fatalf("release %s has no %s, it has %v", args[1], args[2], release().Names())
		return nil
	}
	switch args[0] {
	case "add", "draft":
		f.all.AddRelease(args[1]).Draft = args[0] == "draft"
	case "tag":
		ts.Check(ts.Exec("git", "rev-parse", args[2]))
		f.all.Tags[args[1]] = strings.TrimSpace(ts.ReadFile("stdout"))
	case "put":
		f.all.Put(release(), args[2], ts.ReadFile(args[3]))
	case "half":
		a := asset()
		a.Data, a.Open = a.Data[:len(a.Data)/2], true
	case "fail", "pass":
		for range number(args[1]) {
			if args[0] == "pass" {
				f.fake.Fail(forgetest.Fault{Pass: true})
			} else {
				f.fake.Fail(forgetest.Fault{Status: number(args[2])})
			}
		}
	case "holds":
		if a := asset(); a.Open || !bytes.Equal(a.Data, []byte(ts.ReadFile(args[3]))) {
			ts.Fatalf("release %s has another %s", args[1], args[2])
		}
	case "count":
		if n := len(release().Assets); n != number(args[2]) {
			ts.Fatalf("release %s has %d files, want %s: %v", args[1], n, args[2], release().Names())
		}
	case "writes":
		f.fake.ClearFaults()
		if writes := forgetest.Writes(f.fake.Calls()); len(writes) != number(args[1]) {
			ts.Fatalf("%d writes, want %s: %v", len(writes), args[1], writes)
		}
	}
}
