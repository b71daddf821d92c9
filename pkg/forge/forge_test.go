package forge_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/covenant"
	"github.com/vaultmesh/remembrancer/pkg/forge"
	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
	"github.com/vaultmesh/remembrancer/pkg/gitrepo/gitservertest"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/publish"
)

const (
	token      = "ghs_secret"
	repository = "owner/name"
)

var noon = time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)

// api is a GraphQL endpoint that commits to a repository of real git, as the
// forge does: only when the branch is where the caller believes it to be.
type api struct {
	*gitservertest.Server
	t   testing.TB
	url string

	mu      sync.Mutex
	before  []func()                                            // one a request, in order
	instead []func(w http.ResponseWriter, r *http.Request) bool // one a request; true: answered
	after   []func(w http.ResponseWriter) bool
	calls   int
}

func newAPI(t testing.TB) *api {
	t.Helper()
	a := &api{Server: gitservertest.New(t), t: t}
	srv := httptest.NewServer(http.HandlerFunc(a.serve))
	t.Cleanup(srv.Close)
	a.url = srv.URL + "/graphql"
	return a
}

func next[T any](a *api, queue *[]T) (T, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var zero T
	if len(*queue) == 0 {
		return zero, false
	}
	first := (*queue)[0]
	*queue = (*queue)[1:]
	return first, true
}

