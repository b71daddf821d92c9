package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/legacy"
)

// memories are a node's, as the ancestor shows them.
var memories = map[string]string{
	"a": `{"id":"a","timestamp":"2025-10-19T20:18:00Z","type":"deploy","component":"api","version":"1.0","hash":null,"sig":"","data":{"n":1.0,"big":12345678901234567890,"lone":"\ud800"},"merkle_root":null}`,
	"b": `{"id":"b","timestamp":"2025-10-20T00:00:00Z","type":"adr","data":"text"}`,
}

func wantedMemories(t *testing.T) []legacy.Record {
	t.Helper()
	want, err := legacy.ReadJSON([]byte("[" + memories["a"] + "," + memories["b"] + "]"))
	assert.NilError(t, err)
	return want
}

// memoryTools answers as the ancestor's tools do.
func memoryTools(tool string, args json.RawMessage) (string, error) {
	switch tool {
	case "health":
		return `{"ok":true}`, nil
	case "list_memory_ids":
		return `{"ok":true,"ids":["a","b"]}`, nil
	case "get_memory":
		var in struct {
			ID string `json:"memory_id"`
		}
		if err := json.Unmarshal(args, &in); err != nil {
			return "", err
		}
		if m := memories[in.ID]; m != "" {
			return `{"ok":true,"memory":` + m + `}`, nil
		}
		return "", errors.New("not found")
	}
	return "", fmt.Errorf("unknown tool %q", tool)
}

func TestTheAncestorsClientSyncsFromUs(t *testing.T) {
	python, err := exec.LookPath("python3")
	assert.NilError(t, err, "the ancestor's client needs Python 3")
	ids := []string{"a", "b", "gone"}
	url := serve(t, Legacy(mcpServer(), func(_ context.Context, tool string, args json.RawMessage) (any, error) {
		if tool == "list_memory_ids" {
			return map[string]any{"ok": true, "ids": ids}, nil
		}
		answer, err := memoryTools(tool, args)
		return json.RawMessage(answer), err
	}))
	cmd := exec.CommandContext(t.Context(), python, "testdata/ancestor.py", url)
	cmd.Env = []string{"PYTHONDONTWRITEBYTECODE=1"}
	out, err := cmd.CombinedOutput()
	assert.NilError(t, err, "%s", out)
	assert.Equal(t, string(out), `health True
{"component": "api", "data": {"big": 12345678901234567890, "lone": "\ud800", "n": 1.0}, "hash": null, "id": "a", "merkle_root": null, "sig": "", "timestamp": "2025-10-19T20:18:00Z", "type": "deploy", "version": "1.0"}
{"data": "text", "id": "b", "timestamp": "2025-10-20T00:00:00Z", "type": "adr"}
failed gone not found
`)

	// Without the handler it fails: it is what makes the difference.
	cmd = exec.CommandContext(t.Context(), python, "testdata/ancestor.py", serve(t, mcpServer()))
	out, err = cmd.CombinedOutput()
	assert.ErrorContains(t, err, "exit status 2", "%s", out)
}

