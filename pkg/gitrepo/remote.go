package gitrepo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"

	"github.com/go-git/go-billy/v5/memfs"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
	"github.com/go-git/go-git/v5/plumbing/transport"
	gitfile "github.com/go-git/go-git/v5/plumbing/transport/file"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
	gitssh "github.com/go-git/go-git/v5/plumbing/transport/ssh"
	"github.com/go-git/go-git/v5/storage/filesystem"
	"github.com/go-git/go-git/v5/storage/memory"
)

const (
	// maxHaves bounds how many commits one request offers as known; they
	// travel in a single round.
	maxHaves = 256
	// maxServerText bounds what is kept of a server's chatter.
	maxServerText = 64 << 10
	// maxAnswer bounds the answer to a push, which is text.
	maxAnswer = 8 << 20
)

// Options says which server to speak to. Only URL is required.
type Options struct {
	URL  string // https://…, ssh://…, user@host:path, file://… or a local path
	Auth Auth
	// Seed lends its objects, so that what is already on disk is not fetched.
	// Nothing is written to it. A seed that lacks objects is dropped.
	Seed *Repo
	// Depth limits a fetch to that many commits of each reference; zero is
	// the full history.
	Depth int
	// Progress receives what the server prints, control characters removed;
	// nil discards it. Push errors carry the text in either case.
	Progress io.Writer
	// HTTP carries http and https requests; nil is http.DefaultTransport.
	HTTP http.RoundTripper
}

// Auth is an identity. For https, Token is the password and User defaults to
// x-access-token, which suits GitHub's tokens. For ssh, SSHKeyFile is a
// private key; without it the agent is asked. The host must be in
// SSHKnownHosts, a file that defaults to the user's and the system's
// known_hosts.
type Auth struct {
	User             string
	Token            string
	SSHKeyFile       string
	SSHKeyPassphrase string
	SSHKnownHosts    string
}

// Remote is one server seen through memory: what was fetched from it and what
// was built for it. Its methods are for one goroutine; the reading ones that
// come from Objects are for any number.
type Remote struct {
	*Objects
	url      string // without credentials
	secrets  []string
	endpoint *transport.Endpoint
	client   transport.Transport
	auth     transport.AuthMethod
	depth    int
	progress io.Writer
	seed     *Repo

	built   *memory.Storage     // made by Build
	fetched *filesystem.Storage // packs from the server, compressed, in memory
	known   map[Hash]bool       // objects in built that the server has too
	sent    map[string]bool     // "ref hash" pushed without a confirmation
	tips    []Hash              // every tip a Fetch reported
	checked map[Hash]bool       // trees proved complete
}

// Dial prepares to speak to a server; the first request is made by Fetch or
// Push. It fails for URLs and keys it cannot use.
func Dial(ctx context.Context, opts Options) (*Remote, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if opts.Depth < 0 {
		return nil, fmt.Errorf("fetch depth is %d, want 0 (all) or more", opts.Depth)
	}
	m := &Remote{
		depth:    opts.Depth,
		progress: opts.Progress,
		seed:     opts.Seed,
		sent:     make(map[string]bool),
	}
	if m.progress == nil {
		m.progress = io.Discard
	}
	if err := m.locate(opts); err != nil {
		return nil, err
	}
	m.reset()
	return m, nil
}

// URL returns where this Remote points, without credentials.
func (m *Remote) URL() string { return m.url }

// reset forgets everything fetched and built, and reads through the seed if
// there still is one. What was built on a seed's objects cannot outlive it.
func (m *Remote) reset() {
	m.built, m.known = memory.NewStorage(), make(map[Hash]bool)
	m.fetched = filesystem.NewStorage(memfs.New(), cache.NewObjectLRUDefault())
	m.Objects = &Objects{layers: []layer{m.built, m.fetched}, shallow: make(map[Hash]bool)}
	m.tips, m.checked = nil, make(map[Hash]bool)
	if m.seed != nil {
		m.base = m.seed.Objects
	}
}

