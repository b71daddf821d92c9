package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/action"
	"github.com/vaultmesh/remembrancer/pkg/durable"
)

// A node's data has one writer. While a node serves, it is that node, and a verb
// that somebody types beside it is carried out inside of it: the verb's process
// hands its words over and shows what comes back. The way there is a listener on
// loopback of its own, whatever the node listens on for others, and the secret
// beside its address in a file that only the node's user can read.

// The files, in its data directory, by which a running node's own user reaches it:
// with commands, and with programs that speak MCP.
const (
	controlFile  = "commands.json"
	programsFile = "control.json"
)

// control is what that file holds.
type control struct {
	PID   int    `json:"pid"`
	URL   string `json:"url"`
	Token string `json:"token"`
}

// errNobody says that no node answers where one said that it would.
var errNobody = errors.New("no node is running")

// order is a verb that another process hands over.
type order struct {
	Verb     string   `json:"verb"`
	Args     []string `json:"args"`
	Dir      string   `json:"dir"` // where its paths begin
	Stdin    []byte   `json:"stdin,omitempty"`
	Terminal bool     `json:"terminal"` // somebody looks at standard error
}

// said is one piece of what the verb answers. The last one has the exit status.
type said struct {
	Out  string `json:"out,omitempty"`
	Err  string `json:"err,omitempty"`
	Exit *int   `json:"exit,omitempty"`
}

// maxOrder bounds an order: it holds flags, and keys of a few KiB.
const maxOrder = 4 << 20

// passedOn are the verbs that need the data of a node.
func passedOn(name string) bool {
	switch name {
	case "federation init", "federation join", "federation status", "federation sync", "federation history", "federation trust", "federation revoke":
		return true
	}
	return false
}

// takeOrders serves orders on loopback until ctx is done, and says where in the
// node's data directory. The returned function ends it.
func (w *world) takeOrders(ctx context.Context, held *holding) (stop func(), err error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	var secret [32]byte
	if _, err := io.ReadFull(w.rand, secret[:]); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	c := control{PID: os.Getpid(), URL: "http://" + l.Addr().String() + "/", Token: hex.EncodeToString(secret[:])}
	data, err := json.Marshal(c)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	path := filepath.Join(held.dir, controlFile)
	if err := durable.Put(path, append(data, '\n'), 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	var orders sync.WaitGroup
	srv := &http.Server{
		Handler: http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
			orders.Add(1)
			defer orders.Done()
			w.takeOrder(rw, req, held, c.Token)
		}),
		ReadTimeout: 10 * time.Second, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 16 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(l) // ends with Close
	}()
	return func() {
		_ = os.Remove(path)
		_ = srv.Close()
		<-served
		orders.Wait()
	}, nil
}

// takeOrder carries out one verb.
func (w *world) takeOrder(rw http.ResponseWriter, req *http.Request, held *holding, token string) {
	given := strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")
	a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(token))
	if req.Method != http.MethodPost || subtle.ConstantTimeCompare(a[:], b[:]) != 1 {
		http.Error(rw, "forbidden", http.StatusForbidden)
		return
	}
	var o order
	dec := json.NewDecoder(http.MaxBytesReader(rw, req.Body, maxOrder))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&o); err != nil || !passedOn(o.Verb) || !filepath.IsAbs(o.Dir) {
		http.Error(rw, "no such order", http.StatusBadRequest)
		return
	}
	answers := &answers{to: json.NewEncoder(rw), flush: http.NewResponseController(rw).Flush}
	// The order is taken: whoever gave it need not wait for the verb's first word to
	// know that a node is there.
	rw.WriteHeader(http.StatusOK)
	_ = answers.flush()
	inside := &world{
		ctx: req.Context(), dir: o.Dir, getenv: w.getenv, environ: w.environ, now: w.now, rand: w.rand,
		stdin: bytes.NewReader(o.Stdin), stdout: piece{answers, false, o.Terminal}, stderr: piece{answers, true, o.Terminal}, held: held,
	}
	code := inside.run(append(strings.Fields(o.Verb), o.Args...))
	answers.say(said{Exit: &code})
}

