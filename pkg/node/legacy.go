package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/vaultmesh/remembrancer/pkg/legacy"
)

// The ancestor syncs with three of its tools. Its client is a Python program of
// forty lines: it opens no session, sends no Accept header, and takes what is
// called "result" for what the tool returned.
const (
	legacyList   = "list_memory_ids"
	legacyGet    = "get_memory"
	legacyHealth = "health"
)

const (
	maxLegacyCall   = 64 << 10 // bytes of a request
	maxLegacyIDs    = 100_000
	maxLegacyID     = 1 << 10  // bytes
	maxLegacyRecord = 64 << 10 // bytes
	legacyDefault   = 10_000   // how many ids the ancestor lists unasked
)

var acceptedTypes = []string{"application/json", events}

// Legacy lets the ancestor's client sync from a server of MCP, which would refuse
// it for its headers. Of the requests to next it takes the one kind that no client
// of MCP and no browser sends: a POST without Accept and Origin whose body, at most
// 64 KiB, is one JSON-RPC call of list_memory_ids, get_memory or health. It is answered
// with JSON-RPC whose result is what call returned, {"ok":true,"ids":[…]} or
// {"ok":true,"memory":{…}}: an object without "content", which that client would
// take apart. An error of call becomes {"ok":false,"error":"…"} with its text.
//
// A POST whose Accept names but one of the two types of MCP gets the other, too:
// many a client means no harm by it. All else goes to next untouched.
//
// Legacy asks for no credentials: what does must stand before it.
func Legacy(next http.Handler, call func(ctx context.Context, tool string, args json.RawMessage) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			next.ServeHTTP(w, r)
			return
		}
		if accept := r.Header.Values("Accept"); len(accept) > 0 {
			if complete := withMCPTypes(accept); complete != nil {
				r = r.Clone(r.Context())
				r.Header["Accept"] = complete
			}
			next.ServeHTTP(w, r)
			return
		}
		c, ok := legacyCallOf(r)
		if !ok {
			next.ServeHTTP(w, r)
			return
		}
		result, err := call(r.Context(), c.tool, c.args)
		if err != nil {
			result = map[string]any{"ok": false, "error": err.Error()}
		}
		answer, err := json.Marshal(struct {
			JSONRPC string          `json:"jsonrpc"`
			ID      json.RawMessage `json:"id"`
			Result  any             `json:"result"`
		}{"2.0", c.id, result})
		if err != nil {
			http.Error(w, "the answer is not JSON", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		_, _ = w.Write(answer)
	})
}

// withMCPTypes returns the values of an Accept header with both types of MCP, or
// nil if they are there.
func withMCPTypes(accept []string) []string {
	var missing []string
	for _, wanted := range acceptedTypes {
		major, _, _ := strings.Cut(wanted, "/")
		if !slices.ContainsFunc(accept, func(line string) bool {
			return slices.ContainsFunc(strings.Split(line, ","), func(one string) bool {
				one, _, _ = strings.Cut(one, ";")
				one = strings.ToLower(strings.TrimSpace(one))
				return one == wanted || one == major+"/*" || one == "*/*"
			})
		}) {
			missing = append(missing, wanted)
		}
	}
	if missing == nil {
		return nil
	}
	return append(slices.Clone(accept), missing...)
}

type legacyCall struct {
	id   json.RawMessage // a number or a string
	tool string
	args json.RawMessage // an object
}

// legacyCallOf reads a call of the ancestor's client. Where there is none, r is as
// if nobody had read it.
func legacyCallOf(r *http.Request) (legacyCall, bool) {
	t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || t != "application/json" || r.Header.Get("Origin") != "" || r.Body == nil {
		return legacyCall{}, false
	}
	body := r.Body
	b, err := io.ReadAll(io.LimitReader(body, maxLegacyCall+1))
	var rest io.Reader = body
	if err != nil {
		rest = failing{err}
	}
	r.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(b), rest), body}
	if err != nil || len(b) > maxLegacyCall {
		return legacyCall{}, false
	}
	var m struct {
		JSONRPC string          `json:"jsonrpc"`
		ID      json.RawMessage `json:"id"`
		Method  string          `json:"method"`
		Params  struct {
			Name      string          `json:"name"`
			Arguments json.RawMessage `json:"arguments"`
		} `json:"params"`
	}
	if json.Unmarshal(b, &m) != nil || m.JSONRPC != "2.0" || m.Method != "tools/call" {
		return legacyCall{}, false
	}
	if len(m.ID) == 0 || !strings.ContainsRune(`"-0123456789`, rune(m.ID[0])) {
		return legacyCall{}, false // without an id nobody waits for an answer
	}
	c := legacyCall{id: m.ID, tool: m.Params.Name, args: m.Params.Arguments}
	if string(c.args) == "null" || len(c.args) == 0 {
		c.args = json.RawMessage("{}")
	}
	return c, c.args[0] == '{' && slices.Contains([]string{legacyList, legacyGet, legacyHealth}, c.tool)
}

