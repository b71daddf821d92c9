package forgetest_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/forge/forgetest"
)

// tester is a test that may fail.
type tester struct {
	*testing.T
	said []string
}

func (t *tester) Errorf(format string, args ...any) {
	t.said = append(t.said, fmt.Sprintf(format, args...))
}

func ask(t *testing.T, f *forgetest.Fake, token, method, path, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, f.URL+path, strings.NewReader(body))
	assert.NilError(t, err)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(r)
	assert.NilError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	assert.NilError(t, err)
	return resp.StatusCode, string(text)
}

func TestWhatIsNotAsDescribedFailsTheTest(t *testing.T) {
	for _, c := range []struct{ name, method, path, body, said string }{
		{"path", "GET", "/repos/acme/app/nothing", "", "nothing serves this path"},
		{"method", "PUT", "/repos/acme/app/branches/main/protection", "{}", "nothing serves this path"},
		{"body lacks a member", "POST", "/repos/acme/app/rulesets", `{"name":"x"}`, `property "enforcement" is missing`},
		{"value", "POST", "/repos/acme/app/rulesets", `{"name":"x","enforcement":"on"}`, `not one of the allowed values`},
		{"rule", "POST", "/repos/acme/app/rulesets", `{"name":"x","enforcement":"active","rules":[{"type":"invented"}]}`, "not as described"},
		{"parameters", "POST", "/repos/acme/app/rulesets", `{"name":"x","enforcement":"active","rules":[{"type":"required_status_checks","parameters":{}}]}`, "not as described"},
		{"not JSON", "POST", "/repos/acme/app/rulesets", `{`, "not as described"},
		{"query", "GET", "/repos/acme/app/rulesets?page_size=3", "", "query parameter page_size is not described"},
		{"id", "GET", "/repos/acme/app/rulesets/x", "", "not as described"},
		{"answer", "GET", "/repos/acme/app/pulls/1", "", "the answer 200 is not as described"},
	} {
		t.Run(c.name, func(t *testing.T) {
			failed := &tester{T: t}
			f := forgetest.New(failed)
			f.AddRepo("acme/app").Documents["pulls/1"] = map[string]any{"number": 1}
			f.AddToken("admin", forgetest.Person, "administration:write")
			_, _ = ask(t, f, "admin", c.method, c.path, c.body)
			assert.Equal(t, len(failed.said), 1)
			assert.Assert(t, strings.Contains(failed.said[0], c.said), failed.said[0])
			assert.Assert(t, len(failed.said[0]) < 5000)
		})
	}
}

func TestOnlyTheseRoutesAreUnchecked(t *testing.T) {
	assert.DeepEqual(t, forgetest.New(t).Undescribed(), []string{"GET /repos/{owner}/{repo}/codeowners/errors"})
}

func TestDocumentsAreServedAndChecked(t *testing.T) {
	f := forgetest.New(t)
	r := f.AddRepo("acme/app")
	r.Documents["pulls/1"] = forgetest.Object("pull-request", map[string]any{"number": 1, "title": "t", "state": "open", "head": map[string]any{"sha": "abc"}})
	var list []any
	for i := range 45 {
		list = append(list, forgetest.Object("pull-request-simple", map[string]any{"number": i}))
	}
	r.Documents["pulls"] = list
	code, text := ask(t, f, "", "GET", "/repos/acme/app/pulls/1", "")
	assert.Equal(t, code, 200)
	assert.Assert(t, strings.Contains(text, `"sha":"abc"`))
	_, text = ask(t, f, "", "GET", "/repos/acme/app/pulls?per_page=40&page=2", "")
	assert.Equal(t, strings.Count(text, `"number":`), 5)
	assert.DeepEqual(t, f.Calls(), []string{"GET /repos/acme/app/pulls/1", "GET /repos/acme/app/pulls?per_page=40&page=2"})
}

func TestTokensAreRefusedAsTheForgeRefuses(t *testing.T) {
	f := forgetest.New(t)
	f.AddToken("app", forgetest.App, "contents:read")
	f.AddToken("person", forgetest.Person, "contents:read")
	f.AddToken("admin", forgetest.Person, "administration:write")
	r := f.AddRepo("acme/app")
	f.AddRuleset(r, `{"name":"x","enforcement":"active","bypass_actors":[{"actor_id":1,"actor_type":"Team"}]}`)
	path := fmt.Sprintf("/repos/acme/app/rulesets/%d", f.NextID()-1)
	for _, c := range []struct {
		token, method, path string
		code                int
		said                string
	}{
		{"app", "GET", "/repos/acme/app/branches/main/protection", 403, "Resource not accessible by integration"},
		{"person", "GET", "/repos/acme/app/branches/main/protection", 404, `"Not Found"`},
		{"", "GET", "/repos/acme/app/branches/main/protection", 404, `"Not Found"`},
		{"admin", "GET", "/repos/acme/app/branches/main/protection", 404, `"Branch not protected"`},
		{"nobody", "GET", "/repos/acme/app", 401, "Bad credentials"},
		{"app", "DELETE", path, 403, "integration"},
		{"", "GET", path, 200, `"name":"x"`},
		{"admin", "GET", path, 200, `"bypass_actors":[{"actor_id":1`},
	} {
		code, text := ask(t, f, c.token, c.method, c.path, "")
		assert.Equal(t, code, c.code, text)
		assert.Assert(t, strings.Contains(text, c.said), text)
		assert.Equal(t, strings.Contains(text, "bypass_actors"), c.token == "admin" && c.path == path)
	}
	r.Private = true
	code, _ := ask(t, f, "", "GET", "/repos/acme/app", "")
	assert.Equal(t, code, 404)
}
