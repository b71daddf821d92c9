package node

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/federate"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

// serviceName is what the ancestor's health said, and its programs look for.
const serviceName = "Remembrancer MCP"

// tool is one tool, or another thing that is asked for through MCP.
type tool struct {
	scopes []Scope // any of these
	places chan struct{}
	heavy  bool // its answer may be large
	limit  time.Duration
	// call is the tool for those that do not speak MCP.
	call func(ctx context.Context, args json.RawMessage) (any, error)
}

func refuse(code federate.Code, format string, args ...any) error {
	return &federate.Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

func bad(format string, args ...any) error { return refuse(federate.CodeBadRequest, format, args...) }

// hidden is what a caller is told of an error that nobody foresaw: the error itself
// may name files of this machine, and is for the log.
var hidden = &federate.Error{Code: federate.CodeInternal, Message: "see the node's log"}

// refusal says what a caller is told of an error.
func (s *Server) refusal(name string, err error) *federate.Error {
	var e *federate.Error
	switch {
	case errors.As(err, &e):
		if e.Code == federate.CodeInternal && e != hidden {
			s.log.Error("tool", "tool", name, "error", e, "cause", errors.Unwrap(e))
		}
		return e
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return &federate.Error{Code: federate.CodeBusy, Message: "the call ran into its deadline"}
	}
	s.log.Error("tool", "tool", name, "error", err)
	return hidden
}

// guarded runs one call: who may, how many, how long; measured, and never the end of
// the process.
func (s *Server) guarded(ctx context.Context, name string, t *tool, run func(ctx context.Context) error) (err error) {
	began := s.o.Now()
	j := s.judges(name)
	s.running.Add(1)
	defer s.running.Add(-1)
	c := callerFrom(ctx)
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("panic", "tool", name, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = hidden
		}
		code := codeOK
		if err != nil {
			e := s.refusal(name, err)
			code, err = e.Code, e
		}
		j.settle(verdictOf(code))
		took := s.o.Now().Sub(began)
		s.metrics.called(name, code, took)
		s.log.Info("call", "tool", name, "code", code, "caller", c.name, "took", took)
	}()
	if !slices.ContainsFunc(t.scopes, c.may) {
		return refuse(federate.CodeForbidden, "%s needs a token with the scope %s", name, t.scopes[0])
	}
	j.pause()
	ctx, cancel := context.WithTimeout(ctx, t.limit)
	defer cancel()
	h, _ := ctx.Value(heldKey{}).(*held)
	if h != nil {
		defer context.AfterFunc(h.until, cancel)()
	}
	if !s.place(ctx, t.places) {
		return refuse(federate.CodeBusy, "%s is called by too many at a time", name)
	}
	defer func() { <-t.places }()
	if t.heavy {
		if !s.place(ctx, s.heavy) {
			return refuse(federate.CodeBusy, "too much is asked for at a time")
		}
		leave := func() { <-s.heavy }
		if h == nil {
			defer leave()
		} else {
			h.keep(leave)
		}
	}
	j.resume()
	return run(context.WithValue(ctx, judgingKey{}, j))
}

// kept makes the rules of a tool.
func (s *Server) kept(name string, heavy bool, limit time.Duration, scopes ...Scope) *tool {
	places := s.o.Limits.PerTool
	if heavy {
		places = min(places, 8)
	}
	t := &tool{scopes: scopes, places: make(chan struct{}, places), heavy: heavy, limit: limit}
	s.tools[name] = t
	return t
}

