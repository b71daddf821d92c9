package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/action"
	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/config"
	"github.com/vaultmesh/remembrancer/pkg/durable"
	"github.com/vaultmesh/remembrancer/pkg/federate"
	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
	"github.com/vaultmesh/remembrancer/pkg/merge"
	"github.com/vaultmesh/remembrancer/pkg/node"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
)

var nodeSpec = action.Spec{
	Verb: "node", Summary: "serve receipts to peers and to programs that speak MCP",
	Description: "Serves Model Context Protocol at /mcp, the log as C2SP tiles, a witness for the logs of peers, /metrics, a page at /status for people, /healthz and /readyz. " +
		"Keys and an empty log are made at the first start. With --repo, or in a repository that remembrancer federation init has prepared, the node serves what that repository's log and its committed receipts hold, under the repository's key.\n\n" +
		"Nothing listens beyond loopback, and nothing can be written, unless flags or configuration say so: another address needs tokens, client certificates or --open-read. Peers prove by signature who they are.\n\n" +
		"While it runs, the federation commands of the same user reach it by themselves.",
	Inputs: append(append([]action.Input{
		{Name: "listen", Usage: "Address and port; 127.0.0.1 and --port when left out."},
		{Name: "port", Kind: action.Int, Default: "8001", Usage: "Port on 127.0.0.1, where --listen is left out. The ancestor's REMEMBRANCER_MCP_HTTP=1 is not needed beside it, and does no harm.", Env: "MCP_PORT"},
	}, homeInputs()...), append([]action.Input{
		{Name: "config", Usage: "Configuration file; flags go before it. See examples/node.yaml."},
		{Name: "stdio", Kind: action.Bool, Usage: "Speak MCP over standard input and output, until the input ends. HTTP is served beside it only with --listen."},
		{Name: "node-id", Usage: "Name of a new node and of its log, as example.org/name; local/node-XXXXXXXX when left out. What it is called once stays."},
		{Name: "endpoint", Usage: "URL at which peers reach it; the one it listens on when left out."},
		{Name: "tls-cert", Usage: "Certificate chain to serve HTTPS with."},
		{Name: "tls-key", Usage: "Its key."},
		{Name: "tls-client-ca", Usage: "Demand client certificates that these authorities vouch for."},
		{Name: "token-file", Usage: "Bearer tokens: on each line a name, scopes between commas (read, record, federate, sign, admin), and sha256:DIGEST of the secret."},
		{Name: "workspace", Usage: "Directory whose files verify_artifact and sign_artifact may be asked about."},
		{Name: "allow-sign", Kind: action.Bool, Usage: "Offer sign_artifact to tokens with the scope sign."},
		{Name: "open-read", Kind: action.Bool, Usage: "Whoever reaches the node may read."},
		{Name: "revision", Usage: "Full commit that the program was built from, where the build did not record one, as in an image: /metrics names it as git_sha, and what is measured is promised of it alone."},
		{Name: "track", Default: "stable", Usage: "Which of several versions in service this one is, as stable or canary: a label in /metrics."},
		{Name: "interval", Kind: action.Duration, Usage: "Sync so often with each peer of federation.yaml; as that file says when left out."},
	}, keyInputs()...)...),
	Exit:     "0 when it was told to end (SIGTERM, SIGINT, end of standard input), 3 when it could not serve, as when another process has the data.",
	Examples: []string{"remembrancer node", "remembrancer node --repo . --listen 127.0.0.1:8002"},
}

// nodeVerb is no variable, since a node carries out verbs for others.
func nodeVerb() verb { return verb{spec: nodeSpec, run: runNode} }

// homeInputs say which node a verb is about.
func homeInputs() []action.Input {
	return []action.Input{
		{Name: "data", Usage: "Data directory of the node; one in the state directory when left out."},
		{Name: "repo", Usage: "Repository whose node it is; the one around the working directory when left out, if it is federated."},
	}
}

// home is where a node has its data, and whose node it is.
type home struct {
	dir  string
	p    *project // the repository that it serves, or nil
	file string   // its federation.yaml
}