// failing repeats an error of a body that was read before its time.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// LegacyMemories gives fn each record of a node that has only the ancestor's tools
// list_memory_ids and get_memory, in that node's order, and returns how many fn took
// without an error. The node may be the ancestor's server, which speaks MCP, or
// anything that answers as its client asks; what a tool returned may be the result
// itself, its structured content, or JSON in its first text.
//
// Records of the ancestor carry no signature that was ever checked: they say
// what that node says. The first record that cannot be had whole ends it with an error: so do
// more than 100,000 ids, one that comes twice, another record than was asked for, one of
// more than 64 KiB, and a key that the ancestor did not write. Each call has
// o's deadline; ctx bounds the whole.
func LegacyMemories(ctx context.Context, endpoint string, o DialOptions, fn func(legacy.Record) error) (n int, err error) {
	n, err = legacyMemories(ctx, endpoint, o, fn)
	if err != nil {
		return n, fmt.Errorf("memories of %s: %w", endpoint, err)
	}
	return n, nil
}

func legacyMemories(ctx context.Context, endpoint string, o DialOptions, fn func(legacy.Record) error) (n int, err error) {
	w, err := newWeb(endpoint, o)
	if err != nil {
		return 0, err
	}
	defer w.client.CloseIdleConnections()
	// First it is asked as the ancestor's client would ask, then in a session.
	ask := asking(func(ctx context.Context, tool string, args any) (json.RawMessage, error) {
		return w.ask(ctx, endpoint, tool, args)
	})
	ids, err := legacyIDs(ctx, ask)
	if other := new(notPlain); errors.As(err, &other) {
		c, dialErr := Dial(ctx, endpoint, o)
		if dialErr != nil {
			return 0, fmt.Errorf("%w; asked for a session: %w", err, dialErr)
		}
		defer c.Close()
		ask = c.ask
		ids, err = legacyIDs(ctx, ask)
	}
	if err != nil {
		return 0, err
	}
	for _, id := range ids {
		r, err := legacyRecord(ctx, ask, id)
		if err == nil {
			err = fn(r)
		}
		if err != nil {
			return n, fmt.Errorf("memory %q: %w", clip(id), err)
		}
		n++
	}
	return n, nil
}

// asking calls a tool and returns the JSON object that it returned.
type asking func(ctx context.Context, tool string, args any) (json.RawMessage, error)

// notPlain says that a peer does not answer as the ancestor's client asks.
type notPlain struct{ found string }

func (e *notPlain) Error() string { return e.found + ", wanted JSON-RPC with a result" }

const wantedResult = `wanted an object such as {"ok":true,…}`

// ask asks in a session.
func (c *Client) ask(ctx context.Context, tool string, args any) (json.RawMessage, error) {
	structured, text, err := c.answer(ctx, tool, args)
	if err != nil {
		return nil, err
	}
	// The text comes first: in it the numbers are as the peer wrote them.
	if object(json.RawMessage(text)) {
		return json.RawMessage(text), nil
	}
	b, err := json.Marshal(structured)
	if err != nil || !object(b) {
		return nil, fmt.Errorf("%s: found an answer that is none, %s", tool, wantedResult)
	}
	return b, nil
}

// object says whether b is a JSON object.
func object(b json.RawMessage) bool {
	b = bytes.TrimLeft(b, " \t\r\n")
	return len(b) > 0 && b[0] == '{' && json.Valid(b)
}

// ask asks as the ancestor's client asks.
func (w *web) ask(ctx context.Context, endpoint, tool string, args any) (json.RawMessage, error) {
	result, err := w.post(ctx, endpoint, tool, args)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", tool, err)
	}
	var wrapped struct {
		Content    json.RawMessage `json:"content"`
		Structured json.RawMessage `json:"structuredContent"`
		IsError    bool            `json:"isError"`
	}
	if !object(result) {
		return nil, fmt.Errorf("%s: found a result that is none, %s", tool, wantedResult)
	}
	if err := json.Unmarshal(result, &wrapped); err != nil {
		return nil, fmt.Errorf("%s: result: %w", tool, err)
	}
	if len(wrapped.Content) == 0 && len(wrapped.Structured) == 0 {
		return result, nil
	}
	type content struct {
		Text string `json:"text"`
	}
	var contents []content
	if json.Unmarshal(wrapped.Content, &contents) != nil {
		var one content // the ancestor's client allows for content that is no list
		if json.Unmarshal(wrapped.Content, &one) == nil {
			contents = []content{one}
		}
	}
	text := ""
	if len(contents) > 0 {
		text = contents[0].Text
	}
	switch {
	case wrapped.IsError:
		return nil, toolError(tool, text)
	case object(json.RawMessage(text)):
		return json.RawMessage(text), nil
	case object(wrapped.Structured):
		return wrapped.Structured, nil
	}
	return nil, fmt.Errorf("%s: found none in content[0].text nor in structuredContent, %s", tool, wantedResult)
}

