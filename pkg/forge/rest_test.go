package forge_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/forge"
	"github.com/vaultmesh/remembrancer/pkg/forge/forgetest"
	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
)

// waits are what a client slept, on a clock that its sleeping moves.
type waits struct {
	now   time.Time
	slept []time.Duration
}

func (w *waits) options() forge.RESTOptions {
	w.now = noon
	return forge.RESTOptions{
		Now:  func() time.Time { return w.now },
		Rand: func() float64 { return 0.5 },
		Sleep: func(ctx context.Context, d time.Duration) error {
			w.slept, w.now = append(w.slept, d), w.now.Add(d)
			return ctx.Err()
		},
	}
}

func newREST(t *testing.T, base string) (*forge.REST, *waits) {
	t.Helper()
	w := &waits{}
	r, err := forge.NewREST(base, token, w.options())
	assert.NilError(t, err)
	return r, w
}

// acme is a forge with one repository, and a token that may do all there.
func acme(t *testing.T) (*forgetest.Fake, *forgetest.Repo) {
	t.Helper()
	f := forgetest.New(t)
	f.AddToken(token, forgetest.App, "administration:write", "contents:write")
	return f, f.AddRepo("acme/app")
}

func member(t *testing.T, body []byte, name string) string {
	t.Helper()
	var m map[string]any
	assert.NilError(t, json.Unmarshal(body, &m))
	return fmt.Sprint(m[name])
}

func TestRESTReadsAtTheRootAndBelowAPath(t *testing.T) {
	f, _ := acme(t)
	for _, base := range []string{f.Root, f.Root + "/", f.URL, f.URL + "/"} {
		r, _ := newREST(t, base)
		a, err := r.Get(t.Context(), forge.Path("repos", "acme", "app"))
		assert.NilError(t, err)
		assert.Equal(t, a.Status, 200)
		assert.Equal(t, member(t, a.Body, "full_name"), "acme/app")
	}
	assert.DeepEqual(t, f.Calls(), []string{"GET /repos/acme/app", "GET /repos/acme/app", "GET /repos/acme/app", "GET /repos/acme/app"})
}

func TestASlashInABranchIsPartOfItsName(t *testing.T) {
	f, repo := acme(t)
	f.Commit(repo, "feature/a b", nil)
	r, _ := newREST(t, f.URL)
	a, err := r.Get(t.Context(), forge.Path("repos", "acme", "app", "branches", "feature/a b"))
	assert.NilError(t, err)
	assert.Equal(t, member(t, a.Body, "name"), "feature/a b")
	assert.DeepEqual(t, f.Calls(), []string{"GET /repos/acme/app/branches/feature%2Fa%20b"})
}

func TestNewRESTRefusesWhatWouldShowTheToken(t *testing.T) {
	for base, words := range map[string]string{
		"http://github.example.org/api/v3": "plain http",
		"ftp://github.example.org":         "want https",
		"https://user:secret@example.org":  "want a URL",
		"https://example.org/?a=b":         "want a URL",
		"github.example.org":               "want a URL",
		"https://":                         "want a URL",
	} {
		_, err := forge.NewREST(base, token, forge.RESTOptions{})
		assert.ErrorContains(t, err, words)
	}
	for _, base := range []string{"", "https://github.example.org/api/v3", "http://127.0.0.1:1", "http://localhost:1/x", "http://[::1]:1"} {
		_, err := forge.NewREST(base, token, forge.RESTOptions{})
		assert.NilError(t, err)
	}
}

func TestPathsThatMeanAnotherPathAreRefused(t *testing.T) {
	f, _ := acme(t)
	r, _ := newREST(t, f.URL)
	for _, path := range []string{"", "/repos/acme/app", "repos//app", "repos/acme/..", "repos/%2e%2e/app", "repos/./app", "repos/a/%zz", "https://example.org/x", forge.Path("repos", "acme", "..")} {
		_, err := r.Get(t.Context(), path)
		assert.ErrorContains(t, err, "API path", path)
	}
	assert.Equal(t, len(f.Calls()), 0)
}

