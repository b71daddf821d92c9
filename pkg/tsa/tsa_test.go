package tsa_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/release"
	"github.com/vaultmesh/remembrancer/pkg/timestamp"
	"github.com/vaultmesh/remembrancer/pkg/tsa"
	"github.com/vaultmesh/remembrancer/pkg/tsa/tsatest"
)

var data = []byte("what is stamped\n")

// patience is options that do not wait long, and the lines they gave.
func patience() (tsa.Options, *[]string) {
	lines := new([]string)
	return tsa.Options{
		Random: rand.Reader, Now: time.Now, Pause: time.Millisecond, Timeout: 10 * time.Second,
		Progress: func(line string) { *lines = append(*lines, line) },
	}, lines
}

func quorum(t *testing.T, s string) release.Quorum {
	t.Helper()
	q, err := release.ParseQuorum(s)
	assert.NilError(t, err)
	return q
}

func answer(code int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	}
}

func hang(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body) // only then does the server see the client leave
	<-r.Context().Done()
}

func reset(w http.ResponseWriter, _ *http.Request) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		_ = conn.(*net.TCPConn).SetLinger(0)
		_ = conn.Close()
	}
}

// reject answers as an authority does that does not like the request.
func reject(s *tsatest.TSA) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		request, _ := io.ReadAll(r.Body)
		// SHA-256 becomes an algorithm that nobody knows.
		request = bytes.Replace(request, []byte{0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1}, []byte{0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 0x7f}, 1)
		response, err := s.Answer(request)
		if err != nil {
			http.Error(w, err.Error(), http.StatusTeapot)
			return
		}
		_, _ = w.Write(response)
	}
}

// other answers a request that nobody sent: for other data, or with no nonce.
func other(s *tsatest.TSA, of []byte) http.HandlerFunc {
	response := s.Token(of)
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(response) }
}

// replay answers with the answer to an earlier request for the same data.
func replay(t *testing.T, s *tsatest.TSA) http.HandlerFunc {
	t.Helper()
	request, err := timestamp.NewRequest(bytes.NewReader(data), rand.Reader)
	assert.NilError(t, err)
	der, err := request.Marshal()
	assert.NilError(t, err)
	response, err := s.Answer(der)
	assert.NilError(t, err)
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(response) }
}