func (a *api) serve(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	a.calls++
	a.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer "+token {
		http.Error(w, `{"message":"Bad credentials"}`, http.StatusUnauthorized)
		return
	}
	if f, ok := next(a, &a.before); ok && f != nil {
		f()
	}
	if f, ok := next(a, &a.instead); ok && f != nil && f(w, r) {
		return
	}
	var in struct {
		Query     string `json:"query"`
		Variables struct {
			Input struct {
				Branch struct {
					Repository string `json:"repositoryNameWithOwner"`
					Name       string `json:"branchName"`
				} `json:"branch"`
				Expected string `json:"expectedHeadOid"`
				Message  struct {
					Headline string `json:"headline"`
					Body     string `json:"body"`
				} `json:"message"`
				Changes struct {
					Additions []struct {
						Path     string `json:"path"`
						Contents []byte `json:"contents"`
					} `json:"additions"`
					Deletions []struct {
						Path string `json:"path"`
					} `json:"deletions"`
				} `json:"fileChanges"`
			} `json:"input"`
		} `json:"variables"`
	}
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil || !strings.Contains(in.Query, "createCommitOnBranch(input: $input)") {
		http.Error(w, fmt.Sprint("bad request: ", err), http.StatusBadRequest)
		return
	}
	input := in.Variables.Input
	ref := "refs/heads/" + input.Branch.Name
	if input.Branch.Repository != repository {
		graphError(w, "NOT_FOUND", "Could not resolve to a Repository")
		return
	}
	index, err := os.CreateTemp("", "index")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	index.Close()
	os.Remove(index.Name())
	defer os.Remove(index.Name())
	git := func(stdin string, args ...string) string {
		cmd := exec.Command("git", args...)
		cmd.Dir, cmd.Stdin = a.Dir(), strings.NewReader(stdin)
		cmd.Env = append(a.Env(), "GIT_INDEX_FILE="+index.Name(), "GIT_AUTHOR_NAME=Forge", "GIT_AUTHOR_EMAIL=forge@example.org",
			"GIT_COMMITTER_NAME=Forge", "GIT_COMMITTER_EMAIL=forge@example.org")
		out, err := cmd.CombinedOutput()
		if err != nil {
			a.t.Errorf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	stale := func() {
		graphError(w, "STALE_DATA", fmt.Sprintf("Expected branch to point to %q but it did not. Pull and try again.", input.Expected))
	}
	if git("", "for-each-ref", "--format=%(objectname)", ref) != input.Expected {
		stale()
		return
	}
	git("", "read-tree", input.Expected)
	var lines strings.Builder
	for _, f := range input.Changes.Additions {
		fmt.Fprintf(&lines, "100644 %s\t%s\n", git(string(f.Contents), "hash-object", "-w", "--stdin"), f.Path)
	}
	for _, f := range input.Changes.Deletions {
		fmt.Fprintf(&lines, "0 %040d\t%s\n", 0, f.Path)
	}
	git(lines.String(), "update-index", "--index-info")
	message := input.Message.Headline
	if input.Message.Body != "" {
		message += "\n\n" + input.Message.Body
	}
	commit := git(message, "commit-tree", git("", "write-tree"), "-p", input.Expected)
	git("", "update-ref", ref, commit, input.Expected)
	if f, ok := next(a, &a.after); ok && f != nil && f(w) {
		return
	}
	fmt.Fprintf(w, `{"data":{"createCommitOnBranch":{"commit":{"oid":%q}}}}`, commit)
}

func graphError(w http.ResponseWriter, kind, message string) {
	_ = json.NewEncoder(w).Encode(map[string]any{
		"data":   map[string]any{"createCommitOnBranch": nil},
		"errors": []any{map[string]any{"type": kind, "message": message, "path": []string{"createCommitOnBranch"}}},
	})
}

// seed makes the first commit of main.
func (a *api) seed(files map[string]string) string {
	a.t.Helper()
	clone := a.Clone(a.t)
	for name, content := range files {
		p := filepath.Join(clone, filepath.FromSlash(name))
		assert.NilError(a.t, os.MkdirAll(filepath.Dir(p), 0o755))
		assert.NilError(a.t, os.WriteFile(p, []byte(content), 0o644))
	}
	a.In(clone, "add", "-A")
	a.In(clone, "commit", "-q", "-m", "begin")
	a.In(clone, "push", "-q", "origin", "HEAD:main")
	return clone
}

func (a *api) head() gitrepo.Hash {
	a.t.Helper()
	h, err := gitrepo.ParseHash(a.Git("rev-parse", "main"))
	assert.NilError(a.t, err)
	return h
}

func TestACommitThroughTheAPIIsAComparedSwap(t *testing.T) {
	a := newAPI(t)
	a.seed(map[string]string{"kept": "k\n", "changed": "old\n", "removed": "r\n"})
	commit := forge.New(a.url, token).Commit(repository)
	first := a.head()
	made, err := commit(t.Context(), "main", first, map[string][]byte{
		"changed": []byte("new \x00 bytes\n"), "a/b/added": {}, "removed": nil,
	}, "subject [skip ci]\n\nTrailer: one\nTrailer: two\n")
	assert.NilError(t, err)
	assert.Equal(t, made, a.head())
	assert.Equal(t, a.Git("log", "-1", "--format=%P%n%B", "main"), first.String()+"\nsubject [skip ci]\n\nTrailer: one\nTrailer: two\n")
	assert.Equal(t, a.Git("ls-tree", "-r", "--name-only", "main"), "a/b/added\nchanged\nkept")
	assert.Equal(t, a.Git("cat-file", "-s", "main:changed"), "12")

	_, err = commit(t.Context(), "main", first, map[string][]byte{"changed": nil}, "again")
	assert.ErrorIs(t, err, gitrepo.ErrLostRace)
	assert.Assert(t, gitrepo.Retryable(err))
	assert.Equal(t, a.head(), made)

	calls := a.calls
	_, err = commit(t.Context(), "main", gitrepo.Hash{}, nil, "x")
	assert.ErrorContains(t, err, "branch main does not exist")
	assert.Equal(t, a.calls, calls)
}

func TestEveryAnswerIsOneOfThePublishersCases(t *testing.T) {
	says := func(status int, body string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(status)
			fmt.Fprint(w, body)
			return true
		}
	}
	failing := func(kind, message string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool { graphError(w, kind, message); return true }
	}
	for _, c := range []struct {
		name       string
		answer     func(http.ResponseWriter, *http.Request) bool
		is         error // nil: none of the known ones
		refused    bool
		retry      bool
		words      string
		repository string
		token      string
	}{
		{name: "stale", answer: failing("STALE_DATA", "Expected branch to point to x"), is: gitrepo.ErrLostRace, retry: true, words: "Expected branch"},
		{name: "forbidden by rules", answer: failing("FORBIDDEN", "Repository rule violations found\n\nChanges must be made through a pull request."), refused: true, words: "Changes must be made through a pull request."},
		{name: "unprocessable", answer: failing("UNPROCESSABLE", "A path was requested for deletion which does not exist"), refused: true, words: "requested for deletion"},
		{name: "no such repository", repository: "owner/other", is: gitrepo.ErrNoRepository, words: "Could not resolve"},
		{name: "bad token", token: "wrong", is: gitrepo.ErrAuth, words: "Bad credentials"},
		{name: "forbidden", answer: says(403, `{"message":"Resource not accessible by integration"}`), is: gitrepo.ErrAuth, words: "Resource not accessible by integration"},
		{name: "gateway", answer: says(502, "bad gateway"), is: gitrepo.ErrUnconfirmed, retry: true, words: "502"},
		{name: "gave up", answer: failing("", "Something went wrong while executing your query. This may be the result of a timeout"), is: gitrepo.ErrUnconfirmed, retry: true, words: "timeout"},
		{name: "not JSON", answer: says(200, "<html>"), is: gitrepo.ErrUnconfirmed, retry: true, words: "<html>"},
		{name: "empty", answer: says(200, ""), is: gitrepo.ErrUnconfirmed, retry: true},
		{name: "no commit", answer: says(200, `{"data":{}}`), is: gitrepo.ErrUnconfirmed, retry: true, words: "no commit in the answer"},
		{name: "commit without a name", answer: says(200, `{"data":{"createCommitOnBranch":{"commit":{"oid":"x"}}}}`), is: gitrepo.ErrUnconfirmed, retry: true},
		{name: "bad request", answer: says(400, "Problems parsing JSON"), words: "Problems parsing JSON"},
		{name: "hung up", answer: func(w http.ResponseWriter, _ *http.Request) bool { panic(http.ErrAbortHandler) }, is: gitrepo.ErrUnconfirmed, retry: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newAPI(t)
			a.instead = append(a.instead, c.answer)
			if c.repository == "" {
				c.repository = repository
			}
			if c.token == "" {
				c.token = token
			}
			_, err := forge.New(a.url, c.token).Commit(c.repository)(t.Context(), "main", gitrepo.Hash{1}, map[string][]byte{"a": {}}, "m")
			assert.Assert(t, err != nil)
			for _, known := range []error{gitrepo.ErrLostRace, gitrepo.ErrNoRepository, gitrepo.ErrAuth, gitrepo.ErrUnconfirmed} {
				assert.Equal(t, errors.Is(err, known), known == c.is, "%v", err) //nolint:errorlint // which sentinel, not what it wraps
			}
			var refused *gitrepo.RefusedError
			assert.Equal(t, errors.As(err, &refused), c.refused, "%v", err)
			assert.Equal(t, gitrepo.Retryable(err), c.retry, "%v", err)
			assert.Assert(t, strings.Contains(err.Error(), c.words), err.Error())
			assert.Assert(t, !strings.Contains(err.Error(), token))
		})
	}
}