func TestWhatCanPassByItselfIsTriedAgain(t *testing.T) {
	for name, faults := range map[string][]forgetest.Fault{
		"gateway":        {{Status: 502}, {Status: 503}},
		"dropped":        {{Drop: true}, {Drop: true}},
		"a page of HTML": {{Status: 200}, {Status: 200}},
	} {
		t.Run(name, func(t *testing.T) {
			f, _ := acme(t)
			r, w := newREST(t, f.URL)
			f.Fail(faults...)
			_, err := r.Get(t.Context(), "repos/acme/app")
			assert.NilError(t, err)
			assert.Equal(t, len(f.Calls()), 3)
			assert.DeepEqual(t, w.slept, []time.Duration{500 * time.Millisecond, time.Second})
		})
	}
}

func TestTryingAgainEnds(t *testing.T) {
	f, _ := acme(t)
	r, w := newREST(t, f.URL)
	for range 5 {
		f.Fail(forgetest.Fault{Status: 502})
	}
	_, err := r.Get(t.Context(), "repos/acme/app")
	assert.ErrorContains(t, err, "GET repos/acme/app: 502 Bad Gateway")
	assert.Assert(t, !errors.Is(err, gitrepo.ErrUnconfirmed))
	assert.Equal(t, len(w.slept), 4)
	assert.Equal(t, len(f.Calls()), 5)
}

func TestAPostIsNotMadeTwice(t *testing.T) {
	body := map[string]any{"name": "x", "enforcement": "active", "target": "branch"}
	for name, fault := range map[string]forgetest.Fault{
		"gateway": {Status: 502, Done: true}, "dropped": {Drop: true, Done: true}, "HTML": {Status: 200, Done: true},
	} {
		t.Run(name, func(t *testing.T) {
			f, repo := acme(t)
			r, _ := newREST(t, f.URL)
			f.Fail(fault)
			_, err := r.Send(t.Context(), http.MethodPost, "repos/acme/app/rulesets", body)
			assert.ErrorIs(t, err, gitrepo.ErrUnconfirmed)
			assert.Equal(t, len(f.Calls()), 1)
			assert.Equal(t, len(repo.Rulesets), 1)
		})
	}
	// Setting a thing to a value again is no second thing.
	f, repo := acme(t)
	r, _ := newREST(t, f.URL)
	id := f.AddRuleset(repo, `{"name":"x","enforcement":"active"}`)
	f.Fail(forgetest.Fault{Status: 502, Done: true})
	_, err := r.Send(t.Context(), http.MethodPut, fmt.Sprintf("repos/acme/app/rulesets/%d", id), map[string]any{"enforcement": "disabled"})
	assert.NilError(t, err)
	assert.Equal(t, len(f.Calls()), 2)
}

func TestRateLimitsAreWaitedFor(t *testing.T) {
	secondary := `{"message":"slow down","documentation_url":"https://docs.github.com/rest/overview/rate-limits-for-the-rest-api#about-secondary-rate-limits"}`
	reset := fmt.Sprint(noon.Add(40 * time.Second).Unix())
	for _, c := range []struct {
		name  string
		fault forgetest.Fault
		wait  time.Duration
	}{
		{"429 with Retry-After", forgetest.Fault{Status: 429, Header: map[string]string{"Retry-After": "7"}}, 7 * time.Second},
		{"429 without", forgetest.Fault{Status: 429}, time.Minute},
		{"403 with Retry-After", forgetest.Fault{Status: 403, JSON: `{"message":"x"}`, Header: map[string]string{"Retry-After": "3"}}, 3 * time.Second},
		{"403 of the secondary limit", forgetest.Fault{Status: 403, JSON: secondary}, time.Minute},
		{"403 of the primary limit", forgetest.Fault{Status: 403, JSON: `{"message":"x"}`, Header: map[string]string{"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": reset}}, 40 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, _ := acme(t)
			r, w := newREST(t, f.URL)
			f.Fail(c.fault)
			// A request that was not carried out may be sent again, of any method.
			_, err := r.Send(t.Context(), http.MethodPost, "repos/acme/app/rulesets", map[string]any{"name": "x", "enforcement": "active"})
			assert.NilError(t, err)
			assert.DeepEqual(t, w.slept, []time.Duration{c.wait})
		})
	}
}

