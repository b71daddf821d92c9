package publish

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
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
	"github.com/vaultmesh/remembrancer/pkg/gitrepo/gitservertest"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
	"github.com/vaultmesh/remembrancer/pkg/smoke"
)

const (
	mainRef  = "refs/heads/main"
	claimRef = "refs/heads/remembrancer/claim"
	origin   = "example.org/log"
)

var (
	noon   = time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)
	layout = covenant.DefaultLayout()
)

func clock() time.Time { return noon }

// long widens tests that repeat themselves.
func long() bool { return os.Getenv("REMEMBRANCER_LONG") != "" }

// keys are those of every test of this package: making them anew each time
// proves nothing more.
type keys struct {
	logKey, otherLogKey         *checkpoint.Signer
	issuer, colleague, stranger openpgp.Signer // the stranger is no trust anchor
}

var testKeys = sync.OnceValue(func() keys {
	logKey := func() *checkpoint.Signer {
		skey, _, err := checkpoint.GenerateKey(rand.Reader, origin)
		must(err)
		s, err := checkpoint.NewSigner(skey)
		must(err)
		return s
	}
	person := func(name string) openpgp.Signer {
		secret, _, err := openpgp.Generate(name, "", noon.Add(-time.Hour), rand.Reader)
		must(err)
		s, err := openpgp.FromArmored(secret, nil, clock)
		must(err)
		return s
	}
	return keys{logKey(), logKey(), person("Publisher"), person("Colleague"), person("Stranger")}
})

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// recorder keeps every signed checkpoint that any publisher of a test made.
type recorder struct {
	mu    sync.Mutex
	notes map[string]bool
	roots map[int64]map[checkpoint.Hash]bool
	calls int
}

func (r *recorder) signer(s *checkpoint.Signer) func(checkpoint.Body) ([]byte, error) {
	return func(b checkpoint.Body) ([]byte, error) {
		note, err := s.Sign(b)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.calls++
		if err == nil {
			r.notes[string(note)] = true
			if r.roots[b.Size] == nil {
				r.roots[b.Size] = map[checkpoint.Hash]bool{}
			}
			r.roots[b.Size][b.Root] = true
		}
		return note, err
	}
}

func (r *recorder) made() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.calls
}

// world is a repository under the covenant on a server of real git.
type world struct {
	*gitservertest.Server
	keys
	t      testing.TB
	signed *recorder
	serial int
}

// newWorld makes a repository as init does.
func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{Server: gitservertest.New(t), keys: testKeys(), t: t}
	w.forget()
	empty := ledger.Root(nil)
	w.edit(mainRef, map[string]string{
		".gitattributes":                      covenant.Attributes(layout) + "\n",
		"README":                              "A project.\n",
		".github/workflows/enforce.yml":       "on: push\n",
		"docs/REMEMBRANCER.md":                fmt.Sprintf("# The Remembrancer\n\nMerkle Root: %x\n\nThe end.\n", empty[:]),
		"ops/ledger/policy":                   string(checkpoint.NewPolicy(w.logKey.VerifierKey())),
		"ops/certs/" + cert(w.issuer):         string(w.issuer.Public().Armored()),
		"ops/certs/" + cert(w.colleague):      string(w.colleague.Public().Armored()),
		"ops/certs/remembrancer-note.txt":     "not a certificate\n",
		"ops/receipts/deploy/not-a-receipt.x": "",
	})
	w.edit(mainRef, map[string]string{"ops/receipts/deploy/not-a-receipt.x": gone, "ops/certs/remembrancer-note.txt": gone})
	return w
}

func cert(s openpgp.Signer) string { return string(s.Fingerprint()) + ".asc" }

// forget begins a new record of signatures.
func (w *world) forget() {
	w.signed = &recorder{notes: map[string]bool{}, roots: map[int64]map[checkpoint.Hash]bool{}}
}

// Contents that edit takes for something else than a file's.
const (
	gone    = "\x00gone"
	symlink = "\x00symlink:"
)

// edit commits changes of files on a branch in the bare repository, made by
// git's plumbing, so that anything can be committed. It returns the commit.
func (w *world) edit(ref string, files map[string]string) string {
	w.t.Helper()
	commit := w.commitOn(w.at(ref), "a change\n", files)
	w.Git("update-ref", ref, commit)
	return commit
}