// locate splits the URL into a place, which may be printed, and credentials.
func (m *Remote) locate(opts Options) error {
	raw, auth := opts.URL, opts.Auth
	if u, err := url.Parse(raw); strings.Contains(raw, "://") {
		if err != nil {
			// The parser's message quotes the URL with its credentials.
			return errors.New("remote URL is malformed")
		}
		if u.User != nil && u.Scheme != "ssh" {
			if pass, ok := u.User.Password(); ok && auth.Token == "" {
				auth.User, auth.Token = u.User.Username(), pass
			} else if !ok && auth.Token == "" {
				auth.Token = u.User.Username() // https://TOKEN@host/
			}
			u.User = nil
			raw = u.String()
		} else if pass, ok := u.User.Password(); ok {
			return fmt.Errorf("remote URL for %s holds a password, ssh wants a key", redact(u.Host, pass))
		}
	}
	m.url = raw
	for _, s := range []string{auth.Token, auth.SSHKeyPassphrase} {
		if len(s) >= 4 { // shorter ones would blank out ordinary words
			m.secrets = append(m.secrets, s, url.QueryEscape(s), url.PathEscape(s))
		}
	}
	ep, err := transport.NewEndpoint(raw)
	if err != nil || raw == "" {
		return fmt.Errorf("remote URL %q is malformed", raw)
	}
	m.endpoint = ep
	switch ep.Protocol {
	case "http", "https":
		rt := opts.HTTP
		if rt == nil {
			rt = http.DefaultTransport
		}
		m.client = githttp.NewClient(&http.Client{Transport: answerReader{rt}})
		if auth.Token != "" {
			if auth.User == "" {
				auth.User = "x-access-token"
			}
			m.auth = &githttp.BasicAuth{Username: auth.User, Password: auth.Token}
		}
	case "ssh":
		m.client = gitssh.DefaultClient
		if m.auth, err = sshAuth(ep, auth); err != nil {
			return fmt.Errorf("%s: %w: %s", m.url, ErrAuth, redact(err.Error(), m.secrets...))
		}
	case "file":
		// go-git runs git-upload-pack and git-receive-pack here, so this is
		// the one transport a static image without git does not have.
		m.client = gitfile.DefaultClient
		if _, err := os.Stat(filepath.FromSlash(ep.Path)); err != nil {
			return fmt.Errorf("remote %s: %w: %v", m.url, ErrNoRepository, err)
		}
	default:
		return fmt.Errorf("remote URL scheme is %q, want https, ssh, file or a path", ep.Protocol)
	}
	return nil
}

func sshAuth(ep *transport.Endpoint, auth Auth) (transport.AuthMethod, error) {
	var files []string
	if auth.SSHKnownHosts != "" {
		files = append(files, auth.SSHKnownHosts)
	}
	known, err := gitssh.NewKnownHostsDb(files...)
	if err != nil {
		return nil, fmt.Errorf("known_hosts: %w", err)
	}
	port := ep.Port
	if port == 0 {
		port = 22
	}
	// Without the algorithms a server offers whichever of its keys it likes,
	// and one that is not listed looks like an attack.
	hosts := gitssh.HostKeyCallbackHelper{
		HostKeyCallback:   known.HostKeyCallback(),
		HostKeyAlgorithms: known.HostKeyAlgorithms(net.JoinHostPort(strings.Trim(ep.Host, "[]"), strconv.Itoa(port))),
	}
	user := auth.User
	if user == "" {
		user = ep.User
	}
	if user == "" {
		user = "git"
	}
	if auth.SSHKeyFile == "" {
		agent, err := gitssh.NewSSHAgentAuth(user)
		if err != nil {
			return nil, fmt.Errorf("without a key file ssh needs an agent: %w", err)
		}
		agent.HostKeyCallbackHelper = hosts
		return agent, nil
	}
	key, err := gitssh.NewPublicKeysFromFile(user, auth.SSHKeyFile, auth.SSHKeyPassphrase)
	if err != nil {
		return nil, fmt.Errorf("ssh key %s: %w", auth.SSHKeyFile, err)
	}
	key.HostKeyCallbackHelper = hosts
	return key, nil
}

