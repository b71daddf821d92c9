package publish_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/covenant"
	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/publish"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
	"github.com/vaultmesh/remembrancer/pkg/smoke"
)

// maxGrowth is what one machine verdict may add to a packed repository, in
// bytes: its line, the commit that publishes it and the claim before that.
const maxGrowth = 1024

// TestAPublishedVerdictGrowsThePackByLessThanAKilobyte publishes smoke reports
// one by one, as a busy main branch does, and packs the repository before and
// after. Each is about a commit of its own; those commits are not counted.
func TestAPublishedVerdictGrowsThePackByLessThanAKilobyte(t *testing.T) {
	type run struct{ size, publishes int }
	runs := []run{{1_000, 20}, {10_000, 20}}
	if os.Getenv("REMEMBRANCER_LONG") != "" {
		// A whole segment, because git keeps a full version now and then; and a
		// large log, which takes minutes and gigabytes to make and to audit.
		runs = append(runs, run{1_000, ledger.SegmentSize}, run{1_000_000, 20})
	}
	for _, r := range runs {
		t.Run(fmt.Sprintf("%d onto %d", r.publishes, r.size), func(t *testing.T) {
			w := newPublishing(t, r.size)
			before := w.packed()
			for range r.publishes {
				w.publish(1)
			}
			after := w.packed()
			per := func(what string) float64 { return float64(after[what]-before[what]) / float64(r.publishes) }
			total := 0.0
			for _, what := range slices.Sorted(maps.Keys(after)) {
				if what != uncounted {
					total += per(what)
				}
				t.Logf("%-28s %7.1f bytes a verdict", what, per(what))
			}
			t.Logf("%-28s %7.1f bytes a verdict", "all but code", total)
			assert.Assert(t, total < maxGrowth)
		})
	}
}

const uncounted = "commits of code"

// publishing is a repository under the covenant, on disk, and one publisher.
type publishing struct {
	t      testing.TB
	dir    string // bare
	p      *publish.Publisher
	issuer openpgp.Signer
	clock  time.Time
	serial int
}

func (w *publishing) now() time.Time { return w.clock }

func newPublishing(t testing.TB, size int) *publishing {
	t.Helper()
	w := &publishing{t: t, dir: filepath.Join(t.TempDir(), "repo.git"), clock: time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)}
	w.git("", "init", "-q", "--bare", "-b", "main", w.dir)
	skey, vkey, err := checkpoint.GenerateKey(rand.Reader, "github.com/vaultmesh/remembrancer")
	assert.NilError(t, err)
	logKey, err := checkpoint.NewSigner(skey)
	assert.NilError(t, err)
	secret, public, err := openpgp.Generate("Remembrancer Bot", "bot@vaultmesh.org", w.clock.Add(-time.Hour), rand.Reader)
	assert.NilError(t, err)
	w.issuer, err = openpgp.FromArmored(secret, nil, w.now)
	assert.NilError(t, err)
	l := covenant.DefaultLayout()

	// Most of the log is made beforehand, of small receipts, and committed at once;
	// its last segments are published verdicts like those that are measured.
	verdicts := min(size, 300)
	root := ledger.Root(nil)
	files := map[string][]byte{
		"README.md":                              []byte("A project.\n"),
		".github/workflows/covenant-enforce.yml": []byte("on: push\n"),
		"ops/ledger/policy":                      checkpoint.NewPolicy(vkey),
		"ops/certs/" + string(public.Fingerprint()) + ".asc": public.Armored(),
	}
	if size > verdicts {
		state, _, err := ledger.Load(func(string) ([]byte, error) { return nil, fs.ErrNotExist }, ledger.Empty(logKey.Origin()))
		assert.NilError(t, err)
		u, err := state.Append(w.lines(size-verdicts)...)
		assert.NilError(t, err)
		root = u.State.Body().Root
		signed, err := logKey.Sign(u.State.Body())
		assert.NilError(t, err)
		claim := map[string][]byte{"body": u.State.Body().Text(), "edge": u.State.Edge().Data}
		for _, f := range u.Segments {
			claim[f.Path] = f.Data
		}
		w.fastImport("refs/heads/remembrancer/claim", claim)
		for _, f := range u.Files(signed) {
			files[l.Ledger(f.Path)] = f.Data
		}
		files[l.Ledger(ledger.EdgePath)] = u.State.Edge().Data
	}
	files[l.Docs] = fmt.Appendf(nil, "# The Remembrancer\n\nMerkle Root: %x\n", root[:])
	w.fastImport("refs/heads/main", files)

	remote, err := gitrepo.Dial(t.Context(), gitrepo.Options{URL: w.dir})
	assert.NilError(t, err)
	w.p = &publish.Publisher{
		Remote: remote, Layout: l, Branch: "refs/heads/main", Target: "refs/heads/main", Claim: "refs/heads/remembrancer/claim",
		LogKey: logKey, Issuer: w.issuer, AuthorName: "Remembrancer Bot", AuthorEmail: "bot@vaultmesh.org", Now: w.now,
		SignCommit: func(payload []byte) (string, error) {
			packet, err := w.issuer.Sign(t.Context(), payload)
			return string(openpgp.Armor(packet)), err
		},
	}
	w.publish(verdicts)
	return w
}