// nodeHome finds the node that a verb is about. Of the repository around the
// working directory a verb that is about federation means the node; others do only
// where federation was prepared.
func (w *world) nodeHome(data, repo string, prepared bool) (*home, error) {
	h := &home{}
	at := *w
	switch {
	case repo != "":
		at.dir = w.path(repo)
		p, err := at.openProject()
		if err != nil {
			return nil, err
		}
		h.p = p
	case data == "":
		r, err := gitrepo.Open(w.dir)
		if err != nil {
			break // no repository is around us
		}
		wanted := []string{config.FileName}
		if prepared {
			wanted = append(wanted, config.FederationFile)
		}
		for _, name := range wanted {
			if _, err := os.Lstat(filepath.Join(r.Root(), name)); err != nil {
				r = nil
				break
			}
		}
		if r != nil {
			if h.p, err = w.openProject(); err != nil {
				return nil, err
			}
		}
	}
	if data != "" {
		h.dir = w.path(data)
	} else {
		state, err := w.stateDir()
		if err != nil {
			return nil, err
		}
		h.dir = filepath.Join(state, "node")
		if h.p != nil {
			origin, err := h.p.origin()
			if err != nil {
				return nil, err
			}
			h.dir = filepath.Join(state, "nodes", shortHash(origin))
		}
	}
	h.file = filepath.Join(h.dir, config.FederationFile)
	if h.p != nil {
		h.file = filepath.Join(h.p.root, config.FederationFile)
		if rel, err := filepath.Rel(resolved(h.p.root), resolved(h.dir)); err == nil && filepath.IsLocal(rel) && !strings.HasPrefix(filepath.ToSlash(rel)+"/", ".git/") {
			return nil, misused("the data directory %s is in the work tree, where keys do not belong: choose one outside with --data", h.dir)
		}
	}
	return h, nil
}