// Fetch asks the server where refs (full names, or HEAD) are now and brings
// the objects they need. References the server does not have are absent from
// the map; a repository without commits gives an empty one. A rewritten
// branch is not an error: what the server says now is what is returned.
//
// With a seed, every tree and blob of each tip is checked to be at hand; if
// one is not, the seed is dropped and everything fetched anew.
func (m *Remote) Fetch(ctx context.Context, refs ...string) (map[string]Hash, error) {
	for _, ref := range refs {
		if err := checkRef(ref); ref != "HEAD" && err != nil {
			return nil, fmt.Errorf("fetch: %w", err)
		}
	}
	var tips map[string]Hash
	var err error
	// A branch that is rewritten between the two requests of one fetch makes
	// the server disown the hash it just named.
	for range 3 {
		if tips, err = m.fetch(ctx, refs); err == nil || !strings.Contains(err.Error(), "not our ref") {
			break
		}
	}
	if m.seed != nil && (errors.Is(err, ErrMissingObject) || errors.Is(err, ErrCorruptObject)) {
		fmt.Fprintf(m.progress, "the local clone is incomplete (%v), fetching everything\n", err)
		m.seed = nil
		m.reset()
		tips, err = m.fetch(ctx, refs)
	}
	if err != nil {
		return nil, err
	}
	return tips, nil
}

func (m *Remote) fetch(ctx context.Context, refs []string) (tips map[string]Hash, err error) {
	op := "fetch " + m.url
	s, err := m.client.NewUploadPackSession(m.endpointCopy(), m.auth)
	if err != nil {
		return nil, m.explain(ctx, op, err)
	}
	defer s.Close()
	adv, err := s.AdvertisedReferencesContext(ctx)
	if errors.Is(err, transport.ErrEmptyRemoteRepository) {
		return map[string]Hash{}, nil
	}
	if err != nil {
		return nil, m.explain(ctx, op, err)
	}
	if err := checkObjectFormat(adv); err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	tips = make(map[string]Hash)
	req := packp.NewUploadPackRequestFromCapabilities(adv.Capabilities)
	for _, ref := range refs {
		h, ok := adv.References[ref]
		if ref == "HEAD" && adv.Head != nil {
			h, ok = *adv.Head, true
		}
		if !ok {
			continue
		}
		tips[ref] = Hash(h)
		if _, err := m.has(Hash(h)); err != nil {
			req.Wants = append(req.Wants, h)
		}
	}
	if len(req.Wants) > 0 {
		if err := m.download(ctx, s, adv, req); err != nil {
			return nil, m.explain(ctx, op, err)
		}
	}
	for ref, h := range tips {
		if err := m.checkTip(h); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", op, ref, err)
		}
	}
	for _, h := range tips {
		m.markKnown(h)
		m.tips = append(m.tips, h)
	}
	return tips, nil
}