// covenanted is a repository whose main only the forge may commit to.
func covenanted(t *testing.T) (*api, func() *publish.Publisher) {
	t.Helper()
	a := newAPI(t)
	skey, vkey, err := checkpoint.GenerateKey(rand.Reader, "example.org/log")
	assert.NilError(t, err)
	logKey, err := checkpoint.NewSigner(skey)
	assert.NilError(t, err)
	secret, public, err := openpgp.Generate("Publisher", "", noon.Add(-time.Hour), rand.Reader)
	assert.NilError(t, err)
	issuer, err := openpgp.FromArmored(secret, nil, func() time.Time { return noon })
	assert.NilError(t, err)
	l := covenant.DefaultLayout()
	a.seed(map[string]string{
		"ops/ledger/policy": string(checkpoint.NewPolicy(vkey)),
		"ops/certs/" + string(public.Fingerprint()) + ".asc": string(public.Armored()),
		l.Docs: fmt.Sprintf("# Index\n\nMerkle Root: %x\n", ledger.Root(nil)),
	})
	a.Hook("update", "#!/bin/sh\n[ \"$1\" != refs/heads/main ] || { echo 'main takes only signed commits' >&2; exit 1; }\n")
	run := int64(0)
	return a, func() *publish.Publisher {
		remote, err := gitrepo.Dial(t.Context(), gitrepo.Options{URL: a.URL()})
		assert.NilError(t, err)
		run++
		return &publish.Publisher{
			Remote: remote, Layout: l, Branch: "refs/heads/main", Target: "refs/heads/main", Claim: "refs/heads/remembrancer/claim",
			LogKey: logKey, Issuer: issuer, AuthorName: "Bot", AuthorEmail: "bot@example.org", Now: func() time.Time { return noon },
			Observations: []publish.Observation{{Commit: a.head(), At: noon.Add(time.Duration(-run) * time.Second)}},
			Land:         forge.New(a.url, token).Commit(repository),
		}
	}
}

