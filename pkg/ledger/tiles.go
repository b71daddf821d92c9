package ledger

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
)

// tileHeight is the height of a tile in c2sp.org/tlog-tiles: 256 hashes wide.
const tileHeight = 8

// WriteTiles derives the c2sp.org/tlog-tiles tree of a log: every full tile and
// entry bundle, the partial ones of this size, and the checkpoint, which comes
// last so that a reader never sees a checkpoint whose tiles are missing. It
// returns after verifying the whole log; nothing is written before.
func WriteTiles(read Read, cp checkpoint.Verified, write func(path string, data []byte) error) error {
	body := cp.Body()
	leaves, err := Verify(read, body)
	if err != nil {
		return err
	}
	for n := range segments(body.Size) {
		lines, err := fullSegment(read, body, n)
		if err != nil {
			return err
		}
		var bundle []byte
		for _, l := range lines {
			bundle = append(binary.BigEndian.AppendUint16(bundle, uint16(len(l))), l...)
		}
		t := tlog.Tile{H: tileHeight, L: -1, N: n, W: len(lines)}
		if err := write(TilePath(t), bundle); err != nil {
			return err
		}
	}
	tree := NewTree(leaves)
	for level := 0; level*tileHeight < len(tree.levels); level++ {
		hashes := tree.levels[level*tileHeight]
		for n := 0; n*SegmentSize < len(hashes); n++ {
			row := hashes[n*SegmentSize : min((n+1)*SegmentSize, len(hashes))]
			data := make([]byte, 0, len(row)*tlog.HashSize)
			for _, h := range row {
				data = append(data, h[:]...)
			}
			t := tlog.Tile{H: tileHeight, L: level, N: int64(n), W: len(row)}
			if err := write(TilePath(t), data); err != nil {
				return err
			}
		}
	}
	return write(CheckpointPath, cp.Note())
}

// TilePath returns the path of a tile below a log's base URL as tlog-tiles has
// it: tile/<level>/<index>[.p/<width>], or tile/entries/… for entries (L = −1).
func TilePath(t tlog.Tile) string {
	level := "entries"
	if t.L >= 0 {
		level = fmt.Sprint(t.L)
	}
	n := fmt.Sprintf("%03d", t.N%1000)
	for rest := t.N / 1000; rest > 0; rest /= 1000 {
		n = fmt.Sprintf("x%03d/%s", rest%1000, n)
	}
	if t.W < SegmentSize {
		n += fmt.Sprintf(".p/%d", t.W)
	}
	return "tile/" + level + "/" + n
}