func (m *Remote) download(ctx context.Context, s transport.UploadPackSession, adv *packp.AdvRefs, req *packp.UploadPackRequest) error {
	req.Haves = m.haves()
	// Telling the server where our history is cut off stops it from assuming
	// that whoever has a commit has its ancestors too.
	cut := m.boundaries()
	if m.depth > 0 || len(cut) > 0 {
		if !adv.Capabilities.Supports(capability.Shallow) {
			return errors.New("the server does not support shallow clones")
		}
		if err := req.Capabilities.Set(capability.Shallow); err != nil {
			return err
		}
		req.Depth, req.Shallows = packp.DepthCommits(m.depth), cut
	}
	if m.progress == io.Discard && adv.Capabilities.Supports(capability.NoProgress) {
		if err := req.Capabilities.Set(capability.NoProgress); err != nil {
			return err
		}
	}
	answer, err := s.UploadPack(ctx, req)
	if err != nil {
		return err
	}
	defer answer.Close()
	var pack io.Reader = answer
	kind := sideband.Sideband64k
	if !req.Capabilities.Supports(capability.Sideband64k) {
		kind = sideband.Sideband
	}
	if kind == sideband.Sideband64k || req.Capabilities.Supports(capability.Sideband) {
		d := sideband.NewDemuxer(kind, answer)
		d.Progress = &chatter{to: m.progress}
		pack = d
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	// The pack stays as the server compressed it: a thousand versions of one
	// ledger segment are a few hundred kilobytes there and fifty megabytes as
	// separate objects.
	if err := packfile.UpdateObjectStorage(m.fetched, pack); err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	for _, h := range answer.Shallows {
		m.shallow[Hash(h)] = true
	}
	for _, h := range answer.Unshallows {
		delete(m.shallow, Hash(h))
	}
	return nil
}

// haves lists commits the server need not send, nearest first and bounded.
func (m *Remote) haves() []plumbing.Hash {
	starts := append([]Hash(nil), m.tips...)
	if m.seed != nil {
		// A seed whose references cannot be listed offers nothing; the fetch
		// is then larger, not wrong.
		more, _ := m.seed.tips()
		starts = append(starts, more...)
	}
	seen := make(map[Hash]bool)
	var out []plumbing.Hash
	for queue := starts; len(queue) > 0 && len(out) < maxHaves; queue = queue[1:] {
		h := queue[0]
		if seen[h] {
			continue
		}
		seen[h] = true
		c, err := m.Commit(h)
		if err != nil {
			continue
		}
		out = append(out, plumbing.Hash(c.Hash))
		if !c.Shallow {
			queue = append(queue, c.Parents...)
		}
	}
	return out
}

func (m *Remote) boundaries() []plumbing.Hash {
	var out []plumbing.Hash
	for o := m.Objects; o != nil; o = o.base {
		o.mu.Lock()
		for h := range o.shallow {
			out = append(out, plumbing.Hash(h))
		}
		o.mu.Unlock()
	}
	return out
}

// checkTip proves that a tip's trees and blobs are here. Without a seed the
// pack came whole from the server and only the commit is read.
func (m *Remote) checkTip(h Hash) error {
	t, err := m.TreeAt(h)
	if err != nil || m.seed == nil {
		return err
	}
	return m.checkTree(t.hash, 0)
}

func (m *Remote) checkTree(h Hash, depth int) error {
	if m.checked[h] {
		return nil
	}
	if depth == maxDepth {
		return fmt.Errorf("more than %d directories deep", maxDepth)
	}
	entries, err := m.tree(h)
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch e.mode() {
		case Submodule: // names a commit of another repository
		case Directory:
			err = m.checkTree(e.hash, depth+1)
		default:
			_, err = m.has(e.hash)
		}
		if err != nil {
			return err
		}
	}
	m.checked[h] = true
	return nil
}

// Push moves ref on the server from old (zero: it must not exist) to new, a
// descendant of old. See the package comment for what the error can be.
func (m *Remote) Push(ctx context.Context, ref string, old, new Hash) error {
	op := fmt.Sprintf("push %s to %s", ref, m.url)
	if err := checkRef(ref); err != nil {
		return fmt.Errorf("push: %w", err)
	}
	if new.IsZero() {
		return fmt.Errorf("%s: the new hash is zero; references are never deleted", op)
	}
	if !old.IsZero() {
		ok, err := m.IsAncestor(old, new)
		if err != nil {
			return fmt.Errorf("%s: %w", op, err)
		}
		if !ok {
			return fmt.Errorf("%s: %s does not descend from %s, and nothing is ever forced", op, new, old)
		}
	} else if _, err := m.Commit(new); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	s, err := m.client.NewReceivePackSession(m.endpointCopy(), m.auth)
	if err != nil {
		return m.explain(ctx, op, err)
	}
	defer s.Close()
	adv, err := s.AdvertisedReferencesContext(ctx)
	if err != nil {
		return m.explain(ctx, op, err)
	}
	if err := checkObjectFormat(adv); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	attempt := ref + " " + new.String()
	switch at := Hash(adv.References[ref]); {
	case at == new && m.sent[attempt]:
		// Our own earlier push whose answer was lost. Without one, an equal
		// hash is another writer's, and two writers must not both win.
		m.markKnown(new)
		return nil
	case at != old:
		return fmt.Errorf("%s: %w: it is at %s, not %s", op, ErrLostRace, name(at), name(old))
	}
	if !adv.Capabilities.Supports(capability.ReportStatus) {
		return fmt.Errorf("%s: the server does not report what became of a push, want report-status", op)
	}
	req, said, err := m.request(adv, ref, old, new)
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	m.sent[attempt] = true
	report, err := s.ReceivePack(ctx, req)
	if err := m.judge(ctx, op, ref, report, err, said.text()); err != nil {
		if !errors.Is(err, ErrUnconfirmed) {
			delete(m.sent, attempt)
		}
		return err
	}
	delete(m.sent, attempt)
	m.markKnown(new)
	return nil
}