func (a *api) audit() *covenant.Report {
	a.t.Helper()
	a.Fsck()
	repo, err := gitrepo.Open(a.Dir())
	assert.NilError(a.t, err)
	tree, err := repo.TreeAt(a.head())
	assert.NilError(a.t, err)
	r := covenant.Audit(publish.Tree(tree), covenant.Options{Layout: covenant.DefaultLayout(), Badge: publish.Badge, Now: noon})
	assert.Equal(a.t, r.Status(), covenant.Pass, "%+v", r.Failures())
	return r
}

func TestAPublisherLandsThroughTheAPI(t *testing.T) {
	a, publisher := covenanted(t)
	res, err := publisher().Run(t.Context())
	assert.NilError(t, err)
	assert.Equal(t, res.Commit, a.head())
	assert.Equal(t, len(a.audit().Entries), 1)
	assert.Equal(t, a.Git("log", "-1", "--format=%an|%s", "main"), "Forge|"+publish.Subject)
	assert.Equal(t, a.Git("log", "-1", "--format=%(trailers:key=Remembrancer-Size,valueonly)", "main"), "1\n")

	// A push of code wins the race: the branch is not where it was.
	calls := a.calls
	a.before = append(a.before, func() {
		c := a.Git("-c", "user.name=Coder", "-c", "user.email=coder@example.org", "commit-tree", "main^{tree}", "-p", "main", "-m", "code")
		a.Git("update-ref", "refs/heads/main", c)
	})
	res, err = publisher().Run(t.Context())
	assert.NilError(t, err)
	assert.Equal(t, a.calls-calls, 2)
	assert.Equal(t, len(a.audit().Entries), 2)
	assert.Equal(t, res.To.Size, int64(2))
	assert.Equal(t, a.Git("log", "-1", "--format=%s", "main~1"), "code")
}

func TestAnUnheardCommitOfTheAPIIsNotMadeTwice(t *testing.T) {
	for _, c := range []struct {
		name string
		lose func(http.ResponseWriter) bool
	}{
		{"gateway", func(w http.ResponseWriter) bool { w.WriteHeader(http.StatusBadGateway); return true }},
		{"hung up", func(http.ResponseWriter) bool { panic(http.ErrAbortHandler) }},
		{"cut", func(w http.ResponseWriter) bool { fmt.Fprint(w, `{"data":{"createCom`); return true }},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, publisher := covenanted(t)
			a.after = append(a.after, c.lose)
			res, err := publisher().Run(t.Context())
			assert.NilError(t, err)
			assert.Equal(t, a.calls, 1)
			assert.Equal(t, res.To.Size, int64(1))
			assert.Equal(t, len(a.audit().Entries), 1)
			assert.Equal(t, a.Git("rev-list", "--count", "main"), "2")
		})
	}
}

func TestARuleOfTheForgeIsNotAskedTwice(t *testing.T) {
	a, publisher := covenanted(t)
	a.instead = append(a.instead, func(w http.ResponseWriter, _ *http.Request) bool {
		graphError(w, "FORBIDDEN", "Repository rule violations found: required status checks are expected")
		return true
	})
	before := a.head()
	_, err := publisher().Run(t.Context())
	var refused *gitrepo.RefusedError
	assert.Assert(t, errors.As(err, &refused), "%v", err)
	assert.ErrorContains(t, err, "required status checks are expected")
	assert.Equal(t, a.calls, 1)
	assert.Equal(t, a.head(), before)

	// The claim stays, and a permitted run completes it.
	p := publisher()
	p.Observations = nil
	res, err := p.Run(t.Context())
	assert.NilError(t, err)
	assert.Assert(t, res.Healed)
	assert.Equal(t, len(a.audit().Entries), 1)
}

func TestACancelledCommitIsUnconfirmed(t *testing.T) {
	a := newAPI(t)
	ctx, cancel := context.WithCancel(t.Context())
	a.before = append(a.before, cancel)
	_, err := forge.New(a.url, token).Commit(repository)(ctx, "main", gitrepo.Hash{1}, map[string][]byte{"a": {}}, "m")
	assert.ErrorIs(t, err, gitrepo.ErrUnconfirmed)
	assert.ErrorIs(t, err, context.Canceled)
}