// offer adds a tool of the ancestor: what it answers is described to clients, and
// repeated as text for those that show only text.
func offer[In, Out any](s *Server, name, description string, t *tool, run func(context.Context, In) (Out, error)) {
	call := func(ctx context.Context, in In) (out Out, text []byte, err error) {
		err = s.guarded(ctx, name, t, func(ctx context.Context) error {
			if out, err = run(ctx, in); err != nil {
				return err
			}
			var shown any = out
			if o, ok := shown.(interface{ text() any }); ok {
				shown = o.text()
			}
			if text, err = json.Marshal(shown); err != nil {
				return err
			}
			return s.fits(2 * len(text))
		})
		return out, text, err
	}
	mcp.AddTool(s.mcp, &mcp.Tool{Name: name, Description: description, Annotations: hints(t)},
		func(ctx context.Context, _ *mcp.CallToolRequest, in In) (*mcp.CallToolResult, Out, error) {
			out, text, err := call(ctx, in)
			return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: string(text)}}}, out, err
		})
	t.call = func(ctx context.Context, args json.RawMessage) (any, error) {
		var in In
		dec := json.NewDecoder(bytes.NewReader(args))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&in); err != nil {
			return nil, bad("%v", err)
		}
		out, _, err := call(ctx, in)
		return out, err
	}
}

// carry adds a tool of the federation: what it answers goes over the wire once.
func carry[In, Out any](s *Server, name, description string, heavy bool, scopes []Scope, run func(context.Context, In) (Out, error)) {
	t := s.kept(name, heavy, s.o.Limits.Call, scopes...)
	mcp.AddTool(s.mcp, &mcp.Tool{Name: name, Description: description, Annotations: hints(t)},
		func(ctx context.Context, _ *mcp.CallToolRequest, in In) (*mcp.CallToolResult, any, error) {
			var data []byte
			err := s.guarded(ctx, name, t, func(ctx context.Context) error {
				out, err := run(ctx, in)
				if err != nil {
					return err
				}
				if data, err = json.Marshal(out); err != nil {
					return err
				}
				return s.fits(len(data))
			})
			if err != nil {
				return nil, nil, err
			}
			return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: "ok"}}}, json.RawMessage(data), nil
		})
}

func (s *Server) fits(n int) error {
	if int64(n) > s.o.Limits.Answer {
		return refuse(federate.CodeTooLarge, "the answer is of %d bytes, and at most %d are sent: ask for less", n, s.o.Limits.Answer)
	}
	return nil
}

// hints tell a client what a tool may do. Nothing that a node does destroys.
func hints(t *tool) *mcp.ToolAnnotations {
	no := false
	return &mcp.ToolAnnotations{ReadOnlyHint: t.scopes[0] == Read, DestructiveHint: &no, OpenWorldHint: &no}
}

func (s *Server) makeMCP() {
	s.tools = map[string]*tool{}
	s.mcp = mcp.NewServer(&mcp.Implementation{Name: "remembrancer", Version: s.o.Version}, &mcp.ServerOptions{
		Instructions: "Signed receipts of deployments, decisions, incidents and discoveries. What a receipt says is what its issuer asserts; quote its id.",
		Capabilities: &mcp.ServerCapabilities{
			Tools: &mcp.ToolCapabilities{}, Resources: &mcp.ResourceCapabilities{}, Prompts: &mcp.PromptCapabilities{},
		},
	})
	s.offerTools()
	if s.o.Service != nil {
		s.carryTools()
	}
	s.offerResources()
	s.offerPrompts()
	s.mcp.AddReceivingMiddleware(s.watch)

	web := mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return s.mcp }, &mcp.StreamableHTTPOptions{
		Stateless: true, JSONResponse: true, MaxRequestBodyBytes: s.o.Limits.Body,
		DisableLocalhostProtection: true, // checkHost does it, for all paths and with the operator's names
	})
	s.web = Legacy(web, func(ctx context.Context, name string, args json.RawMessage) (any, error) {
		t := s.tools[name]
		if t == nil || t.call == nil {
			return nil, bad("no tool %.40q", name)
		}
		return t.call(ctx, args)
	})
}

