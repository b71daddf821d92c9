package timestamp

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"
)

// Tags of DER elements, class and constructed bit included.
const (
	tagBoolean  = 0x01
	tagInteger  = 0x02
	tagBits     = 0x03
	tagOctets   = 0x04
	tagNull     = 0x05
	tagOID      = 0x06
	tagUTF8     = 0x0c
	tagTime     = 0x18 // GeneralizedTime
	tagSequence = 0x30
	tagSet      = 0x31
	tagContext0 = 0xa0 // [0], constructed
	tagContext1 = 0xa1
	tagContext4 = 0xa4
	tagImplied0 = 0x80 // [0] of a primitive type
	tagImplied1 = 0x81
)

// element is one DER value. raw is all of it, content what follows its length.
type element struct {
	tag          byte
	raw, content []byte
}

// element reads the first value of b. Only DER is read: lengths are definite and
// as short as they can be.
func firstElement(b []byte) (element, []byte, error) {
	if len(b) < 2 {
		return element{}, nil, errors.New("cut short")
	}
	tag, size, head := b[0], int(b[1]), 2
	if tag&0x1f == 0x1f {
		return element{}, nil, errors.New("a tag number above 30")
	}
	if size >= 0x80 {
		n := size & 0x7f
		switch {
		case n == 0:
			return element{}, nil, errors.New("an indefinite length, wanted DER")
		case n > 4 || len(b) < 2+n:
			return element{}, nil, errors.New("a length that is cut short or too large")
		case b[2] == 0:
			return element{}, nil, errors.New("a length with leading zeros, wanted DER")
		}
		size = 0
		for _, x := range b[2 : 2+n] {
			size = size<<8 | int(x)
		}
		if size < 0x80 {
			return element{}, nil, errors.New("a long form of a short length, wanted DER")
		}
		head += n
	}
	if size > len(b)-head {
		return element{}, nil, errors.New("cut short")
	}
	return element{tag, b[:head+size], b[head : head+size]}, b[head+size:], nil
}

// reader reads the values inside of one. After the first error it reads nothing.
type reader struct {
	what string // named in errors
	rest []byte
	err  error
}

func in(what string, content []byte) *reader { return &reader{what: what, rest: content} }

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%s: %s", r.what, fmt.Sprintf(format, args...))
	}
}

// next reads whatever comes.
func (r *reader) next(name string) element {
	if r.err != nil {
		return element{}
	}
	e, rest, err := firstElement(r.rest)
	if err != nil {
		r.fail("%s: %v", name, err)
		return element{}
	}
	r.rest = rest
	return e
}

func (r *reader) take(tag byte, name string) element {
	e := r.next(name)
	if r.err == nil && e.tag != tag {
		r.fail("%s: found tag %#02x, wanted %#02x", name, e.tag, tag)
		return element{}
	}
	return e
}

// peek reports whether the next value has this tag.
func (r *reader) peek(tag byte) bool { return r.err == nil && len(r.rest) > 0 && r.rest[0] == tag }

func (r *reader) more() bool { return r.err == nil && len(r.rest) > 0 }

// end returns the first error, or that something is left.
func (r *reader) end() error {
	if r.err == nil && len(r.rest) > 0 {
		r.fail("%d bytes after its last field", len(r.rest))
	}
	return r.err
}

func (r *reader) oid(name string) asn1.ObjectIdentifier {
	e := r.take(tagOID, name)
	if r.err != nil {
		return nil
	}
	var oid asn1.ObjectIdentifier
	if rest, err := asn1.Unmarshal(e.raw, &oid); err != nil || len(rest) > 0 {
		r.fail("%s: not an object identifier", name)
	}
	return oid
}

func (r *reader) integer(name string) *big.Int {
	return r.number(r.take(tagInteger, name), name)
}

func (r *reader) number(e element, name string) *big.Int {
	if r.err != nil {
		return new(big.Int)
	}
	c := e.content
	if len(c) == 0 || len(c) > 1 && (c[0] == 0 && c[1] < 0x80 || c[0] == 0xff && c[1] >= 0x80) {
		r.fail("%s: not a DER integer", name)
		return new(big.Int)
	}
	n := new(big.Int).SetBytes(c)
	if c[0] >= 0x80 {
		n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(len(c))*8))
	}
	return n
}

// small reads an integer that is one of few.
func (r *reader) small(name string) int64 {
	n := r.integer(name)
	if r.err == nil && !n.IsInt64() {
		r.fail("%s: found %s", name, n)
	}
	return n.Int64()
}

func (r *reader) boolean(name string) bool {
	e := r.take(tagBoolean, name)
	if r.err == nil && (len(e.content) != 1 || e.content[0] != 0 && e.content[0] != 0xff) {
		r.fail("%s: not a DER boolean", name)
	}
	return r.err == nil && e.content[0] == 0xff
}

// algorithm reads an AlgorithmIdentifier. Parameters are its other bytes.
func (r *reader) algorithm(name string) pkix.AlgorithmIdentifier {
	e := r.take(tagSequence, name)
	in := in(r.what+": "+name, e.content)
	a := pkix.AlgorithmIdentifier{}
	if r.err != nil {
		return a
	}
	a.Algorithm = in.oid("algorithm")
	if in.more() {
		a.Parameters.FullBytes = in.next("parameters").raw
	}
	if err := in.end(); err != nil {
		r.err = err
	}
	return a
}

// time reads the GeneralizedTime of RFC 3161 section 2.4.2: seconds, Z, and a
// fraction that ends in no zero.
func (r *reader) time(name string) time.Time {
	e := r.take(tagTime, name)
	if r.err != nil {
		return time.Time{}
	}
	s := string(e.content)
	layout := "20060102150405Z"
	if _, fraction, ok := strings.Cut(strings.TrimSuffix(s, "Z"), "."); ok {
		if fraction == "" || len(fraction) > 9 || strings.HasSuffix(fraction, "0") {
			r.fail("%s: found %q, wanted a fraction of 1 to 9 digits that ends in no zero", name, s)
			return time.Time{}
		}
		layout = "20060102150405." + strings.Repeat("0", len(fraction)) + "Z"
	}
	t, err := time.Parse(layout, s)
	if err != nil || t.Format(layout) != s {
		r.fail("%s: found %q, wanted a time such as 20250102030405Z", name, s)
		return time.Time{}
	}
	return t.UTC()
}
