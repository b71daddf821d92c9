package forge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-github/v62/github"

	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
)

// The limits of a REST call.
const (
	maxBody      = 16 << 20
	attempts     = 5
	firstBackoff = 500 * time.Millisecond
	maxWait      = 2 * time.Minute // for a rate limit, in one call
	maxRedirects = 3
	maxPages     = 500
)

// defaultBase is where github.com answers.
const defaultBase = "https://api.github.com"

// REST speaks to the REST API of a forge with one token. Bodies go in and come
// out as raw JSON: the library's own types refuse rules that they do not know,
// and lose fields, so that what was read could not be written back.
//
// What can pass by itself is tried again, at most five times: answers 5xx,
// answers that are no JSON, and lost connections after growing, random waits;
// rate limits after the wait that the forge names, if it is at most two
// minutes. POST alone is not repeated after a lost answer, since it would make a
// thing twice; all other methods of this API set things to given values.
type REST struct {
	base  *url.URL
	token string
	http  *http.Client
	opts  RESTOptions
}

// RESTOptions are what the tests of a caller replace. The zero value is the
// machine's own.
type RESTOptions struct {
	Now   func() time.Time
	Sleep func(ctx context.Context, d time.Duration) error
	// Rand returns a number in [0,1), for the length of waits.
	Rand func() float64
}

