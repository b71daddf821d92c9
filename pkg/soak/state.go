package soak

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/durable"
)

const (
	stateFile  = "run.json"
	stateEvery = 2 * time.Second
)

// saved is what a run leaves for the next start of the driver. It is written whole,
// every two seconds and at the end.
type saved struct {
	Version  int                `json:"version"` // 1
	Run      string             `json:"run_id"`
	Seed     uint64             `json:"seed"`
	Plan     Plan               `json:"plan"`
	Node     Identity           `json:"node"`
	Begun    time.Time          `json:"begun"` // when the schedule began
	Saved    time.Time          `json:"saved"`
	Starts   int64              `json:"starts"` // of the driver
	Next     int64              `json:"next"`
	Open     map[int64]Workload `json:"open"`
	Ended    counts             `json:"ended"`
	Took     map[Workload]times `json:"took"`
	Lag      times              `json:"lag"`
	LagMax   time.Duration      `json:"lag_max"`
	Own      int64              `json:"own_dropped"`
	Away     int64              `json:"away_dropped"`
	Faulty   int64              `json:"in_fault"`
	Why      map[Outcome]string `json:"why"`
	Appended appended           `json:"appended"`
	Audited  audited            `json:"audited"`
	Counted  counted            `json:"counted"`
	Fault    string             `json:"fault"` // "", begun, ended
	Faults   []string           `json:"faults,omitempty"`
}

// load reads the state of a run that has not ended; nil where there is none.
func load(dir *durable.Dir) (*saved, error) {
	data, err := dir.Get(stateFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // there is nothing to resume
	}
	if err != nil {
		return nil, err
	}
	var s saved
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return nil, fmt.Errorf("%s: %w", stateFile, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: found more than one JSON value", stateFile)
	}
	if s.Version != 1 || s.Run == "" || s.Begun.IsZero() || s.Node == (Identity{}) {
		return nil, fmt.Errorf("%s: want the state of a run, of version 1", stateFile)
	}
	if err := s.Plan.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", stateFile, err)
	}
	return &s, nil
}

func (s *saved) put(dir *durable.Dir) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return dir.Put(stateFile, append(data, '\n'))
}

// take copies a tally into a state.
func (s *saved) take(t *tally) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.Next, s.Open = t.next, maps.Clone(t.open)
	s.Ended, s.Took, s.Lag = counts{}, map[Workload]times{}, maps.Clone(t.lag)
	for w, m := range t.ended {
		s.Ended[w], s.Took[w] = maps.Clone(m), maps.Clone(t.took[w])
	}
	s.LagMax, s.Own, s.Away, s.Faulty, s.Why = t.lagMax, t.own, t.away, t.faulty, maps.Clone(t.why)
}

// give puts a state into a tally. The series of metrics begin at zero, as those of
// every process that was started anew.
func (s *saved) give(t *tally) {
	t.next, t.lagMax, t.own, t.away, t.faulty = s.Next, s.LagMax, s.Own, s.Away, s.Faulty
	for w, m := range s.Ended {
		t.ended[w], t.took[w] = maps.Clone(m), maps.Clone(s.Took[w])
		if t.took[w] == nil {
			t.took[w] = times{}
		}
	}
	if s.Lag != nil {
		t.lag = maps.Clone(s.Lag)
	}
	if s.Why != nil {
		t.why = maps.Clone(s.Why)
	}
	t.m.lagMax.Set(t.lagMax.Seconds())
}
