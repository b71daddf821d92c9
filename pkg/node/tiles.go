package node

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strconv"
	"strings"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/federate"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
)

// serveCheckpoint answers with the newest signed head. Cosignatures of peers are
// shown as soon as they are on that very head; an older one is never shown for them.
func (s *Server) serveCheckpoint(w http.ResponseWriter, r *http.Request) {
	head, err := s.o.Store.Head()
	if err != nil {
		s.log.Error("checkpoint", "error", err)
		plain(w, http.StatusInternalServerError, "internal error")
		return
	}
	if head == nil {
		plain(w, http.StatusNotFound, "the log has no entries yet")
		return
	}
	if cosigned := s.o.Store.Cosigned(); bytes.Equal(bodyOf(cosigned), bodyOf(head)) {
		head = cosigned
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache")
	_, _ = w.Write(head)
}

// bodyOf returns the text of a signed note, without its signatures.
func bodyOf(note []byte) []byte {
	text, _, _ := bytes.Cut(note, []byte("\n\n"))
	return text
}

// serveTile answers with a hash tile or an entry bundle. Both are derived from the
// log: a tile is what its entries hash to.
func (s *Server) serveTile(w http.ResponseWriter, r *http.Request) {
	t, ok := parseTile(r.URL.Path)
	if !ok {
		plain(w, http.StatusNotFound, "no such tile: want /tile/<level or entries>/<index>[.p/<width>], as c2sp.org/tlog-tiles has it")
		return
	}
	data, err := s.o.Store.Tile(t.level, t.index, t.width)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		plain(w, http.StatusNotFound, "the log has no such tile")
		return
	case err != nil:
		s.log.Error("tile", "path", r.URL.Path, "error", err)
		plain(w, http.StatusInternalServerError, "internal error")
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	// Full or partial, a tile of a path never has other bytes.
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	_, _ = w.Write(data)
}

type tile struct {
	level int   // -1: entries
	index int64 // of the tile in its level
	width int   // 1 to 256
}

// path is where a tile is served.
func (t tile) path() string {
	level := "entries"
	if t.level >= 0 {
		level = strconv.Itoa(t.level)
	}
	n := fmt.Sprintf("%03d", t.index%1000)
	for rest := t.index / 1000; rest > 0; rest /= 1000 {
		n = fmt.Sprintf("x%03d/%s", rest%1000, n)
	}
	if t.width < ledger.SegmentSize {
		n += fmt.Sprintf(".p/%d", t.width)
	}
	return "/tile/" + level + "/" + n
}

// parseTile reads a path; only the one way to write it is accepted.
func parseTile(path string) (tile, bool) {
	t, ok := readTile(path)
	if !ok || t.path() != path {
		return tile{}, false
	}
	return t, true
}

func readTile(path string) (tile, bool) {
	rest, ok := strings.CutPrefix(path, "/tile/")
	if !ok || len(path) > 64 {
		return tile{}, false
	}
	level, rest, _ := strings.Cut(rest, "/")
	t := tile{level: -1, width: ledger.SegmentSize}
	if level != "entries" {
		n, err := strconv.ParseUint(level, 10, 6)
		if err != nil {
			return tile{}, false
		}
		t.level = int(n)
	}
	index, width, partial := strings.Cut(rest, ".p/")
	if partial {
		n, err := strconv.ParseUint(width, 10, 8)
		if err != nil || n == 0 {
			return tile{}, false
		}
		t.width = int(n)
	}
	for _, three := range strings.Split(index, "/") {
		n, err := strconv.ParseUint(strings.TrimPrefix(three, "x"), 10, 10)
		if err != nil || t.index > 1<<50 {
			return tile{}, false
		}
		t.index = t.index*1000 + int64(n)
	}
	return t, true
}

// maxWitnessRequest holds a checkpoint of the largest size and 63 hashes.
const maxWitnessRequest = 128 << 10

// serveWitness is add-checkpoint of c2sp.org/tlog-witness. The store remembers what
// it has cosigned before it shows the cosignature, so that it never cosigns two
// histories.
func (s *Server) serveWitness(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxWitnessRequest))
	if err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			plain(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("want at most %d bytes", large.Limit))
			return
		}
		plain(w, http.StatusBadRequest, "the request broke off")
		return
	}
	old, proof, note, err := parseAddCheckpoint(body)
	if err != nil {
		plain(w, http.StatusBadRequest, err.Error())
		return
	}
	line, err := s.o.Store.Witness(old, proof, note)
	var conflict *federate.ErrWitnessConflict
	switch {
	case err == nil:
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write(line)
	case errors.As(err, &conflict):
		w.Header().Set("Content-Type", "text/x.tlog.size")
		w.WriteHeader(http.StatusConflict)
		fmt.Fprintf(w, "%d\n", conflict.Size)
	case errors.Is(err, federate.ErrUnknownLog):
		plain(w, http.StatusNotFound, "the log is none of this witness's peers")
	case errors.Is(err, federate.ErrNoSignature):
		plain(w, http.StatusForbidden, "the checkpoint is not signed by the key of that log")
	case errors.Is(err, federate.ErrBadProof):
		plain(w, http.StatusUnprocessableEntity, "the proof does not lead from the old size to the checkpoint")
	case errors.Is(err, federate.ErrBadRequest):
		plain(w, http.StatusBadRequest, err.Error())
	default:
		s.log.Error("add-checkpoint", "error", err)
		plain(w, http.StatusInternalServerError, "internal error")
	}
}

// parseAddCheckpoint reads "old N", up to 63 hashes, an empty line and a checkpoint.
func parseAddCheckpoint(body []byte) (old int64, proof []checkpoint.Hash, note []byte, err error) {
	head, note, ok := bytes.Cut(body, []byte("\n\n"))
	if !ok {
		return 0, nil, nil, errors.New(`want a line "old N", the hashes of a proof, an empty line and a checkpoint`)
	}
	lines := strings.Split(string(head), "\n")
	size, ok := strings.CutPrefix(lines[0], "old ")
	if old, err = strconv.ParseInt(size, 10, 64); !ok || err != nil || old < 0 || strconv.FormatInt(old, 10) != size {
		return 0, nil, nil, fmt.Errorf(`first line is %.40q, want "old N"`, lines[0])
	}
	if lines = lines[1:]; len(lines) > 63 {
		return 0, nil, nil, fmt.Errorf("found %d hashes, want at most 63", len(lines))
	}
	for _, l := range lines {
		b, err := base64.StdEncoding.DecodeString(l)
		// Even the strict decoder skips carriage returns, so compare.
		if err != nil || len(b) != len(checkpoint.Hash{}) || base64.StdEncoding.EncodeToString(b) != l {
			return 0, nil, nil, fmt.Errorf("hash %.60q: want the base64 of 32 bytes", l)
		}
		proof = append(proof, checkpoint.Hash(b))
	}
	return old, proof, note, nil
}
