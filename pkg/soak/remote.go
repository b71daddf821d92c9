package soak

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/federate"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
	"github.com/vaultmesh/remembrancer/pkg/node"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
)

const (
	maxBody  = 20 << 20 // of an answer: an entry bundle has at most 256 lines of 64 KiB
	maxTiles = 1024     // full tiles that are kept
	tileRows = 8        // height of a tile
)

// identityType is the payload type that a node signs its identity as.
const identityType = "application/vnd.vaultmesh.node-identity+json"

// noClock is later than any time that a signature can claim: who a node is does not
// depend on whose clock is right.
var noClock = time.Unix(1<<32, 0)

// untrue is the error that the node said or showed something that is not so.
type untrue struct{ err error }

func (e *untrue) Error() string { return e.err.Error() }
func (e *untrue) Unwrap() error { return e.err }

func untruef(format string, args ...any) error { return &untrue{fmt.Errorf(format, args...)} }

// OtherNode is the error that a node with other keys answers at the address.
type OtherNode struct{ Was, Is Identity }

func (e *OtherNode) Error() string {
	return fmt.Sprintf("another node answers: found %s with the key %s and the log key %s, pinned are %s, %s and %s",
		e.Is.Node, e.Is.Fingerprint, e.Is.Log, e.Was.Node, e.Was.Fingerprint, e.Was.Log)
}

// unsent is the error that nothing was asked of the node.
type unsent struct{ error }

func (u *unsent) Unwrap() error { return u.error }

// errNoKey says that nobody can verify what a node signs.
var errNoKey = errors.New("no key")

// Identity is whom a run is against: what was pinned at first contact.
type Identity struct {
	Node        string `json:"node"`
	Fingerprint string `json:"fingerprint"` // of the key that issues its receipts
	Log         string `json:"log"`         // vkey of its log
}

// statusError is an HTTP answer other than 200.
type statusError struct {
	path string
	code int
	text string
}

func (e *statusError) Error() string {
	return fmt.Sprintf("%s: HTTP status %d: %s", e.path, e.code, e.text)
}

// session is one of MCP, and the token that it was opened with.
type session struct {
	*node.Client
	secret string
}

// remote is the node as the operations reach it. The session of MCP is shared, and
// opened again when it broke.
type remote struct {
	base string // without a path
	web  *http.Client
	o    *Options
	keys []*openpgp.Key

	ring   *openpgp.Keyring // of the pinned key
	policy *checkpoint.Policy
	pinned Identity
	other  chan error // takes the *OtherNode that ends the run

	dialing chan struct{} // held by who opens a session

	mu      sync.Mutex // guards what follows
	session *session
	secret  string
	fails   int
	wait    time.Time // no session is tried before
	last    error     // why the last try failed
	newest  checkpoint.Verified
	tiles   map[tlog.Tile][]byte
}

func newRemote(o *Options) (*remote, error) {
	u, err := url.Parse(o.Node)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("node %q: want a URL such as http://localhost:8001", o.Node)
	}
	if path := strings.TrimSuffix(u.Path, "/"); path != "" && path != node.MCPPath {
		return nil, fmt.Errorf("node %q: want a URL without a path, or with %s", o.Node, node.MCPPath)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.Dial.RootCAs}
	if o.Dial.Certificate != nil {
		config.Certificates = []tls.Certificate{*o.Dial.Certificate}
	}
	return &remote{
		base: u.Scheme + "://" + u.Host, o: o, keys: o.Keys,
		web:   newWeb(config),
		other: make(chan error, 1), dialing: make(chan struct{}, 1), tiles: map[tlog.Tile][]byte{},
	}, nil
}

// newWeb makes a client that follows no redirect: the keys that are pinned are of
// this address.
func newWeb(config *tls.Config) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext: (&net.Dialer{}).DialContext, TLSClientConfig: config, MaxIdleConnsPerHost: 64,
			IdleConnTimeout: 30 * time.Second, MaxResponseHeaderBytes: 64 << 10, DisableCompression: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func (r *remote) close() {
	r.mu.Lock()
	c := r.session
	r.session = nil
	r.mu.Unlock()
	if c != nil {
		_ = c.Close()
	}
	r.web.CloseIdleConnections()
}

