// Package tsa asks time-stamping authorities for tokens: the network half of
// timestamping. What a token is, and what makes one believable, is said in
// package timestamp; whom a repository trusts, in package release.
//
// [Stamp] asks each authority, verifies each answer completely before anybody
// sees it (digest, nonce, signature, chain, pins, and that its time is now), and
// leaves it to a [release.Quorum] whether what it got is enough. An answer that
// does not verify is none: it is never written anywhere.
//
// # The exchange
//
// A request has a fresh nonce each time it is sent, and goes as a POST of
// application/timestamp-query. Authorities are often at plain http addresses,
// which is fine: the answer is signed, and the nonce ties it to the request. A
// wrong Content-Type is not held against an answer whose bytes are good. The body
// is read up to [timestamp.MaxResponse].
//
// Of what can go wrong, a connection that fails or takes too long, a status of
// 5xx and 429 are tried again, after a growing and randomised pause (or the one
// that Retry-After names). All else is final: another status, a page of HTML, a
// rejection, a token with another nonce, digest, signer, root or time. A redirect
// is followed only to https on the same host, so that an address that moved from
// http goes on working; it is sent the whole request again.
//
// # Bootstrap
//
// [Propose] asks an address for a token of random bytes and finds out which root
// it leads to. Nothing in that exchange is a reason to trust the root: a person
// compares its hash with what the authority publishes elsewhere, and
// [Proposal.Confirm] takes what that person found. Once pinned, a root is never
// changed; [Proposal.Adopt] adds a new signing key under the same root, when told
// to.
package tsa

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/release"
	"github.com/vaultmesh/remembrancer/pkg/timestamp"
)

// Options are what asking takes. Random and Now must be there.
type Options struct {
	Random io.Reader        // nonces and pauses
	Now    func() time.Time // the clock that an answer's time is compared with
	// Client sends the requests; nil is one with Go's defaults. Its own ways with
	// redirects and cookies are not used.
	Client *http.Client
	// Timeout is what one authority gets, all attempts together; 0 is a minute.
	Timeout time.Duration
	// Attempts is how often one authority is asked at most; 0 is four times.
	Attempts int
	// Pause is the first pause between attempts; each later one is twice as long.
	// 0 is a second.
	Pause time.Duration
	// Progress gets a line for what takes time or went wrong; nil drops them. A
	// line quotes what servers said.
	Progress func(line string)
}

const (
	maxRedirects = 3
	maxPause     = 30 * time.Second
)