// watch guards what the tools do not guard themselves. A panic in a goroutine of the
// library would end the process.
func (s *Server) watch(next mcp.MethodHandler) mcp.MethodHandler {
	return func(ctx context.Context, method string, req mcp.Request) (result mcp.Result, err error) {
		defer func() {
			if p := recover(); p != nil {
				s.log.Error("panic", "method", method, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
				result, err = nil, hidden
			}
		}()
		began := s.o.Now()
		name := map[string]string{"resources/read": "resource", "prompts/get": "prompt"}[method]
		if name != "" {
			refused := s.guarded(ctx, name, s.tools[name], func(ctx context.Context) error {
				result, err = next(ctx, method, req)
				return nil // that a resource is not there is an answer
			})
			if refused != nil {
				return nil, refused
			}
			return result, err
		}
		result, err = next(ctx, method, req)
		// Arguments that do not fit a tool never reach it.
		if r, ok := result.(*mcp.CallToolResult); ok && r != nil && r.IsError {
			var e *federate.Error
			if cause := r.GetError(); cause != nil && !errors.As(cause, &e) {
				took := s.o.Now().Sub(began)
				s.metrics.called(toolName(req), federate.CodeBadRequest, took)
				if j := s.judges(toolName(req)); j != nil {
					j.began = began
					j.settle(deny)
				}
				again := &mcp.CallToolResult{}
				again.SetError(bad("%v", cause))
				result = again
			}
		}
		return result, err
	}
}

func toolName(req mcp.Request) string {
	if p, ok := req.GetParams().(*mcp.CallToolParamsRaw); ok {
		return p.Name
	}
	return "other"
}

// The arguments and answers of the ancestor's tools.
type (
	searchIn struct {
		Query string `json:"query" jsonschema:"words to look for"`
		Scope string `json:"scope,omitempty" jsonschema:"where to look: local"`
		Limit int    `json:"limit,omitempty" jsonschema:"how many results at most, 25 unless told"`
	}
	searchOut struct {
		OK      bool  `json:"ok"`
		Results []Hit `json:"results"`
	}
	listIn struct {
		Limit int    `json:"limit,omitempty" jsonschema:"how many ids at most, 10000 unless told, which is also the most"`
		After string `json:"after,omitempty" jsonschema:"the last id of the page before"`
	}
	listOut struct {
		OK   bool     `json:"ok"`
		IDs  []string `json:"ids"`
		More bool     `json:"more" jsonschema:"others follow: ask again with after"`
	}
	getIn struct {
		MemoryID string `json:"memory_id" jsonschema:"id of a receipt"`
	}
	getOut struct {
		OK     bool   `json:"ok"`
		Memory memory `json:"memory"`
	}
	healthOut struct {
		OK          bool    `json:"ok" jsonschema:"receipts can be recorded"`
		Service     string  `json:"service"`
		HTTP        bool    `json:"http" jsonschema:"the answer came over HTTP"`
		Version     string  `json:"version"`
		Node        string  `json:"node"`
		Fingerprint string  `json:"fingerprint"`
		Endpoint    string  `json:"endpoint"`
		Log         head    `json:"log"`
		Set         setHead `json:"set"`
		Trust       string  `json:"trust" jsonschema:"hash of the trust state"`
		Peers       int     `json:"peers"`
		Conflicts   int     `json:"conflicts"`
		Quarantined int     `json:"quarantined"`
		Uptime      int64   `json:"uptime_seconds"`
	}
	head struct {
		Size int64  `json:"size"`
		Root string `json:"root" jsonschema:"RFC 6962 root in hex"`
	}
	setHead struct {
		Count int    `json:"count"`
		Root  string `json:"root"`
	}
	peersOut struct {
		OK    bool   `json:"ok"`
		Peers []peer `json:"peers"`
	}
	peer struct {
		NodeID      string `json:"node_id"`
		MCPURL      string `json:"mcp_url"`
		Fingerprint string `json:"fingerprint"`
		LogSize     int64  `json:"log_size" jsonschema:"entries of its log that were taken"`
		LastMerge   string `json:"last_merge" jsonschema:"file of the last merge receipt"`
		Stopped     string `json:"stopped" jsonschema:"why nothing is exchanged with it"`
	}
	verifyIn struct {
		ArtifactPath string `json:"artifact_path" jsonschema:"path in the workspace"`
	}
	signIn struct {
		ArtifactPath string `json:"artifact_path" jsonschema:"path in the workspace"`
		KeyID        string `json:"key_id,omitempty" jsonschema:"fingerprint of the key to sign with"`
	}
	recordIn struct {
		Title string   `json:"title" jsonschema:"one line that says it"`
		Body  string   `json:"body" jsonschema:"what was decided, and why"`
		Tags  []string `json:"tags,omitempty"`
		Sign  bool     `json:"sign,omitempty" jsonschema:"has no effect: every receipt is signed"`
	}
	recordOut struct {
		OK       bool            `json:"ok"`
		Recorded recordedReceipt `json:"recorded"`
	}
	recordedReceipt struct {
		ID     string `json:"id"`
		File   string `json:"file"`
		Index  int64  `json:"index" jsonschema:"in the log"`
		Signed bool   `json:"signed"`
	}
	syncIn struct {
		Peer       string `json:"peer" jsonschema:"URL of the peer"`
		AnchorFile string `json:"anchor_file,omitempty" jsonschema:"file with the peer's public key, on this machine"`
	}
	syncOut struct {
		OK     bool `json:"ok"`
		Result any  `json:"result"`
	}
	none struct{}
)

// text is what the ancestor's search answered.
func (o searchOut) text() any { return o.Results }

const (
	defaultHits = 25
	maxHits     = 1000
	maxQuery    = 1 << 10
	maxList     = 10_000
)

func (s *Server) offerTools() {
	limit := s.o.Limits.Call
	offer(s, "search_memories", "Find receipts by words.", s.kept("search_memories", true, limit, Read), s.searchMemories)
	offer(s, "list_memory_ids", "List the ids of the federated set, in order, page by page.", s.kept("list_memory_ids", true, limit, Read), s.listMemoryIDs)
	offer(s, "get_memory", "Get one receipt, with the log line that proves it.", s.kept("get_memory", false, limit, Read), s.getMemory)
	offer(s, "health", "Say how the node is.", s.kept("health", false, limit, Read), s.health)
	offer(s, "list_peers", "List the nodes that this one merges with.", s.kept("list_peers", false, limit, Read), s.listPeers)
	offer(s, "record_decision", "Record a decision as a signed receipt in the log.", s.kept("record_decision", false, limit, Record), s.recordDecision)
	if s.o.Workspace != nil && s.o.Verify != nil {
		offer(s, "verify_artifact", "Verify a file of the workspace against its signatures and receipts.", s.kept("verify_artifact", true, limit, Read),
			func(ctx context.Context, in verifyIn) (Outcome, error) {
				path, err := s.inWorkspace(in.ArtifactPath)
				if err != nil {
					return Outcome{}, err
				}
				return s.o.Verify(ctx, s.o.Workspace, path)
			})
	}
	if s.o.Workspace != nil && s.o.Sign != nil {
		offer(s, "sign_artifact", "Sign a file of the workspace.", s.kept("sign_artifact", true, limit, Sign),
			func(ctx context.Context, in signIn) (Outcome, error) {
				path, err := s.inWorkspace(in.ArtifactPath)
				if err != nil {
					return Outcome{}, err
				}
				settled(ctx, allow)
				return s.o.Sign(ctx, s.o.Workspace, path, in.KeyID)
			})
	}
	if s.o.Sync != nil {
		offer(s, "federation_sync", "Sync with a peer now.", s.kept("federation_sync", true, s.o.Limits.Sync, Admin),
			func(ctx context.Context, in syncIn) (syncOut, error) {
				result, err := s.o.Sync(ctx, in.Peer, in.AnchorFile)
				if err != nil {
					return syncOut{}, err
				}
				return syncOut{OK: true, Result: result}, nil
			})
	}
}

func (s *Server) searchMemories(ctx context.Context, in searchIn) (searchOut, error) {
	n, err := countOf(in.Limit, defaultHits, maxHits)
	switch {
	case err != nil:
		return searchOut{}, err
	case in.Scope != "" && in.Scope != "local":
		return searchOut{}, bad("scope %.40q: a node searches what it holds, want local", in.Scope)
	case len(in.Query) > maxQuery:
		return searchOut{}, bad("query: found %d bytes, want at most %d", len(in.Query), maxQuery)
	}
	search := s.o.Search
	if search == nil {
		search = s.searchLog
	}
	hits, err := search(ctx, in.Query, n)
	if err != nil {
		return searchOut{}, err
	}
	if hits == nil {
		hits = []Hit{}
	}
	return searchOut{true, hits[:min(n, len(hits))]}, nil
}

func countOf(given, unless, most int) (int, error) {
	switch {
	case given == 0:
		return unless, nil
	case given < 0 || given > most:
		return 0, bad("limit: found %d, want 1 to %d", given, most)
	}
	return given, nil
}

func (s *Server) listMemoryIDs(_ context.Context, in listIn) (listOut, error) {
	n, err := countOf(in.Limit, maxList, maxList)
	if err != nil {
		return listOut{}, err
	}
	var after receipt.ID
	if in.After != "" {
		if after, err = receipt.ParseID(in.After); err != nil {
			return listOut{}, bad("after: %v", err)
		}
	}
	snapshot, err := s.o.Store.Snapshot()
	if err != nil {
		return listOut{}, err
	}
	out := listOut{OK: true, IDs: []string{}}
	for id := range snapshot.Set.All() {
		if in.After != "" && bytes.Compare(id[:], after[:]) <= 0 {
			continue
		}
		if len(out.IDs) == n {
			out.More = true
			break
		}
		out.IDs = append(out.IDs, id.String())
	}
	return out, nil
}

// find returns a receipt that is served, by its id in hex.
func (s *Server) find(id string) (receipt.Entry, error) {
	parsed, err := receipt.ParseID(id)
	if err != nil {
		return receipt.Entry{}, bad("%v", err)
	}
	e, _, ok := s.o.Store.Entry(parsed)
	if !ok {
		return receipt.Entry{}, bad("no receipt has the id %s", id)
	}
	return e, nil
}

func (s *Server) getMemory(_ context.Context, in getIn) (getOut, error) {
	e, err := s.find(in.MemoryID)
	if err != nil {
		return getOut{}, err
	}
	log, err := s.logHead()
	if err != nil {
		return getOut{}, err
	}
	m, err := memoryOf(e, log.Root)
	return getOut{true, m}, err
}

// logHead reads the head of the log, which the store has signed.
func (s *Server) logHead() (head, error) {
	note, err := s.o.Store.Head()
	if err != nil {
		return head{}, err
	}
	return headOf(note)
}

func headOf(note []byte) (head, error) {
	if note == nil {
		return head{}, nil
	}
	body, err := checkpoint.ParseBody(slices.Concat(bodyOf(note), []byte("\n")))
	if err != nil {
		return head{}, err
	}
	return head{body.Size, hex.EncodeToString(body.Root[:])}, nil
}

func (s *Server) health(ctx context.Context, _ none) (healthOut, error) {
	log, err := s.logHead()
	if err != nil {
		return healthOut{}, err
	}
	snapshot, err := s.o.Store.Snapshot()
	if err != nil {
		return healthOut{}, err
	}
	who := s.o.Store.Identity()
	quarantined := 0
	for _, n := range s.o.Store.Quarantine().Counts {
		quarantined += n
	}
	return healthOut{
		OK: s.ready() == nil, Service: serviceName, HTTP: callerFrom(ctx).name != stdio, Version: s.o.Version,
		Node: who.Node, Fingerprint: who.Fingerprint, Endpoint: who.Endpoint,
		Log: log, Set: setHead{snapshot.Count, snapshot.Root.String()}, Trust: s.o.Store.Trust().Hash(),
		Peers: len(s.o.Store.Peers()), Conflicts: len(s.o.Store.Conflicts()), Quarantined: quarantined,
		Uptime: int64(s.o.Now().Sub(s.started) / time.Second),
	}, nil
}

func (s *Server) listPeers(context.Context, none) (peersOut, error) {
	out := peersOut{OK: true, Peers: []peer{}}
	for _, p := range s.o.Store.Peers() {
		out.Peers = append(out.Peers, peer{
			NodeID: p.Node, MCPURL: p.URL, Fingerprint: p.Fingerprint,
			LogSize: p.TailSize, LastMerge: p.LastMergeFile, Stopped: p.Stopped,
		})
	}
	return out, nil
}

// inWorkspace checks that a path names a regular file of the workspace and passes
// through no symbolic link, even one that stays inside: a link could point elsewhere
// by the time the file is opened.
func (s *Server) inWorkspace(path string) (string, error) {
	local := filepath.Clean(filepath.FromSlash(path))
	if path == "" || !filepath.IsLocal(local) || strings.ContainsRune(path, 0) {
		return "", bad("artifact_path %.200q: want a path inside the workspace", path)
	}
	parts := strings.Split(filepath.ToSlash(local), "/")
	for i := range parts {
		info, err := s.o.Workspace.Lstat(filepath.FromSlash(strings.Join(parts[:i+1], "/")))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return "", bad("artifact_path %.200q: no such file in the workspace", path)
		case err != nil:
			return "", bad("artifact_path %.200q: cannot be read", path)
		case info.Mode()&fs.ModeSymlink != 0:
			return "", bad("artifact_path %.200q: passes through a symbolic link, want a regular file", path)
		case i == len(parts)-1 && !info.Mode().IsRegular():
			return "", bad("artifact_path %.200q: is not a regular file", path)
		}
	}
	return local, nil
}