func TestEachFaultHasItsWords(t *testing.T) {
	s, stranger := tsatest.New(t), tsatest.New(t)
	for _, tc := range []struct {
		name  string
		next  []http.HandlerFunc
		edit  func(*release.Authority, *tsa.Options)
		asked int
		want  string // "" is a good token
	}{
		{name: "good", asked: 1},
		{name: "500, then good", next: []http.HandlerFunc{answer(500, "text/plain", "oops")}, asked: 2},
		{name: "429, 503, reset, then good", next: []http.HandlerFunc{answer(429, "", ""), answer(503, "", ""), reset}, asked: 4},
		{name: "503 all the time", next: []http.HandlerFunc{answer(503, "", "a"), answer(503, "", "b"), answer(503, "", "c"), answer(503, "", "d")}, asked: 4, want: `asked 4 times: status 503 Service Unavailable, "d"`},
		{name: "404", next: []http.HandlerFunc{answer(404, "text/html", "<html>not here")}, asked: 1, want: `status 404 Not Found, "<html>not here"`},
		{name: "a page", next: []http.HandlerFunc{answer(200, "text/html; charset=utf-8", "<!DOCTYPE html><title>Welcome")}, asked: 1, want: `answered text/html that is no token: time stamp: found text that begins "<!DOCTYPE html>`},
		{name: "a page that says it is a token", next: []http.HandlerFunc{answer(200, "application/timestamp-reply", "<html>")}, asked: 1, want: "that is no token"},
		{name: "nothing", next: []http.HandlerFunc{answer(200, "application/timestamp-reply", "")}, asked: 1, want: "that is no token"},
		{name: "a flood", next: []http.HandlerFunc{answer(200, "application/timestamp-reply", strings.Repeat("x", timestamp.MaxResponse+1))}, asked: 1, want: "answered more than 1048576 bytes"},
		{name: "a rejection", next: []http.HandlerFunc{reject(s)}, asked: 1, want: "the authority granted no token: status 2, badAlg"},
		{name: "an old answer", next: []http.HandlerFunc{replay(t, s)}, asked: 1, want: "its nonce is"},
		{name: "no nonce", next: []http.HandlerFunc{other(s, data)}, asked: 1, want: "it has no nonce, the request had one"},
		{name: "other data", next: []http.HandlerFunc{other(s, []byte("other"))}, asked: 1, want: "it is of other data"},
		{name: "another authority", edit: func(a *release.Authority, _ *tsa.Options) { a.Roots = []*x509.Certificate{stranger.Root} }, asked: 1, want: "it leads to no given root"},
		{name: "another key", edit: func(a *release.Authority, _ *tsa.Options) {
			a.Pins = []timestamp.Pin{{SPKI: timestamp.SPKI(stranger.Signer())}}
		}, asked: 1, want: "is not pinned for"},
		{name: "a redirect elsewhere", next: []http.HandlerFunc{http.RedirectHandler("https://elsewhere.example/tsr", http.StatusTemporaryRedirect).ServeHTTP}, asked: 1, want: `redirects to "https://elsewhere.example/tsr", which is not followed`},
		{name: "a redirect to http", next: []http.HandlerFunc{http.RedirectHandler("/other", http.StatusPermanentRedirect).ServeHTTP}, asked: 1, want: "which is not followed: only https on the same host is"},
		{name: "a redirect that drops the request", next: []http.HandlerFunc{http.RedirectHandler("https://127.0.0.1/", http.StatusSeeOther).ServeHTTP}, asked: 1, want: "status 303 See Other"},
		{name: "slow, then good", next: []http.HandlerFunc{hang}, edit: func(_ *release.Authority, o *tsa.Options) { o.Timeout = 2 * time.Second }, asked: 2},
		{name: "slow", next: []http.HandlerFunc{hang, hang}, edit: func(_ *release.Authority, o *tsa.Options) { o.Timeout = time.Second }, asked: 2, want: "asked 2 times: no answer in time"},
		{name: "down", edit: func(a *release.Authority, _ *tsa.Options) { a.URL = "http://127.0.0.1:1/tsr" }, asked: 0, want: "asked 4 times: dial tcp 127.0.0.1:1: connect: connection refused"},
		{name: "its clock is slow", edit: func(_ *release.Authority, o *tsa.Options) {
			o.Now = func() time.Time { return time.Now().Add(time.Hour) }
		}, asked: 1, want: "its clock or this one is wrong"},
		{name: "its clock is fast", edit: func(_ *release.Authority, o *tsa.Options) {
			o.Now = func() time.Time { return time.Now().Add(-time.Hour) }
		}, asked: 1, want: "is in the future"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			opts, lines := patience()
			a := s.Authority("one")
			if tc.edit != nil {
				tc.edit(&a, &opts)
			}
			before := s.Asked()
			s.Next(tc.next...)
			got, err := tsa.Ask(t.Context(), bytes.NewReader(data), a, opts)
			assert.Equal(t, s.Asked()-before, tc.asked)
			if tc.want == "" {
				assert.NilError(t, err)
				_, err := a.Verify(got.Response, bytes.NewReader(data), time.Now())
				assert.NilError(t, err)
				assert.Equal(t, len(*lines), tc.asked, "%q", *lines) // a line a fault, and one for the token
			} else {
				assert.ErrorContains(t, err, tc.want)
				assert.ErrorContains(t, err, "authority one: "+a.URL+": ")
				assert.Assert(t, got.Response == nil)
			}
		})
	}
}