// NewREST names the API of a forge and a token. Base "" is github.com's;
// GitHub Enterprise has https://HOST/api/v3. Plain http is refused except to
// this machine: it would show the token. An empty token reads what is public.
func NewREST(base, token string, opts RESTOptions) (*REST, error) {
	if base == "" {
		base = defaultBase
	}
	u, err := url.Parse(strings.TrimRight(base, "/") + "/")
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("API %q: want a URL as %s or https://HOST/api/v3", base, defaultBase)
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return nil, fmt.Errorf("API %s: plain http shows the token to the network, want https", base)
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("API %s: found scheme %q, want https", base, u.Scheme)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Sleep == nil {
		opts.Sleep = sleep
	}
	if opts.Rand == nil {
		opts.Rand = rand.Float64
	}
	return &REST{base: u, token: token, opts: opts, http: &http.Client{
		Timeout:   timeout,
		Transport: bounded{http.DefaultTransport},
		// net/http turns a redirected PUT or PATCH into a GET, and the library
		// sends the token to whichever host is named: redirects are followed here.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// bounded cuts answers off: the library reads those of errors whole.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxBody+1), resp.Body}
	return resp, nil
}

// Answer is a successful answer (2xx). Its body is JSON, or empty.
type Answer struct {
	Status int
	Body   []byte
	Header http.Header
}

// APIError is an answer that refuses.
type APIError struct {
	Status        int
	Method, Path  string // Path is relative to the API, as it was asked for
	Message       string // the forge's own words
	Documentation string // URL, where the forge named one
	// Needs names the permissions one of which would do, in the forge's words
	// ("administration=write"); empty when it did not say.
	Needs string
}

func (e *APIError) Error() string {
	s := fmt.Sprintf("%s %s: %d %s", e.Method, e.Path, e.Status, http.StatusText(e.Status))
	if e.Message != "" {
		s += ": " + e.Message
	}
	if e.Needs != "" {
		s += " (the token needs " + e.Needs + ")"
	}
	return s
}

// LimitError says that the forge answers nothing more before a time that is too
// far away to wait for.
type LimitError struct {
	Method, Path string
	Until        time.Time
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("%s %s: the forge's rate limit is reached until %s: try again then", e.Method, e.Path, e.Until.UTC().Format(time.RFC3339))
}

func hasStatus(err error, status int) bool {
	var e *APIError
	return errors.As(err, &e) && e.Status == status
}

// IsNotFound reports whether the forge answered 404. To a token that may not
// see a thing it says the same as where there is none.
func IsNotFound(err error) bool { return hasStatus(err, http.StatusNotFound) }

// IsForbidden reports whether the forge answered 403 for lack of permission. A
// rate limit is none.
func IsForbidden(err error) bool { return hasStatus(err, http.StatusForbidden) }

// Path joins elements to a path of the API, each escaped: a slash in the name
// of a branch is part of the name.
func Path(elements ...string) string {
	escaped := make([]string, len(elements))
	for i, e := range elements {
		escaped[i] = url.PathEscape(e)
	}
	return strings.Join(escaped, "/")
}

// Get reads a path of the API, which may have a query.
func (r *REST) Get(ctx context.Context, path string) (Answer, error) {
	return r.Send(ctx, http.MethodGet, path, nil)
}

// GetPages reads a list of the API whole, following the links to its next
// pages. The list is the body itself, or its member listKey. More than most
// elements are an error, as is a page that lacks the list.
func (r *REST) GetPages(ctx context.Context, path, listKey string, most int) ([]json.RawMessage, error) {
	u, err := r.locate(path)
	if err != nil {
		return nil, err
	}
	if q := u.Query(); !q.Has("per_page") {
		q.Set("per_page", "100")
		u.RawQuery = q.Encode()
	}
	all := []json.RawMessage{}
	for seen := map[string]bool{}; u != nil; {
		if seen[u.String()] || len(seen) == maxPages {
			return nil, fmt.Errorf("GET %s: its pages do not end", path)
		}
		seen[u.String()] = true
		a, err := r.send(ctx, http.MethodGet, path, u, nil)
		if err != nil {
			return nil, err
		}
		list, err := elements(a.Body, listKey)
		if err != nil {
			return nil, fmt.Errorf("GET %s: %w", path, err)
		}
		if all = append(all, list...); len(all) > most {
			return nil, fmt.Errorf("GET %s: more than %d elements", path, most)
		}
		if u, err = r.nextPage(u, a.Header); err != nil {
			return nil, fmt.Errorf("GET %s: %w", path, err)
		}
	}
	return all, nil
}

func elements(body []byte, key string) ([]json.RawMessage, error) {
	raw := json.RawMessage(body)
	if key != "" {
		var object map[string]json.RawMessage
		if err := json.Unmarshal(body, &object); err != nil {
			return nil, fmt.Errorf("found %s, want an object with the list %s", clip(body), key)
		}
		raw = object[key]
	}
	var list []json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil || list == nil {
		return nil, fmt.Errorf("found %s, want a list", clip(body))
	}
	return list, nil
}

// nextPage reads the Link header (RFC 8288) that names the next page; nil when
// this was the last.
func (r *REST) nextPage(from *url.URL, h http.Header) (*url.URL, error) {
	for _, link := range strings.Split(strings.Join(h.Values("Link"), ","), ",") {
		target, params, _ := strings.Cut(strings.TrimSpace(link), ">")
		if !strings.HasPrefix(target, "<") {
			continue
		}
		for _, p := range strings.Split(params, ";") {
			if strings.ReplaceAll(strings.TrimSpace(p), `"`, "") != "rel=next" {
				continue
			}
			u, err := from.Parse(target[1:])
			if err != nil {
				return nil, fmt.Errorf("the link to the next page: %w", err)
			}
			return u, r.ours(u)
		}
	}
	return nil, nil
}

// Send carries out a request. A body that is not nil is sent as JSON.
func (r *REST) Send(ctx context.Context, method, path string, body any) (Answer, error) {
	u, err := r.locate(path)
	if err != nil {
		return Answer{}, err
	}
	return r.send(ctx, method, path, u, body)
}

// Pause waits as between two attempts, for a caller that asks again itself.
func (r *REST) Pause(ctx context.Context, d time.Duration) error { return r.opts.Sleep(ctx, d) }

// locate resolves a path of the API. One with an empty element or dots would
// be another path to a server than to its caller.
func (r *REST) locate(path string) (*url.URL, error) {
	plain, _, _ := strings.Cut(path, "?")
	for _, e := range strings.Split(plain, "/") {
		if name, err := url.PathUnescape(e); err != nil || name == "" || name == "." || name == ".." {
			return nil, fmt.Errorf("API path %q: want names between single slashes", path)
		}
	}
	u, err := r.base.Parse("./" + path)
	if err != nil {
		return nil, fmt.Errorf("API path %q: %w", path, err)
	}
	return u, r.ours(u)
}

// ours refuses URLs that the token must not be sent to.
func (r *REST) ours(u *url.URL) error {
	if u.Scheme != r.base.Scheme || u.Host != r.base.Host {
		return fmt.Errorf("the forge points to %s://%s, which is not %s://%s: not followed", u.Scheme, u.Host, r.base.Scheme, r.base.Host)
	}
	return nil
}

// send carries out a request, again if need be.
func (r *REST) send(ctx context.Context, method, path string, u *url.URL, body any) (Answer, error) {
	var waited time.Duration
	var repeatable *unansweredError
	for attempt := 1; ; attempt++ {
		a, err := r.follow(ctx, method, path, u, body)
		var limit *LimitError
		var delay time.Duration
		switch {
		case err == nil:
			return a, nil
		case ctx.Err() != nil:
			if method != http.MethodGet {
				return Answer{}, fmt.Errorf("%s %s: %w: %w", method, path, gitrepo.ErrUnconfirmed, ctx.Err())
			}
			return Answer{}, fmt.Errorf("%s %s: %w", method, path, ctx.Err())
		case errors.As(err, &limit):
			delay = max(limit.Until.Sub(r.opts.Now()), time.Second)
			if waited += delay; waited > maxWait || attempt == attempts {
				return Answer{}, err
			}
		case errors.As(err, &repeatable):
			if method == http.MethodPost || attempt == attempts {
				if method != http.MethodGet {
					return Answer{}, fmt.Errorf("%w: %w", gitrepo.ErrUnconfirmed, repeatable.error)
				}
				return Answer{}, repeatable.error
			}
			delay = time.Duration(float64(firstBackoff<<(attempt-1)) * (0.5 + r.opts.Rand()))
		default:
			return Answer{}, err
		}
		if err := r.opts.Sleep(ctx, delay); err != nil {
			return Answer{}, fmt.Errorf("%s %s: %w", method, path, err)
		}
	}
}

// unansweredError says that no usable answer came, so that the request may have
// been carried out or not.
type unansweredError struct{ error }

func (e *unansweredError) Unwrap() error { return e.error }

// follow carries out a request where redirects point to: a repository that was
// renamed answers 301, a busy one 307. The method stays what it is.
func (r *REST) follow(ctx context.Context, method, path string, u *url.URL, body any) (Answer, error) {
	for hops := 0; ; hops++ {
		a, err := r.once(ctx, method, path, u, body)
		var moved *redirect
		if !errors.As(err, &moved) {
			return a, err
		}
		if hops == maxRedirects {
			return Answer{}, fmt.Errorf("%s %s: more than %d redirects", method, path, maxRedirects)
		}
		if u, err = u.Parse(moved.to); err == nil {
			err = r.ours(u)
		}
		if err != nil {
			return Answer{}, fmt.Errorf("%s %s: redirected: %w", method, path, err)
		}
	}
}

type redirect struct{ to string }

func (*redirect) Error() string { return "redirected" }

// once carries out a request once.
func (r *REST) once(ctx context.Context, method, path string, u *url.URL, body any) (Answer, error) {
	// The library keeps limits in mind by a clock of its own. A client that is
	// made for one request has no such memory, and waiting is this type's.
	client := github.NewClient(r.http)
	if r.token != "" {
		client = client.WithAuthToken(r.token)
	}
	client.BaseURL = r.base
	req, err := client.NewRequest(method, u.String(), body)
	if err != nil {
		return Answer{}, fmt.Errorf("%s %s: %w", method, path, err)
	}
	resp, err := client.BareDo(ctx, req)
	if resp == nil || resp.Response == nil {
		return Answer{}, &unansweredError{fmt.Errorf("%s %s: %w", method, path, err)}
	}
	defer resp.Body.Close()
	a := Answer{Status: resp.StatusCode, Header: resp.Header}
	var accepted *github.AcceptedError
	if errors.As(err, &accepted) { // 202: the answer is in the error
		a.Body, err = accepted.Raw, nil
	} else {
		// Of an answer that refuses, the library has put the body back.
		var readErr error
		if a.Body, readErr = io.ReadAll(io.LimitReader(resp.Body, maxBody+1)); readErr != nil {
			return Answer{}, &unansweredError{fmt.Errorf("%s %s: answer cut off: %w", method, path, readErr)}
		}
	}
	if len(a.Body) > maxBody {
		return Answer{}, fmt.Errorf("%s %s: the answer has more than %d MiB", method, path, maxBody>>20)
	}
	if err != nil {
		return Answer{}, r.refusal(method, path, a, err)
	}
	if len(bytes.TrimSpace(a.Body)) > 0 && !json.Valid(a.Body) {
		return Answer{}, &unansweredError{fmt.Errorf("%s %s: found %s, want JSON: %s", method, path, a.Header.Get("Content-Type"), r.redact(clip(a.Body)))}
	}
	return a, nil
}

// refusal turns an answer that is no success, and what the library made of it,
// into one of this package's errors.
func (r *REST) refusal(method, path string, a Answer, err error) error {
	if a.Status >= 300 && a.Status < 400 && a.Header.Get("Location") != "" {
		return &redirect{a.Header.Get("Location")}
	}
	var primary *github.RateLimitError
	var secondary *github.AbuseRateLimitError
	limited := a.Status == http.StatusTooManyRequests || a.Status == http.StatusForbidden && a.Header.Get("Retry-After") != ""
	if limited || errors.As(err, &primary) || errors.As(err, &secondary) {
		return &LimitError{Method: method, Path: path, Until: r.until(a.Header)}
	}
	e := &APIError{Status: a.Status, Method: method, Path: path, Needs: a.Header.Get("X-Accepted-GitHub-Permissions")}
	var said struct {
		Message       string          `json:"message"`
		Documentation string          `json:"documentation_url"`
		Errors        json.RawMessage `json:"errors"`
	}
	if json.Unmarshal(a.Body, &said) == nil {
		e.Message, e.Documentation = r.redact(said.Message), said.Documentation
		if len(said.Errors) > 0 {
			e.Message += " " + r.redact(clip(said.Errors))
		}
	} else {
		e.Message = r.redact(clip(a.Body))
	}
	if a.Status >= 500 {
		return &unansweredError{e}
	}
	return e
}

// until reads when a limit ends. Where the forge names no time, its
// documentation asks for a minute.
func (r *REST) until(h http.Header) time.Time {
	if s, err := strconv.ParseInt(h.Get("Retry-After"), 10, 64); err == nil && s >= 0 {
		return r.opts.Now().Add(time.Duration(min(s, 1<<31)) * time.Second)
	}
	if s, err := strconv.ParseInt(h.Get("X-RateLimit-Reset"), 10, 64); err == nil && h.Get("X-RateLimit-Remaining") == "0" {
		return time.Unix(s, 0)
	}
	return r.opts.Now().Add(time.Minute)
}

// redact keeps the token out of words that a server chose.
func (r *REST) redact(s string) string {
	if r.token == "" {
		return s
	}
	return strings.ReplaceAll(s, r.token, "***")
}
