package legacy

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The standard library's decoder replaces lone surrogates and rejects NaN, and its
// encoder prints floats and escapes otherwise than Python; each would change leaves.
// Hence this decoder and encoder, which follow Python 3.11's json module.

const (
	maxInput = 64 << 20 // bytes
	maxDepth = 500      // Python itself gives up a little below 1000
	maxInt   = 4300     // decimal digits; Python refuses longer integers
)

// Value is any JSON value as Python holds it once parsed: of equal keys the last has
// won, 1.00 has become 1.0. Its zero value is null. Values are equal under == exactly
// if the ancestor would have written them alike.
type Value struct {
	json string // Python's compact, sorted, ASCII form; "" stands for null
}

// ParseValue parses one JSON text as Python's json.loads does. Beyond RFC 8259 it
// accepts NaN, Infinity, -Infinity and lone surrogates; it refuses what Python refuses
// (among others an integer of more than 4300 digits and a byte order mark), more than
// 64 MiB, and nesting deeper than 500.
func ParseValue(b []byte) (Value, error) {
	v, err := decode(b)
	if err != nil {
		return Value{}, err
	}
	return valueOf(v), nil
}

// TextValue is the string s as a value; s must be UTF-8.
func TextValue(s string) (Value, error) {
	if !utf8.ValidString(s) {
		return Value{}, errors.New("text is not UTF-8")
	}
	return valueOf(s), nil
}

// JSON returns the bytes that enter a leaf: json.dumps with sorted keys and no spaces.
// It is JSON as RFC 8259 knows it unless the value holds NaN or an infinity.
func (v Value) JSON() string {
	if v.json == "" {
		return "null"
	}
	return v.json
}

func valueOf(v any) Value {
	if v == nil {
		return Value{} // so that an absent and an explicit null are equal
	}
	return Value{string(appendValue(nil, v))}
}

// integer is a JSON number without fraction and exponent, in Python's spelling.
type integer string

// decode returns nil, bool, integer, float64, string, []any or map[string]any.
func decode(b []byte) (any, error) {
	if len(b) > maxInput {
		return nil, fmt.Errorf("found %d bytes, wanted at most %d", len(b), maxInput)
	}
	if !utf8.Valid(b) {
		return nil, errors.New("not UTF-8")
	}
	d := decoder{in: string(b)}
	d.space()
	v, err := d.value(0)
	if err == nil {
		if d.space(); d.at < len(d.in) {
			err = d.unexpected("the end")
		}
	}
	if err != nil {
		return nil, fmt.Errorf("offset %d: %w", d.at, err)
	}
	return v, nil
}

// decoder reads the text from at; on an error at is where reading stopped.
type decoder struct {
	in string
	at int
}

func (d *decoder) space() {
	for d.at < len(d.in) && strings.IndexByte(" \t\n\r", d.in[d.at]) >= 0 {
		d.at++
	}
}

// take consumes the token if it comes next.
func (d *decoder) take(token string) bool {
	if !strings.HasPrefix(d.in[d.at:], token) {
		return false
	}
	d.at += len(token)
	return true
}

func (d *decoder) unexpected(wanted string) error {
	if d.at >= len(d.in) {
		return fmt.Errorf("found the end, wanted %s", wanted)
	}
	r, _ := utf8.DecodeRuneInString(d.in[d.at:])
	return fmt.Errorf("found %q, wanted %s", r, wanted)
}

func (d *decoder) value(depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("nested deeper than %d", maxDepth)
	}
	switch {
	case d.take("null"):
		return nil, nil
	case d.take("true"):
		return true, nil
	case d.take("false"):
		return false, nil
	case d.take("NaN"):
		return math.NaN(), nil
	case d.take("Infinity"):
		return math.Inf(1), nil
	case d.take("-Infinity"):
		return math.Inf(-1), nil
	case d.take(`"`):
		return d.text()
	case d.take("["):
		return d.list(depth)
	case d.take("{"):
		return d.object(depth)
	}
	return d.number()
}

func (d *decoder) list(depth int) (any, error) {
	list := []any{}
	if d.space(); d.take("]") {
		return list, nil
	}
	for {
		d.space()
		v, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
		if d.space(); d.take("]") {
			return list, nil
		}
		if !d.take(",") {
			return nil, d.unexpected("',' or ']'")
		}
	}
}

func (d *decoder) object(depth int) (any, error) {
	object := map[string]any{}
	if d.space(); d.take("}") {
		return object, nil
	}
	for {
		if d.space(); !d.take(`"`) {
			return nil, d.unexpected("a key")
		}
		key, err := d.text()
		if err != nil {
			return nil, err
		}
		if d.space(); !d.take(":") {
			return nil, d.unexpected("':'")
		}
		d.space()
		v, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		object[key] = v
		if d.space(); d.take("}") {
			return object, nil
		}
		if !d.take(",") {
			return nil, d.unexpected("',' or '}'")
		}
	}
}

func (d *decoder) digits() (n int) {
	for d.at < len(d.in) && '0' <= d.in[d.at] && d.in[d.at] <= '9' {
		d.at++
		n++
	}
	return n
}

func (d *decoder) number() (any, error) {
	start := d.at
	d.take("-")
	zero := d.take("0")
	if !zero && d.digits() == 0 {
		return nil, d.unexpected("a value")
	}
	isFloat := false
	if d.take(".") {
		isFloat = true
		if d.digits() == 0 {
			return nil, d.unexpected("a digit")
		}
	}
	if d.take("e") || d.take("E") {
		isFloat = true
		if !d.take("+") {
			d.take("-")
		}
		if d.digits() == 0 {
			return nil, d.unexpected("a digit")
		}
	}
	text := d.in[start:d.at]
	if !isFloat {
		if n := len(strings.TrimPrefix(text, "-")); n > maxInt {
			return nil, fmt.Errorf("integer of %d digits, wanted at most %d", n, maxInt)
		}
		if text == "-0" {
			text = "0" // Python's integers have one zero
		}
		return integer(text), nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) { // out of range is infinity, in Python too
		return nil, err
	}
	return f, nil
}

