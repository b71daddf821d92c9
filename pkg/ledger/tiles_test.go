package ledger

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/golden"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
)

func verified(t testing.TB, body checkpoint.Body) checkpoint.Verified {
	t.Helper()
	signer, policy := keys(t)
	signed, err := signer.Sign(body)
	assert.NilError(t, err)
	v, err := policy.Open(signed)
	assert.NilError(t, err)
	return v
}

func TestTilesAreFrozen(t *testing.T) {
	m, body := build(t, 515, 100)
	var listing strings.Builder
	assert.NilError(t, WriteTiles(m.read, verified(t, body), func(path string, data []byte) error {
		fmt.Fprintf(&listing, "%-20s %6d %x\n", path, len(data), sha256.Sum256(data))
		return nil
	}))
	golden.Assert(t, listing.String(), "tiles.golden")
}

func TestTilesEndWithTheCheckpoint(t *testing.T) {
	for size, want := range map[int64][]string{
		0: {"checkpoint"},
		1: {"tile/entries/000.p/1", "tile/0/000.p/1", "checkpoint"},
		// A full tile has a parent of one hash, and no empty neighbour.
		256: {"tile/entries/000", "tile/0/000", "tile/1/000.p/1", "checkpoint"},
	} {
		m, body := build(t, size, 1000)
		var got []string
		assert.NilError(t, WriteTiles(m.read, verified(t, body), func(path string, data []byte) error {
			got = append(got, path)
			return nil
		}))
		assert.DeepEqual(t, got, want)

		// Without the last write there is no checkpoint to lead a reader on.
		full := errors.New("no space left")
		for stop := range want {
			n := 0
			err := WriteTiles(m.read, verified(t, body), func(string, []byte) error {
				if n++; n > stop {
					return full
				}
				return nil
			})
			assert.ErrorIs(t, err, full)
			assert.Equal(t, n, stop+1)
		}
	}
}

func TestTilesHoldWhatTheTileReaderExpects(t *testing.T) {
	const size = 70_000 // three levels of tiles
	m, body := build(t, size, size)
	tiles := memory{}
	assert.NilError(t, WriteTiles(m.read, verified(t, body), func(path string, data []byte) error {
		tiles[path] = slices.Clone(data)
		return nil
	}))
	reader := tlog.TileHashReader(tlog.Tree{N: size, Hash: body.Root}, tileReader{tiles})
	for _, index := range []int64{0, 255, 256, 65_535, 65_536, size - 1} {
		proof, err := tlog.ProveRecord(size, index, reader)
		assert.NilError(t, err)
		assert.NilError(t, tlog.CheckRecord(proof, size, body.Root, index, RecordHash(entry(index))))
	}
}

// tileReader lets tlog's own client, which checks each tile, read ours.
type tileReader struct{ tiles memory }

func (tileReader) Height() int                         { return tileHeight }
func (tileReader) SaveTiles(_ []tlog.Tile, _ [][]byte) {}
func (r tileReader) ReadTiles(tiles []tlog.Tile) (out [][]byte, err error) {
	for _, t := range tiles {
		data, err := r.tiles.read(TilePath(t))
		if err != nil {
			return nil, err
		}
		out = append(out, data)
	}
	return out, nil
}

func TestNoTileIsWrittenOfATamperedLog(t *testing.T) {
	m, body := build(t, 300, 300)
	m[SegmentPath(0)][5] ^= 1
	err := WriteTiles(m.read, verified(t, body), func(path string, _ []byte) error {
		t.Errorf("wrote %s", path)
		return nil
	})
	var tampered *TamperError
	assert.Assert(t, errors.As(err, &tampered), "%v", err)
}

func TestTilePathsAreThoseOfTheSpecification(t *testing.T) {
	for _, c := range []struct {
		tile tlog.Tile
		want string
	}{
		{tlog.Tile{L: 0, N: 0, W: 256}, "tile/0/000"},
		{tlog.Tile{L: 0, N: 999, W: 256}, "tile/0/999"},
		{tlog.Tile{L: 1, N: 1000, W: 256}, "tile/1/x001/000"},
		{tlog.Tile{L: 0, N: 1234067, W: 8}, "tile/0/x001/x234/067.p/8"},
		{tlog.Tile{L: 5, N: 1_000_000_000, W: 255}, "tile/5/x001/x000/x000/000.p/255"},
		{tlog.Tile{L: -1, N: 4_294_967_295, W: 256}, "tile/entries/x004/x294/x967/295"},
		{tlog.Tile{L: -1, N: 7, W: 1}, "tile/entries/007.p/1"},
	} {
		assert.Equal(t, TilePath(c.tile), c.want)
	}
}
