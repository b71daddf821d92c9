package node

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

func TestAPathNamesOneTile(t *testing.T) {
	for path, want := range map[string]tile{
		"/tile/0/000":                      {0, 0, 256},
		"/tile/3/999.p/255":                {3, 999, 255},
		"/tile/entries/x001/234":           {-1, 1234, 256},
		"/tile/63/x001/x234/067.p/1":       {63, 1234067, 1},
		"/tile/entries/x123/x456/x789/012": {-1, 123456789012, 256},
	} {
		got, ok := parseTile(path)
		assert.Assert(t, ok, path)
		assert.Equal(t, got, want)
		assert.Equal(t, got.path(), path)
	}
}

func FuzzATilePathIsWrittenAsItWasRead(f *testing.F) {
	for _, path := range []string{"/tile/0/000", "/tile/entries/x001/234.p/7", "/tile/64/000", "/tile/0/x000/000"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		if got, ok := parseTile(path); ok {
			assert.Equal(t, got.path(), path)
			assert.Assert(t, got.width >= 1 && got.width <= 256 && got.level >= -1 && got.level < 64 && got.index >= 0)
		} else {
			assert.Equal(t, got, tile{})
		}
	})
}

func FuzzARequestToAWitnessIsReadWholeOrNotAtAll(f *testing.F) {
	f.Add([]byte("old 0\n\nlocal/p\n3\n"))
	f.Add([]byte("old 3\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\nx"))
	f.Fuzz(func(t *testing.T, body []byte) {
		old, proof, note, err := parseAddCheckpoint(body)
		if err != nil {
			assert.Assert(t, old == 0 && proof == nil && note == nil)
			return
		}
		var b bytes.Buffer
		fmt.Fprintf(&b, "old %d\n", old)
		for _, h := range proof {
			fmt.Fprintln(&b, h.String())
		}
		assert.Equal(t, b.String()+"\n"+string(note), string(body))
	})
}

func TestAHandlerThatPanicsAnswers500(t *testing.T) {
	var log bytes.Buffer
	s := &Server{log: slog.New(slog.NewTextHandler(&log, nil)), o: Options{Now: time.Now}}
	w := httptest.NewRecorder()
	s.observed(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("it broke") })).
		ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/x", nil))
	assert.Equal(t, w.Code, http.StatusInternalServerError)
	assert.Equal(t, w.Body.String(), "internal error\n")
	assert.Assert(t, strings.Contains(log.String(), "it broke") && !strings.Contains(w.Body.String(), "it broke"))
}
