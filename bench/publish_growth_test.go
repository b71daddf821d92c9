package bench

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

// TestWhatAPublishedVerdictAddsToThePack publishes smoke reports as a busy main
// branch does, packs the repository before and after, as a server does, and says
// where the bytes are. Each report is about a commit of its own; those are not counted.
// A publish has a price of its own, beside that of a verdict: a commit with a
// signature and a proof, the trees above the log, a checkpoint, a claim.
func TestWhatAPublishedVerdictAddsToThePack(t *testing.T) {
	type burst struct {
		publishes, verdicts int     // verdicts in one publish
		most                float64 // bytes a verdict
	}
	few := []burst{{20, 1, 2304}, {20, 4, 1024}}
	logs := map[int][]burst{1_000: few, 10_000: few}
	if os.Getenv("REMEMBRANCER_LONG") != "" {
		// As many as a segment holds, because git keeps a whole version now and then;
		// and a large log, which takes minutes and gigabytes to make and to audit.
		logs[1_000] = append(slices.Clone(few), burst{ledger.SegmentSize, 1, 2560})
		logs[1_000_000] = []burst{{2, 1, 2304}, {1, 4, 1024}}
	}
	for _, size := range slices.Sorted(maps.Keys(logs)) {
		t.Run(fmt.Sprint("a log of ", size), func(t *testing.T) {
			w := newPublishing(t, size)
			before := w.packed()
			for _, b := range logs[size] {
				for range b.publishes {
					w.publish(b.verdicts)
				}
				after := w.packed()
				total := 0.0
				for _, what := range slices.Sorted(maps.Keys(after)) {
					per := float64(after[what]-before[what]) / float64(b.publishes*b.verdicts)
					if what != uncounted {
						total += per
					}
					if per != 0 {
						t.Logf("%-32s %7.1f bytes a verdict", what, per)
					}
				}
				t.Logf("size %d, %d publishes of %d: %.0f bytes a verdict", size, b.publishes, b.verdicts, total)
				assert.Check(t, total < b.most, "%.0f bytes a verdict, want less than %.0f", total, b.most)
				before = after
			}
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
		u, err := state.Append(w.lines(size - verdicts)...)
		assert.NilError(t, err)
		root = u.State.Body().Root
		signed, err := logKey.Sign(u.State.Body())
		assert.NilError(t, err)
		claim := map[string][]byte{}
		for _, f := range u.Segments {
			claim[strings.TrimPrefix(f.Path, "log/")] = f.Data
		}
		w.fastImport("refs/heads/remembrancer/claim", string(u.State.Body().Text()), claim)
		for _, f := range u.Files(signed) {
			files[l.Ledger(f.Path)] = f.Data
		}
		files[l.Ledger(ledger.EdgePath)] = u.State.Edge().Data
	}
	for _, name := range []string{".gitignore", "LICENSE", "Makefile", "SMOKE_TEST.sh", "go.mod", "go.sum", "main.go", "pkg/a.go", "remembrancer.yaml"} {
		files[name] = []byte(name + "\n")
	}
	files[".gitattributes"] = []byte(covenant.Attributes(l) + "\n")
	files[l.Docs] = fmt.Appendf(nil, `# The Remembrancer

What this project did and decided, as signed receipts in an append-only log: ops/receipts holds the receipts that people read, ops/ledger the log.

Log: %s

The line below is written by the publisher on every merge, and by nobody else.

Merkle Root: %x
`, logKey.Origin(), root[:])
	w.fastImport("refs/heads/main", "begin\n", files)

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

// packed packs the repository and returns the bytes its pack spends on what.
func (w *publishing) packed() map[string]int {
	w.t.Helper()
	// Deltas are kept, as in every repack of a server: looking for them anew moves
	// more bytes about in a large log than a verdict adds.
	w.git("", "repack", "-adq")
	published := map[string]bool{}
	for line := range strings.Lines(w.git("", "rev-list", "--objects", "main")) {
		id, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		published[id] = true
	}
	code := map[string]bool{}
	for line := range strings.Lines(w.git("", "rev-list", "--all", "--author=Coder")) {
		code[strings.TrimSpace(line)] = true
	}
	bytesOf := map[string]int{}
	for line := range strings.Lines(w.git(w.git("", "rev-list", "--objects", "--all"), "cat-file", "--batch-check=%(objectname) %(objecttype) %(objectsize:disk) %(rest)")) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
		n, err := strconv.Atoi(f[2])
		assert.NilError(w.t, err)
		what := f[1] + " " + f[3]
		switch {
		case code[f[0]]:
			what = uncounted
		case !published[f[0]]:
			what = "claim: " + f[1]
		case strings.HasSuffix(f[3], ".jsonl"):
			what = "log lines"
		case f[1] == "tree" && f[3] == "":
			what = "tree of the root"
		case f[1] == "tree" && strings.Contains(f[3]+"/", "ledger/log/"), f[1] == "tree" && strings.Trim(f[3], "0123456789/") == "":
			what = "trees of the log"
		}
		bytesOf[what] += n
	}
	return bytesOf
}

// fastImport makes the first commit of a branch.
func (w *publishing) fastImport(ref, message string, files map[string][]byte) {
	w.t.Helper()
	var b bytes.Buffer
	fmt.Fprintf(&b, "commit %s\ncommitter Coder <coder@example.org> 1740000000 +0000\ndata %d\n%s\n", ref, len(message), message)
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