// token asks for the bearer token, and keeps it for requests.
func (r *remote) token() (string, error) {
	if r.o.Token == nil {
		return "", nil
	}
	secret, err := r.o.Token()
	if err != nil {
		return "", misused("token: %w", err)
	}
	r.mu.Lock()
	r.secret = secret
	r.mu.Unlock()
	return secret, nil
}

func (r *remote) known() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.secret
}

// meet learns who the node is, and pins it; was is what was pinned before, if
// anything.
func (r *remote) meet(ctx context.Context, was Identity) error {
	if was != (Identity{}) {
		if err := r.pin(was); err != nil {
			return err
		}
	}
	_, err := r.open(ctx)
	return err
}

func (r *remote) pin(id Identity) error {
	at := slices.IndexFunc(r.keys, func(k *openpgp.Key) bool { return string(k.Fingerprint()) == id.Fingerprint })
	if at < 0 {
		return fmt.Errorf("%w of %s is at hand: on the node's machine type remembrancer federation trust --export > node.asc, and here give --trust-anchor node.asc", errNoKey, id.Fingerprint)
	}
	ring, err := openpgp.NewKeyring(r.keys[at])
	if err != nil {
		return err
	}
	policy, err := checkpoint.ParsePolicy(checkpoint.NewPolicy(id.Log))
	if err != nil {
		return err
	}
	r.ring, r.policy, r.pinned = ring, policy, id
	return nil
}

// open returns the session, and opens one if there is none.
func (r *remote) open(ctx context.Context) (*session, error) {
	select {
	case r.dialing <- struct{}{}:
		defer func() { <-r.dialing }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	r.mu.Lock()
	c, wait, last := r.session, r.wait, r.last
	r.mu.Unlock()
	switch {
	case c != nil:
		return c, nil
	case r.o.Now().Before(wait):
		return nil, last
	}
	c, err := r.dial(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		if ctx.Err() == nil {
			// The longer it fails, the less often it is tried; operations that are due
			// meanwhile end at once.
			r.wait, r.last = r.o.Now().Add(min(2*time.Second, 50*time.Millisecond<<min(r.fails, 10))), err
			r.fails++
		}
		return nil, err
	}
	r.session, r.fails, r.wait = c, 0, time.Time{}
	return c, nil
}

func (r *remote) dial(ctx context.Context) (*session, error) {
	o := r.o.Dial
	var err error
	if o.Token, err = r.token(); err != nil {
		return nil, err
	}
	o.Timeout = r.o.Plan.Deadline
	c, err := node.Dial(ctx, r.base+node.MCPPath, o)
	if err != nil {
		// A node that was just started may have given out another token meanwhile.
		was := o.Token
		now, terr := r.token()
		if terr != nil || now == was {
			return nil, err
		}
		o.Token = now
		if c, err = node.Dial(ctx, r.base+node.MCPPath, o); err != nil {
			return nil, err
		}
	}
	if err := r.identify(ctx, c); err != nil {
		_ = c.Close() // why it was left is what matters
		return nil, err
	}
	return &session{c, o.Token}, nil
}

// identify has the node prove who it is: the first time that is pinned, later it must
// be the same.
func (r *remote) identify(ctx context.Context, c *node.Client) error {
	var out federate.IdentityOut
	if err := c.Call(ctx, federate.ToolIdentity, federate.IdentityIn{}, &out); err != nil {
		return err
	}
	var full federate.Identity
	if err := json.Unmarshal([]byte(out.Identity), &full); err != nil {
		return untruef("identity: %w", err)
	}
	id := Identity{full.Node, full.Fingerprint, full.Log}
	if r.policy != nil {
		if id != r.pinned {
			r.changed(&OtherNode{r.pinned, id})
			return &OtherNode{r.pinned, id}
		}
		return nil
	}
	at := slices.IndexFunc(r.keys, func(k *openpgp.Key) bool { return string(k.Fingerprint()) == id.Fingerprint })
	if at < 0 {
		return r.pin(id) // says what is missing
	}
	ring, err := openpgp.NewKeyring(r.keys[at])
	if err != nil {
		return err
	}
	sig, err := base64.StdEncoding.Strict().DecodeString(out.Signature)
	if err != nil {
		return untruef("identity: the signature is not base64")
	}
	pae := fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(identityType), identityType, len(out.Identity), out.Identity)
	if _, err := openpgp.Verify(ring, r.keys[at].Fingerprint(), pae, sig, openpgp.VerifyOptions{Now: noClock}); err != nil {
		return untruef("identity: %w", err)
	}
	return r.pin(id)
}