func name(h Hash) string {
	if h.IsZero() {
		return "nothing"
	}
	return h.String()
}

// request packs what Build made and the server lacks. The old hash is the
// caller's, not the advertised one: it is what the server compares.
func (m *Remote) request(adv *packp.AdvRefs, ref string, old, new Hash) (*packp.ReferenceUpdateRequest, *chatter, error) {
	req := packp.NewReferenceUpdateRequestFromCapabilities(adv.Capabilities)
	req.Commands = []*packp.Command{{Name: plumbing.ReferenceName(ref), Old: plumbing.Hash(old), New: plumbing.Hash(new)}}
	said := &chatter{to: m.progress}
	req.Progress = said
	for _, c := range []capability.Capability{capability.Sideband64k, capability.Sideband} {
		if adv.Capabilities.Supports(c) {
			if err := req.Capabilities.Set(c); err != nil {
				return nil, nil, err
			}
			break
		}
	}
	var hashes []plumbing.Hash
	if err := m.visitBuilt(new, old, make(map[Hash]bool), func(h Hash) { hashes = append(hashes, plumbing.Hash(h)) }); err != nil {
		return nil, nil, err
	}
	var pack bytes.Buffer
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := packfile.NewEncoder(&pack, m.built, false).Encode(hashes, 0); err != nil {
		return nil, nil, fmt.Errorf("pack: %w", err)
	}
	req.Packfile = io.NopCloser(&pack)
	return req, said, nil
}

func (m *Remote) isBuilt(h Hash) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.built.HasEncodedObject(plumbing.Hash(h)) == nil
}

// visitBuilt calls fn for the built objects reachable from h that the server
// is not known to have, stopping at old. What was fetched holds no built
// object it does not name itself, so the walk never leaves what was built.
func (m *Remote) visitBuilt(h, old Hash, seen map[Hash]bool, fn func(Hash)) error {
	if h == old || seen[h] || m.known[h] || !m.isBuilt(h) {
		return nil
	}
	seen[h] = true
	fn(h)
	kind, data, err := m.read(h)
	if err != nil {
		return err
	}
	var next []Hash
	switch kind {
	case plumbing.CommitObject:
		c, err := parseCommit(data)
		if err != nil {
			return err
		}
		next = append(c.Parents, c.Tree)
	case plumbing.TreeObject:
		entries, err := parseTree(data)
		if err != nil {
			return err
		}
		for _, e := range entries {
			next = append(next, e.hash)
		}
	}
	for _, n := range next {
		if err := m.visitBuilt(n, old, seen, fn); err != nil {
			return err
		}
	}
	return nil
}

// markKnown notes that the server has h, and so everything below it.
func (m *Remote) markKnown(h Hash) {
	var all []Hash
	// On an error some objects are sent twice, which is harmless.
	_ = m.visitBuilt(h, Hash{}, make(map[Hash]bool), func(h Hash) { all = append(all, h) })
	for _, h := range all {
		m.known[h] = true
	}
}

