package set

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

// Where the walk of a proof ends; the first byte of its encoding.
const (
	endsNowhere = iota
	endsHere
	endsElsewhere
)

const stepSize = 1 + sha256.Size

// Proof shows that an id is in the set of a root, or that it is not. Its zero
// value shows that nothing is in the empty set.
type Proof struct {
	end   byte
	other receipt.ID // zero unless the walk ends elsewhere
	steps []step     // from the root down
}

type step struct {
	bit     uint8
	sibling Hash
}

// Prove returns the proof that an id is in the set, or that it is not.
func (s *Set) Prove(id receipt.ID) Proof {
	if len(s.ids) == 0 {
		return Proof{}
	}
	p := Proof{end: endsHere}
	r := s.root
	for !r.leaf() {
		b := &s.branches[r]
		side := bitOf(&id, int(b.bit))
		p.steps = append(p.steps, step{b.bit, s.hash(b.child[1-side])})
		r = b.child[side]
	}
	if other := *s.id(r); other != id {
		p.end, p.other = endsElsewhere, other
	}
	return p
}

// Verify reports whether an id is in the set of a root, or why the proof shows
// neither that it is nor that it is not. The root must be one that was made as
// this package does, by a party that is believed.
func Verify(root Hash, id receipt.ID, p Proof) (present bool, err error) {
	if p.end == endsNowhere {
		if root != Empty {
			return false, fmt.Errorf("proof shows that the empty set does not hold %s, but root %s is of another set", id, root)
		}
		return false, nil
	}
	last := id
	if p.end == endsElsewhere {
		last = p.other
		if last == id {
			return false, fmt.Errorf("proof shows that %s is in the set, as a proof that it is not", id)
		}
	}
	h := leafHash(&last)
	for i := len(p.steps) - 1; i >= 0; i-- {
		bit, sibling := int(p.steps[i].bit), p.steps[i].sibling
		if bitOf(&last, bit) != bitOf(&id, bit) {
			return false, fmt.Errorf("proof is not of id %s: it leaves its path at bit %d", id, bit)
		}
		if bitOf(&id, bit) == 0 {
			h = branchHash(bit, &h, &sibling)
		} else {
			h = branchHash(bit, &sibling, &h)
		}
	}
	if h != root {
		return false, fmt.Errorf("proof for id %s leads to root %s, wanted %s", id, h, root)
	}
	return p.end == endsHere, nil
}

// Marshal encodes the proof, in at most 8,481 bytes; in a set of a million ids
// in about 700.
func (p Proof) Marshal() []byte {
	b := []byte{p.end}
	if p.end == endsElsewhere {
		b = append(b, p.other[:]...)
	}
	for _, s := range p.steps {
		b = append(append(b, s.bit), s.sibling[:]...)
	}
	return b
}

// ParseProof decodes a proof. What it accepts encodes back to the same bytes.
func ParseProof(b []byte) (Proof, error) {
	if len(b) == 0 {
		return Proof{}, errors.New("proof is empty, wanted at least one byte")
	}
	p := Proof{end: b[0]}
	b = b[1:]
	switch p.end {
	case endsNowhere:
		if len(b) > 0 {
			return Proof{}, fmt.Errorf("proof of the empty set has %d bytes more than its one", len(b))
		}
		return p, nil
	case endsHere:
	case endsElsewhere:
		if len(b) < len(p.other) {
			return Proof{}, fmt.Errorf("proof ends in the middle of an id, after %d bytes of it", len(b))
		}
		b = b[copy(p.other[:], b):]
	default:
		return Proof{}, fmt.Errorf("proof begins with byte 0x%02x, wanted 0x00, 0x01 or 0x02", p.end)
	}
	if len(b)%stepSize != 0 {
		return Proof{}, fmt.Errorf("proof has %d bytes of steps, wanted a multiple of %d", len(b), stepSize)
	}
	for ; len(b) > 0; b = b[stepSize:] {
		s := step{bit: b[0], sibling: Hash(b[1:stepSize])}
		// That bits grow also bounds the number of steps.
		if n := len(p.steps); n > 0 && s.bit <= p.steps[n-1].bit {
			return Proof{}, fmt.Errorf("proof has bit %d after bit %d, wanted bits that grow", s.bit, p.steps[n-1].bit)
		}
		p.steps = append(p.steps, s)
	}
	return p, nil
}
