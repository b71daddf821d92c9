// Package prometheus fetches the raw answers of a Prometheus, or of a server with
// its HTTP API. It does not read them: package slo does, from the same bytes that
// are kept as evidence.
//
// Queries are sent as forms by POST, so that none is too long for an address or
// stays in a log of addresses; what has no form is a GET. A [Client] sends what it
// is told to one address and nowhere else:
//
//   - a redirect is not followed: it is the answer, and credentials stay here
//   - an answer is at most [slo.MaxBody] bytes, after decompression
//   - each answer has a deadline
//   - no proxy of the environment is used
//
// It refuses addresses with credentials in them, credentials over plain HTTP to
// another machine, and two kinds of credentials at once.
package prometheus

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/slo"
)

// Options say how a server is reached.
type Options struct {
	User, Password string // basic authentication
	Bearer         string // token
	CA             []byte // PEM certificates to believe in place of the system's
	Cert, Key      []byte // PEM certificate and key of this client
	Timeout        time.Duration
}

const defaultTimeout = 30 * time.Second

// Client asks one server. It is safe for concurrent use.
type Client struct {
	base    *url.URL
	o       Options
	http    *http.Client
	timeout time.Duration
}

// New returns a client of the server at an address such as
// https://prometheus.example.com/prefix.
func New(address string, o Options) (*Client, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("address %q: want one such as https://prometheus.example.com", redact(u, address))
	case u.User != nil:
		return nil, fmt.Errorf("address %s: want no name or password in it: give them by their own inputs", u.Redacted())
	case o.Bearer != "" && (o.User != "" || o.Password != ""):
		return nil, errors.New("found a bearer token and a name or password, want one of them")
	case o.User == "" && o.Password != "":
		return nil, errors.New("found a password without a name")
	case (len(o.Cert) == 0) != (len(o.Key) == 0):
		return nil, errors.New("want certificate and key, or neither")
	case u.Scheme == "http" && (o.Bearer != "" || o.User != "") && !loopback(u.Hostname()):
		return nil, fmt.Errorf("address %s: credentials would be sent in the clear, want https", u)
	case u.Scheme == "http" && len(o.CA)+len(o.Cert) > 0:
		return nil, fmt.Errorf("address %s: certificates are for https", u)
	case strings.ContainsAny(o.Bearer, "\r\n"):
		return nil, errors.New("the bearer token has more than one line")
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(o.CA) > 0 {
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(o.CA) {
			return nil, errors.New("found no certificate among the authorities, want PEM")
		}
	}
	if len(o.Cert) > 0 {
		pair, err := tls.X509KeyPair(o.Cert, o.Key)
		if err != nil {
			return nil, fmt.Errorf("client certificate: %w", err)
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	c := &Client{base: u, o: o, timeout: o.Timeout}
	if c.timeout <= 0 {
		c.timeout = defaultTimeout
	}
	c.http = &http.Client{
		Transport:     &http.Transport{TLSClientConfig: conf, ForceAttemptHTTP2: true, MaxIdleConns: 2, MaxResponseHeaderBytes: 64 << 10},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

// redact keeps a password out of the error about an address that is none.
func redact(u *url.URL, address string) string {
	if u != nil {
		return u.Redacted()
	}
	if strings.Contains(address, "@") {
		return "…"
	}
	return address
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Fetch asks one query. Whatever goes wrong is part of the response: it is
// evidence as well.
func (c *Client) Fetch(ctx context.Context, q slo.Query) slo.Response {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	r := slo.Response{Query: q}
	method, body := http.MethodGet, io.Reader(nil)
	if q.Form != "" {
		method, body = http.MethodPost, strings.NewReader(q.Form)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base.JoinPath(q.Path).String(), body)
	if err != nil {
		r.Error = err.Error()
		return r
	}
	if q.Form != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	req.Header.Set("Accept", "application/json")
	switch {
	case c.o.Bearer != "":
		req.Header.Set("Authorization", "Bearer "+c.o.Bearer)
	case c.o.User != "":
		req.SetBasicAuth(c.o.User, c.o.Password)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		r.Error = c.explain(err)
		return r
	}
	defer resp.Body.Close()
	r.Status, r.ContentType = resp.StatusCode, resp.Header.Get("Content-Type")
	if resp.StatusCode >= 300 && resp.StatusCode < 400 {
		r.Error = "it leads to another address, and is not followed"
		if to, err := resp.Location(); err == nil {
			r.Error = "it leads to " + to.Scheme + "://" + to.Host + ", and is not followed"
		}
	}
	r.Body, err = io.ReadAll(io.LimitReader(resp.Body, slo.MaxBody+1))
	if c.echoes(r.Body) {
		// An answer is kept and may be published.
		return slo.Response{Query: q, Status: r.Status, ContentType: r.ContentType, Error: "the answer repeats the credentials that it was asked with"}
	}
	switch {
	case err != nil:
		r.Error = c.explain(err)
	case len(r.Body) > slo.MaxBody:
		r.Body, r.Error = nil, fmt.Sprintf("the answer has more than %d bytes", slo.MaxBody)
	}
	return r
}

// echoes says whether an answer holds a secret, as itself or as JSON quotes it.
func (c *Client) echoes(body []byte) bool {
	basic := ""
	if c.o.User != "" {
		basic = base64.StdEncoding.EncodeToString([]byte(c.o.User + ":" + c.o.Password))
	}
	for _, secret := range []string{c.o.Bearer, c.o.Password, basic} {
		if secret == "" {
			continue
		}
		quoted, err := json.Marshal(secret)
		if err != nil || len(secret) >= 8 && (bytes.Contains(body, []byte(secret)) || bytes.Contains(body, quoted[1:len(quoted)-1])) {
			return true
		}
	}
	return false
}

// explain leaves out the address, which the reader knows.
func (c *Client) explain(err error) string {
	if u := new(url.Error); errors.As(err, &u) {
		err = u.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Sprintf("no answer within %s", c.timeout)
	}
	return err.Error()
}