// claimed returns the body that a commit of the claim branch claims.
func (w *world) claimed(rev string) string {
	w.t.Helper()
	return w.Git("log", "-1", "--format=%B", rev)
}

// claim commits a claim by hand: a body, and changes of the log folder.
func (w *world) claim(body string, files map[string]string) {
	w.t.Helper()
	w.Git("update-ref", claimRef, w.commitOn(w.at(claimRef), body, files))
}

func (w *world) commitOn(parent, message string, files map[string]string) string {
	w.t.Helper()
	index := filepath.Join(w.t.TempDir(), "index")
	git := func(stdin string, args ...string) string {
		w.t.Helper()
		cmd := exec.Command("git", args...)
		cmd.Dir, cmd.Env = w.Dir(), append(w.Env(), "GIT_INDEX_FILE="+index,
			"GIT_AUTHOR_NAME=Writer", "GIT_AUTHOR_EMAIL=writer@example.org", "GIT_COMMITTER_NAME=Writer", "GIT_COMMITTER_EMAIL=writer@example.org")
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		if err != nil {
			w.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return strings.TrimSpace(string(out))
	}
	args := []string{"commit-tree"}
	if parent != "" {
		git("", "read-tree", parent)
		args = append(args, "-p", parent)
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(files)) {
		content, mode := files[name], "100644"
		if content == gone {
			fmt.Fprintf(&b, "0 %040d\t%s\n", 0, name)
			continue
		}
		if to, ok := strings.CutPrefix(content, symlink); ok {
			content, mode = to, "120000"
		}
		fmt.Fprintf(&b, "%s %s\t%s\n", mode, git(content, "hash-object", "-w", "--stdin"), name)
	}
	git(b.String(), "update-index", "--add", "--index-info")
	return git(message, append(args, git("", "write-tree"))...)
}

// at returns the commit of a ref, or "".
func (w *world) at(ref string) string {
	w.t.Helper()
	return w.Git("for-each-ref", "--format=%(objectname)", ref)
}

// blob returns a file of a revision.
func (w *world) blob(rev, name string) string {
	w.t.Helper()
	cmd := exec.Command("git", "cat-file", "blob", rev+":"+name)
	cmd.Dir, cmd.Env = w.Dir(), w.Env()
	out, err := cmd.Output()
	if err != nil {
		w.t.Fatalf("%s:%s: %v", rev, name, err)
	}
	return string(out)
}

// receipt makes a receipt with a name that was not used before.
func (w *world) receipt(kind receipt.Kind, issuer openpgp.Signer) *receipt.Receipt {
	w.t.Helper()
	w.serial++
	r, err := receipt.New(receipt.Statement{
		Kind: kind, Issuer: issuer.Fingerprint(), Name: fmt.Sprintf("thing-%d", w.serial), Issued: noon.Add(-time.Minute),
		Subjects:  []receipt.Subject{{Name: "thing", SHA256: digest([]byte(fmt.Sprint(w.serial)))}},
		Predicate: map[string]any{"component": "app", "version": fmt.Sprintf("v%d", w.serial)},
	})
	assert.NilError(w.t, err)
	return r
}

// filed returns the files of a receipt with the signatures of some.
func (w *world) filed(r *receipt.Receipt, by ...openpgp.Signer) map[string]string {
	w.t.Helper()
	files := map[string]string{layout.Receipt(r.File()): string(r.Bytes())}
	for _, s := range by {
		sig, err := receipt.Sign(w.t.Context(), r, s)
		assert.NilError(w.t, err)
		files[layout.Receipt(r.SignatureFile(s.Fingerprint()))] = string(openpgp.Armor(sig.Packet))
	}
	return files
}

// add commits a signed receipt of a kind to main.
func (w *world) add(kind receipt.Kind) *receipt.Receipt {
	w.t.Helper()
	r := w.receipt(kind, w.colleague)
	w.edit(mainRef, w.filed(r, w.colleague))
	return r
}

// observation makes one that was not made before, about the tip of main.
func (w *world) observation() Observation {
	w.t.Helper()
	w.serial++
	return Observation{
		Commit: w.tip(), Workflow: ".github/workflows/enforce.yml", RunID: int64(1000 + w.serial), Attempt: 1,
		Event: "push", Conclusion: "success", At: noon.Add(-time.Minute),
	}
}

func (w *world) tip() gitrepo.Hash {
	w.t.Helper()
	h, err := gitrepo.ParseHash(w.at(mainRef))
	assert.NilError(w.t, err)
	return h
}

func (w *world) report(commit gitrepo.Hash, pass, total int64) []byte {
	w.t.Helper()
	exit := 0
	if pass != total {
		exit = 1
	}
	r := smoke.Judge(smoke.Execution{
		Command: "./SMOKE_TEST.sh", ExitCode: &exit, OutputSHA256: digest(nil), Started: noon, Finished: noon,
	}, smoke.Counts{Passed: pass, Failed: total - pass, Total: total, Format: "smoke-json"}, smoke.Expect{})
	r.Commit = commit.String()
	data, err := smoke.EncodeReport(r)
	assert.NilError(w.t, err)
	return data
}

// publisher returns a fresh one, as another process would be.
func (w *world) publisher(change ...func(*Publisher)) *Publisher {
	w.t.Helper()
	remote, err := gitrepo.Dial(w.t.Context(), gitrepo.Options{URL: w.URL()})
	assert.NilError(w.t, err)
	p := &Publisher{
		Remote: remote, Layout: layout, Branch: mainRef, Target: mainRef, Claim: claimRef,
		LogKey: w.logKey, Issuer: w.issuer,
		AuthorName: "Remembrancer Bot", AuthorEmail: "bot@vaultmesh.org", Now: clock,
	}
	for _, c := range change {
		c(p)
	}
	p.sign = w.signed.signer(p.LogKey)
	return p
}

func observing(os ...Observation) func(*Publisher) {
	return func(p *Publisher) { p.Observations = os }
}

// run publishes and wants success.
func (w *world) run(change ...func(*Publisher)) Result {
	w.t.Helper()
	res, err := w.publisher(change...).Run(w.t.Context())
	assert.NilError(w.t, err)
	return res
}

// begin publishes n observations at once: the cheapest log of a size.
func (w *world) begin(n int) {
	w.t.Helper()
	if n == 0 {
		return
	}
	var os []Observation
	for range n {
		os = append(os, w.observation())
	}
	w.run(observing(os...))
}

// refusal runs a publisher and wants a refusal, without a signature, without a
// change of any branch. It returns the error's text.
func (w *world) refusal(change ...func(*Publisher)) string {
	w.t.Helper()
	w.forget()
	before := w.refs()
	_, err := w.publisher(change...).Run(w.t.Context())
	var refused *Refusal
	assert.Assert(w.t, errors.As(err, &refused), "%v", err)
	assert.Equal(w.t, w.signed.made(), 0, "it signed:\n%v", err)
	assert.Equal(w.t, w.refs(), before)
	return err.Error()
}

func (w *world) refs() string {
	w.t.Helper()
	return w.Git("for-each-ref", "--format=%(refname) %(objectname)")
}

// ids lists the receipts of the published log, in order.
func (w *world) ids() []receipt.ID {
	w.t.Helper()
	var ids []receipt.ID
	for _, e := range w.verify().Entries {
		ids = append(ids, e.Receipt.ID())
	}
	return ids
}

// verify audits the server's main with its whole history, and everything that
// must hold between branches, commits and signatures.
func (w *world) verify() *covenant.Report {
	w.t.Helper()
	w.Fsck()
	repo, err := gitrepo.Open(w.Dir())
	assert.NilError(w.t, err)
	head, err := repo.Resolve(mainRef)
	assert.NilError(w.t, err)
	opts := covenant.Options{Layout: layout, Badge: Badge, Now: noon}
	notes := map[gitrepo.Hash][]byte{} // checkpoint by commit of main
	var line []gitrepo.Commit
	for c, err := range repo.FirstParents(head) {
		assert.NilError(w.t, err)
		line = append(line, c)
		tree, err := repo.TreeAt(c.Hash)
		assert.NilError(w.t, err)
		if note, err := tree.Blob(layout.Ledger(ledger.CheckpointPath)); err == nil {
			notes[c.Hash] = note
			opts.History = append(opts.History, covenant.Past{Commit: c.Hash.String(), Note: note})
		}
	}
	tree, err := repo.TreeAt(head)
	assert.NilError(w.t, err)
	trust, err := covenant.LoadTrust(Tree(tree), layout)
	assert.NilError(w.t, err)
	opts.PolicyID = trust.ID()
	report := covenant.Audit(Tree(tree), opts)
	assert.DeepEqual(w.t, failures(report), []string(nil))

	for _, c := range line {
		if strings.HasPrefix(c.Message, Subject+"\n") {
			w.checkTrailers(c, notes)
		}
	}
	for size, roots := range w.signed.roots {
		assert.Equal(w.t, len(roots), 1, "size %d was signed with %d roots", size, len(roots))
	}
	if report.Checkpoint.Note() != nil {
		claim, err := repo.Resolve(claimRef)
		assert.NilError(w.t, err)
		c, err := repo.Commit(claim)
		assert.NilError(w.t, err)
		assert.Equal(w.t, c.Message, string(report.Checkpoint.Body().Text()))
	}
	return report
}

// failures returns a report's findings that are not passes. A log that has not
// begun has no index document to judge.
func failures(r *covenant.Report) []string {
	var out []string
	for _, f := range r.Failures() {
		out = append(out, fmt.Sprintf("%d. %s: %s", f.Check, f.Name, f.Detail))
	}
	return out
}

// checkTrailers verifies what a publishing commit states about itself, against
// the commit and its parent.
func (w *world) checkTrailers(c gitrepo.Commit, notes map[gitrepo.Hash][]byte) {
	w.t.Helper()
	body := func(note []byte) checkpoint.Body {
		text, _, _ := strings.Cut(string(note), "\n\n")
		b, err := checkpoint.ParseBody([]byte(text + "\n"))
		assert.NilError(w.t, err)
		return b
	}
	from, to := ledger.Empty(origin), body(notes[c.Hash])
	if note, ok := notes[c.Parents[0]]; ok {
		from = body(note)
	}
	trailers := map[string]string{}
	for line := range strings.Lines(c.Message) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), ": "); ok && strings.HasPrefix(k, "Remembrancer-") {
			trailers[k] = v
		}
	}
	assert.Equal(w.t, trailers["Remembrancer-Log"], to.Origin)
	assert.Equal(w.t, trailers["Remembrancer-Size"], fmt.Sprint(to.Size))
	assert.Equal(w.t, trailers["Remembrancer-Merkle-Root"], fmt.Sprintf("%x", to.Root[:]))
	var proof []checkpoint.Hash
	if stated, ok := trailers["Remembrancer-Consistency"]; ok {
		size, b64, _ := strings.Cut(stated, " ")
		n, err := strconv.ParseInt(size, 10, 64)
		assert.NilError(w.t, err)
		assert.Equal(w.t, n, from.Size)
		raw, err := base64.StdEncoding.DecodeString(b64)
		assert.NilError(w.t, err)
		for h := range slices.Chunk(raw, 32) {
			proof = append(proof, checkpoint.Hash(h))
		}
	} else {
		assert.Assert(w.t, from.Size == 0 || from == to, "commit %s has no consistency trailer", c.Hash)
	}
	assert.NilError(w.t, checkpoint.CheckConsistency(from, to, proof), "commit %s", c.Hash)
}

// sorted puts ids in an order for comparison as sets that know repetition.
func sorted(ids []receipt.ID) []string {
	var s []string
	for _, id := range ids {
		s = append(s, id.String())
	}
	slices.Sort(s)
	return s
}

func idsOf(entries []receipt.Entry) []receipt.ID {
	var ids []receipt.ID
	for _, e := range entries {
		ids = append(ids, e.Receipt.ID())
	}
	return ids
}

var errKilled = errors.New("killed")

// killedAt ends a run at a moment, as a power failure would.
func killedAt(m moment) func(*Publisher) {
	return func(p *Publisher) {
		p.at = func(now moment) error {
			if now == m {
				return errKilled
			}
			return nil
		}
	}
}

func unmarshal(data []byte, v any) error { return json.Unmarshal(data, v) }

// tryGit runs git where it may fail, from any goroutine.
func tryGit(w *world, dir string, args ...string) (string, error) {
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Env = dir, w.Env()
	out, err := cmd.CombinedOutput()
	return string(out), err
}