// lines makes signed log lines, on every processor.
func (w *publishing) lines(n int) [][]byte {
	lines := make([][]byte, n)
	var wg sync.WaitGroup
	procs := runtime.GOMAXPROCS(0)
	for p := range procs {
		wg.Go(func() {
			for i := n * p / procs; i < n*(p+1)/procs; i++ {
				sum := sha256.Sum256([]byte(strconv.Itoa(i)))
				r, err := receipt.New(receipt.Statement{
					Kind: receipt.Audit, Issuer: w.issuer.Fingerprint(), Issued: w.clock.Add(-time.Minute),
					Subjects: []receipt.Subject{{Name: "tree", SHA256: hex.EncodeToString(sum[:])}},
				})
				assert.Check(w.t, err)
				s, err := receipt.Sign(w.t.Context(), r, w.issuer)
				assert.Check(w.t, err)
				e, err := receipt.NewEntry(r, s)
				assert.Check(w.t, err)
				lines[i] = e.Line()
			}
		})
	}
	wg.Wait()
	return lines
}

// publish commits n times to main, without a change, and publishes a verdict
// about each.
func (w *publishing) publish(n int) {
	w.t.Helper()
	w.p.Observations = nil
	for range n {
		w.serial++
		w.clock = w.clock.Add(7 * time.Minute)
		at := w.git("", "-c", "user.name=Coder", "-c", "user.email=coder@example.org", "commit-tree", "main^{tree}", "-p", "main", "-m", fmt.Sprint("change ", w.serial))
		w.git("", "update-ref", "refs/heads/main", at)
		commit, err := gitrepo.ParseHash(at)
		assert.NilError(w.t, err)
		exit, output := 0, sha256.Sum256([]byte(at))
		report := smoke.Judge(smoke.Execution{
			Command: "./SMOKE_TEST.sh", ExitCode: &exit, OutputSHA256: hex.EncodeToString(output[:]), OutputBytes: int64(2000 + w.serial%50),
			Started: w.clock.Add(-time.Minute), Finished: w.clock.Add(-time.Duration(20+w.serial%17) * time.Second),
		}, smoke.Counts{Passed: 27, Total: 27, Format: "smoke-json"}, smoke.Expect{Total: 27})
		report.Commit = at
		data, err := smoke.EncodeReport(report)
		assert.NilError(w.t, err)
		w.p.Observations = append(w.p.Observations, publish.Observation{
			Commit: commit, Workflow: ".github/workflows/covenant-enforce.yml", RunID: 13_600_000_000 + int64(w.serial)*7919, Attempt: 1,
			Event: "push", Conclusion: "success", At: w.clock.Add(-10 * time.Second), Report: data,
		})
	}
	res, err := w.p.Run(w.t.Context())
	assert.NilError(w.t, err)
	assert.Equal(w.t, len(res.Sequenced), n)
}

// packed packs the repository anew and returns the bytes its pack spends on what.
func (w *publishing) packed() map[string]int {
	w.t.Helper()
	w.git("", "repack", "-adfq")
	bytesOf := map[string]int{}
	claim := map[string]bool{}
	for line := range strings.Lines(w.git("", "rev-list", "--objects", "refs/heads/remembrancer/claim", "--not", "main")) {
		id, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		claim[id] = true
	}
	objects := w.git("", "rev-list", "--objects", "--all")
	for line := range strings.Lines(w.git(objects, "cat-file", "--batch-check=%(objectname) %(objecttype) %(objectsize:disk) %(rest)")) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
		n, err := strconv.Atoi(f[2])
		assert.NilError(w.t, err)
		what := "published: " + f[1] + " " + f[3]
		switch {
		case claim[f[0]]:
			what = "claimed: " + f[1] + " " + f[3]
		case f[1] == "commit" && strings.Contains(w.git("", "cat-file", "commit", f[0]), "author Coder "):
			what = uncounted
		case f[1] == "blob" && strings.HasSuffix(f[3], ".jsonl"):
			what = "published: segments"
		case f[1] == "tree":
			what = "published: trees"
		}
		bytesOf[what] += n
	}
	return bytesOf
}

// fastImport makes the first commit of a branch.
func (w *publishing) fastImport(ref string, files map[string][]byte) {
	w.t.Helper()
	var b bytes.Buffer
	fmt.Fprintf(&b, "commit %s\ncommitter Coder <coder@example.org> 1740000000 +0000\ndata 5\nbegin\n", ref)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(&b, "M 100644 inline %s\ndata %d\n%s\n", name, len(files[name]), files[name])
	}
	w.git(b.String(), "fast-import", "--quiet")
}

func (w *publishing) git(stdin string, args ...string) string {
	w.t.Helper()
	cmd := exec.Command("git", args...)
	if args[0] != "init" {
		cmd.Dir = w.dir
	}
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL="+os.DevNull, "HOME="+filepath.Dir(w.dir))
	out, err := cmd.Output()
	if err != nil {
		w.t.Fatalf("git %s: %v", strings.Join(args, " "), err)
	}
	return strings.TrimSuffix(string(out), "\n")
}