// judge turns the answer to a push that was sent into the five cases of the
// package comment. Only a status of "ok" for our reference is success, and
// only a clear statement about it is a failure; all else is unconfirmed.
func (m *Remote) judge(ctx context.Context, op, ref string, report *packp.ReportStatus, err error, said string) error {
	said = redact(said, m.secrets...)
	with := func(s string) string {
		if said != "" {
			s += "\n" + said
		}
		return s
	}
	if report == nil {
		if err == nil {
			err = errors.New("the answer was empty")
		}
		known := m.explain(ctx, op, err)
		if (errors.Is(known, ErrAuth) || errors.Is(known, ErrNoRepository) || isClientError(err)) && ctx.Err() == nil {
			return fmt.Errorf("%w%s", known, with(""))
		}
		return fmt.Errorf("%s: %w: %s", op, ErrUnconfirmed, with(m.words(ctx, err)))
	}
	status := ""
	for _, c := range report.CommandStatuses {
		if c.ReferenceName.String() == ref {
			status = c.Status
		}
	}
	status = clean(redact(status, m.secrets...))
	switch low := strings.ToLower(status); {
	case report.UnpackStatus != "ok":
		reason := clean(report.UnpackStatus)
		if status != "" && status != "ok" {
			reason += " (" + status + ")"
		}
		return &RefusedError{Ref: ref, Reason: reason, Text: said}
	case status == "ok":
		return nil
	case status == "":
		return fmt.Errorf("%s: %w: %s", op, ErrUnconfirmed, with("the answer does not mention the reference"))
	case containsAny(low, lostRace):
		return fmt.Errorf("%s: %w: %s", op, ErrLostRace, with(status))
	case containsAny(low, serverTrouble):
		return fmt.Errorf("%s: %w: %s", op, ErrUnconfirmed, with(status))
	}
	return &RefusedError{Ref: ref, Reason: status, Text: said}
}

// lostRace are the statuses by which git, in its versions, and the forges say
// that the compare-and-swap failed; serverTrouble those by which a forge says
// that it broke half-way. Everything else is a decision, and final.
var (
	lostRace = []string{
		"failed to update ref", "cannot lock ref", "unable to lock", "failed to lock",
		"reference already exists", "reference does not exist", "incorrect old value",
		"non-fast-forward", "fetch first", "stale info", "but expected", "object not found",
		"remote changed", "reference has changed", "reference changed",
	}
	serverTrouble = []string{
		"internal server error", "internal error", "fatal error in commit_refs",
		"service unavailable", "timed out", "timeout", "try again",
	}
)

func containsAny(s string, phrases []string) bool {
	for _, p := range phrases {
		if strings.Contains(s, p) {
			return true
		}
	}
	return false
}

// explain names the kind of a failure before or around a push. The library's
// own errors end here: their text is kept, credentials removed.
func (m *Remote) explain(ctx context.Context, op string, err error) error {
	words := m.words(ctx, err)
	low := strings.ToLower(words)
	kind := error(nil)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w: %w", op, ErrUnreachable, ctx.Err())
	case errors.Is(err, ErrMissingObject), errors.Is(err, ErrCorruptObject):
		return fmt.Errorf("%s: %w", op, err)
	case errors.Is(err, transport.ErrAuthenticationRequired), errors.Is(err, transport.ErrAuthorizationFailed),
		strings.Contains(low, "ssh: unable to authenticate"), strings.Contains(low, "ssh: handshake failed"),
		strings.Contains(low, "knownhosts"):
		kind = ErrAuth
	case errors.Is(err, transport.ErrRepositoryNotFound):
		kind = ErrNoRepository
	case strings.Contains(low, "object-format=sha256"):
		kind = ErrObjectFormat
		words = "the server speaks SHA-256"
	case strings.Contains(low, "executable file not found"):
		return fmt.Errorf("%s: local paths need the git program, which is not installed here: %s", op, words)
	case isClientError(err):
	case isNetwork(err):
		kind = ErrUnreachable
	}
	if kind == nil {
		return fmt.Errorf("%s: %s", op, words)
	}
	return fmt.Errorf("%s: %w: %s", op, kind, words)
}