// carryTools adds the federation tools.
func (s *Server) carryTools() {
	f := s.o.Service
	reading, writing := []Scope{Read, Federate}, []Scope{Federate}
	carry(s, federate.ToolIdentity, "Who this node is, signed.", false, reading, f.Identity)
	carry(s, federate.ToolHello, "Signed heads of log and set, and a challenge.", false, reading, f.Hello)
	carry(s, federate.ToolTrust, "Members of the trust state.", false, reading, f.Trust)
	carry(s, federate.ToolTail, "Entries of the log from an index on, with a proof.", true, reading, f.Tail)
	carry(s, federate.ToolDiff, "Subtrees of the set of a root.", true, reading, f.Diff)
	carry(s, federate.ToolIDs, "Ids of the set of a root.", true, reading, f.IDs)
	carry(s, federate.ToolGet, "Receipts by their ids.", true, reading, f.Get)
	carry(s, federate.ToolSession, "Begin a session, by a signature over a challenge.", false, writing, f.Session)
	carry(s, federate.ToolPush, "Give receipts.", true, writing, func(ctx context.Context, in federate.PushIn) (federate.PushOut, error) {
		out, err := f.Push(ctx, in)
		s.metrics.took(pushed, out.Added)
		if err == nil {
			v := allow
			if len(out.Rejected) > 0 && out.Added+out.Known == 0 {
				v = deny
			}
			settledIn(ctx, v, out.Judged)
		}
		var e *federate.Error
		if err == nil && out.Added > 0 || errors.As(err, &e) && e.Code == federate.CodeInternal && ctx.Err() == nil {
			s.appended(err)
		}
		return out, err
	})
	carry(s, federate.ToolMergeIDs, "Say which receipts only one side held.", true, writing, f.MergeIDs)
	carry(s, federate.ToolPropose, "Propose a merge receipt to sign.", true, writing, f.Propose)
	carry(s, federate.ToolCommit, "Hand over the finished merge receipt.", true, writing, f.Commit)
}