func (r *remote) changed(err error) {
	select {
	case r.other <- err:
	default: // it is known already
	}
}

// lose gives a session up. Calls that are under way on it end by themselves.
func (r *remote) lose(c *session) {
	r.mu.Lock()
	mine := r.session == c
	if mine {
		r.session = nil
	}
	r.mu.Unlock()
	if mine {
		time.AfterFunc(2*r.o.Plan.Deadline, func() { _ = c.Close() })
	}
}

// call calls a tool. It is tried a second time only where the node has said that it
// did nothing, since it knows another token by now.
func (r *remote) call(ctx context.Context, tool string, in, out any) error {
	for again := false; ; again = true {
		c, err := r.open(ctx)
		if err != nil {
			return &unsent{err}
		}
		err = c.Call(ctx, tool, in, out)
		var refused *node.ToolError
		if err == nil {
			return nil
		}
		if !errors.As(err, &refused) {
			r.lose(c)
			return err
		}
		if refused.Code == "" {
			// The node gives every refusal a code: this one is of the connection, below.
			r.lose(c)
			return fmt.Errorf("%s: %s", tool, refused.Message)
		}
		if refused.Code != string(federate.CodeForbidden) || again {
			return err
		}
		now, terr := r.token()
		if terr != nil || now == c.secret {
			return err
		}
		r.lose(c)
	}
}

// get reads a path of the node.
func (r *remote) get(ctx context.Context, path string) ([]byte, error) {
	for again := false; ; again = true {
		secret := r.known()
		status, body, err := request(ctx, r.web, http.MethodGet, r.base+path, "", secret, nil)
		if err != nil {
			return nil, err
		}
		if status == http.StatusUnauthorized && !again {
			now, err := r.token()
			if err != nil {
				return nil, err
			}
			if now != secret {
				continue
			}
		}
		if status != http.StatusOK {
			return nil, &statusError{path, status, clip(body)}
		}
		return body, nil
	}
}

// clip is as much of an answer as an error repeats.
func clip(b []byte) string {
	line, _, _ := strings.Cut(strings.ToValidUTF8(string(b), "?"), "\n")
	if len(line) > 200 {
		line = line[:200] + "…"
	}
	return line
}

// request is one HTTP request, with an answer of a bounded size.
func request(ctx context.Context, web *http.Client, method, url, kind, secret string, body []byte) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
		req.Header.Set("Accept", "application/json, text/event-stream")
	}
	if secret != "" {
		req.Header.Set("Authorization", "Bearer "+secret)
	}
	resp, err := web.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err == nil && len(data) > maxBody {
		err = fmt.Errorf("%s: the answer is of more than %d bytes", url, maxBody)
	}
	return resp.StatusCode, data, err
}

// post sends JSON-RPC as somebody with a secret, or as nobody, on web.
func (r *remote) post(ctx context.Context, web *http.Client, secret string, body []byte) (int, []byte, error) {
	return request(ctx, web, http.MethodPost, r.base+node.MCPPath, "application/json", secret, body)
}

