package federate

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/vaultmesh/remembrancer/pkg/durable"
	"github.com/vaultmesh/remembrancer/pkg/merge"
)

// Quarantine is what was refused. None of it is kept, indexed or served.
type Quarantine struct {
	Counts map[merge.Reason]int `json:"counts"`
	Newest []Quarantined        `json:"newest"` // the newest first, at most 100
}

// Quarantined is one item that was refused.
type Quarantined struct {
	ID     string       `json:"id"` // of the receipt, or "sha256:" and the hash of a line that nobody can read
	Reason merge.Reason `json:"reason"`
	From   string       `json:"from"` // the label of who gave it, at most 200 bytes
}

const (
	quarantinePath = "quarantine.json"
	maxQuarantined = 100
)

func newQuarantined(line string, no *merge.Rejection, from string) Quarantined {
	q := Quarantined{ID: no.ID, Reason: no.Reason, From: strings.ToValidUTF8(from[:min(len(from), 200)], "")}
	if q.ID == "" {
		q.ID = fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(line)))
	}
	return q
}

// quarantine is the file and what it says.
type quarantine struct {
	mu  sync.Mutex
	now Quarantine
}

func (q *quarantine) load(files *durable.Dir) error {
	q.now = Quarantine{Counts: map[merge.Reason]int{}, Newest: []Quarantined{}}
	data, err := files.Get(quarantinePath)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		if err = decode(data, &q.now); err != nil {
			err = fmt.Errorf("%s: %w", quarantinePath, err)
		}
	}
	return err
}

// add counts what was refused, and has it on disk when it returns. If that fails
// it is not counted, for whoever gave it gives it again.
func (q *quarantine) add(files *durable.Dir, refused []Quarantined) error {
	if len(refused) == 0 {
		return nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	next := Quarantine{Counts: maps.Clone(q.now.Counts)}
	for _, r := range refused {
		next.Counts[r.Reason]++
	}
	refused = slices.Clone(refused)
	slices.Reverse(refused)
	next.Newest = slices.Concat(refused, q.now.Newest)
	next.Newest = slices.Clone(next.Newest[:min(len(next.Newest), maxQuarantined)])
	data, err := encode(next)
	if err != nil {
		return err
	}
	if err := files.Put(quarantinePath, data); err != nil {
		return err
	}
	q.now = next
	return nil
}

// Quarantine returns what was refused since the node was made.
func (s *Store) Quarantine() Quarantine {
	s.quarantine.mu.Lock()
	defer s.quarantine.mu.Unlock()
	return Quarantine{Counts: maps.Clone(s.quarantine.now.Counts), Newest: slices.Clone(s.quarantine.now.Newest)}
}
