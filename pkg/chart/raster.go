package chart

import (
	"bytes"
	"image"
	"image/color"
	"image/png"
	"math"
	"strconv"

	"golang.org/x/image/font"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/fixed"
	"golang.org/x/image/vector"
)

// raster is a canvas of pixels.
type raster struct {
	img    *image.RGBA
	theme  Theme
	scale  float64
	faces  map[face]font.Face
	vector vector.Rasterizer
}

type face struct {
	size float64
	bold bool
}

func newRaster(w, h float64, t Theme, scale float64) *raster {
	if t == Auto {
		t = Light
	}
	size := image.Rect(0, 0, int(math.Ceil(w*scale)), int(math.Ceil(h*scale)))
	return &raster{img: image.NewRGBA(size), theme: t, scale: scale, faces: map[face]font.Face{}}
}

func (c *raster) colour(r role, opacity float64) color.Color {
	n, err := strconv.ParseUint(palettes[c.theme][r][1:], 16, 32)
	if err != nil {
		panic("chart: colour " + palettes[c.theme][r])
	}
	return color.NRGBA{uint8(n >> 16), uint8(n >> 8), uint8(n), uint8(math.Round(opacity * 255))}
}

// fill paints shapes, each of them turning the same way, as one: where they
// overlap they are not painted twice.
func (c *raster) fill(shapes [][]point, paint color.Color) {
	low, high := point{math.Inf(1), math.Inf(1)}, point{math.Inf(-1), math.Inf(-1)}
	for _, s := range shapes {
		for _, p := range s {
			low = point{math.Min(low.x, p.x), math.Min(low.y, p.y)}
			high = point{math.Max(high.x, p.x), math.Max(high.y, p.y)}
		}
	}
	box := image.Rect(int(math.Floor(low.x*c.scale)), int(math.Floor(low.y*c.scale)),
		int(math.Ceil(high.x*c.scale))+1, int(math.Ceil(high.y*c.scale))+1).Intersect(c.img.Bounds())
	if box.Empty() {
		return
	}
	c.vector.Reset(box.Dx(), box.Dy())
	for _, s := range shapes {
		for i, p := range s {
			x, y := float32(p.x*c.scale)-float32(box.Min.X), float32(p.y*c.scale)-float32(box.Min.Y)
			if i == 0 {
				c.vector.MoveTo(x, y)
			} else {
				c.vector.LineTo(x, y)
			}
		}
		c.vector.ClosePath()
	}
	c.vector.Draw(c.img, box, image.NewUniform(paint), image.Point{})
}

func (c *raster) rect(x, y, w, h, radius float64, fill role, opacity float64) {
	if w <= 0 || h <= 0 {
		return
	}
	radius = math.Min(radius, math.Min(w, h)/2)
	corners := []point{{x + w - radius, y + radius}, {x + w - radius, y + h - radius}, {x + radius, y + h - radius}, {x + radius, y + radius}}
	var p []point
	for i, o := range corners {
		steps := 8
		if radius == 0 {
			steps = 0
		}
		for k := 0; k <= steps; k++ {
			angle := math.Pi / 2 * (float64(i) - 1)
			if steps > 0 {
				angle += math.Pi / 2 * float64(k) / float64(steps)
			}
			p = append(p, point{o.x + radius*math.Cos(angle), o.y + radius*math.Sin(angle)})
		}
	}
	c.fill([][]point{p}, c.colour(fill, opacity))
}

func (c *raster) polygon(p []point, fill role, opacity float64) {
	c.fill([][]point{p}, c.colour(fill, opacity))
}

// lines strokes with a quadrilateral a piece, and a triangle on the outer side
// of each corner.
func (c *raster) lines(l [][]point, stroke role, width, opacity float64) {
	var shapes [][]point
	r := width / 2
	for _, line := range l {
		var before point // the direction of the piece before
		for i := 1; i < len(line); i++ {
			a, z := line[i-1], line[i]
			n := math.Hypot(z.x-a.x, z.y-a.y)
			if n == 0 {
				continue
			}
			d := point{(z.x - a.x) / n, (z.y - a.y) / n}
			ox, oy := -d.y*r, d.x*r
			shapes = append(shapes, []point{{a.x + ox, a.y + oy}, {a.x - ox, a.y - oy}, {z.x - ox, z.y - oy}, {z.x + ox, z.y + oy}})
			if before != (point{}) {
				px, py := -before.y*r, before.x*r
				if turn := before.x*d.y - before.y*d.x; turn > 0 {
					shapes = append(shapes, []point{a, {a.x - px, a.y - py}, {a.x - ox, a.y - oy}})
				} else if turn < 0 {
					shapes = append(shapes, []point{a, {a.x + ox, a.y + oy}, {a.x + px, a.y + py}})
				}
			}
			before = d
		}
	}
	// One shape at a time would paint corners twice; all at once is a mask as
	// large as the panel. Straight pieces that do not touch are cheap either way.
	c.fill(shapes, c.colour(stroke, opacity))
}

func (c *raster) text(x, y float64, s string, size float64, bold bool, a anchor, fill role) {
	s = plain(s)
	f := face{size * c.scale, bold}
	if c.faces[f] == nil {
		made, err := opentype.NewFace(typeface(bold), &opentype.FaceOptions{Size: f.size, DPI: 72, Hinting: font.HintingNone})
		if err != nil {
			panic("chart: built-in font: " + err.Error())
		}
		c.faces[f] = made
	}
	switch a {
	case middle:
		x -= measure(s, size, bold) / 2
	case right:
		x -= measure(s, size, bold)
	}
	d := font.Drawer{
		Dst: c.img, Src: image.NewUniform(c.colour(fill, 1)), Face: c.faces[f],
		Dot: fixed.Point26_6{X: fixed.Int26_6(math.Round(x * c.scale * 64)), Y: fixed.Int26_6(math.Round(y * c.scale * 64))},
	}
	d.DrawString(s)
}

func (c *raster) bytes() ([]byte, error) {
	var buf bytes.Buffer
	e := png.Encoder{CompressionLevel: png.DefaultCompression}
	if err := e.Encode(&buf, c.img); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}