func TestOnlyBareCallsOfTheAncestorAreAnsweredAsIts(t *testing.T) {
	const call = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_memory","arguments":{"memory_id":"a"}}}`
	for name, tc := range map[string]struct {
		method, body string
		header       http.Header
		taken        string // the arguments of a call that was taken
		accept       []string
	}{
		"as urllib sends it":   {body: call, taken: `{"memory_id":"a"}`},
		"a text as id":         {body: strings.Replace(call, `"id":1`, `"id":"x"`, 1), taken: `{"memory_id":"a"}`},
		"no arguments":         {body: `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"health"}}`, taken: `{}`},
		"another tool":         {body: strings.Replace(call, "get_memory", "record_decision", 1)},
		"another method":       {body: strings.Replace(call, "tools/call", "tools/list", 1)},
		"a notification":       {body: strings.Replace(call, `"id":1,`, "", 1)},
		"a batch":              {body: "[" + call + "]"},
		"arguments in a list":  {body: strings.Replace(call, `{"memory_id":"a"}`, "[]", 1)},
		"not JSON":             {body: "{"},
		"nothing":              {},
		"too long":             {body: call + strings.Repeat(" ", maxLegacyCall)},
		"from a web page":      {body: call, header: http.Header{"Origin": {"http://evil.example"}}},
		"a form":               {body: call, header: http.Header{"Content-Type": {"text/plain"}}},
		"GET":                  {method: "GET", body: call},
		"GET, one type":        {method: "GET", header: http.Header{"Accept": {"application/json"}}, accept: []string{"application/json"}},
		"only JSON":            {body: call, header: http.Header{"Accept": {"application/json"}}, accept: []string{"application/json", "text/event-stream"}},
		"only events":          {body: call, header: http.Header{"Accept": {"text/event-stream;q=1"}}, accept: []string{"text/event-stream;q=1", "application/json"}},
		"neither":              {body: call, header: http.Header{"Accept": {"text/html"}}, accept: []string{"text/html", "application/json", "text/event-stream"}},
		"both":                 {body: call, header: http.Header{"Accept": {"application/json, text/event-stream"}}, accept: []string{"application/json, text/event-stream"}},
		"both, in two headers": {body: call, header: http.Header{"Accept": {"Application/JSON", "text/*"}}, accept: []string{"Application/JSON", "text/*"}},
		"anything":             {body: call, header: http.Header{"Accept": {"*/*"}}, accept: []string{"*/*"}},
	} {
		t.Run(name, func(t *testing.T) {
			taken, passed := "", false
			h := Legacy(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				passed = true
				body, err := io.ReadAll(r.Body)
				assert.NilError(t, err)
				assert.Equal(t, string(body), tc.body)
				assert.DeepEqual(t, r.Header.Values("Accept"), tc.accept)
			}), func(_ context.Context, _ string, args json.RawMessage) (any, error) {
				taken = string(args)
				return map[string]any{"ok": true}, nil
			})
			method := tc.method
			if method == "" {
				method = "POST"
			}
			r := httptest.NewRequestWithContext(t.Context(), method, "/mcp", strings.NewReader(tc.body))
			r.Header.Set("Content-Type", "application/json")
			for key, values := range tc.header {
				r.Header[key] = values
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			assert.Equal(t, taken, tc.taken)
			assert.Equal(t, passed, tc.taken == "")
			if tc.taken != "" {
				assert.Equal(t, w.Header().Get("Content-Type"), "application/json")
				id := `1`
				if strings.Contains(tc.body, `"id":"x"`) {
					id = `"x"`
				}
				assert.Equal(t, w.Body.String(), `{"jsonrpc":"2.0","id":`+id+`,"result":{"ok":true}}`)
			}
		})
	}
}

func TestABodyThatBreaksOffIsPassedOnAsSuch(t *testing.T) {
	broken := errors.New("broken off")
	h := Legacy(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		assert.Equal(t, string(b), "{")
		assert.Equal(t, err, broken)
	}), nil)
	r := httptest.NewRequestWithContext(t.Context(), "POST", "/mcp", io.MultiReader(strings.NewReader("{"), failing{broken}))
	r.Header.Set("Content-Type", "application/json")
	h.ServeHTTP(httptest.NewRecorder(), r)
}

// bare is a node of the ancestor's kind: JSON-RPC without sessions.
func bare(wrap func(result string) string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var m struct {
			Params struct {
				Name      string          `json:"name"`
				Arguments json.RawMessage `json:"arguments"`
			} `json:"params"`
		}
		if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		answer, err := memoryTools(m.Params.Name, m.Params.Arguments)
		if err != nil {
			answer = fmt.Sprintf(`{"ok":false,"error":%q}`, err)
		}
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		_, _ = io.WriteString(w, `{"jsonrpc":"2.0","id":1,"result":`+wrap(answer)+`}`)
	})
}

func quoted(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

// fastMCP serves the ancestor's tools in sessions, with their answers as text, and
// beside it as structured content if so wished.
func fastMCP(structured bool) http.Handler {
	s := mcp.NewServer(&mcp.Implementation{Name: "ancestor", Version: "1"}, nil)
	for _, name := range []string{"list_memory_ids", "get_memory"} {
		s.AddTool(&mcp.Tool{Name: name, InputSchema: map[string]any{"type": "object"}}, func(_ context.Context, r *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			answer, err := memoryTools(name, r.Params.Arguments)
			if err != nil {
				return nil, err
			}
			result := &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: answer}}}
			if structured {
				result.StructuredContent = json.RawMessage(answer)
			}
			return result, nil
		})
	}
	return mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return s }, nil)
}