// answers writes what a verb says, from several goroutines, as it comes.
type answers struct {
	mu    sync.Mutex
	to    *json.Encoder
	flush func() error
}

func (a *answers) say(s said) {
	a.mu.Lock()
	defer a.mu.Unlock()
	// Whoever gave the order may be gone; its context then ends the verb.
	if a.to.Encode(s) == nil {
		_ = a.flush()
	}
}

// piece is one of the two streams of a verb that is carried out for another
// process.
type piece struct {
	answers  *answers
	stderr   bool
	terminal bool
}

func (p piece) Write(b []byte) (int, error) {
	if p.stderr {
		p.answers.say(said{Err: string(b)})
	} else {
		p.answers.say(said{Out: string(b)})
	}
	return len(b), nil
}

// watched reports whether a person looks at a stream, here or where the verb was
// typed.
func watched(to io.Writer) bool {
	if p, ok := to.(piece); ok {
		return p.terminal
	}
	return isTerminal(to)
}

// passOn has the node that holds the data carry out a verb. The error is
// errNobody where none runs.
func (w *world) passOn(dir string, spec action.Spec, v *action.Values) error {
	data, err := os.ReadFile(filepath.Join(dir, controlFile))
	if errors.Is(err, fs.ErrNotExist) {
		return errNobody
	}
	if err != nil {
		return err
	}
	var c control
	if err := json.Unmarshal(data, &c); err != nil {
		return fmt.Errorf("%s: %w", controlFile, err)
	}
	o := order{Verb: spec.Verb, Args: spelled(spec, v), Dir: w.dir, Terminal: isTerminal(w.stderr)}
	if slices.Contains(o.Args, "--trust-anchor=-") {
		if o.Stdin, err = io.ReadAll(io.LimitReader(w.stdin, maxOrder/2)); err != nil {
			return err
		}
	}
	body, err := json.Marshal(o)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(w.ctx, http.MethodPost, c.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+c.Token)
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, ResponseHeaderTimeout: takeTime}}
	resp, err := client.Do(req)
	if err != nil {
		if w.ctx.Err() != nil {
			return w.ctx.Err()
		}
		return errNobody // a node that was killed leaves its file
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errNobody // another program has the port now
	}
	dec := json.NewDecoder(resp.Body)
	for {
		var s said
		if err := dec.Decode(&s); err != nil {
			return fmt.Errorf("the running node (process %d) ended before the command did: %w", c.PID, err)
		}
		if s.Exit != nil {
			return quietly(*s.Exit)
		}
		if _, err := io.WriteString(w.stdout, s.Out); err != nil {
			return err
		}
		if _, err := io.WriteString(w.stderr, s.Err); err != nil {
			return err
		}
	}
}

// spelled writes the values of a verb as words again: those that a running node
// needs. Whose node it is and which key is its own is settled there, and when to sync
// again here.
func spelled(spec action.Spec, v *action.Values) []string {
	var words []string
	for _, in := range spec.Inputs {
		if !v.Given(in.Name) || in.Kind == action.Secret || slices.Contains([]string{"data", "repo", "interval", "key", "key-fd", "passphrase-fd"}, in.Name) {
			continue
		}
		switch in.Kind {
		case action.Bool:
			words = append(words, fmt.Sprintf("--%s=%t", in.Name, v.Bool(in.Name)))
		case action.Int:
			words = append(words, fmt.Sprintf("--%s=%d", in.Name, v.Int(in.Name)))
		case action.Duration:
			words = append(words, fmt.Sprintf("--%s=%s", in.Name, v.Duration(in.Name)))
		case action.List:
			for _, item := range v.List(in.Name) {
				words = append(words, "--"+in.Name+"="+item)
			}
		default:
			words = append(words, "--"+in.Name+"="+v.String(in.Name))
		}
	}
	return append(append(words, "--"), v.Args()...)
}