func TestAPauseIsWhatTheServerAsksFor(t *testing.T) {
	s := tsatest.New(t)
	opts, lines := patience()
	s.Next(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	begun := time.Now()
	_, err := tsa.Ask(t.Context(), bytes.NewReader(data), s.Authority("one"), opts)
	assert.NilError(t, err)
	assert.Assert(t, time.Since(begun) >= time.Second)
	assert.Equal(t, (*lines)[0], `authority one: status 429 Too Many Requests, ""; again in 1s`)

	// One that asks for more than there is gets no second request.
	before := s.Asked()
	s.Next(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "86400")
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	_, err = tsa.Ask(t.Context(), bytes.NewReader(data), s.Authority("one"), opts)
	assert.ErrorContains(t, err, "asked 1 times within 10s: status 503")
	assert.Equal(t, s.Asked()-before, 1)
}

func TestWhoeverGivesUpIsObeyed(t *testing.T) {
	s := tsatest.New(t)
	opts, _ := patience()
	ctx, cancel := context.WithCancel(t.Context())
	s.Next(func(w http.ResponseWriter, r *http.Request) {
		cancel()
		hang(w, r)
	})
	_, err := tsa.Ask(ctx, bytes.NewReader(data), s.Authority("one"), opts)
	assert.ErrorIs(t, err, context.Canceled)
	assert.Equal(t, s.Asked(), 1)
}

func TestARedirectToHTTPSOnTheSameHostIsFollowed(t *testing.T) {
	s := tsatest.New(t)
	secure := httptest.NewTLSServer(s)
	t.Cleanup(secure.Close)
	opts, _ := patience()
	opts.Client = secure.Client()
	for _, code := range []int{301, 302, 307, 308} {
		s.Next(http.RedirectHandler(secure.URL+"/tsr", code).ServeHTTP)
		_, err := tsa.Ask(t.Context(), bytes.NewReader(data), s.Authority("one"), opts)
		assert.NilError(t, err)
	}
	loop := http.RedirectHandler(secure.URL+"/tsr", http.StatusTemporaryRedirect).ServeHTTP
	s.Next(loop, loop, loop, loop)
	_, err := tsa.Ask(t.Context(), bytes.NewReader(data), s.Authority("one"), opts)
	assert.ErrorContains(t, err, "redirects more than 3 times")

	// A server that cannot prove who it is is not asked again.
	opts.Client = nil
	before := s.Asked()
	a := s.Authority("one")
	a.URL = secure.URL + "/tsr"
	_, err = tsa.Ask(t.Context(), bytes.NewReader(data), a, opts)
	assert.ErrorContains(t, err, "x509: certificate signed by unknown authority")
	assert.Equal(t, s.Asked(), before)
}

func TestTheQuorumDecidesWhatIsEnough(t *testing.T) {
	one, two := tsatest.New(t), tsatest.New(t)
	twin := one.Under()
	a, b, c := one.Authority("a"), two.Authority("b"), twin.Authority("c")
	down := release.Authority{Name: "down", URL: "http://127.0.0.1:1/", Roots: b.Roots, RootSPKI: b.RootSPKI}
	for _, tc := range []struct {
		name, quorum string
		authorities  []release.Authority
		tokens       int
		want         string
	}{
		{"two of two", "all", []release.Authority{a, b}, 2, ""},
		{"one of two is down", "all", []release.Authority{down, a}, 1, "1 tokens of 1 independent authorities, wanted 2\nauthority down: http://127.0.0.1:1/: asked 4 times"},
		{"one of two is down, and enough", "any", []release.Authority{down, a}, 1, ""},
		{"two of three", "2", []release.Authority{a, down, b}, 2, ""},
		{"two under one root", "all", []release.Authority{a, c}, 2, "2 tokens of 1 independent authorities, wanted 2; those under one root count as one"},
		{"two under one root, as a number", "2", []release.Authority{a, c}, 2, "wanted 2"},
		{"nobody", "any", []release.Authority{down}, 0, "0 tokens of 0 independent authorities, wanted 1"},
		{"nobody is trusted", "any", nil, 0, "no time-stamping authority is pinned"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			opts, lines := patience()
			got, err := tsa.Stamp(t.Context(), bytes.NewReader(data), tc.authorities, quorum(t, tc.quorum), nil, opts)
			assert.Equal(t, len(got), tc.tokens)
			if tc.want != "" {
				assert.ErrorContains(t, err, tc.want)
				return
			}
			assert.NilError(t, err)
			for _, token := range got {
				_, err := token.Authority.Verify(token.Response, bytes.NewReader(data), time.Now())
				assert.NilError(t, err)
			}
			if tc.tokens < len(tc.authorities) {
				assert.Assert(t, strings.Contains(strings.Join(*lines, "\n"), "authority down: http://127.0.0.1:1/: asked 4 times"), "%q", *lines)
			}
		})
	}
}

func TestOnlyWhatIsMissingIsAskedFor(t *testing.T) {
	one, two := tsatest.New(t), tsatest.New(t)
	authorities := []release.Authority{one.Authority("a"), two.Authority("b")}
	opts, _ := patience()
	two.Next(answer(404, "", ""))
	first, err := tsa.Stamp(t.Context(), bytes.NewReader(data), authorities, release.Quorum{}, nil, opts)
	assert.ErrorContains(t, err, "status 404")
	assert.Equal(t, len(first), 1)
	all, err := tsa.Stamp(t.Context(), bytes.NewReader(data), authorities, release.Quorum{}, first, opts)
	assert.NilError(t, err)
	assert.DeepEqual(t, all[0].Response, first[0].Response)
	assert.Equal(t, one.Asked(), 1)
	assert.Equal(t, two.Asked(), 2)
}

