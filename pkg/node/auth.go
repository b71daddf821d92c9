package node

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vaultmesh/remembrancer/pkg/durable"
)

// stdio is the caller of [Server.Stdio].
const stdio = "stdio"

// caller is who sends a request, as far as the node knows.
type caller struct {
	name   string // for the log
	scopes []Scope
}

func (c caller) may(s Scope) bool { return slices.Contains(c.scopes, s) }

type callerKey struct{}

// callerFrom returns who calls; a context that nobody filled is of somebody who may
// do nothing.
func callerFrom(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c
}

// errToken is a request whose credentials are not what this node gave out.
var errToken = errors.New("the token is not one of this node")

// admit says who sends a request. onlyTokens is for the listener of the control
// token, on which nothing is open.
func (s *Server) admit(r *http.Request, onlyTokens bool) (caller, error) {
	var c caller
	if header := r.Header.Values("Authorization"); len(header) > 0 {
		t, ok := s.tokenOf(header)
		if !ok {
			// Whoever shows a wrong token means to be somebody: telling them beats
			// serving them as nobody.
			return caller{}, errToken
		}
		c = caller{"token " + t.Name, t.Scopes}
	}
	if onlyTokens {
		return c, nil
	}
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		if c.name == "" {
			c.name = "certificate " + r.TLS.VerifiedChains[0][0].Subject.CommonName
		}
		c.scopes = slices.Concat(c.scopes, []Scope{Read, Federate})
	}
	if s.readIsOpen(onLoopback(r)) {
		if c.name == "" {
			c.name = "anyone"
		}
		c.scopes = slices.Concat(c.scopes, []Scope{Read})
		if len(s.o.Tokens) == 0 {
			c.scopes = append(c.scopes, Federate)
		}
	}
	return c, nil
}

// readIsOpen says whether a request without credentials may read. Behind a proxy
// everybody comes from loopback.
func (s *Server) readIsOpen(loopback bool) bool {
	return s.o.OpenRead || loopback && len(s.o.Tokens) == 0 && len(s.o.Hosts) == 0
}

func (s *Server) tokenOf(header []string) (Token, bool) {
	if len(header) != 1 {
		return Token{}, false
	}
	scheme, secret, _ := strings.Cut(header[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return Token{}, false
	}
	sum := sha256.Sum256([]byte(strings.TrimSpace(secret)))
	all := s.o.Tokens
	if t := s.control.Load(); t != nil {
		all = append(slices.Clone(all), *t)
	}
	// All are compared, each in constant time, so that time tells nothing.
	found, ok := Token{}, false
	for _, t := range all {
		if subtle.ConstantTimeCompare(t.SHA256[:], sum[:]) == 1 {
			found, ok = t, true
		}
	}
	return found, ok
}

func onLoopback(r *http.Request) bool {
	addr, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return isLoopback(addr)
}

func isLoopback(addr net.Addr) bool {
	if addr == nil {
		return false
	}
	at, err := netip.ParseAddrPort(addr.String())
	return err == nil && at.Addr().Unmap().IsLoopback()
}

// checkHost refuses what a page of a browser sends here after it has pointed its own
// name at this machine.
func (s *Server) checkHost(r *http.Request) error {
	if !onLoopback(r) {
		return nil
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	if a, err := netip.ParseAddr(host); err == nil && a.Unmap().IsLoopback() {
		return nil
	}
	if host == "localhost" || slices.ContainsFunc(s.o.Hosts, func(h string) bool { return strings.EqualFold(h, host) }) {
		return nil
	}
	return fmt.Errorf("host %.80q is not a name of this node: add it to the names it is reached by", host)
}

// checkListener refuses to be open to others unless the operator has said so.
func (s *Server) checkListener(addr net.Addr) error {
	if len(s.o.Tokens) > 0 || s.o.OpenRead || s.o.TLS != nil && s.o.TLS.ClientAuth == tls.RequireAndVerifyClientCert {
		return nil
	}
	const want = "configure a token or client certificates, or let anyone read with --open-read"
	switch {
	case !isLoopback(addr):
		return fmt.Errorf("listener %s is reached by others, and everybody may read: %s", addr, want)
	case len(s.o.Hosts) > 0:
		return fmt.Errorf("listener %s serves %s to others, and everybody may read: %s", addr, strings.Join(s.o.Hosts, ", "), want)
	}
	return nil
}

// makeControl makes the token of this run. It is in memory, and in the control file.
func (s *Server) makeControl(url string) error {
	random := s.o.Random
	if random == nil {
		random = rand.Reader
	}
	var secret [32]byte
	if _, err := io.ReadFull(random, secret[:]); err != nil {
		return err
	}
	text := hex.EncodeToString(secret[:])
	token, err := NewToken("control", text, Scopes()...)
	if err != nil {
		return err
	}
	data, err := json.Marshal(Control{URL: url, Token: text})
	if err != nil {
		return err
	}
	// First the token, then the file: who reads the file finds it works.
	s.control.Store(&token)
	return durable.Put(s.o.Control, append(data, '\n'), 0o600)
}

// dropControl ends the control token. A file that stays behind names a token that no
// node knows.
func (s *Server) dropControl() error {
	s.control.Store(nil)
	if err := os.Remove(s.o.Control); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// ReadControl reads a control file. Where no node runs there is none: the error is
// fs.ErrNotExist.
func ReadControl(path string) (Control, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Control{}, err
	}
	var c Control
	if err := json.Unmarshal(data, &c); err != nil {
		return Control{}, fmt.Errorf("%s: %w", path, err)
	}
	if c.URL == "" || c.Token == "" {
		return Control{}, fmt.Errorf("%s: want url and token", path)
	}
	return c, nil
}
