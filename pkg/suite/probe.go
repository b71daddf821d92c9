package suite

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/tidwall/gjson"

	"github.com/vaultmesh/remembrancer/pkg/process"
)

const (
	maxSeen    = 8 << 20 // bytes that are looked at: of standard output, an answer, a file
	maxTail    = 4 << 10 // bytes of Result.Output
	maxMessage = 500     // bytes of Result.Message
	maxHops    = 3       // redirects that are followed
)

var errTooLarge = fmt.Errorf("more than %d MiB to look at", maxSeen>>20)

// content is what is demanded of bytes. Its zero value demands nothing.
type content struct {
	matches *regexp.Regexp
	json    *jsonClaim
}

func (c content) empty() bool { return c.matches == nil && c.json == nil }

// missing returns what was demanded and is not so, or "".
func (c content) missing(data []byte) string {
	if c.matches != nil && !c.matches.Match(data) {
		return fmt.Sprintf("does not match %s", strings.TrimPrefix(c.matches.String(), "(?m)"))
	}
	if c.json != nil {
		return c.json.missing(data)
	}
	return ""
}

// jsonClaim is a value that must stand at a path.
type jsonClaim struct {
	path   string
	kind   gjson.Type // Null, False, True, Number or String
	equals string     // of a String its text, of a Number as JSON writes it
}

func (j *jsonClaim) missing(data []byte) string {
	if !gjson.ValidBytes(data) {
		return "is not JSON"
	}
	v := gjson.GetBytes(data, j.path)
	switch {
	case !v.Exists():
		return fmt.Sprintf("has nothing at %s, wanted %s", j.path, j.wanted())
	case v.Type != j.kind, v.Type == gjson.String && v.Str != j.equals, v.Type == gjson.Number && !sameNumber(number(v), j.equals):
		found := v.Raw
		if found == "" { // the length of a list has no place in the text
			found = v.String()
		}
		return fmt.Sprintf("has %s at %s, wanted %s", clip(found, 100), j.path, j.wanted())
	}
	return ""
}

func number(v gjson.Result) string {
	if v.Raw == "" {
		return strconv.FormatFloat(v.Num, 'f', -1, 64)
	}
	return v.Raw
}

func (j *jsonClaim) wanted() string {
	switch j.kind {
	case gjson.String:
		return strconv.Quote(clip(j.equals, 100))
	case gjson.Number:
		return j.equals
	}
	return strings.ToLower(j.kind.String())
}

// sameNumber compares numbers as JSON writes them. Beyond 2^53 two integers may
// be one float64, so there their digits must be the same.
func sameNumber(a, b string) bool {
	if a == b {
		return true
	}
	x, err1 := strconv.ParseFloat(a, 64)
	y, err2 := strconv.ParseFloat(b, 64)
	return err1 == nil && err2 == nil && x == y && x > -(1<<53) && x < 1<<53
}

// command claims what a program does.
type command struct {
	argv   []string
	shell  string
	stdin  string
	env    []string
	exit   int
	stdout content
}

func (c *command) try(ctx context.Context, b *bench) outcome {
	argv := c.argv
	if c.shell != "" {
		argv = []string{"bash", "-e", "-o", "pipefail", "-c", c.shell}
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	end := &tail{}
	stdout := &capture{end: end, over: func() { stop(errTooLarge) }}
	exit, err := process.Run(ctx, process.Command{
		Argv: argv, Dir: b.dir, Env: append(append([]string{}, b.env...), c.env...),
		Stdin: strings.NewReader(c.stdin), Stdout: stdout, Stderr: end,
	})
	switch {
	case stdout.n > maxSeen:
		// By count and not by cause: the command may have ended by itself just
		// before it could be stopped.
		return unjudged(end.data, errTooLarge)
	case err != nil:
		return unjudged(end.data, err)
	case exit != c.exit && c.shell != "" && (exit == 126 || exit == 127):
		// The shell's own words for "nothing was run".
		return unjudged(end.data, fmt.Errorf("exit status %d: the shell could not find or start a command", exit))
	case exit != c.exit:
		return failed(end.data, "exit status %d, wanted %d", exit, c.exit)
	}
	if why := c.stdout.missing(stdout.kept.Bytes()); why != "" {
		return failed(end.data, "standard output %s", why)
	}
	return passed(end.data)
}

// capture keeps one stream, and its end for people.
type capture struct {
	end  *tail
	kept bytes.Buffer
	n    int64
	over func()
}

func (c *capture) Write(p []byte) (int, error) {
	if c.n += int64(len(p)); c.n > maxSeen {
		c.kept = bytes.Buffer{}
		c.over()
		return len(p), nil
	}
	c.kept.Write(p)
	return c.end.Write(p)
}

// tail keeps the end of what several streams write.
type tail struct {
	mu   sync.Mutex // guards data
	data []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.data = append(t.data, p[max(0, len(p)-maxTail):]...)
	if n := len(t.data) - maxTail; n > 0 {
		t.data = append(t.data[:0], t.data[n:]...)
	}
	return len(p), nil
}

// webPage claims what a server answers.
type webPage struct {
	url    string
	status int
	body   content
}

func (h *webPage) try(ctx context.Context, _ *bench) outcome {
	elsewhere := ""
	transport := &http.Transport{
		// No proxy: what is asked is what is named.
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{MinVersion: tls.VersionTLS12},
		// The body is judged as it was sent.
		DisableCompression: true,
	}
	client := &http.Client{Transport: transport, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		switch first := via[0].URL; {
		case h.status >= 300 && h.status <= 399:
		case req.URL.Scheme != first.Scheme || !strings.EqualFold(req.URL.Host, first.Host):
			elsewhere = fmt.Sprintf("redirected to %s, which is not followed: name that address if it is meant", req.URL.Redacted())
		case len(via) > maxHops:
			elsewhere = fmt.Sprintf("redirected more than %d times", maxHops)
		default:
			return nil
		}
		return http.ErrUseLastResponse
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.url, http.NoBody)
	if err != nil {
		return unjudged(nil, err)
	}
	req.Header.Set("User-Agent", "remembrancer")
	resp, err := client.Do(req)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err // the address is in the file
		}
		return failed(nil, "no answer: %v", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxSeen+1))
	end := body[max(0, len(body)-maxTail):]
	switch {
	case elsewhere != "":
		return failed(end, "%s", elsewhere)
	case resp.StatusCode != h.status:
		return failed(end, "status %d, wanted %d", resp.StatusCode, h.status)
	case h.body.empty():
		return passed(end) // nothing is claimed of the body, however long it is
	case err != nil:
		return failed(end, "the answer broke off: %v", err)
	case len(body) > maxSeen:
		return unjudged(end, errTooLarge)
	}
	if why := h.body.missing(body); why != "" {
		return failed(end, "the answer %s", why)
	}
	return passed(end)
}