func TestARotatedKeyNeedsAWord(t *testing.T) {
	s := tsatest.New(t)
	opts, _ := patience()
	p, err := tsa.Propose(t.Context(), "one", s.URL, nil, opts)
	assert.NilError(t, err)
	assert.Assert(t, p.Root.Equal(s.Root), "the token carries it along")
	s.HideRoot()
	_, err = tsa.Propose(t.Context(), "one", s.URL, nil, opts)
	assert.ErrorContains(t, err, "found no root among 1 certificates: name a file of the authority's own root with --ca or --ca-url")

	ca := []*x509.Certificate{tsatest.New(t).Root, s.Root}
	p, err = tsa.Propose(t.Context(), "one", s.URL, ca, opts)
	assert.NilError(t, err)
	pinned := p.Authority
	assert.DeepEqual(t, pinned.Pins, []timestamp.Pin{{SPKI: timestamp.SPKI(s.Signer()), From: s.Signer().NotBefore, Until: s.Signer().NotAfter}})
	assert.Equal(t, len(pinned.Roots), 1)
	assert.Assert(t, pinned.Roots[0].Equal(s.Root))
	assert.Equal(t, len(pinned.Untrusted), 1)
	old, err := tsa.Ask(t.Context(), bytes.NewReader(data), pinned, opts)
	assert.NilError(t, err)
	same, err := p.Adopt(pinned, false)
	assert.NilError(t, err)
	assert.DeepEqual(t, same.Files(), pinned.Files())

	s.Rotate()
	_, err = tsa.Ask(t.Context(), bytes.NewReader(data), pinned, opts)
	assert.ErrorContains(t, err, "is not pinned for")
	p, err = tsa.Propose(t.Context(), "one", s.URL, ca, opts)
	assert.NilError(t, err)
	_, err = p.Adopt(pinned, false)
	assert.ErrorIs(t, err, tsa.ErrChanged)
	was, is := pinned.Pins[0].SPKI, timestamp.SPKI(s.Signer())
	assert.Error(t, err, fmt.Sprintf("authority one: not what is pinned: pinned are the signing keys %x, it signed with %x under the same root; add --rotate if it has a new key", was[:], is[:]))
	next, err := p.Adopt(pinned, true)
	assert.NilError(t, err)
	assert.Equal(t, len(next.Pins), 2)
	assert.Equal(t, len(next.Untrusted), 2)
	_, err = tsa.Ask(t.Context(), bytes.NewReader(data), next, opts)
	assert.NilError(t, err)
	_, err = next.Verify(old.Response, bytes.NewReader(data), time.Now())
	assert.NilError(t, err, "what was stamped before stays good")

	moved := p
	moved.Authority.URL = "https://tsa.example/"
	_, err = moved.Adopt(next, false)
	assert.Error(t, err, "authority one: not what is pinned: pinned is the address "+s.URL+", proposed https://tsa.example/; add --rotate if it moved")
	next, err = moved.Adopt(next, true)
	assert.NilError(t, err)
	assert.Equal(t, next.URL, "https://tsa.example/")
	assert.Equal(t, len(next.Pins), 2)

	any := pinned
	any.Pins = nil
	same, err = p.Adopt(any, false)
	assert.NilError(t, err)
	assert.Equal(t, len(same.Pins), 0)
}

func TestARootNeverChanges(t *testing.T) {
	s, thief := tsatest.New(t), tsatest.New(t)
	opts, _ := patience()
	p, err := tsa.Propose(t.Context(), "one", thief.URL, []*x509.Certificate{thief.Root}, opts)
	assert.NilError(t, err)
	for _, rotate := range []bool{false, true} {
		_, err = p.Adopt(s.Authority("one"), rotate)
		assert.ErrorIs(t, err, tsa.ErrChanged)
		pinned, found := timestamp.SPKI(s.Root), timestamp.SPKI(thief.Root)
		assert.ErrorContains(t, err, fmt.Sprintf("pinned is the root %x, %s leads to %x", pinned[:], thief.URL, found[:]))
	}
	_, err = tsa.Propose(t.Context(), "one", s.URL, []*x509.Certificate{thief.Root}, opts)
	assert.ErrorContains(t, err, "it leads to no given root")
	_, err = tsa.Propose(t.Context(), "One", s.URL, nil, opts)
	assert.ErrorContains(t, err, "small letters")
	_, err = tsa.Propose(t.Context(), "one", "tsa.example", nil, opts)
	assert.ErrorContains(t, err, "want an http or https URL")
}