// head fetches the newest checkpoint and verifies it under the pinned key. It must not
// be older than one that was shown before it was asked for.
func (r *remote) head(ctx context.Context) (checkpoint.Verified, error) {
	r.mu.Lock()
	before := r.newest
	r.mu.Unlock()
	note, err := r.get(ctx, "/checkpoint")
	if err != nil {
		return checkpoint.Verified{}, err
	}
	v, err := r.policy.Open(note)
	if err != nil {
		return v, r.doubt(ctx, untruef("checkpoint: %w", err))
	}
	now, was := v.Body(), before.Body()
	switch {
	case now.Size < was.Size:
		return v, untruef("checkpoint: the log had %d entries, now it is to have %d", was.Size, now.Size)
	case now.Size == was.Size && now.Root != was.Root:
		return v, untruef("checkpoint: two roots of %d entries, %s and %s", now.Size, was.Root, now.Root)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Size > r.newest.Body().Size {
		r.newest = v
	}
	return v, nil
}

// doubt finds out whether what did not verify is of another node.
func (r *remote) doubt(ctx context.Context, err error) error {
	r.mu.Lock()
	c := r.session
	r.mu.Unlock()
	if c == nil {
		return err // who opens the next session will know
	}
	var other *OtherNode
	if again := r.identify(ctx, c.Client); errors.As(again, &other) {
		return again
	}
	return err
}

// hashes reads the tree under a checkpoint, from tiles: what it returns has been
// proven to be of that tree.
func (r *remote) hashes(ctx context.Context, cp checkpoint.Body) *proven {
	t := &tiles{ctx: ctx, r: r}
	return &proven{tlog.TileHashReader(tlog.Tree{N: cp.Size, Hash: cp.Root}, t), t}
}

// proven is a reader of hashes that tells a lie from a broken connection.
type proven struct {
	tlog.HashReader
	tiles *tiles
}

func (p *proven) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	h, err := p.HashReader.ReadHashes(indexes)
	switch {
	case err == nil:
		return h, nil
	case p.tiles.err != nil:
		return nil, p.tiles.err
	}
	return nil, untruef("tiles: %w", err)
}

// tiles fetches tiles.
type tiles struct {
	ctx context.Context
	r   *remote
	err error // of the network
}

// Height implements [tlog.TileReader].
func (t *tiles) Height() int { return tileRows }

// ReadTiles implements [tlog.TileReader].
func (t *tiles) ReadTiles(list []tlog.Tile) ([][]byte, error) {
	out := make([][]byte, len(list))
	for i, tile := range list {
		t.r.mu.Lock()
		out[i] = t.r.tiles[tile]
		t.r.mu.Unlock()
		if out[i] != nil {
			continue
		}
		data, err := t.r.get(t.ctx, "/"+ledger.TilePath(tile))
		var status *statusError
		if errors.As(err, &status) && status.code == http.StatusNotFound {
			err = untruef("tile: the node does not show what it signed: %w", err)
		}
		if err == nil && len(data) != tile.W*tlog.HashSize {
			err = untruef("tile %s: found %d bytes, want %d", ledger.TilePath(tile), len(data), tile.W*tlog.HashSize)
		}
		if err != nil {
			t.err = err
			return nil, err
		}
		out[i] = data
	}
	return out, nil
}

// SaveTiles implements [tlog.TileReader]. It is told only of what was proven.
func (t *tiles) SaveTiles(list []tlog.Tile, data [][]byte) {
	t.r.mu.Lock()
	defer t.r.mu.Unlock()
	for i, tile := range list {
		if tile.W != ledger.SegmentSize {
			continue
		}
		if len(t.r.tiles) >= maxTiles {
			clear(t.r.tiles)
		}
		t.r.tiles[tile] = data[i]
	}
}

// inclusion proves that a line is an entry of the log.
func (r *remote) inclusion(ctx context.Context, cp checkpoint.Body, index int64, line []byte) error {
	if index < 0 || index >= cp.Size {
		return untruef("index %d is not below the %d entries of the log", index, cp.Size)
	}
	hr := r.hashes(ctx, cp)
	proof, err := tlog.ProveRecord(cp.Size, index, hr)
	if err != nil {
		return err
	}
	if err := checkpoint.CheckInclusion(cp.Size, cp.Root, index, proof, line); err != nil {
		return untruef("entry %d: %w", index, err)
	}
	return nil
}

// consistency proves that a log extends what it was.
func (r *remote) consistency(ctx context.Context, was, now checkpoint.Body) error {
	switch {
	case was.Size == 0:
		return nil
	case now.Size < was.Size:
		return untruef("the log had %d entries, now it is to have %d", was.Size, now.Size)
	}
	hr := r.hashes(ctx, now)
	proof, err := tlog.ProveTree(now.Size, was.Size, hr)
	if err != nil {
		return err
	}
	if err := checkpoint.CheckConsistency(was, now, proof); err != nil {
		return untruef("log of %d entries: %w", now.Size, err)
	}
	return nil
}