// begun reports whether there is a node's data.
func (h *home) begun() (bool, error) {
	_, err := os.Stat(filepath.Join(h.dir, "trust.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// federation reads federation.yaml. there is false where there is none, and its
// defaults hold.
func (h *home) federation() (f config.Federation, there bool, err error) {
	data, err := os.ReadFile(h.file)
	if errors.Is(err, fs.ErrNotExist) {
		return config.DefaultFederation(""), false, nil
	}
	if err != nil {
		return f, false, err
	}
	if f, err = config.ParseFederation(config.FederationFile, data); err != nil {
		return f, true, &status{exitUsage, err}
	}
	return f, true, nil
}

// holding is a node whose data this process has.
type holding struct {
	*home
	store  *federate.Store
	issuer openpgp.Signer

	syncs sync.Mutex // one sync at a time
	mu    sync.Mutex // for changes of the trust state, and for exchanges with the repository
	seen  *head      // what the repository was like when it was last read
}

// takeTime is how long a command waits for data that another process has: long
// enough for one that is just ending.
const takeTime = 2 * time.Second

// hold takes the data of a node into this process's hands, making the node first if
// there is none.
func (w *world) hold(h *home, v *action.Values, name, endpoint string) (*holding, error) {
	issuer, err := w.nodeIssuer(h, v)
	if err != nil {
		return nil, err
	}
	begun, err := h.begun()
	if err != nil {
		return nil, err
	}
	if !begun {
		if name == "" {
			if name, err = h.newName(issuer); err != nil {
				return nil, err
			}
		}
		if name != "" {
			if err := checkpoint.CheckOrigin(name); err != nil {
				return nil, misused("%v; name the node with --node-id", err)
			}
		}
		// Keys lie below it.
		if err := os.MkdirAll(h.dir, 0o700); err != nil {
			return nil, err
		}
	}
	if err := w.mayTake(h.dir); err != nil {
		return nil, err
	}
	if !begun {
		if err := federate.InitStore(w.ctx, h.dir, name, w.rand, w.now()); err != nil {
			return nil, err
		}
	}
	made := filepath.Join(h.dir, "keys", issuerKey)
	if issuer == nil {
		secret, err := os.ReadFile(made)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("the node in %s issues with a key of its operator: give it, as REMEMBRANCER_KEY_ID or REMEMBRANCER_SIGNING_KEY", h.dir)
		}
		if err != nil {
			return nil, err
		}
		if issuer, err = openpgp.FromArmored(secret, nil, w.now); err != nil {
			return nil, fmt.Errorf("%s: %w", made, err)
		}
	}
	store, err := federate.LoadStore(w.ctx, h.dir, federate.StoreOptions{Now: w.now, Endpoint: endpoint}, issuer)
	if err != nil {
		return nil, err
	}
	if is := store.Identity().Node; name != "" && name != is {
		return nil, errors.Join(failed("the node in %s is called %s, not %s: a log keeps its name", h.dir, is, name), store.Close())
	}
	o := &holding{home: h, store: store, issuer: issuer}
	if err := o.dropUnusedKey(w, made); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return o, nil
}

// mayTake waits a little for whoever has the data.
func (w *world) mayTake(dir string) error {
	d, err := durable.OpenDir(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	ctx, cancel := context.WithTimeout(w.ctx, takeTime)
	defer cancel()
	unlock, err := d.Lock(ctx)
	if err != nil {
		return fmt.Errorf("another process has the node's data, and a log has one writer: %w", err)
	}
	unlock()
	return nil
}

// dropUnusedKey takes away the key that a new node was made with, where another one
// was given: nothing was signed with it, and peers need not be told of it.
func (o *holding) dropUnusedKey(w *world, file string) error {
	secret, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	s, err := openpgp.FromArmored(secret, nil, w.now)
	if err != nil || s.Fingerprint() == o.issuer.Fingerprint() {
		return err
	}
	snap, err := o.store.Snapshot()
	if err != nil {
		return err
	}
	if snap.Size > 0 {
		return failed("the node in %s issues with its own key %s: another one is for a node that has issued nothing yet", o.dir, s.Fingerprint())
	}
	members := slices.DeleteFunc(o.store.Trust().Members(), func(m merge.Member) bool { return m.Key.Fingerprint() == s.Fingerprint() })
	for i := range members {
		if members[i].Key.Fingerprint() == o.issuer.Fingerprint() {
			members[i].Node = o.store.Identity().Node
		}
	}
	trust, err := merge.NewTrust(members...)
	if err != nil {
		return err
	}
	if err := o.store.SetTrust(w.ctx, trust); err != nil {
		return err
	}
	return os.Remove(file)
}

// nodeIssuer finds the key that issues the node's receipts: the repository's for a
// node of one, one that was given, or nil for the node's own.
func (w *world) nodeIssuer(h *home, v *action.Values) (openpgp.Signer, error) {
	if h.p != nil {
		return w.signer(v, h.p)
	}
	secret := []byte(v.String("signing-key"))
	if w.fd.key != nil {
		secret = w.fd.key
	}
	switch id := v.String("key"); {
	case len(secret) > 0 && id != "" && v.Given("key"):
		return nil, misused("both an armored key and --key are given: want one")
	case len(secret) > 0:
		return openpgp.FromArmored(secret, w.passphrase(v), w.now)
	case id != "":
		return openpgp.FromGPG(w.ctx, strings.TrimPrefix(id, "gpg:"), "gpg", openpgp.Exec(w.childEnviron()), w.now)
	}
	return nil, nil
}

// newName is the name of a node that nobody named: as federation.yaml has it, or of a
// repository its log's name and something of the key, for two clones are two nodes.
func (h *home) newName(issuer openpgp.Signer) (string, error) {
	fed, _, err := h.federation()
	if err != nil || fed.NodeID != "" || h.p == nil {
		return fed.NodeID, err
	}
	origin, err := h.p.origin()
	if err != nil {
		return "", err
	}
	f := string(issuer.Fingerprint())
	return origin + "/node-" + strings.ToLower(f[len(f)-8:]), nil
}

func runNode(w *world, v *action.Values, _ *action.Runner) error {
	s, err := w.nodeSettings(v)
	if err != nil {
		return err
	}
	h, err := w.nodeHome(s.data, v.String("repo"), true)
	if err != nil {
		return err
	}
	fed, there, err := h.federation()
	if err != nil {
		return err
	}
	if s.interval == 0 && there && len(fed.Peers) > 0 {
		s.interval = fed.Interval
	}
	var listener net.Listener
	if s.listen != "" {
		// The port first: without it there is nothing to open the data for.
		if listener, err = new(net.ListenConfig).Listen(w.ctx, "tcp", s.listen); err != nil {
			return err
		}
		defer listener.Close()
		s.endpoint = cmp.Or(s.endpoint, reachedAt(listener.Addr(), s.tls != nil))
	}
	o, err := w.hold(h, v, s.nodeID, s.endpoint)
	if err != nil {
		return err
	}
	return errors.Join(w.serveNode(o, s, fed, listener), o.store.Close())
}

// nodeSettings are what flags and configuration file say together.
type nodeSettings struct {
	data, nodeID     string
	listen, endpoint string // listen is "" where only standard input is served
	tls              *tls.Config
	tokens           []node.Token
	workspace        *os.Root
	allowSign        bool
	openRead, stdio  bool
	interval         time.Duration // 0: it syncs when it is told to
	revision, track  string
	logger           *slog.Logger
}

// nodeSettings reads flags and configuration file. Paths of the file begin where the
// file is.
func (w *world) nodeSettings(v *action.Values) (*nodeSettings, error) {
	c, at := config.DefaultNode(), *w
	if f := v.String("config"); f != "" {
		data, err := os.ReadFile(w.path(f))
		if err != nil {
			return nil, err
		}
		if c, err = config.ParseNode(f, data); err != nil {
			return nil, &status{exitUsage, err}
		}
		at.dir = filepath.Dir(w.path(f))
	}
	s := &nodeSettings{
		data: v.String("data"), nodeID: cmp.Or(v.String("node-id"), c.NodeID), listen: c.Listen, endpoint: cmp.Or(v.String("endpoint"), c.Endpoint),
		allowSign: c.AllowSign || v.Bool("allow-sign"), openRead: c.OpenRead || v.Bool("open-read"), stdio: v.Bool("stdio"), interval: v.Duration("interval"),
	}
	if s.data == "" && c.Data != "" && v.String("repo") == "" {
		s.data = at.path(c.Data)
	}
	switch listen := v.String("listen"); {
	case listen != "":
		s.listen = listen
	case v.Given("port"):
		if p := v.Int("port"); p < 0 || p > 65535 {
			return nil, misused("port %d: want 0 to 65535", p)
		}
		s.listen = fmt.Sprintf("127.0.0.1:%d", v.Int("port"))
	}
	if s.stdio && v.String("listen") == "" {
		s.listen = ""
	}
	var err error
	if s.revision, err = builtFrom(v.String("revision"), revision()); err != nil {
		return nil, err
	}
	s.track = v.String("track")
	if err := node.CheckBuild(s.revision, s.track); err != nil {
		return nil, misused("%v", err)
	}
	// A file named by a flag is where the command was typed, one of the
	// configuration where that is.
	file := func(flag, configured string) string {
		if f := v.String(flag); f != "" {
			return w.path(f)
		}
		if configured != "" {
			return at.path(configured)
		}
		return ""
	}
	if s.tls, err = w.serverTLS(file("tls-cert", c.TLS.Cert), file("tls-key", c.TLS.Key), file("tls-client-ca", c.TLS.ClientCA)); err != nil {
		return nil, err
	}
	for _, t := range c.Tokens {
		if s.tokens, err = addToken(s.tokens, t.Name, t.SHA256, t.Scopes); err != nil {
			return nil, err
		}
	}
	if f := v.String("token-file"); f != "" {
		if s.tokens, err = w.readTokens(s.tokens, f); err != nil {
			return nil, err
		}
	}
	if dir := file("workspace", c.Workspace); dir != "" {
		if s.workspace, err = os.OpenRoot(dir); err != nil {
			return nil, err
		}
	} else if s.allowSign {
		return nil, misused("--allow-sign needs --workspace DIR: the directory whose files may be signed")
	}
	if c.Log == "json" {
		s.logger = slog.New(slog.NewJSONHandler(w.stderr, nil))
	} else {
		s.logger = slog.New(slog.NewTextHandler(w.stderr, nil))
	}
	return s, nil
}

// builtFrom is the commit that the program was built from: as the build recorded it, or
// as is said where it recorded none.
func builtFrom(said, recorded string) (string, error) {
	if said != "" && recorded != "" && said != recorded {
		return "", misused("--revision %.100s: this program was built from %s", said, recorded)
	}
	return cmp.Or(recorded, said), nil
}

// serverTLS reads what a node serves HTTPS with, nil for HTTP.
func (w *world) serverTLS(cert, key, clientCA string) (*tls.Config, error) {
	switch {
	case (cert == "") != (key == ""):
		return nil, misused("want both --tls-cert and --tls-key, or neither")
	case cert == "" && clientCA != "":
		return nil, misused("--tls-client-ca needs --tls-cert and --tls-key: certificates are shown over TLS only")
	case cert == "":
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	c := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if clientCA != "" {
		if c.ClientCAs, err = w.certPool(clientCA); err != nil {
			return nil, err
		}
		c.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return c, nil
}

// readTokens reads a file of tokens: on each line a name, scopes between commas, and
// sha256: with the digest of the secret.
func (w *world) readTokens(tokens []node.Token, file string) ([]node.Token, error) {
	data, err := readBounded(w.path(file), maxAnchor)
	if err != nil {
		return nil, err
	}
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		var sum string
		ok := len(words) == 3
		if ok {
			sum, ok = strings.CutPrefix(words[2], "sha256:")
		}
		if !ok {
			return nil, misused("%s:%d: want NAME SCOPE,… sha256:DIGEST, as: ci read,record sha256:$(printf %%s SECRET | sha256sum)", file, n)
		}
		if tokens, err = addToken(tokens, words[0], sum, strings.Split(words[1], ",")); err != nil {
			return nil, misused("%s:%d: %v", file, n, err)
		}
	}
	return tokens, nil
}

func addToken(tokens []node.Token, name, sum string, scopes []string) ([]node.Token, error) {
	var list []node.Scope
	for _, s := range scopes {
		scope, err := node.ParseScope(s)
		if err != nil {
			return nil, misused("token %s: %v", name, err)
		}
		list = append(list, scope)
	}
	t, err := node.ParseToken(name, sum, list...)
	if err != nil {
		return nil, misused("%v", err)
	}
	if slices.ContainsFunc(tokens, func(o node.Token) bool { return o.SHA256 == t.SHA256 }) {
		return nil, misused("token %s: another token has the same secret: which scopes would it have?", name)
	}
	return append(tokens, t), nil
}

// reachedAt is the URL of a listener for those whom it is meant for; "" where the
// address does not say it.
func reachedAt(addr net.Addr, secure bool) string {
	a, ok := addr.(*net.TCPAddr)
	if !ok || a.IP.IsUnspecified() {
		return ""
	}
	scheme, host := "http", a.IP.String()
	if secure {
		scheme = "https"
	}
	if a.IP.IsLoopback() {
		host = "localhost"
	}
	return scheme + "://" + net.JoinHostPort(host, fmt.Sprint(a.Port)) + node.MCPPath
}

// serveNode serves until the context ends, or standard input with --stdio.
func (w *world) serveNode(o *holding, s *nodeSettings, fed config.Federation, listener net.Listener) error {
	say := w.say
	if s.stdio {
		say = w.note // standard output is the protocol's
	}
	if err := o.gather(w); err != nil {
		return err
	}
	if _, err := o.lay(w); err != nil {
		return err
	}
	var server *node.Server
	opts := node.Options{
		Store: o.store, Service: federate.NewService(o.store, federate.ServiceOptions{Now: w.now, Random: w.rand}), Version: version(), Revision: s.revision, Track: s.track,
		TLS: s.tls, Tokens: s.tokens, OpenRead: s.openRead, Control: filepath.Join(o.dir, programsFile),
		Workspace: s.workspace, Logger: s.logger, Now: w.now, Random: w.rand,
		Sync: func(ctx context.Context, peer, anchor string) (any, error) {
			return w.syncFor(ctx, o, peer, anchor, server.Synced)
		},
		OnReady: func(string) { w.introduce(say, o, s, listener) },
	}
	if s.workspace != nil {
		opts.Verify = func(_ context.Context, root *os.Root, path string) (node.Outcome, error) {
			return o.verifyArtifact(w, root, path)
		}
		if s.allowSign {
			opts.Sign = func(ctx context.Context, root *os.Root, path, keyID string) (node.Outcome, error) {
				return o.signArtifact(ctx, root, path, keyID)
			}
		}
	}
	var err error
	if server, err = node.New(opts); err != nil {
		return err
	}
	ctx, end := context.WithCancel(w.ctx)
	defer end()
	stop, err := w.takeOrders(ctx, o)
	if err != nil {
		return err
	}
	defer stop()
	var beside sync.WaitGroup
	defer beside.Wait()
	defer end()
	beside.Go(func() { w.mirror(ctx, o, s.logger) })
	if s.interval > 0 {
		beside.Go(func() { w.keepSyncing(ctx, o, fed, s.interval, s.logger, server.Synced) })
	}
	ended := make(chan error, 2)
	serving := 0
	if listener != nil {
		serving++
		inside := *w
		inside.ctx = ctx
		beside.Go(func() { ended <- server.Serve(ctx, &freshListener{listener, func() { _ = o.gather(&inside) }}) }) // mirror says why it fails
	}
	if s.stdio {
		serving++
		go func() { ended <- server.Stdio(ctx, w.stdin, w.stdout) }() // a read of standard input cannot be ended
	}
	for range serving {
		err = errors.Join(err, <-ended)
		end()
	}
	return err
}

// introduce says who serves where, and what is open: at once, so that who waits for
// the first line has the others, too.
func (w *world) introduce(tell func(string, ...any), o *holding, s *nodeSettings, l net.Listener) {
	var lines []string
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	id := o.store.Identity()
	say("Listening on %s", cmp.Or(reachedAt(l.Addr(), s.tls != nil), "http://"+l.Addr().String()+node.MCPPath))
	say("  node     %s", id.Node)
	say("  key      %s", id.Fingerprint)
	say("  log      %s", id.Log)
	say("  data     %s", w.near(o.dir))
	if o.p != nil {
		say("  serves   %s", w.near(o.p.root))
	}
	opens := []string{"reading is open to this machine"}
	switch {
	case s.openRead:
		opens = []string{"reading is open to whoever reaches it"}
	case s.tls != nil && s.tls.ClientAuth == tls.RequireAndVerifyClientCert:
		opens = []string{"reading needs a client certificate"}
	case len(s.tokens) > 0:
		opens = []string{"reading needs a token"}
	}
	opens = append(opens, "writing needs a token, or the signature of a trusted peer")
	say("  open     %s", strings.Join(opens, "; "))
	say("  trust    %s, %d keys", o.store.Trust().Hash(), len(o.store.Trust().Members()))
	tell("%s", strings.Join(lines, "\n"))
}

// freshListener has a node look at its repository before it lets anybody in: who
// says hello after a commit is shown what was committed.
type freshListener struct {
	net.Listener
	look func()
}

func (l *freshListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.look()
	}
	return c, err
}

// mirrorEvery is how often a node looks whether its repository, or its merges, have
// something new.
const mirrorEvery = time.Second

// mirror keeps a repository and its node even: what is committed comes to the node,
// and what its merges brought, by whichever side begun, is laid into the work tree.
func (w *world) mirror(ctx context.Context, o *holding, log *slog.Logger) {
	if o.p == nil {
		return
	}
	inside := *w
	inside.ctx = ctx
	tick := time.NewTicker(mirrorEvery)
	defer tick.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := o.gather(&inside)
		if err == nil {
			var paths []string
			if paths, err = o.lay(&inside); len(paths) > 0 {
				log.Info("merged", "receipts", strings.Join(paths, " "))
			}
		}
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			last = ""
		case err.Error() != last: // a fault that stays is told once
			last = err.Error()
			log.Error("repository", "error", last)
		}
	}
}

// keepSyncing syncs with all peers, again and again.
func (w *world) keepSyncing(ctx context.Context, o *holding, fed config.Federation, every time.Duration, log *slog.Logger, report syncReport) {
	job := func(ctx context.Context) error {
		peers, err := w.allPeers(o, fed, node.DialOptions{})
		if err != nil {
			log.Error("sync", "error", err)
			return err
		}
		var first error
		for _, p := range peers {
			result, err := w.syncOne(ctx, o, p, quietSync())
			report(o.syncedWith(p, result, err))
			if err != nil {
				log.Error("sync", "peer", p.url, "error", err)
				first = cmp.Or(first, err)
				continue
			}
			log.Info("sync", "peer", p.url, "fetched", result["fetched"], "pushed", result["pushed"], "root", result["root"], "receipt", result["receipt"])
		}
		return first
	}
	_ = federate.Schedule{Interval: every, Backoff: fed.Backoff}.Run(ctx, job, nil) // it ends with ctx
}

// quietSync is how a node syncs by itself.
func quietSync() syncing {
	return syncing{say: func(string, ...any) {}}
}

// syncFor carries out a sync that a program of the node's own user asked for over MCP.
func (w *world) syncFor(ctx context.Context, o *holding, url, anchor string, report syncReport) (any, error) {
	keys, err := w.anchors([]string{anchor})
	if err != nil {
		return nil, err
	}
	p := peerSpec{url: url, keys: keys}
	result, err := w.syncOne(ctx, o, p, quietSync())
	report(o.syncedWith(p, result, err))
	return result, err
}

// syncReport is told how a sync that this node began has ended.
type syncReport func(peer string, outcome node.SyncOutcome)

// syncedWith says with whom a sync was and how it ended. A peer that was not reached
// is the one that is remembered at its URL; whoever is at another is unknown, for a
// URL may hold secrets, and anything can be typed for it.
func (o *holding) syncedWith(p peerSpec, result map[string]any, err error) (peer string, outcome node.SyncOutcome) {
	peer, _ = result["node"].(string)
	for _, known := range o.store.Peers() {
		if peer == "" && known.URL == p.url {
			peer = known.Node
		}
	}
	var (
		stopped *federate.Stopped
		judged  *status
	)
	switch {
	case err == nil:
		outcome = node.SyncMerged
	case errors.As(err, &stopped):
		outcome = node.SyncDeclined
	case errors.As(err, &judged) && judged.code == exitFail:
		outcome = node.SyncRefused
	default:
		outcome = node.SyncFailed
	}
	return cmp.Or(peer, "unknown"), outcome
}

// verifyArtifact judges a file of the workspace by the signature beside it and the
// keys that the node trusts.
func (o *holding) verifyArtifact(w *world, root *os.Root, name string) (node.Outcome, error) {
	data, err := root.ReadFile(name)
	if err != nil {
		return node.Outcome{}, err
	}
	text, err := root.ReadFile(name + ".asc")
	if errors.Is(err, fs.ErrNotExist) {
		return node.Outcome{Stderr: name + ".asc is missing: nobody has signed it"}, nil
	}
	if err != nil {
		return node.Outcome{}, err
	}
	var keys []*openpgp.Key
	for _, m := range o.store.Trust().Members() {
		if m.Cutoff == nil {
			keys = append(keys, m.Key)
		}
	}
	ring, err := openpgp.NewKeyring(keys...)
	if err != nil {
		return node.Outcome{}, err
	}
	sum := digest(data)
	signed, err := judgeSignature(ring, data, text, w.now())
	if err != nil {
		return node.Outcome{Stdout: "sha256 " + sum + "\n", Stderr: err.Error()}, nil //nolint:nilerr // the verdict is that it does not verify
	}
	return node.Outcome{OK: true, Stdout: fmt.Sprintf("sha256 %s\nOpenPGP signature valid: by %s, which claims %s\n", sum, signed.Fingerprint, signed.Created.Format(time.RFC3339))}, nil
}

// signArtifact signs a file of the workspace with the node's key. A signature that
// is there is kept.
func (o *holding) signArtifact(ctx context.Context, root *os.Root, name, keyID string) (node.Outcome, error) {
	own := o.issuer.Fingerprint()
	if keyID != "" && !strings.HasSuffix(string(own), strings.ToUpper(strings.TrimPrefix(keyID, "0x"))) {
		return node.Outcome{Stderr: fmt.Sprintf("key %s is not that of this node, which is %s", keyID, own)}, nil
	}
	data, err := root.ReadFile(name)
	if err != nil {
		return node.Outcome{}, err
	}
	packet, err := o.issuer.Sign(ctx, data)
	if err != nil {
		return node.Outcome{}, err
	}
	f, err := root.OpenFile(name+".asc", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return node.Outcome{Stderr: name + ".asc is there already: signatures are not replaced"}, nil
	}
	if err != nil {
		return node.Outcome{}, err
	}
	_, err = f.Write(openpgp.Armor(packet))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return node.Outcome{}, errors.Join(err, root.Remove(name+".asc"))
	}
	return node.Outcome{OK: true, Stdout: fmt.Sprintf("%s.asc\nsha256 %s, signed by %s\n", name, digest(data), own)}, nil
}