func TestWhatAPersonFoundElsewhereConfirms(t *testing.T) {
	s := tsatest.New(t)
	opts, _ := patience()
	p, err := tsa.Propose(t.Context(), "one", s.URL, []*x509.Certificate{s.Root}, opts)
	assert.NilError(t, err)
	spki, sum := timestamp.SPKI(s.Root), sha256.Sum256(s.Root.Raw)
	assert.NilError(t, p.Confirm(hex.EncodeToString(spki[:])))
	assert.NilError(t, p.Confirm(base64.StdEncoding.EncodeToString(spki[:])))
	colons := strings.ToUpper(strings.TrimSuffix(fmt.Sprintf("% x", sum[:]), " "))
	assert.NilError(t, p.Confirm(strings.ReplaceAll(colons, " ", ":")))
	assert.ErrorContains(t, p.Confirm(strings.Repeat("0", 64)), "it is not the root that was confirmed")
	signer := timestamp.SPKI(s.Signer())
	assert.ErrorContains(t, p.Confirm(hex.EncodeToString(signer[:])), "it is not the root that was confirmed")
	for _, wrong := range []string{"", "yes", "00"} {
		assert.ErrorContains(t, p.Confirm(wrong), "wanted the SHA-256")
	}
	for _, want := range []string{"authority  one, " + s.URL, "root       CN=root,O=tsatest", hex.EncodeToString(spki[:]), hex.EncodeToString(sum[:]), hex.EncodeToString(signer[:])} {
		assert.Assert(t, strings.Contains(p.Text(), want), "%s is not in\n%s", want, p.Text())
	}
}

func TestCertificatesAreFetchedAsTheyArePublished(t *testing.T) {
	s := tsatest.New(t)
	opts, _ := patience()
	text := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Root.Raw}))
	for name, body := range map[string]string{"PEM": text, "PEM with words": "Certificate:\n  Data:\n" + text, "DER": string(s.Root.Raw)} {
		s.Next(answer(200, "application/x-x509-ca-cert", body))
		got, err := tsa.FetchCertificates(t.Context(), s.URL, opts)
		assert.NilError(t, err, name)
		assert.Assert(t, got[0].Equal(s.Root))
	}
	for want, handler := range map[string]http.HandlerFunc{
		"status 404 Not Found":                               answer(404, "", ""),
		"answered text/html: found no certificate":           answer(200, "text/html", "<html>"),
		"answered more than":                                 answer(200, "text/html", strings.Repeat("x", 300<<10)),
		"x509: malformed certificate":                        answer(200, "", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
		"which is not followed: only https on the same host": http.RedirectHandler("/ca.pem", http.StatusMovedPermanently).ServeHTTP,
	} {
		s.Next(handler)
		_, err := tsa.FetchCertificates(t.Context(), s.URL, opts)
		assert.ErrorContains(t, err, want)
	}
	_, err := tsa.FetchCertificates(t.Context(), "file:///ca.pem", opts)
	assert.ErrorContains(t, err, "want an http or https URL")
}

// What is read as certificates is read again from what openssl would be given.
func FuzzReadCertificates(f *testing.F) {
	b, err := os.ReadFile(filepath.Join("..", "timestamp", "testdata", "freetsa", "root.pem"))
	assert.NilError(f, err)
	f.Add(b)
	block, _ := pem.Decode(b)
	f.Add(block.Bytes)
	f.Add([]byte("words\n" + string(b) + string(b)))
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := tsa.ReadCertificates(data)
		if err != nil {
			assert.Equal(t, len(all), 0)
			return
		}
		var again bytes.Buffer
		for _, c := range all {
			assert.NilError(t, pem.Encode(&again, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
		}
		strict, err := release.ParseCertificates(again.Bytes())
		if len(all) > 32 {
			assert.ErrorContains(t, err, "more than 32 certificates")
			return
		}
		assert.NilError(t, err)
		assert.Equal(t, len(strict), len(all))
	})
}
