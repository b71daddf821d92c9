// Package gitservertest is a git server for tests: real git, real http.
//
// New makes a bare repository and serves it with git's own http-backend, so a
// test meets the pack protocol, locks, hooks and fsck that a forge has. The
// repository refuses forced pushes and checks every object it receives.
//
//	srv := gitservertest.New(t)
//	dir := srv.Clone(t)                       // a work tree, made by real git
//	srv.Hook("pre-receive", "#!/bin/sh\necho no >&2\nexit 1\n")
//	srv.FailPush(gitservertest.LoseAnswer)    // the next push lands unheard
//	srv.Fsck()
//
// Each FailPush and each BeforePush is used up by one push, in order, so a
// test decides exactly which push meets which fault.
package gitservertest

import (
	"bytes"
	"io"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Fault is what goes wrong with one push.
type Fault int

const (
	// DropRequest closes the connection; git never sees the push.
	DropRequest Fault = iota + 1
	// RefuseGateway answers 502; git never sees the push.
	RefuseGateway
	// LoseAnswer lets git do the push and closes the connection.
	LoseAnswer
	// LoseAnswerGateway lets git do the push and answers 502.
	LoseAnswerGateway
	// EmptyAnswer lets git do the push and answers 200 with no body.
	EmptyAnswer
	// CutAnswer lets git do the push and sends half of the answer.
	CutAnswer
)

// Server is one bare repository behind http. It ends with its test.
type Server struct {
	t    testing.TB
	dir  string
	home string
	http *httptest.Server

	mu       sync.Mutex // guards below
	user     string
	password string
	faults   []Fault
	before   []func()
	pushes   int
}

const serverConfig = `[http]
	receivepack = true
[receive]
	denyNonFastForwards = true
	denyDeletes = true
	fsckObjects = true
	autogc = false
[gc]
	auto = 0
[core]
	fsync = none
`

// New makes and serves an empty repository whose default branch is main.
// Further arguments go to git init, such as --object-format=sha256.
func New(t testing.TB, initArgs ...string) *Server {
	t.Helper()
	root := t.TempDir()
	s := &Server{t: t, dir: filepath.Join(root, "repo.git"), home: root}
	s.run(root, append(append([]string{"init", "--quiet", "--bare", "-b", "main"}, initArgs...), s.dir)...)
	// Written directly: seven runs of git config take longer than most tests.
	f, err := os.OpenFile(filepath.Join(s.dir, "config"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(serverConfig); err != nil {
		t.Fatal(err)
	}
	s.http = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.http.Close)
	return s
}

// URL returns where the repository is served.
func (s *Server) URL() string { return s.http.URL + "/repo.git" }

// Dir returns the bare repository on disk.
func (s *Server) Dir() string { return s.dir }

// Git runs git in the bare repository and returns its output without the
// final newline. A failure ends the test.
func (s *Server) Git(args ...string) string {
	s.t.Helper()
	return s.run(s.dir, args...)
}

// Env is the environment in which a test's git sees no configuration of the
// machine. Use it for git commands the test runs itself.
func (s *Server) Env() []string {
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "GIT_") {
			env = append(env, kv)
		}
	}
	return append(env,
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL="+os.DevNull,
		"GIT_TERMINAL_PROMPT=0", "HOME="+s.home, "LC_ALL=C")
}

func (s *Server) run(dir string, args ...string) string {
	s.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Env = dir, s.Env()
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSuffix(string(out), "\n")
}

// In runs git in a directory, as Git does in the repository.
func (s *Server) In(dir string, args ...string) string {
	s.t.Helper()
	return s.run(dir, args...)
}

// Clone makes a work tree of the repository with an identity configured, over
// http when the server wants no password. Further arguments go to git clone.
func (s *Server) Clone(t testing.TB, args ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "clone")
	from := s.URL()
	s.mu.Lock()
	if s.user != "" {
		from = "file://" + s.dir
	}
	s.mu.Unlock()
	clone := []string{"clone", "--quiet", "-c", "user.name=Test Writer", "-c", "user.email=writer@example.org", "-c", "commit.gpgsign=false", "-c", "gc.auto=0"}
	s.run(s.home, append(append(clone, args...), from, dir)...)
	return dir
}

// Hook installs an executable hook; the script brings its own #! line.
func (s *Server) Hook(name, script string) {
	s.t.Helper()
	dir := filepath.Join(s.dir, "hooks")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
		s.t.Fatal(err)
	}
}

// Fsck ends the test unless git fsck --strict finds nothing to say.
func (s *Server) Fsck() {
	s.t.Helper()
	if out := s.Git("fsck", "--strict", "--full", "--no-dangling", "--no-progress"); out != "" {
		s.t.Fatalf("git fsck --strict:\n%s", out)
	}
}

// RequireAuth makes the server answer 401 to everybody but this user.
func (s *Server) RequireAuth(user, password string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.user, s.password = user, password
}

// FailPush lets the next push without a fault of its own meet this one.
func (s *Server) FailPush(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, f)
}

// BeforePush runs f when the next push has been sent and before git sees it:
// the moment in which another writer wins a race.
func (s *Server) BeforePush(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = append(s.before, f)
}

// Pushes returns how many pushes have been sent so far, whatever became of
// them.
func (s *Server) Pushes() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pushes
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	user, password := s.user, s.password
	s.mu.Unlock()
	if user != "" {
		if u, p, ok := r.BasicAuth(); !ok || u != user || p != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			http.Error(w, "remote: Invalid username or token.", http.StatusUnauthorized)
			return
		}
	}
	// CGI has no chunked requests, and git sends them for larger packs.
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.Body, r.ContentLength, r.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
	if !strings.HasSuffix(r.URL.Path, "/git-receive-pack") {
		s.backend(w, r)
		return
	}

	var fault Fault
	var before func()
	s.mu.Lock()
	s.pushes++
	if len(s.faults) > 0 {
		fault, s.faults = s.faults[0], s.faults[1:]
	}
	if len(s.before) > 0 {
		before, s.before = s.before[0], s.before[1:]
	}
	s.mu.Unlock()
	if before != nil {
		before()
	}
	switch fault {
	case DropRequest:
		hangUp(w)
		return
	case RefuseGateway:
		http.Error(w, "bad gateway", http.StatusBadGateway)
		return
	case 0:
		s.backend(w, r)
		return
	}
	rec := httptest.NewRecorder()
	s.backend(rec, r)
	switch fault {
	case LoseAnswer:
		hangUp(w)
	case LoseAnswerGateway:
		http.Error(w, "bad gateway", http.StatusBadGateway)
	case EmptyAnswer:
		w.Header().Set("Content-Type", rec.Header().Get("Content-Type"))
	case CutAnswer:
		w.Header().Set("Content-Type", rec.Header().Get("Content-Type"))
		_, _ = w.Write(rec.Body.Bytes()[:rec.Body.Len()/2])
	}
}

func hangUp(w http.ResponseWriter) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		conn.Close()
	}
}

func (s *Server) backend(w http.ResponseWriter, r *http.Request) {
	git, err := exec.LookPath("git")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	h := &cgi.Handler{
		Path: git,
		Args: []string{"http-backend"},
		Dir:  s.dir,
		Env: []string{
			"GIT_PROJECT_ROOT=" + s.home, "GIT_HTTP_EXPORT_ALL=1",
			"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + os.DevNull,
			"HOME=" + s.home, "PATH=" + os.Getenv("PATH"), "LC_ALL=C",
		},
		Stderr: io.Discard,
	}
	h.ServeHTTP(w, r)
}
