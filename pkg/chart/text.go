package chart

import (
	"strings"
	"sync"
	"unicode"

	"golang.org/x/image/font"
	"golang.org/x/image/font/gofont/gobold"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/font/sfnt"
	"golang.org/x/image/math/fixed"
)

// fonts are parsed once; what is parsed is never written to again.
var fonts = sync.OnceValue(func() (f struct{ regular, bold *sfnt.Font }) {
	f.regular, f.bold = parse(goregular.TTF), parse(gobold.TTF)
	return f
})

// parse panics on what the compiler built in.
func parse(ttf []byte) *sfnt.Font {
	f, err := opentype.Parse(ttf)
	if err != nil {
		panic("chart: built-in font: " + err.Error())
	}
	return f
}

func typeface(bold bool) *sfnt.Font {
	if bold {
		return fonts().bold
	}
	return fonts().regular
}

// advances calls use with the width of each character of a text of that size,
// until it says no.
func advances(s string, size float64, bold bool, use func(at int, width float64) bool) {
	var buf sfnt.Buffer
	f := typeface(bold)
	for i, r := range s {
		w := fixed.Int26_6(0)
		if g, err := f.GlyphIndex(&buf, r); err == nil {
			if a, err := f.GlyphAdvance(&buf, g, fixed.I(64), font.HintingNone); err == nil {
				w = a
			}
		}
		if !use(i, float64(w)/64/64*size) {
			return
		}
	}
}

// measure returns how wide a text is. A reader's own font, in SVG, may be a
// little wider or narrower than ours; the layout leaves room for that.
func measure(s string, size float64, bold bool) float64 {
	sum := 0.0
	advances(s, size, bold, func(_ int, w float64) bool {
		sum += w
		return true
	})
	return sum
}

// fit cuts a text that is too wide, and says so with an ellipsis.
func fit(s string, size float64, bold bool, room float64) string {
	s = plain(s)
	if measure(s, size, bold) <= room {
		return s
	}
	room -= measure("…", size, bold)
	end, sum := 0, 0.0
	advances(s, size, bold, func(at int, w float64) bool {
		end, sum = at, sum+w
		return sum <= room
	})
	if end == 0 {
		return ""
	}
	return strings.TrimRight(s[:end], " ") + "…"
}

// wrap breaks a text between words into lines that fit, at most n.
func wrap(s string, size float64, bold bool, room float64, n int) []string {
	var lines []string
	line := ""
	words := strings.Fields(plain(s))
	for i, w := range words {
		next := w
		if line != "" {
			next = line + " " + w
		}
		if line == "" || measure(next, size, bold) <= room {
			line = next
			continue
		}
		if len(lines) == n-1 {
			line += " " + strings.Join(words[i:], " ")
			break
		}
		lines, line = append(lines, line), w
	}
	if line != "" {
		lines = append(lines, line)
	}
	for i := range lines {
		lines[i] = fit(lines[i], size, bold, room)
	}
	return lines
}

// plain replaces what a text may not hold: names of series come from outside.
// Longer texts than any picture has room for are cut.
func plain(s string) string {
	if len(s) > 1024 {
		s = s[:1024] + "…"
	}
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return '·'
		}
		return r
	}, s)
}