func TestALongRateLimitSaysUntilWhen(t *testing.T) {
	f, _ := acme(t)
	r, w := newREST(t, f.URL)
	f.Fail(forgetest.Fault{Status: 403, JSON: `{"message":"x"}`, Header: map[string]string{"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": fmt.Sprint(noon.Add(time.Hour).Unix())}})
	_, err := r.Get(t.Context(), "repos/acme/app")
	var limit *forge.LimitError
	assert.Assert(t, errors.As(err, &limit))
	assert.Equal(t, err.Error(), "GET repos/acme/app: the forge's rate limit is reached until 2025-03-01T13:00:00Z: try again then")
	assert.Assert(t, !forge.IsForbidden(err))
	assert.Equal(t, len(w.slept), 0)

	// Many short ones are a long one.
	for range 5 {
		f.Fail(forgetest.Fault{Status: 429, Header: map[string]string{"Retry-After": "50"}})
	}
	_, err = r.Get(t.Context(), "repos/acme/app")
	assert.Assert(t, errors.As(err, &limit))
	assert.Equal(t, len(w.slept), 2)
}

func TestARefusalNamesWhatTheTokenLacks(t *testing.T) {
	f, _ := acme(t)
	f.AddToken("weak", forgetest.App, "contents:read")
	f.AddToken("person", forgetest.Person, "contents:read")
	path := "repos/acme/app/branches/main/protection"
	for _, c := range []struct {
		token, words         string
		notFound, isForbiden bool
	}{
		{"weak", "GET " + path + ": 403 Forbidden: Resource not accessible by integration (the token needs administration=read)", false, true},
		{"person", "GET " + path + ": 404 Not Found: Not Found", true, false},
		{token, "GET " + path + ": 404 Not Found: Branch not protected", true, false},
		{"unknown", "GET " + path + ": 401 Unauthorized: Bad credentials", false, false},
	} {
		r, err := forge.NewREST(f.URL, c.token, forge.RESTOptions{})
		assert.NilError(t, err)
		_, err = r.Get(t.Context(), path)
		assert.Error(t, err, c.words)
		assert.Equal(t, forge.IsNotFound(err), c.notFound)
		assert.Equal(t, forge.IsForbidden(err), c.isForbiden)
		var e *forge.APIError
		assert.Assert(t, errors.As(err, &e))
		assert.Equal(t, e.Path, path)
	}
}

func TestGetPagesReadsThemAll(t *testing.T) {
	f, repo := acme(t)
	for i := range 205 {
		repo.CheckRuns = append(repo.CheckRuns, forgetest.CheckRun{ID: int64(i), Commit: repo.Branches["main"].Head, Name: fmt.Sprint("check ", i), Conclusion: "success"})
	}
	r, _ := newREST(t, f.URL)
	list, err := r.GetPages(t.Context(), "repos/acme/app/commits/main/check-runs?filter=latest", "check_runs", 1000)
	assert.NilError(t, err)
	assert.Equal(t, len(list), 205)
	assert.Equal(t, member(t, list[204], "name"), "check 204")
	assert.Equal(t, len(f.Calls()), 3)

	_, err = r.GetPages(t.Context(), "repos/acme/app/commits/main/check-runs", "check_runs", 200)
	assert.ErrorContains(t, err, "more than 200 elements")
	_, err = r.GetPages(t.Context(), "repos/acme/app/commits/main/check-runs", "runs", 1000)
	assert.ErrorContains(t, err, "want a list")
	_, err = r.GetPages(t.Context(), "repos/acme/app/commits/main/check-runs", "", 1000)
	assert.ErrorContains(t, err, "want a list")

	list, err = r.GetPages(t.Context(), "repos/acme/app/rulesets", "", 10)
	assert.NilError(t, err)
	assert.DeepEqual(t, list, []json.RawMessage{})
}