// words is an error's text with the server's body, without credentials and
// control characters.
func (m *Remote) words(ctx context.Context, err error) string {
	s := err.Error()
	if h := httpError(err); h != nil && h.Reason != "" {
		s += ": " + h.Reason
	}
	var unexpected *packp.ErrUnexpectedData
	if errors.As(err, &unexpected) {
		s += ": " + string(unexpected.Data)
	}
	if ctx.Err() != nil {
		s = ctx.Err().Error()
	}
	if len(s) > maxServerText {
		s = s[:maxServerText]
	}
	return strings.TrimSpace(clean(redact(s, m.secrets...)))
}

func httpError(err error) *githttp.Err {
	// UnexpectedError does not unwrap.
	var u *plumbing.UnexpectedError
	if errors.As(err, &u) {
		err = u.Err
	}
	var h *githttp.Err
	if errors.As(err, &h) {
		return h
	}
	return nil
}

// isClientError: the server answered that the request itself is wrong, so
// nothing was done. 408 and 429 ask to come back later.
func isClientError(err error) bool {
	h := httpError(err)
	return h != nil && h.StatusCode() >= 400 && h.StatusCode() < 500 && h.StatusCode() != 408 && h.StatusCode() != 429
}

func isNetwork(err error) bool {
	if httpError(err) != nil {
		return true
	}
	var u *plumbing.UnexpectedError
	if errors.As(err, &u) {
		err = u.Err
	}
	var n net.Error
	var op *net.OpError
	var ue *url.Error
	return errors.As(err, &n) || errors.As(err, &op) || errors.As(err, &ue) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, packp.ErrEmptyInput) || errors.Is(err, pktline.ErrInvalidPktLen)
}

func checkObjectFormat(adv *packp.AdvRefs) error {
	for _, f := range adv.Capabilities.Get("object-format") {
		if f != "sha1" {
			return fmt.Errorf("the server's objects are %s: %w", f, ErrObjectFormat)
		}
	}
	return nil
}

// checkRef takes full reference names only, by git's rules.
func checkRef(ref string) error {
	if !strings.HasPrefix(ref, "refs/") || plumbing.ReferenceName(ref).Validate() != nil || strings.ContainsAny(ref, "*?[\\^~: \x00\n") {
		return fmt.Errorf("reference %q: want a full name such as refs/heads/main", ref)
	}
	return nil
}

// endpointCopy: a session rewrites its endpoint when the server redirects.
func (m *Remote) endpointCopy() *transport.Endpoint {
	ep := *m.endpoint
	return &ep
}

// chatter keeps what a server prints and passes it on.
type chatter struct {
	to   io.Writer
	kept bytes.Buffer
}

// Write never fails: a closed terminal must not lose a push.
func (c *chatter) Write(p []byte) (int, error) {
	if room := maxServerText - c.kept.Len(); room > 0 {
		c.kept.Write(p[:min(len(p), room)])
	}
	_, _ = io.WriteString(c.to, clean(string(p)))
	return len(p), nil
}

func (c *chatter) text() string { return strings.TrimSpace(clean(c.kept.String())) }

// clean keeps a server from driving the terminal it is shown on.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\t':
			return r
		case r == '\r':
			return '\n'
		case r == unicode.ReplacementChar, unicode.IsControl(r):
			return -1
		}
		return r
	}, s)
}

func redact(s string, secrets ...string) string {
	for _, secret := range secrets {
		if secret != "" {
			s = strings.ReplaceAll(s, secret, "***")
		}
	}
	return s
}

// answerReader reads the answer to a push to its end. The library stops at the
// report and never closes the body, which would leak a connection a push.
type answerReader struct{ next http.RoundTripper }

func (a answerReader) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := a.next.RoundTrip(req)
	if err != nil || !strings.HasSuffix(req.URL.Path, "/"+transport.ReceivePackServiceName) {
		return res, err
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	res.Body.Close()
	if err != nil {
		return nil, fmt.Errorf("answer to the push: %w", err)
	}
	res.Body = io.NopCloser(bytes.NewReader(body))
	return res, nil
}