func (s *Server) offerResources() {
	s.kept("resource", false, s.o.Limits.Call, Read)
	template := func(uri, name, description string, read func(ctx context.Context, uri string) ([]receipt.Entry, error)) {
		s.mcp.AddResourceTemplate(&mcp.ResourceTemplate{URITemplate: uri, Name: name, Description: description, MIMEType: "application/json"},
			func(ctx context.Context, req *mcp.ReadResourceRequest) (*mcp.ReadResourceResult, error) {
				uri := req.Params.URI
				entries, err := read(ctx, uri)
				if err != nil {
					e := s.refusal(name, err)
					if e.Code == federate.CodeBadRequest {
						return nil, mcp.ResourceNotFoundError(uri)
					}
					return nil, e
				}
				return s.resource(uri, entries)
			})
	}
	template("memory://local/{id}", "memory", "A receipt by its id.", func(_ context.Context, uri string) ([]receipt.Entry, error) {
		e, err := s.find(strings.TrimPrefix(uri, "memory://local/"))
		return []receipt.Entry{e}, err
	})
	template("adr://local/{year}/ADR-{num}", "decision", "The decisions of a number and year; nodes may have given a number twice.", func(ctx context.Context, uri string) ([]receipt.Entry, error) {
		year, num, ok := strings.Cut(strings.TrimPrefix(uri, "adr://local/"), "/ADR-")
		y, err := strconv.ParseInt(year, 10, 64)
		n, err2 := strconv.ParseInt(num, 10, 64)
		if !ok || err != nil || err2 != nil {
			return nil, bad("want adr://local/YEAR/ADR-NUMBER")
		}
		ids, err := s.named.decision(ctx, y, n)
		return s.entries(ids, err)
	})
	template("receipt://deploy/{component}/{version}", "deployment", "The deployments of a version of a component.", func(ctx context.Context, uri string) ([]receipt.Entry, error) {
		component, version, ok := strings.Cut(strings.TrimPrefix(uri, "receipt://deploy/"), "/")
		c, err := url.PathUnescape(component)
		v, err2 := url.PathUnescape(version)
		if !ok || err != nil || err2 != nil {
			return nil, bad("want receipt://deploy/COMPONENT/VERSION")
		}
		ids, err := s.named.deployment(ctx, c, v)
		return s.entries(ids, err)
	})
	s.mcp.AddResource(&mcp.Resource{URI: "merkle://root", Name: "root", Description: "The signed heads of log and set.", MIMEType: "application/json"},
		func(context.Context, *mcp.ReadResourceRequest) (*mcp.ReadResourceResult, error) {
			text, err := s.roots()
			if err != nil {
				return nil, s.refusal("resource", err)
			}
			return &mcp.ReadResourceResult{Contents: []*mcp.ResourceContents{{URI: "merkle://root", MIMEType: "application/json", Text: text}}}, nil
		})
}

