package receipt

import (
	"bytes"
	"encoding/json"
	"strconv"
	"unicode/utf8"
)

// A reader walks over JSON that is canonical already: in one pass, without a copy.
// It gives up at the first doubt, and then the thorough way decides, which decodes
// the JSON, makes its canonical form and compares, and which has the words for what
// is wrong. So a reader may doubt what is canonical, and does where a key is not of
// plain ASCII, but must never take for canonical what is not.
type reader struct {
	data []byte // valid UTF-8
	at   int
}

// isCanonical reports whether data is known to be canonical JSON without numbers,
// keys or nesting that a statement must not have.
func isCanonical(data []byte) bool {
	r := reader{data: data}
	return utf8.Valid(data) && r.value(0) && r.at == len(data)
}

// readStatement takes a statement apart. The fields are those of its predicate.
func readStatement(data []byte) (w wireStatement, fields map[string]json.RawMessage, ok bool) {
	r := reader{data: data}
	fields = map[string]json.RawMessage{}
	if utf8.Valid(data) && r.literal(`{"_type":`) && r.text(&w.Type) &&
		r.literal(`,"predicate":`) && r.fields(&w.Predicate, fields) &&
		r.literal(`,"predicateType":`) && r.text(&w.PredicateType) &&
		r.literal(`,"subject":[`) && r.subjects(&w.Subject) && r.literal("]}") && r.at == len(data) {
		return w, fields, true
	}
	return wireStatement{}, nil, false
}

func (r *reader) fields(predicate *json.RawMessage, fields map[string]json.RawMessage) bool {
	from := r.at
	ok := r.object(1, func(name, value []byte) bool {
		fields[string(name)] = value
		return true
	})
	*predicate = r.data[from:r.at:r.at]
	return ok
}

func (r *reader) subjects(all *[]wireSubject) bool {
	for {
		s := wireSubject{Digest: map[string]string{}}
		digest := func(name, value []byte) bool {
			if value[0] != '"' {
				return false
			}
			s.Digest[string(name)] = unquote(value)
			return true
		}
		if !r.literal(`{"digest":`) || !r.object(3, digest) || !r.literal(`,"name":`) || !r.text(&s.Name) || !r.literal("}") {
			return false
		}
		if *all = append(*all, s); !r.literal(",") {
			return true
		}
	}
}

// readEnvelope takes a log line apart. What it has read need not be canonical, for
// base64 has several forms; see [Entry.encode].
func readEnvelope(line []byte) (w wireEnvelope, ok bool) {
	r := reader{data: line}
	if !r.literal(`{"payload":`) || !r.plain(&w.Payload) || !r.literal(`,"payloadType":"`+PayloadType+`","signatures":[`) {
		return wireEnvelope{}, false
	}
	w.PayloadType = PayloadType
	for {
		var s wireSignature
		if !r.literal(`{"keyid":`) || !r.plain(&s.KeyID) || !r.literal(`,"sig":`) || !r.plain(&s.Sig) || !r.literal("}") {
			return wireEnvelope{}, false
		}
		if w.Signatures = append(w.Signatures, s); !r.literal(",") {
			return w, r.literal("]}") && r.at == len(line)
		}
	}
}

func (r *reader) literal(s string) bool {
	if !bytes.HasPrefix(r.data[r.at:], []byte(s)) {
		return false
	}
	r.at += len(s)
	return true
}

// value reads any value. That of the whole text is at depth 0.
func (r *reader) value(depth int) bool {
	if depth > maxDepth || r.at == len(r.data) {
		return false
	}
	switch r.data[r.at] {
	case '{':
		return r.object(depth, func(_, _ []byte) bool { return true })
	case '[':
		return r.array(depth)
	case '"':
		_, ok := r.quoted()
		return ok
	case 't':
		return r.literal("true")
	case 'f':
		return r.literal("false")
	case 'n':
		return r.literal("null")
	}
	return r.number()
}

func (r *reader) array(depth int) bool {
	if r.at++; r.literal("]") {
		return true
	}
	for {
		if !r.value(depth + 1) {
			return false
		}
		if r.literal("]") {
			return true
		}
		if !r.literal(",") {
			return false
		}
	}
}

// object reads an object and shows each of its members, until member does not
// want them. The order of keys is that of UTF-16, for ASCII that of the bytes.
func (r *reader) object(depth int, member func(name, value []byte) bool) bool {
	if !r.literal("{") {
		return false
	}
	if r.literal("}") {
		return true
	}
	var last []byte
	for first := true; ; first = false {
		q, ok := r.quoted()
		if !ok || !isPlain(q) || !r.literal(":") {
			return false
		}
		name := q[1 : len(q)-1]
		if !first && bytes.Compare(last, name) >= 0 {
			return false
		}
		last = name
		from := r.at
		if !r.value(depth+1) || !member(name, r.data[from:r.at:r.at]) {
			return false
		}
		if r.literal("}") {
			return true
		}
		if !r.literal(",") {
			return false
		}
	}
}

// number reads an integer that a canonicaliser does not round.
func (r *reader) number() bool {
	from := r.at
	for r.at < len(r.data) && (r.data[r.at] == '-' || '0' <= r.data[r.at] && r.data[r.at] <= '9') {
		r.at++
	}
	text := r.data[from:r.at]
	n, err := strconv.ParseInt(string(text), 10, 64)
	return err == nil && -maxInteger <= n && n <= maxInteger && string(text) == strconv.FormatInt(n, 10)
}

// quoted reads a string, which it returns with its quotes and escapes. Of the ways
// to write a character the canonical one is: as it is, if it need not be escaped;
// else its letter, if it has one; else its number in small digits.
func (r *reader) quoted() ([]byte, bool) {
	from := r.at
	if !r.literal(`"`) {
		return nil, false
	}
	for r.at < len(r.data) {
		c := r.data[r.at]
		r.at++
		switch {
		case c == '"':
			return r.data[from:r.at:r.at], true
		case c < ' ', c == '\\' && !r.escape():
			return nil, false
		}
	}
	return nil, false
}

func (r *reader) escape() bool {
	rest := r.data[r.at:]
	switch {
	case len(rest) > 0 && bytes.IndexByte([]byte(`"\bfnrt`), rest[0]) >= 0:
		r.at++
		return true
	case len(rest) < 5 || string(rest[:3]) != "u00":
		return false
	}
	r.at += 5
	return rest[3] == '0' && bytes.IndexByte([]byte("01234567bef"), rest[4]) >= 0 ||
		rest[3] == '1' && bytes.IndexByte([]byte("0123456789abcdef"), rest[4]) >= 0
}

// text reads a string.
func (r *reader) text(s *string) bool {
	q, ok := r.quoted()
	if ok {
		*s = unquote(q)
	}
	return ok
}

// plain reads a string of ASCII without escapes.
func (r *reader) plain(s *string) bool {
	q, ok := r.quoted()
	if ok = ok && isPlain(q); ok {
		*s = string(q[1 : len(q)-1])
	}
	return ok
}

func isPlain(q []byte) bool {
	for _, c := range q {
		if c >= utf8.RuneSelf || c == '\\' {
			return false
		}
	}
	return true
}

// unquote returns what a canonical string says.
func unquote(q []byte) string {
	if bytes.IndexByte(q, '\\') < 0 {
		return string(q[1 : len(q)-1])
	}
	var s string
	if err := json.Unmarshal(q, &s); err != nil {
		panic("a canonical string is not JSON: " + err.Error())
	}
	return s
}