// answering serves one function, and counts its calls.
func answering(t *testing.T, serve http.HandlerFunc) (string, *int) {
	t.Helper()
	n := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { n++; serve(w, r) }))
	t.Cleanup(srv.Close)
	return srv.URL, &n
}

func TestTheTokenGoesToNoOtherHost(t *testing.T) {
	other, stolen := answering(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "[]") })
	for name, serve := range map[string]http.HandlerFunc{
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other+"/x", http.StatusMovedPermanently)
		},
		"next page": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Link", "<"+other+`/x>; rel="next"`)
			fmt.Fprint(w, "[]")
		},
	} {
		t.Run(name, func(t *testing.T) {
			base, _ := answering(t, serve)
			r, _ := newREST(t, base)
			_, err := r.GetPages(t.Context(), "x", "", 10)
			assert.ErrorContains(t, err, "not followed")
			assert.Equal(t, *stolen, 0)
		})
	}
}

func TestARedirectKeepsMethodAndBody(t *testing.T) {
	base, n := answering(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/repos/old" {
			http.Redirect(w, r, "/repositories/7", http.StatusMovedPermanently)
			return
		}
		var body map[string]string
		assert.Check(t, json.NewDecoder(r.Body).Decode(&body))
		fmt.Fprintf(w, `{"seen":"%s %s %s %s"}`, r.Method, r.URL.Path, body["a"], r.Header.Get("Authorization"))
	})
	r, _ := newREST(t, base)
	a, err := r.Send(t.Context(), http.MethodPut, "repos/old", map[string]string{"a": "b"})
	assert.NilError(t, err)
	assert.Equal(t, member(t, a.Body, "seen"), "PUT /repositories/7 b Bearer "+token)
	assert.Equal(t, *n, 2)

	loop, n := answering(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/x", http.StatusTemporaryRedirect) })
	r, _ = newREST(t, loop)
	_, err = r.Get(t.Context(), "x")
	assert.ErrorContains(t, err, "more than 3 redirects")
	assert.Equal(t, *n, 4)
}

func TestPagesThatDoNotEndAreAnError(t *testing.T) {
	base, n := answering(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", `</x?page=2>; rel="next"`)
		fmt.Fprint(w, "[]")
	})
	r, _ := newREST(t, base)
	_, err := r.GetPages(t.Context(), "x", "", 10)
	assert.ErrorContains(t, err, "do not end")
	assert.Equal(t, *n, 2)
}

func TestAnswersAreBounded(t *testing.T) {
	for _, status := range []int{200, 404} {
		base, _ := answering(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			fmt.Fprint(w, strings.Repeat(" ", 17<<20))
		})
		r, _ := newREST(t, base)
		_, err := r.Get(t.Context(), "x")
		assert.ErrorContains(t, err, "more than 16 MiB")
	}
}

func TestATokenThatAServerEchoesIsNotRepeated(t *testing.T) {
	base, _ := answering(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, `{"message":"no: %s","errors":["%[1]s"]}`, r.Header.Get("Authorization"))
	})
	r, _ := newREST(t, base)
	_, err := r.Get(t.Context(), "x")
	assert.Error(t, err, `GET x: 403 Forbidden: no: Bearer *** ["Bearer ***"]`)
}

func TestCancellationEndsWaitsAndRequests(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	base, _ := answering(t, func(w http.ResponseWriter, _ *http.Request) { cancel(); w.WriteHeader(http.StatusBadGateway) })
	r, err := forge.NewREST(base, token, forge.RESTOptions{})
	assert.NilError(t, err)
	_, err = r.Get(ctx, "x")
	assert.ErrorIs(t, err, context.Canceled)
	_, err = r.Send(ctx, http.MethodPut, "x", nil)
	assert.ErrorIs(t, err, context.Canceled)
}

func TestAnAcceptedAnswerIsAnAnswer(t *testing.T) {
	base, _ := answering(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprint(w, `{"a":1}`)
	})
	r, _ := newREST(t, base)
	a, err := r.Send(t.Context(), http.MethodPost, "x", nil)
	assert.NilError(t, err)
	assert.Equal(t, a.Status, 202)
	assert.Equal(t, string(a.Body), `{"a":1}`)
}
