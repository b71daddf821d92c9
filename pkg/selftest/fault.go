package selftest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/federate"
)

const (
	fedHello = federate.ToolHello
	fedTail  = federate.ToolTail
	fedDiff  = federate.ToolDiff
	fedGet   = federate.ToolGet
)

// fault is a lie between a node and its callers. It gets each call of a tool, and
// what the node would answer.
type fault func(w http.ResponseWriter, r *http.Request, tool string, honest http.Handler)

// serveLies serves a node whose answers are put through a fault.
func serveLies(ctx context.Context, l net.Listener, honest http.Handler, lie fault) error {
	server := &http.Server{
		ReadHeaderTimeout: 5 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx },
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 8<<20))
			if err != nil {
				return // the caller is gone
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			var call struct {
				Params struct{ Name string }
			}
			_ = json.Unmarshal(body, &call) // what is no call has no name
			lie(w, r, call.Params.Name, honest)
		}),
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	<-ctx.Done()
	err := server.Close()
	if served := <-ended; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// kept is an answer that has not gone out.
type kept struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (k *kept) Header() http.Header         { return k.header }
func (k *kept) WriteHeader(status int)      { k.status = status }
func (k *kept) Write(b []byte) (int, error) { return k.body.Write(b) }
func (k *kept) Flush()                      {}

// rewrite changes what a tool answers.
func rewrite(of string, change func(answer map[string]any)) fault {
	return func(w http.ResponseWriter, r *http.Request, tool string, honest http.Handler) {
		if tool != of {
			honest.ServeHTTP(w, r)
			return
		}
		k := &kept{header: http.Header{}, status: http.StatusOK}
		honest.ServeHTTP(k, r)
		body := k.body.Bytes()
		var message map[string]any
		if json.Unmarshal(body, &message) == nil {
			if result, ok := message["result"].(map[string]any); ok {
				if answer, ok := result["structuredContent"].(map[string]any); ok {
					change(answer)
				}
			}
			if changed, err := json.Marshal(message); err == nil {
				body = changed
			}
		}
		for name, values := range k.header {
			if name != "Content-Length" {
				w.Header()[name] = values
			}
		}
		w.WriteHeader(k.status)
		_, _ = w.Write(body) // a caller that has gone away is no concern here
	}
}

// withhold leaves receipts out of the pages of the log, and hands over others than
// were asked for.
func withhold(w http.ResponseWriter, r *http.Request, tool string, honest http.Handler) {
	change := func(answer map[string]any) {
		if lines, ok := answer["lines"].([]any); ok {
			for i := range lines {
				lines[i] = lines[0]
			}
		}
	}
	if tool == fedGet {
		change = func(answer map[string]any) {
			if items, ok := answer["items"].([]any); ok {
				for i := range items {
					items[i] = items[0]
				}
			}
		}
	}
	rewrite(tool, change)(w, r, tool, honest)
}

// samePage answers every question for a page with an empty one.
func samePage(w http.ResponseWriter, r *http.Request, tool string, honest http.Handler) {
	rewrite(fedTail, func(answer map[string]any) { answer["lines"] = []any{} })(w, r, tool, honest)
}

// oversize answers without end.
func oversize(of string) fault {
	return func(w http.ResponseWriter, r *http.Request, tool string, honest http.Handler) {
		if tool != of {
			honest.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		chunk := bytes.Repeat([]byte(" "), 1<<20)
		for r.Context().Err() == nil {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}
}

// stall does not answer.
func stall(of string) fault {
	return func(w http.ResponseWriter, r *http.Request, tool string, honest http.Handler) {
		if tool != of {
			honest.ServeHTTP(w, r)
			return
		}
		<-r.Context().Done()
	}
}
