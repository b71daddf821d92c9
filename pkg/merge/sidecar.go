package merge

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vaultmesh/remembrancer/pkg/receipt"
	"github.com/vaultmesh/remembrancer/pkg/set"
)

// Sidecar lists what was merged: which ids each of the two held before, and which
// names several receipts have. With it anyone can compute the roots and counts of
// a merge receipt.
type Sidecar struct {
	Both, OnlyA, OnlyB []receipt.ID // each in order, no id in two of them
	Conflicts          []Conflict   // among all of them, in order of their files
}

const sidecarHeader = "remembrancer/merge-ids/v1\n"

// NewSidecar compares the sets of A and B as they were before a merge. Conflicts
// are those among the receipts of both.
func NewSidecar(a, b *set.Set, conflicts []Conflict) *Sidecar {
	s := &Sidecar{Conflicts: conflicts}
	for id := range a.All() {
		if b.Has(id) {
			s.Both = append(s.Both, id)
		} else {
			s.OnlyA = append(s.OnlyA, id)
		}
	}
	for id := range b.All() {
		if !a.Has(id) {
			s.OnlyB = append(s.OnlyB, id)
		}
	}
	return s
}

// A returns the ids that A held before the merge, in order.
func (s *Sidecar) A() []receipt.ID { return mergeIDs(s.Both, s.OnlyA) }

// B returns the ids that B held before the merge, in order.
func (s *Sidecar) B() []receipt.ID { return mergeIDs(s.Both, s.OnlyB) }

// Union returns the ids that both hold after the merge, in order.
func (s *Sidecar) Union() []receipt.ID { return mergeIDs(mergeIDs(s.Both, s.OnlyA), s.OnlyB) }

func mergeIDs(a, b []receipt.ID) []receipt.ID {
	all := slices.Concat(a, b)
	sortIDs(all)
	return all
}

// Marshal returns the file.
func (s *Sidecar) Marshal() []byte {
	type held struct {
		id  receipt.ID
		who string
	}
	all := make([]held, 0, len(s.Both)+len(s.OnlyA)+len(s.OnlyB))
	for _, list := range []struct {
		ids []receipt.ID
		who string
	}{{s.Both, " ab\n"}, {s.OnlyA, " a\n"}, {s.OnlyB, " b\n"}} {
		for _, id := range list.ids {
			all = append(all, held{id, list.who})
		}
	}
	slices.SortFunc(all, func(a, b held) int { return compareIDs(a.id, b.id) })
	out := make([]byte, 0, len(sidecarHeader)+len(all)*(2*sha256.Size+4))
	out = append(out, sidecarHeader...)
	for _, h := range all {
		out = hex.AppendEncode(out, h.id[:])
		out = append(out, h.who...)
	}
	for _, c := range s.Conflicts {
		out = append(out, "conflict "+c.File...)
		for _, id := range c.IDs {
			out = append(out, ' ')
			out = hex.AppendEncode(out, id[:])
		}
		out = append(out, '\n')
	}
	return out
}

// Digest returns the SHA-256 of the file in hex, as a merge receipt has it.
func (s *Sidecar) Digest() string { return digest(s.Marshal()) }

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// ParseSidecar reads a sidecar. What it accepts encodes back to the same bytes.
func ParseSidecar(data []byte) (*Sidecar, error) {
	rest, ok := bytes.CutPrefix(data, []byte(sidecarHeader))
	if !ok {
		return nil, fmt.Errorf("merge ids: first line is %.40q, want %q", data, sidecarHeader)
	}
	s := &Sidecar{}
	var last *receipt.ID
	for n := 2; len(rest) > 0; n++ {
		line, after, ok := bytes.Cut(rest, []byte("\n"))
		if !ok {
			return nil, errors.New("merge ids: the last line does not end in a newline")
		}
		if err := s.parseLine(string(line), &last); err != nil {
			return nil, fmt.Errorf("merge ids: line %d: %w", n, err)
		}
		rest = after
	}
	return s, nil
}

func (s *Sidecar) parseLine(line string, last **receipt.ID) error {
	if names, ok := strings.CutPrefix(line, "conflict "); ok {
		c, err := parseConflict(names)
		if err != nil {
			return err
		}
		if n := len(s.Conflicts); n > 0 && s.Conflicts[n-1].File >= c.File {
			return fmt.Errorf("conflict %s is not after %s", c.File, s.Conflicts[n-1].File)
		}
		s.Conflicts = append(s.Conflicts, c)
		return nil
	}
	name, who, _ := strings.Cut(line, " ")
	id, err := receipt.ParseID(name)
	switch {
	case err != nil:
		return fmt.Errorf(`%.100q: want "ID ab", "ID a", "ID b" or "conflict FILE ID ID"`, line)
	case len(s.Conflicts) > 0:
		return errors.New("an id after the conflicts")
	case *last != nil && compareIDs(**last, id) >= 0:
		return fmt.Errorf("id %s is not after %s", id, **last)
	}
	*last = &id
	switch who {
	case "ab":
		s.Both = append(s.Both, id)
	case "a":
		s.OnlyA = append(s.OnlyA, id)
	case "b":
		s.OnlyB = append(s.OnlyB, id)
	default:
		return fmt.Errorf("%.20q: want ab, a or b", who)
	}
	return nil
}

func parseConflict(names string) (Conflict, error) {
	fields := strings.Split(names, " ")
	c := Conflict{File: fields[0]}
	if err := checkFile(c.File); err != nil {
		return Conflict{}, err
	}
	for _, f := range fields[1:] {
		id, err := receipt.ParseID(f)
		if err != nil {
			return Conflict{}, err
		}
		if n := len(c.IDs); n > 0 && compareIDs(c.IDs[n-1], id) >= 0 {
			return Conflict{}, fmt.Errorf("conflict %s: id %s is not after %s", c.File, id, c.IDs[n-1])
		}
		c.IDs = append(c.IDs, id)
	}
	if len(c.IDs) < 2 {
		return Conflict{}, fmt.Errorf("conflict %s has %d ids, want at least 2", c.File, len(c.IDs))
	}
	return c, nil
}

// checkFile says whether a receipt that is merged can have this file.
func checkFile(file string) error {
	kind, name, _ := strings.Cut(file, "/")
	name, suffix := strings.CutSuffix(name, ".receipt")
	k, err := receipt.ParseKind(kind)
	if err != nil || !suffix || !Federated(k) || receipt.CheckName(name) != nil {
		return fmt.Errorf("conflict %.100q: want <kind>/<name>.receipt of a kind that is merged", file)
	}
	return nil
}
