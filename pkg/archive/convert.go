package archive

import (
	"bytes"
	"fmt"
	"strings"
)

// convert makes of a blob what git checks out, and fills in what is to be.
func convert(data []byte, attr map[string]value, id string, c Commit) ([]byte, error) {
	subst := attr["export-subst"] == attrTrue
	if len(data) > streamed && !subst {
		return data, nil
	}
	switch v, given := attr["filter"]; {
	case !given, v == attrTrue, v == attrFalse, v == attrUnset:
	default:
		return nil, fmt.Errorf("the attribute filter=%s: what it makes depends on the clone; wanted no filter", v)
	}
	switch v, given := attr["working-tree-encoding"]; {
	case !given, v == attrFalse, v == attrUnset, v == "", strings.EqualFold(string(v), "UTF-8"), strings.EqualFold(string(v), "UTF8"):
	case v == attrTrue:
		return nil, fmt.Errorf("the attribute working-tree-encoding names no encoding, and git stops at it")
	default:
		return nil, fmt.Errorf("the attribute working-tree-encoding=%s: what it makes depends on the machine; wanted UTF-8", v)
	}
	if attr["ident"] == attrTrue {
		data = fillIdent(data, id)
	}
	if makesCRLF(data, attr) {
		data = toCRLF(data)
	}
	if subst {
		return fillFormats(data, c)
	}
	return data, nil
}

// makesCRLF says whether the lines of a file are to end in CR LF. With
// core.autocrlf false, on Linux, only eol=crlf does that.
func makesCRLF(data []byte, attr map[string]value) bool {
	text := attr["text"]
	switch text {
	case attrTrue, attrFalse, "input", "auto":
	default:
		text = attr["crlf"] // the name that text had once
	}
	if attr["eol"] != "crlf" || text == attrFalse {
		return false
	}
	s := statsOf(data)
	if text == "auto" && (s.cr > 0 || s.crlf > 0 || s.binary()) {
		return false
	}
	return s.lf > 0
}

// stats count what a file consists of.
type stats struct {
	nul, cr, lf, crlf       int // cr and lf are those that stand alone
	printable, nonprintable int
}

func statsOf(b []byte) (s stats) {
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c == '\r' && i+1 < len(b) && b[i+1] == '\n':
			s.crlf++
			i++
		case c == '\r':
			s.cr++
		case c == '\n':
			s.lf++
		case c == '\b', c == '\t', c == '\033', c == '\f', c >= ' ' && c != 0x7f:
			s.printable++
		default:
			if c == 0 {
				s.nul++
			}
			s.nonprintable++
		}
	}
	// DOS ended its texts with this byte.
	if len(b) > 0 && b[len(b)-1] == 0x1a {
		s.nonprintable--
	}
	return s
}

func (s stats) binary() bool { return s.cr > 0 || s.nul > 0 || s.printable>>7 < s.nonprintable }

func toCRLF(b []byte) []byte {
	out := make([]byte, 0, len(b)+len(b)/16)
	for i, c := range b {
		if c == '\n' && (i == 0 || b[i-1] != '\r') {
			out = append(out, '\r')
		}
		out = append(out, c)
	}
	return out
}

// fillIdent writes a blob's id into $Id$, and into $Id: what git wrote there $.
// What another system wrote, which has spaces in it, stays.
func fillIdent(b []byte, id string) []byte {
	var out []byte
	for {
		i := bytes.IndexByte(b, '$')
		if i < 0 {
			return append(out, b...)
		}
		out, b = append(out, b[:i+1]...), b[i+1:]
		if !bytes.HasPrefix(b, []byte("Id")) || len(b) < 3 {
			continue
		}
		end := 2
		switch b[2] {
		case '$':
		case ':':
			n := bytes.IndexByte(b[3:], '$')
			if n < 0 {
				return append(out, b...)
			}
			end = 3 + n
			if bytes.IndexByte(b[3:end], '\n') >= 0 {
				continue
			}
			// The first space after the one that follows the colon, unless it is
			// the last byte.
			if end > 4 {
				if space := bytes.IndexByte(b[4:end], ' '); space >= 0 && 4+space < end-1 {
					continue
				}
			}
		default:
			continue
		}
		out, b = append(out, "Id: "+id+" $"...), b[end+1:]
	}
}

// fillFormats fills in $Format:…$.
func fillFormats(b []byte, c Commit) ([]byte, error) {
	const begin = "$Format:"
	var out []byte
	for {
		i := bytes.Index(b, []byte(begin))
		if i < 0 {
			return append(out, b...), nil
		}
		n := bytes.IndexByte(b[i+len(begin):], '$')
		if n < 0 {
			return append(out, b...), nil
		}
		format := string(b[i+len(begin) : i+len(begin)+n])
		text, err := c.format(format)
		if err != nil {
			return nil, fmt.Errorf("$Format:%s$: %w", format, err)
		}
		out, b = append(append(out, b[:i]...), text...), b[i+len(begin)+n+1:]
	}
}