// openPort claims that somebody listens.
type openPort struct{ address string }

func (p *openPort) try(ctx context.Context, _ *bench) outcome {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", p.address)
	if err != nil {
		return failed(nil, "no connection: %v", err)
	}
	_ = conn.Close()
	return passed(nil)
}

// file claims what a file is.
type file struct {
	path       string
	absent     bool
	sha256     string // hex; "" demands none
	executable *bool
	content    content
}

func (f *file) try(_ context.Context, b *bench) outcome {
	name := filepath.FromSlash(f.path)
	if f.absent {
		switch _, err := b.root.Lstat(name); {
		case errors.Is(err, fs.ErrNotExist):
			return passed(nil)
		case err != nil:
			return unjudged(nil, err)
		}
		return failed(nil, "%s is there, wanted nothing", f.path)
	}
	info, err := b.root.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return failed(nil, "%s is not there", f.path)
	case err != nil:
		return unjudged(nil, err)
	case !info.Mode().IsRegular():
		// Opening a pipe would wait for its other end.
		return failed(nil, "%s is not a regular file", f.path)
	case f.executable == nil:
	case runtime.GOOS == "windows":
		return unjudged(nil, errors.New("files have no permission to be executed on this system"))
	case *f.executable != (info.Mode()&0o111 != 0):
		if *f.executable {
			return failed(nil, "%s is not executable", f.path)
		}
		return failed(nil, "%s is executable", f.path)
	}
	if f.sha256 == "" && f.content.empty() {
		return passed(nil)
	}
	r, err := b.root.Open(name)
	if err != nil {
		return unjudged(nil, err)
	}
	defer r.Close()
	sum := sha256.New()
	data, err := io.ReadAll(io.TeeReader(io.LimitReader(r, maxSeen+1), sum))
	if err == nil && len(data) > maxSeen {
		if !f.content.empty() {
			return unjudged(nil, errTooLarge)
		}
		_, err = io.Copy(sum, r)
	}
	if err != nil {
		return unjudged(nil, err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); f.sha256 != "" && got != f.sha256 {
		return failed(nil, "%s has the SHA-256 %s, wanted %s", f.path, got, f.sha256)
	}
	if why := f.content.missing(data); why != "" {
		return failed(nil, "%s %s", f.path, why)
	}
	return passed(nil)
}

// oneLine replaces what could move a cursor, reorder text or start a line.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || r == '\r' {
			return ' '
		}
		return visible(r)
	}, strings.ToValidUTF8(s, string(utf8.RuneError)))
}

var escapes = regexp.MustCompile(`\x1b(\[[0-9;:?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|[@-Z\\^_=>])`)

// plain is the end of an output without what could move a cursor.
func plain(out []byte) string {
	out = escapes.ReplaceAll(out, nil)
	out = bytes.ReplaceAll(out, []byte("\r\n"), []byte("\n"))
	s := strings.Map(func(r rune) rune {
		switch r {
		case '\n', '\t':
			return r
		case '\r':
			return '\n'
		}
		return visible(r)
	}, strings.ToValidUTF8(string(out), string(utf8.RuneError)))
	if n := len(s) - maxTail; n > 0 { // a replacement is longer than what it replaces
		for n < len(s) && !utf8.RuneStart(s[n]) {
			n++
		}
		s = s[n:]
	}
	return s
}

func visible(r rune) rune {
	if !unicode.IsPrint(r) {
		return utf8.RuneError
	}
	return r
}

// clip cuts s to at most n bytes on a rune's border and marks the cut.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	n -= len("…")
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}