// text reads a string whose opening quote has been taken.
func (d *decoder) text() (string, error) {
	var out []byte
	for {
		plain := d.at
		for d.at < len(d.in) && d.in[d.at] >= 0x20 && d.in[d.at] != '"' && d.in[d.at] != '\\' {
			d.at++
		}
		out = append(out, d.in[plain:d.at]...)
		switch {
		case d.take(`"`):
			return string(out), nil
		case !d.take(`\`):
			return "", d.unexpected("'\"', '\\' or a character that needs no escape")
		case d.take("u"):
			c, err := d.hex4()
			if err != nil {
				return "", err
			}
			if c>>10 == 0xd800>>10 && strings.HasPrefix(d.in[d.at:], `\u`) {
				back := d.at
				d.at += 2
				low, err := d.hex4()
				if err != nil {
					return "", err
				}
				if low>>10 == 0xdc00>>10 {
					c = 0x10000 + (c-0xd800)<<10 + (low - 0xdc00)
				} else {
					d.at = back // two escapes, not a pair
				}
			}
			if 0xd800 <= c && c < 0xe000 {
				out = append(out, 0xe0|byte(c>>12), 0x80|byte(c>>6)&0xbf, 0x80|byte(c)&0x3f)
			} else {
				out = utf8.AppendRune(out, c)
			}
		default:
			if d.at >= len(d.in) {
				return "", d.unexpected("an escape")
			}
			i := strings.IndexByte(`"\/bfnrt`, d.in[d.at])
			if i < 0 {
				return "", d.unexpected(`an escape: one of "\/bfnrtu`)
			}
			out = append(out, "\"\\/\b\f\n\r\t"[i])
			d.at++
		}
	}
}

func (d *decoder) hex4() (rune, error) {
	var c rune
	for range 4 {
		if d.at >= len(d.in) {
			return 0, d.unexpected("four hex digits")
		}
		i := strings.IndexByte("0123456789abcdefABCDEF", d.in[d.at])
		if i < 0 {
			return 0, d.unexpected("four hex digits")
		}
		if i > 15 {
			i -= 6
		}
		c = c<<4 | rune(i)
		d.at++
	}
	return c, nil
}

func appendValue(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, "null"...)
	case bool:
		return strconv.AppendBool(b, v)
	case integer:
		return append(b, v...)
	case float64:
		return appendFloat(b, v)
	case string:
		return appendString(b, v)
	case []any:
		b = append(b, '[')
		for i, e := range v {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendValue(b, e)
		}
		return append(b, ']')
	case map[string]any:
		b = append(b, '{')
		for i, key := range slices.Sorted(maps.Keys(v)) {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendString(b, key)
			b = append(b, ':')
			b = appendValue(b, v[key])
		}
		return append(b, '}')
	}
	panic(fmt.Sprintf("legacy: %T is not a decoded value", v))
}

// appendFloat prints as Python's float.__repr__: the shortest digits that read back,
// an exponent below 1e-4 and from 1e16 on, and always a point or an exponent.
func appendFloat(b []byte, f float64) []byte {
	switch {
	case math.IsNaN(f):
		return append(b, "NaN"...)
	case math.IsInf(f, 1):
		return append(b, "Infinity"...)
	case math.IsInf(f, -1):
		return append(b, "-Infinity"...)
	}
	if a := math.Abs(f); a != 0 && (a < 1e-4 || a >= 1e16) {
		return strconv.AppendFloat(b, f, 'e', -1, 64)
	}
	start := len(b)
	b = strconv.AppendFloat(b, f, 'f', -1, 64)
	if !slices.Contains(b[start:], '.') {
		b = append(b, ".0"...)
	}
	return b
}

func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for i := 0; i < len(s); {
		c, n := decodeRune(s[i:])
		i += n
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', byte(c))
		case c == '\b':
			b = append(b, `\b`...)
		case c == '\f':
			b = append(b, `\f`...)
		case c == '\n':
			b = append(b, `\n`...)
		case c == '\r':
			b = append(b, `\r`...)
		case c == '\t':
			b = append(b, `\t`...)
		case 0x20 <= c && c < 0x7f: // Python escapes 0x7f too
			b = append(b, byte(c))
		case c < 0x10000:
			b = appendEscape(b, c)
		default:
			b = appendEscape(b, 0xd800+(c-0x10000)>>10)
			b = appendEscape(b, 0xdc00+(c-0x10000)&0x3ff)
		}
	}
	return append(b, '"')
}

func appendEscape(b []byte, c rune) []byte {
	return fmt.Appendf(b, `\u%04x`, c)
}

// decodeRune is utf8.DecodeRuneInString that also reads surrogates as text wrote them.
func decodeRune(s string) (rune, int) {
	c, n := utf8.DecodeRuneInString(s)
	if c != utf8.RuneError || n != 1 {
		return c, n
	}
	if len(s) >= 3 && s[0] == 0xed && s[1]&0xe0 == 0xa0 && s[2]&0xc0 == 0x80 {
		return 0xd000 | rune(s[1]&0x3f)<<6 | rune(s[2]&0x3f), 3
	}
	panic(fmt.Sprintf("legacy: string %q is not UTF-8", s))
}

func kindOf(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case integer, float64:
		return "a number"
	case string:
		return "a string"
	case []any:
		return "a list"
	}
	return "an object"
}