// post returns the result of one JSON-RPC call without a session.
func (w *web) post(ctx context.Context, endpoint, tool string, args any) (json.RawMessage, error) {
	ctx, x, cancel := w.begin(ctx)
	defer cancel()
	type params struct {
		Name      string `json:"name"`
		Arguments any    `json:"arguments"`
	}
	request, err := json.Marshal(struct {
		JSONRPC string `json:"jsonrpc"`
		ID      int    `json:"id"`
		Method  string `json:"method"`
		Params  params `json:"params"`
	}{"2.0", 1, "tools/call", params{tool, args}})
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, bytes.NewReader(request))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := w.client.Do(req)
	if err != nil {
		return nil, w.explain(ctx, x, err)
	}
	defer resp.Body.Close()
	if e := x.toolError(tool); e != nil {
		return nil, e
	}
	if resp.StatusCode != http.StatusOK {
		return nil, &notPlain{fmt.Sprintf("HTTP status %d", resp.StatusCode)}
	}
	if t, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); t != "application/json" {
		return nil, &notPlain{fmt.Sprintf("content type %q", clip(resp.Header.Get("Content-Type")))}
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, w.explain(ctx, x, err)
	}
	var answer struct {
		Result json.RawMessage `json:"result"`
		Error  *struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	switch err := json.Unmarshal(b, &answer); {
	case err != nil:
		return nil, &notPlain{"answer: " + clip(err.Error())}
	case answer.Error != nil:
		return nil, &notPlain{fmt.Sprintf("the error %q", clip(answer.Error.Message))}
	case len(answer.Result) == 0:
		return nil, &notPlain{"JSON without a result"}
	}
	return answer.Result, nil
}

// refused is what the ancestor's tools return where they cannot.
type refused struct {
	OK    bool   `json:"ok"`
	Error string `json:"error"`
}

func (r refused) check(tool string) error {
	if r.OK {
		return nil
	}
	if r.Error == "" {
		r.Error = `no "ok":true`
	}
	return toolError(tool, r.Error)
}

// legacyIDs returns all ids. Unasked the ancestor lists the first 10,000 and says
// nothing of the rest.
func legacyIDs(ctx context.Context, ask asking) ([]string, error) {
	ids, err := legacyAsk(ctx, ask, map[string]any{"limit": maxLegacyIDs + 1})
	limited := err == nil
	if e := new(ToolError); errors.As(err, &e) && e.Code != "forbidden" {
		ids, err = legacyAsk(ctx, ask, struct{}{}) // perhaps for the limit's sake
	}
	switch {
	case err != nil:
		return nil, err
	case ids == nil:
		return nil, fmt.Errorf("%s: found no ids, wanted a list", legacyList)
	case len(ids) > maxLegacyIDs:
		return nil, fmt.Errorf("%s: found more than %d ids", legacyList, maxLegacyIDs)
	case !limited && len(ids) == legacyDefault:
		return nil, fmt.Errorf("%s: found %d ids, which is where the ancestor stops unasked, and the peer takes no limit", legacyList, legacyDefault)
	}
	seen := make(map[string]bool, len(ids))
	for _, id := range ids {
		switch {
		case id == "" || len(id) > maxLegacyID:
			return nil, fmt.Errorf("%s: found an id of %d bytes, wanted 1 to %d", legacyList, len(id), maxLegacyID)
		case seen[id]:
			return nil, fmt.Errorf("%s: the id %q comes twice", legacyList, clip(id))
		}
		seen[id] = true
	}
	return ids, nil
}

func legacyAsk(ctx context.Context, ask asking, args any) ([]string, error) {
	answer, err := ask(ctx, legacyList, args)
	if err != nil {
		return nil, err
	}
	var list struct {
		refused
		IDs []string `json:"ids"`
	}
	if err := json.Unmarshal(answer, &list); err != nil {
		return nil, fmt.Errorf("%s: %w", legacyList, err)
	}
	return list.IDs, list.check(legacyList)
}

func legacyRecord(ctx context.Context, ask asking, id string) (legacy.Record, error) {
	answer, err := ask(ctx, legacyGet, map[string]any{"memory_id": id})
	if err != nil {
		return legacy.Record{}, err
	}
	var got struct {
		refused
		Memory json.RawMessage `json:"memory"`
	}
	if err := json.Unmarshal(answer, &got); err != nil {
		return legacy.Record{}, fmt.Errorf("%s: %w", legacyGet, err)
	}
	if err := got.check(legacyGet); err != nil {
		return legacy.Record{}, err
	}
	if len(got.Memory) > maxLegacyRecord {
		return legacy.Record{}, fmt.Errorf("%s: found %d bytes, wanted at most %d", legacyGet, len(got.Memory), maxLegacyRecord)
	}
	records, err := legacy.ReadJSON(slices.Concat([]byte("["), got.Memory, []byte("]")))
	switch {
	case err != nil:
		return legacy.Record{}, fmt.Errorf("%s: %w", legacyGet, err)
	case len(records) != 1:
		return legacy.Record{}, fmt.Errorf("%s: found %d records, wanted one", legacyGet, len(records))
	case records[0].ID != id:
		return legacy.Record{}, fmt.Errorf("%s: found the memory %q", legacyGet, clip(records[0].ID))
	}
	return records[0], nil
}
