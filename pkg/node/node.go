// Package node is one Remembrancer node on the network, and the client that speaks
// to another one.
//
// # What a node serves
//
//	/mcp              Model Context Protocol: streamable HTTP, stateless, JSON answers
//	/checkpoint       newest signed head of its log, with cosignatures (c2sp.org/tlog-tiles)
//	/tile/…           hash tiles and entry bundles of the log (c2sp.org/tlog-tiles)
//	/add-checkpoint   cosigns the checkpoints of its peers (c2sp.org/tlog-witness)
//	/metrics          Prometheus text
//	/status           the same for people: HTML without scripts
//	/healthz          200 while the process answers
//	/readyz           200 while receipts can be recorded: the log is open and was
//	                  verified, and the last append, if any, succeeded
//
// [Server.Stdio] speaks the same protocol of /mcp over two streams, for a program
// that starts the node itself.
//
// # Tools
//
//	search_memories(query, scope="local", limit=25)    read    ok, results: id, title, score, …
//	list_memory_ids(limit=10000, after="")             read    ok, ids, more
//	get_memory(memory_id)                              read    ok, memory
//	health()                                           read    ok, service, http, log, set, …
//	list_peers()                                       read    ok, peers: node_id, mcp_url, …
//	verify_artifact(artifact_path)                     read    ok, stdout, stderr
//	record_decision(title, body, tags, sign)           record  ok, recorded: id, file, index
//	sign_artifact(artifact_path, key_id)               sign    ok, stdout, stderr
//	fed_…                                                      see package federate
//	federation_sync(peer, anchor_file)                 admin   what the sync came to
//
// The names, arguments and answers of the first eight are those of the ancestor of
// this project. The ids of list_memory_ids are the federated set, in order; an id is
// a receipt's, and memory.line is its log line, which proves the rest of memory.
// A tool that this node was not given the means for is not listed.
//
// A tool that fails answers with isError and the text "code: message". The codes are
// those of package federate, "forbidden" and "busy" among them.
//
// The ancestor's own client, which speaks plain JSON-RPC, is answered too: see
// [Legacy].
//
// Resources are memory://local/{id}, adr://local/{year}/ADR-{num},
// receipt://deploy/{component}/{version} and merkle://root; prompts are adr_template
// and deployment_postmortem.
//
// # Who may do what
//
// A caller has scopes: read, record, federate, sign, admin. They come from
//
//   - a bearer token: those that the token has been given;
//   - a client certificate that the TLS configuration verified: read and federate;
//   - nothing, where no token is configured and the listener is on loopback, or
//     where the operator opened reading ([Options.OpenRead]): read, and federate
//     too as long as no token is configured.
//
// Federate alone writes nothing: a session begins with an OpenPGP signature by a
// member of the trust state, and only a session writes. Record, sign and admin always
// need a token. Scopes are independent: admin does not include read.
//
// [Server.Serve] refuses a listener beyond loopback that has no token, no verified
// client certificates and no OpenRead. On loopback, and behind a proxy, a request
// must ask for a loopback name or one of [Options.Hosts]: a web page that resolves its
// own name to this machine is not this machine. Requests that a browser sends from
// another origin are refused.
//
// # Limits
//
// See [Limits]. A request beyond one is refused and the rest go on; a handler that
// panics answers with an internal error and its stack is logged. Nothing secret is
// logged: neither tokens, nor headers, nor arguments.
package node

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/federate"
)

// Options is what a [Server] is made of. Store is required; Service is needed for
// the federation tools.
type Options struct {
	Store   *federate.Store
	Service *federate.Service // nil: the node answers no fed_ tool

	Version string // of the program, for health and metrics
	// Revision is the full commit that the program was built from, "" if nobody knows:
	// measurements are of it, and of no other.
	Revision string
	Track    string // which of several versions in service this one is; "" is stable

	// TLS makes the listener one of TLS. With ClientAuth
	// RequireAndVerifyClientCert, or VerifyClientCertIfGiven, a verified
	// certificate gives the scopes read and federate.
	TLS      *tls.Config
	Tokens   []Token
	OpenRead bool     // anyone may read, on any listener
	Hosts    []string // names of the node beyond loopback, as a proxy passes them on

	// Control is a file that Serve writes once it listens, with mode 0600, and
	// removes at the end: the JSON of a [Control], whose token has every scope.
	// Whoever can read it owns the data directory anyway. "" writes none.
	Control string

	// Workspace is where artifacts are verified and signed. It cannot be left
	// through "..", an absolute path or a symbolic link. Without it, or without
	// the function, there is no such tool.
	Workspace *os.Root
	Verify    func(ctx context.Context, workspace *os.Root, path string) (Outcome, error)
	// Sign signs for sign_artifact; nil leaves that tool off.
	Sign func(ctx context.Context, workspace *os.Root, path, keyID string) (Outcome, error)

	// Search finds receipts, best first. nil searches the log itself, entry by
	// entry, which is enough for some ten thousand.
	Search func(ctx context.Context, query string, limit int) ([]Hit, error)

	// Sync runs one sync with a peer on behalf of federation_sync; nil leaves that
	// tool off. The result is shown as JSON. See [Server.Synced] for its outcome.
	Sync func(ctx context.Context, peer, anchorFile string) (result any, err error)

	Logger  *slog.Logger     // nil logs nothing
	Now     func() time.Time // nil is time.Now
	Random  io.Reader        // nil is crypto/rand
	Limits  Limits
	OnReady func(url string) // called once, when the listener accepts
}

