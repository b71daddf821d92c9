// Command githost serves the bare repositories of a directory over http on
// loopback, for workflows that publish to a remote while they are tried out. It
// prints the URL and serves until its standard input ends.
//
//	githost DIRECTORY TOKEN
//
// Reading needs no token; a push needs it as the password of x-access-token.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"strings"
)

func main() {
	if err := serve(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "githost:", err)
		os.Exit(1)
	}
}

func serve(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("want DIRECTORY TOKEN, found %d arguments", len(args))
	}
	dir, token := args[0], args[1]
	git, err := exec.LookPath("git")
	if err != nil {
		return err
	}
	backend := &cgi.Handler{
		Path: git, Args: []string{"http-backend"}, Dir: dir,
		Env: []string{"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1"},
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Printf("http://%s\n", l.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		l.Close()
	}()
	err = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		pushes := strings.HasSuffix(r.URL.Path, "/git-receive-pack") || r.URL.Query().Get("service") == "git-receive-pack"
		if _, password, _ := r.BasicAuth(); pushes && password != token {
			w.Header().Set("WWW-Authenticate", `Basic realm="githost"`)
			http.Error(w, "a push needs the token", http.StatusUnauthorized)
			return
		}
		backend.ServeHTTP(w, r)
	}))
	if strings.Contains(err.Error(), "use of closed network connection") {
		return nil
	}
	return err
}