func TestMemoriesOfAnAncestorAreTakenHowItGivesThem(t *testing.T) {
	for name, h := range map[string]http.Handler{
		"as the result": bare(func(s string) string { return s }),
		"as structured content": bare(func(s string) string {
			return `{"content":[{"type":"text","text":"ok"}],"structuredContent":` + s + `}`
		}),
		"as text":              bare(func(s string) string { return `{"content":[{"type":"text","text":` + quoted(s) + `}]}` }),
		"as one text":          bare(func(s string) string { return `{"content":{"type":"text","text":` + quoted(s) + `}}` }),
		"by sessions":          fastMCP(false),
		"by sessions, twofold": fastMCP(true),
		"by our own handler": Legacy(mcpServer(), func(_ context.Context, tool string, args json.RawMessage) (any, error) {
			answer, err := memoryTools(tool, args)
			return json.RawMessage(answer), err
		}),
	} {
		t.Run(name, func(t *testing.T) {
			var got []legacy.Record
			n, err := LegacyMemories(t.Context(), serve(t, h), DialOptions{}, func(r legacy.Record) error {
				got = append(got, r)
				return nil
			})
			assert.NilError(t, err)
			assert.Equal(t, n, 2)
			want := wantedMemories(t)
			assert.Equal(t, len(got), len(want))
			for i := range want {
				assert.Equal(t, legacy.Leaf(got[i]), legacy.Leaf(want[i]))
			}
		})
	}
}

func TestAnErrorOfTheTakerEndsTheTaking(t *testing.T) {
	url := serve(t, bare(func(s string) string { return s }))
	n, err := LegacyMemories(t.Context(), url, DialOptions{}, func(r legacy.Record) error {
		if r.ID == "b" {
			return errors.New("disk full")
		}
		return nil
	})
	assert.Error(t, err, "memories of "+url+`: memory "b": disk full`)
	assert.Equal(t, n, 1)
}