func (o Options) withDefaults() Options {
	client := http.Client{}
	if o.Client != nil {
		client = *o.Client
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	client.Jar = nil
	o.Client = &client
	if o.Timeout == 0 {
		o.Timeout = time.Minute
	}
	if o.Attempts == 0 {
		o.Attempts = 4
	}
	if o.Pause == 0 {
		o.Pause = time.Second
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	return o
}

// Token is a verified answer.
type Token struct {
	Authority release.Authority
	Response  []byte // the bytes of a .tsr file
	Verified  *timestamp.Verified
}

// Stamp asks each authority that none of the tokens in have is of, for a token of
// data, and returns have and what it got, in the order of the authorities. It
// fails when the quorum is not met, and then, too, returns what there is, so that
// it can be kept and only the rest asked for again.
func Stamp(ctx context.Context, data io.ReadSeeker, authorities []release.Authority, quorum release.Quorum, have []Token, opts Options) ([]Token, error) {
	if len(authorities) == 0 {
		return nil, release.ErrNoAuthority
	}
	opts = opts.withDefaults()
	var tokens []Token
	var verified []*timestamp.Verified
	var why []error
	for _, a := range authorities {
		at := slices.IndexFunc(have, func(t Token) bool { return t.Authority.Name == a.Name })
		if at >= 0 {
			tokens, verified = append(tokens, have[at]), append(verified, have[at].Verified)
			continue
		}
		t, err := Ask(ctx, data, a, opts)
		if err != nil {
			opts.Progress(err.Error())
			why = append(why, err)
			continue
		}
		tokens, verified = append(tokens, t), append(verified, t.Verified)
	}
	if err := quorum.Check(authorities, verified...); err != nil {
		return tokens, errors.Join(append([]error{err}, why...)...)
	}
	return tokens, nil
}

// Ask asks one authority for a token of data, and verifies it.
func Ask(ctx context.Context, data io.ReadSeeker, a release.Authority, opts Options) (Token, error) {
	opts = opts.withDefaults()
	t := Token{Authority: a}
	err := opts.exchange(ctx, a.Name, a.URL, data, func(r reply) (err error) {
		verify := a.Options(opts.Now())
		verify.Nonce = r.nonce
		t.Response = r.body
		t.Verified, err = r.token.Verify(data, verify)
		return err
	})
	if err != nil {
		return Token{}, fmt.Errorf("authority %s: %s: %w", a.Name, a.URL, err)
	}
	opts.Progress(fmt.Sprintf("authority %s: token %x of %s", a.Name, t.Verified.Serial, t.Verified.Time.Format(time.RFC3339)))
	return t, nil
}

// passing is an error that may be another one the next time.
type passing struct {
	error
	after time.Duration // what the server asked for, 0 for nothing
}

func (p passing) Unwrap() error { return p.error }

// exchange sends requests for data until one is answered, or an answer is final.
// data is at its beginning when accept is called.
func (o Options) exchange(ctx context.Context, name, address string, data io.ReadSeeker, accept func(reply) error) error {
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	for attempt := 1; ; attempt++ {
		err := o.attempt(ctx, name, address, data, accept)
		var again passing
		if err == nil || !errors.As(err, &again) {
			return err
		}
		if ctx.Err() != nil || attempt == o.Attempts {
			return fmt.Errorf("asked %d times: %w", attempt, err)
		}
		pause, rerr := o.pause(attempt)
		if rerr != nil {
			return rerr
		}
		if again.after > 0 {
			pause = min(again.after, maxPause)
		}
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < pause {
			return fmt.Errorf("asked %d times within %s: %w", attempt, o.Timeout, err)
		}
		o.Progress(fmt.Sprintf("authority %s: %v; again in %s", name, err, pause.Round(time.Millisecond)))
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}

// pause doubles with each attempt. It is randomised by half, so that jobs that
// began together do not ask again together.
func (o Options) pause(attempt int) (time.Duration, error) {
	var b [2]byte
	if _, err := io.ReadFull(o.Random, b[:]); err != nil {
		return 0, err
	}
	d := min(o.Pause<<(attempt-1), maxPause)
	return d/2 + d*time.Duration(binary.BigEndian.Uint16(b[:]))/(1<<16), nil
}

func (o Options) attempt(ctx context.Context, name, address string, data io.ReadSeeker, accept func(reply) error) error {
	if _, err := data.Seek(0, io.SeekStart); err != nil {
		return err
	}
	request, err := timestamp.NewRequest(data, o.Random)
	if err != nil {
		return err
	}
	der, err := request.Marshal()
	if err != nil {
		return err
	}
	// One attempt that hangs must leave time for another.
	ctx, cancel := context.WithTimeout(ctx, o.Timeout/2)
	defer cancel()
	asked := o.Now()
	r, err := o.post(ctx, address, der)
	if err != nil {
		return err
	}
	r.nonce = request.Nonce
	if r.token, err = timestamp.Parse(r.body); err != nil {
		var rejected *timestamp.RejectedError
		if errors.As(err, &rejected) {
			return err
		}
		return fmt.Errorf("answered %s that is no token: %w", r.contentType, err)
	}
	if _, err := data.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if err := accept(r); err != nil {
		return err
	}
	// A nonce shows that the token was made after the request: one that says it is
	// older is of an authority whose clock cannot be used.
	if t := r.token.ClaimedTime(); t.Before(asked.Add(-timestamp.MaxSkew)) {
		return fmt.Errorf("answered with a token of %s, but was asked at %s: its clock or this one is wrong", t.Format(time.RFC3339), asked.UTC().Format(time.RFC3339))
	}
	if r.contentType != "application/timestamp-reply" {
		o.Progress(fmt.Sprintf("authority %s: calls a good token %s", name, r.contentType))
	}
	return nil
}

// reply is an answer of which nothing is believed yet.
type reply struct {
	body        []byte
	contentType string // the media type, or words for none
	token       *timestamp.Token
	nonce       *big.Int // of the request
}

// post sends a request, after redirects too.
func (o Options) post(ctx context.Context, address string, der []byte) (reply, error) {
	for range 1 + maxRedirects {
		r, next, err := o.send(ctx, http.MethodPost, address, der, timestamp.MaxResponse)
		if err != nil || next == "" {
			return r, err
		}
		address = next
	}
	return reply{}, fmt.Errorf("redirects more than %d times", maxRedirects)
}

// send sends one request, and returns the answer's body or where it leads.
func (o Options) send(ctx context.Context, method, address string, body []byte, most int64) (r reply, next string, err error) {
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return reply{}, "", err
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/timestamp-query")
		req.Header.Set("Accept", "application/timestamp-reply")
	}
	resp, err := o.Client.Do(req)
	if err != nil {
		return reply{}, "", broken(err)
	}
	defer resp.Body.Close()
	switch code := resp.StatusCode; code {
	case http.StatusOK:
	case http.StatusMovedPermanently, http.StatusFound, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		next, err := redirect(req.URL, resp)
		return reply{}, next, err
	default:
		start, _ := io.ReadAll(io.LimitReader(resp.Body, 80)) // what could be read is quoted
		err := fmt.Errorf("status %d %s, %q", code, http.StatusText(code), start)
		if code >= 500 || code == http.StatusTooManyRequests || code == http.StatusRequestTimeout {
			seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After")) // 0, as without it
			return reply{}, "", passing{err, time.Duration(max(0, min(seconds, 3600))) * time.Second}
		}
		return reply{}, "", err
	}
	if r.body, err = io.ReadAll(io.LimitReader(resp.Body, most+1)); err != nil {
		return reply{}, "", broken(err)
	}
	if int64(len(r.body)) > most {
		return reply{}, "", fmt.Errorf("answered more than %d bytes", most)
	}
	if r.contentType, _, err = mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil {
		r.contentType = "something without a readable Content-Type"
	}
	return r, "", nil
}

// broken is an error of the connection. Only a server that cannot prove who it is
// stays what it is.
func broken(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // the caller names the address
	}
	var unknown *tls.CertificateVerificationError
	switch {
	case errors.As(err, &unknown), errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, context.DeadlineExceeded):
		return passing{error: errors.New("no answer in time")}
	}
	return passing{error: err}
}

// redirect returns where an answer leads, if it may be followed.
func redirect(from *url.URL, resp *http.Response) (string, error) {
	to, err := resp.Location()
	if err != nil {
		return "", fmt.Errorf("status %d without a readable address", resp.StatusCode)
	}
	if to.Scheme != "https" || to.Hostname() != from.Hostname() || to.User != nil {
		return "", fmt.Errorf("redirects to %q, which is not followed: only https on the same host is", to.Redacted())
	}
	return to.String(), nil
}