// entries returns those receipts of some ids that are served, one at least.
func (s *Server) entries(ids []receipt.ID, err error) ([]receipt.Entry, error) {
	if err != nil {
		return nil, err
	}
	var found []receipt.Entry
	for _, id := range ids {
		if e, _, ok := s.o.Store.Entry(id); ok {
			found = append(found, e)
		}
	}
	if len(found) == 0 {
		return nil, bad("nothing of that name")
	}
	return found, nil
}

// resource shows receipts, each as its own content.
func (s *Server) resource(uri string, entries []receipt.Entry) (*mcp.ReadResourceResult, error) {
	log, err := s.logHead()
	if err != nil {
		return nil, s.refusal("resource", err)
	}
	result := &mcp.ReadResourceResult{}
	size := 0
	for _, e := range entries {
		m, err := memoryOf(e, log.Root)
		if err != nil {
			return nil, s.refusal("resource", err)
		}
		text, err := json.Marshal(m)
		if err != nil {
			return nil, s.refusal("resource", err)
		}
		if size += len(text); s.fits(size) != nil {
			return nil, s.fits(size)
		}
		result.Contents = append(result.Contents, &mcp.ResourceContents{URI: uri, MIMEType: "application/json", Text: string(text)})
	}
	return result, nil
}

func (s *Server) roots() (string, error) {
	snapshot, err := s.o.Store.Snapshot()
	if err != nil {
		return "", err
	}
	log, err := headOf(snapshot.Checkpoint)
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(map[string]any{
		"merkle_root": log.Root, "log": log, "checkpoint": string(snapshot.Checkpoint),
		"set": setHead{snapshot.Count, snapshot.Root.String()}, "set_note": string(snapshot.SetNote),
		"trust": s.o.Store.Trust().Hash(),
	})
	return string(text), err
}