// liar answers list_memory_ids and get_memory with given results.
func liar(list, get string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		result := list
		if strings.Contains(string(b), `"get_memory"`) {
			result = get
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"jsonrpc":"2.0","id":1,"result":`+result+`}`)
	})
}

func TestWhatAPeerGetsWrongIsAnError(t *testing.T) {
	const list = `{"ok":true,"ids":["a"]}`
	record := func(s string) string { return `{"ok":true,"memory":` + s + `}` }
	many := func(n int) string {
		ids := make([]string, n)
		for i := range ids {
			ids[i] = fmt.Sprintf(`"%d"`, i)
		}
		return `{"ok":true,"ids":[` + strings.Join(ids, ",") + `]}`
	}
	for name, tc := range map[string]struct{ list, get, want string }{
		"it says no":             {`{"ok":false,"error":"DB missing"}`, "", "list_memory_ids: the peer answered: DB missing"},
		"an error of a tool":     {`{"isError":true,"content":[{"type":"text","text":"forbidden: no"}]}`, "", "list_memory_ids: the peer answered forbidden: no"},
		"it does not say ok":     {`{"ids":["a"]}`, "", `list_memory_ids: the peer answered: no "ok":true`},
		"no ids":                 {`{"ok":true}`, "", "list_memory_ids: found no ids, wanted a list"},
		"ids of another type":    {`{"ok":true,"ids":[1]}`, "", "list_memory_ids: json: cannot unmarshal number into Go struct field .ids of type string"},
		"a list":                 {`["a"]`, "", `list_memory_ids: found a result that is none, wanted an object such as {"ok":true,…}`},
		"a picture":              {`{"content":[{"type":"image","data":"AA=="}]}`, "", `list_memory_ids: found none in content[0].text nor in structuredContent, wanted an object such as {"ok":true,…}`},
		"an id twice":            {`{"ok":true,"ids":["a","a"]}`, "", `list_memory_ids: the id "a" comes twice`},
		"an empty id":            {`{"ok":true,"ids":[""]}`, "", "list_memory_ids: found an id of 0 bytes, wanted 1 to 1024"},
		"a long id":              {`{"ok":true,"ids":["` + strings.Repeat("x", 1025) + `"]}`, "", "list_memory_ids: found an id of 1025 bytes, wanted 1 to 1024"},
		"too many ids":           {many(100_001), "", "list_memory_ids: found more than 100000 ids"},
		"far too many ids":       {many(140_000), "", "list_memory_ids: the answer is of more than 104000 JSON values or 1024 lines, wanted fewer"},
		"it has no such memory":  {list, `{"ok":false,"error":"not found"}`, `memory "a": get_memory: the peer answered: not found`},
		"another memory":         {list, record(memories["b"]), `memory "a": get_memory: found the memory "b"`},
		"no memory":              {list, record("null"), `memory "a": get_memory: legacy records: record 0: found null, wanted an object`},
		"a memory that is none":  {list, `{"ok":true}`, `memory "a": get_memory: found 0 records, wanted one`},
		"two memories in one":    {list, `{"ok":true,"memory":[` + memories["a"] + `]}`, `memory "a": get_memory: legacy records: record 0: found a list, wanted an object`},
		"a column of its own":    {list, record(`{"id":"a","timestamp":"","type":"","admin":true}`), `memory "a": get_memory: legacy records: record 0: unknown keys "admin", wanted only id, timestamp, type, component, version, hash, sig, data, merkle_root`},
		"a large memory":         {list, record(`{"id":"a","timestamp":"","type":"","data":"` + strings.Repeat("x", 64<<10) + `"}`), `memory "a": get_memory: found 65581 bytes, wanted at most 65536`},
		"a memory of other type": {list, record(`{"id":"a","timestamp":1,"type":""}`), `memory "a": get_memory: legacy records: record 0: timestamp: found a number, wanted a string`},
	} {
		t.Run(name, func(t *testing.T) {
			url := serve(t, liar(tc.list, tc.get))
			n, err := LegacyMemories(t.Context(), url, DialOptions{}, func(legacy.Record) error { return nil })
			assert.Error(t, err, "memories of "+url+": "+tc.want)
			assert.Equal(t, n, 0)
		})
	}
}

func TestAPeerThatIsNoneIsAnError(t *testing.T) {
	page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<!DOCTYPE html>") })
	for name, tc := range map[string]struct {
		h    http.Handler
		want string
	}{
		"a web page": {page, `list_memory_ids: content type "text/html; charset=utf-8", wanted JSON-RPC with a result; asked for a session: dial `},
		"no page":    {http.NotFoundHandler(), "list_memory_ids: HTTP status 404, wanted JSON-RPC with a result; asked for a session: dial "},
		"a locked door": {http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "no", http.StatusUnauthorized)
		}), "list_memory_ids: the peer answered forbidden: HTTP status 401 Unauthorized"},
		"an endless answer": {http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			flood(w, `{"result":"`, "x")
		}), "list_memory_ids: the answer is of more than 8388608 bytes, wanted fewer"},
		"a slow one": {http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // or its context does not end with the connection
			<-r.Context().Done()
		}), "list_memory_ids: no answer within 1s: context deadline exceeded"},
		"another protocol": {http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"hello":"world"}`)
		}), "list_memory_ids: JSON without a result, wanted JSON-RPC with a result; asked for a session: dial "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := DialOptions{}
			if name == "a slow one" {
				o.Timeout = time.Second
			}
			_, err := LegacyMemories(t.Context(), serve(t, tc.h), o, func(legacy.Record) error { return nil })
			assert.ErrorContains(t, err, tc.want)
		})
	}
}

func TestAListThatMayBeCutOffIsNotTakenForAll(t *testing.T) {
	ids := make([]string, legacyDefault)
	for i := range ids {
		ids[i] = fmt.Sprint(i)
	}
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/json")
		result := `{"ok":false,"error":"unexpected argument limit"}`
		if !strings.Contains(string(b), "limit") {
			list, _ := json.Marshal(ids)
			result = `{"ok":true,"ids":` + string(list) + `}`
		}
		_, _ = io.WriteString(w, `{"jsonrpc":"2.0","id":1,"result":`+result+`}`)
	}))
	_, err := LegacyMemories(t.Context(), url, DialOptions{}, nil)
	assert.ErrorContains(t, err, "list_memory_ids: found 10000 ids, which is where the ancestor stops unasked, and the peer takes no limit")
	ids = nil
	_, err = LegacyMemories(t.Context(), url, DialOptions{}, nil)
	assert.ErrorContains(t, err, "found no ids", "null is no list")
	ids = []string{}
	n, err := LegacyMemories(t.Context(), url, DialOptions{}, nil)
	assert.NilError(t, err)
	assert.Equal(t, n, 0)
}

// What is taken for the ancestor's call must mean to the next handler what it meant
// to us, and what is not must reach it unread.
func FuzzLegacyCall(f *testing.F) {
	f.Add(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_memory","arguments":{"memory_id":"a"}}}`)
	f.Add(`{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{"name":"health"}}`)
	f.Add(`{"id":null}`)
	f.Fuzz(func(t *testing.T, body string) {
		r := httptest.NewRequestWithContext(t.Context(), "POST", "/mcp", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		c, ok := legacyCallOf(r)
		rest, err := io.ReadAll(r.Body)
		assert.NilError(t, err)
		assert.Equal(t, string(rest), body)
		if !ok {
			return
		}
		again := httptest.NewRequestWithContext(t.Context(), "POST", "/mcp", strings.NewReader(fmt.Sprintf(
			`{"jsonrpc":"2.0","id":%s,"method":"tools/call","params":{"name":%q,"arguments":%s}}`, c.id, c.tool, c.args)))
		again.Header.Set("Content-Type", "application/json")
		same, ok := legacyCallOf(again)
		assert.Assert(t, ok)
		assert.DeepEqual(t, [3]string{string(same.id), same.tool, string(same.args)}, [3]string{string(c.id), c.tool, string(c.args)})
	})
}