// Limits bound what one caller can cost. A zero is the default.
type Limits struct {
	Body       int64         // bytes of a request; 4 MiB
	Answer     int64         // bytes of an answer; 4 MiB
	PerTool    int           // calls of one tool at a time; 64, and 8 for those that read or sign much
	Requests   int           // requests at a time; 256
	Connection int           // connections at a time; 1024
	Wait       time.Duration // for a place among those; 1 s, then "busy"
	ReadHeader time.Duration // 5 s
	Read       time.Duration // the whole request; 30 s
	Write      time.Duration // from the end of the request's head; 60 s
	Idle       time.Duration // between two requests; 2 min
	Call       time.Duration // one tool, federation_sync apart; 50 s
	Sync       time.Duration // federation_sync; 30 min
	Drain      time.Duration // for requests under way at the end; 10 s
}

func (l Limits) withDefaults() Limits {
	bytes := func(p *int64, v int64) {
		if *p == 0 {
			*p = v
		}
	}
	count := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	span := func(p *time.Duration, v time.Duration) {
		if *p == 0 {
			*p = v
		}
	}
	bytes(&l.Body, 4<<20)
	bytes(&l.Answer, 4<<20)
	count(&l.PerTool, 64)
	count(&l.Requests, 256)
	count(&l.Connection, 1024)
	span(&l.Wait, time.Second)
	span(&l.ReadHeader, 5*time.Second)
	span(&l.Read, 30*time.Second)
	span(&l.Write, 60*time.Second)
	span(&l.Idle, 2*time.Minute)
	span(&l.Call, 50*time.Second)
	span(&l.Sync, 30*time.Minute)
	span(&l.Drain, 10*time.Second)
	return l
}

// Outcome is what verifying or signing an artifact came to: what the command line of
// this project, or of its ancestor, would have said.
type Outcome struct {
	OK     bool   `json:"ok"`
	Stdout string `json:"stdout"`
	Stderr string `json:"stderr"`
}

// Hit is a receipt that a search found.
type Hit struct {
	ID        string  `json:"id"`
	Title     string  `json:"title"`
	Score     float64 `json:"score"` // larger is better; comparable within one answer
	Kind      string  `json:"type"`
	Component string  `json:"component,omitempty"`
	Version   string  `json:"version,omitempty"`
	Issued    string  `json:"timestamp,omitempty"` // RFC 3339, UTC
}

// Scope is something that a caller may do.
type Scope string

// The scopes.
const (
	Read     Scope = "read"
	Record   Scope = "record"
	Federate Scope = "federate"
	Sign     Scope = "sign"
	Admin    Scope = "admin"
)

// Scopes returns every scope.
func Scopes() []Scope { return []Scope{Read, Record, Federate, Sign, Admin} }

// ParseScope reads the name of a scope.
func ParseScope(s string) (Scope, error) {
	if slices.Contains(Scopes(), Scope(s)) {
		return Scope(s), nil
	}
	names := make([]string, 0, len(Scopes()))
	for _, scope := range Scopes() {
		names = append(names, string(scope))
	}
	return "", fmt.Errorf("unknown scope %q, want one of %s", s, strings.Join(names, ", "))
}

// Token is a bearer token as the node keeps it: without the secret. The secret must
// be random, 16 bytes at least: a hash does not protect a word that can be guessed.
type Token struct {
	Name   string // for the log
	SHA256 [sha256.Size]byte
	Scopes []Scope
}

// NewToken makes a token of a secret. It refuses secrets of less than 22 characters,
// which is 16 bytes in base64.
func NewToken(name, secret string, scopes ...Scope) (Token, error) {
	if len(secret) < 22 {
		return Token{}, fmt.Errorf("token %q: found a secret of %d characters, wanted 22 random ones at least: openssl rand -hex 32", name, len(secret))
	}
	return Token{Name: name, SHA256: sha256.Sum256([]byte(secret)), Scopes: scopes}, nil
}

// ParseToken reads the digest of a token's secret: 64 lower-case hex digits, as
// printf %s SECRET | sha256sum prints it.
func ParseToken(name, digest string, scopes ...Scope) (Token, error) {
	b, err := hex.DecodeString(digest)
	if err != nil || len(b) != sha256.Size || digest != strings.ToLower(digest) {
		return Token{}, fmt.Errorf("token %q: want the SHA-256 of its secret in 64 lower-case hex digits: printf %%s SECRET | sha256sum", name)
	}
	return Token{Name: name, SHA256: [sha256.Size]byte(b), Scopes: scopes}, nil
}

// Control is how programs of the node's own user reach it while it holds the lock on
// its data directory.
type Control struct {
	URL   string `json:"url"` // of /mcp
	Token string `json:"token"`
}
