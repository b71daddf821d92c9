package merge_test

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"pgregory.net/rapid"

	"github.com/vaultmesh/remembrancer/pkg/merge"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
	"github.com/vaultmesh/remembrancer/pkg/set"
)

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func TestASidecarListsWhoHeldWhat(t *testing.T) {
	s := newExample(t).sidecar
	assert.DeepEqual(t, s, &merge.Sidecar{
		Both: sorted(3, 4, 5), OnlyA: sorted(0, 1, 2), OnlyB: sorted(6, 7),
		Conflicts: []merge.Conflict{{File: "deploy/app-v1.receipt", IDs: sorted(0, 7)}},
	})
	assert.DeepEqual(t, s.A(), sorted(0, 1, 2, 3, 4, 5))
	assert.DeepEqual(t, s.B(), sorted(3, 4, 5, 6, 7))
	assert.DeepEqual(t, s.Union(), sorted(0, 1, 2, 3, 4, 5, 6, 7))
	assert.Equal(t, s.Digest(), digest(s.Marshal()))
	back, err := merge.ParseSidecar(s.Marshal())
	assert.NilError(t, err)
	assert.DeepEqual(t, back, s)

	none := merge.NewSidecar(setOf(), setOf(), nil)
	assert.Equal(t, string(none.Marshal()), "remembrancer/merge-ids/v1\n")
	back, err = merge.ParseSidecar(none.Marshal())
	assert.NilError(t, err)
	assert.DeepEqual(t, back, none)
}

func TestSidecarsAreRefused(t *testing.T) {
	const header = "remembrancer/merge-ids/v1\n"
	ids := sorted(0, 1, 2)
	one, two, three := ids[0].String(), ids[1].String(), ids[2].String()
	conflict := "conflict deploy/x.receipt " + one + " " + two + "\n"
	wantLine := `: want "ID ab", "ID a", "ID b" or "conflict FILE ID ID"`
	for name, c := range map[string]struct{ file, err string }{
		"nothing":            {"", `merge ids: first line is "", want "remembrancer/merge-ids/v1\n"`},
		"another kind":       {"remembrancer/merge-ids/v2\n", `merge ids: first line is "remembrancer/merge-ids/v2\n", want "remembrancer/merge-ids/v1\n"`},
		"no last newline":    {header + one + " a", "merge ids: the last line does not end in a newline"},
		"an empty line":      {header + "\n", `merge ids: line 2: ""` + wantLine},
		"CRLF":               {header + one + " a\r\n", `merge ids: line 2: "a\r": want ab, a or b`},
		"nobody":             {header + one + "\n", `merge ids: line 2: "": want ab, a or b`},
		"somebody else":      {header + one + " c\n", `merge ids: line 2: "c": want ab, a or b`},
		"two spaces":         {header + one + "  a\n", `merge ids: line 2: " a": want ab, a or b`},
		"a short id":         {header + one[2:] + " a\n", `merge ids: line 2: "` + one[2:] + ` a"` + wantLine},
		"capitals":           {header + strings.ToUpper(one) + " a\n", `merge ids: line 2: "` + strings.ToUpper(one) + ` a"` + wantLine},
		"out of order":       {header + two + " a\n" + one + " b\n", "merge ids: line 3: id " + one + " is not after " + two},
		"an id twice":        {header + one + " a\n" + one + " b\n", "merge ids: line 3: id " + one + " is not after " + one},
		"an id at the end":   {header + one + " a\n" + conflict + two + " a\n", "merge ids: line 4: an id after the conflicts"},
		"a conflict twice":   {header + conflict + conflict, "merge ids: line 3: conflict deploy/x.receipt is not after deploy/x.receipt"},
		"conflicts mixed":    {header + conflict + strings.Replace(conflict, "deploy", "adr", 1), "merge ids: line 3: conflict adr/x.receipt is not after deploy/x.receipt"},
		"one id":             {header + "conflict deploy/x.receipt " + one + "\n", "merge ids: line 2: conflict deploy/x.receipt has 1 ids, want at least 2"},
		"no id":              {header + "conflict deploy/x.receipt\n", "merge ids: line 2: conflict deploy/x.receipt has 0 ids, want at least 2"},
		"ids out of order":   {header + "conflict deploy/x.receipt " + three + " " + two + "\n", "merge ids: line 2: conflict deploy/x.receipt: id " + two + " is not after " + three},
		"a space at the end": {header + strings.TrimSuffix(conflict, "\n") + " \n", `merge ids: line 2: receipt id "": want 64 lower-case hex digits`},
		"no kind":            {header + strings.Replace(conflict, "deploy/", "", 1), `merge ids: line 2: conflict "x.receipt": want <kind>/<name>.receipt of a kind that is merged`},
		"a kind that is not": {header + strings.Replace(conflict, "deploy", "federation-merge", 1), `merge ids: line 2: conflict "federation-merge/x.receipt": want <kind>/<name>.receipt of a kind that is merged`},
		"a way up":           {header + strings.Replace(conflict, "x.receipt", "../x.receipt", 1), `merge ids: line 2: conflict "deploy/../x.receipt": want <kind>/<name>.receipt of a kind that is merged`},
		"another suffix":     {header + strings.Replace(conflict, "x.receipt", "x.json", 1), `merge ids: line 2: conflict "deploy/x.json": want <kind>/<name>.receipt of a kind that is merged`},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := merge.ParseSidecar([]byte(c.file))
			assert.Assert(t, s == nil)
			assert.Error(t, err, c.err)
		})
	}
}

func FuzzWhatParsesAsSidecarEncodesToTheSameBytes(f *testing.F) {
	f.Add(readFile(f, "merge.golden.receipt.ids"))
	f.Add([]byte("remembrancer/merge-ids/v1\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := merge.ParseSidecar(data)
		if err != nil {
			assert.Assert(t, s == nil)
			return
		}
		assert.Equal(t, string(s.Marshal()), string(data))
	})
}

func TestASidecarOfAnySetsSaysWhatTheyWere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ids := rapid.SliceOfDistinct(rapid.Byte(), rapid.ID)
		draw := func(name string) *set.Set {
			var s set.Set
			for _, n := range ids.Draw(t, name) {
				s.Add(id(n))
			}
			return &s
		}
		a, b := draw("a"), draw("b")
		s, err := merge.ParseSidecar(merge.NewSidecar(a, b, nil).Marshal())
		assert.NilError(t, err)
		assert.Equal(t, set.Root(s.A()), a.Root())
		assert.Equal(t, set.Root(s.B()), b.Root())
		var union []receipt.ID
		for id := range a.All() {
			union = append(union, id)
		}
		for id := range b.All() {
			union = append(union, id)
		}
		assert.Equal(t, set.Root(s.Union()), set.Root(union))
	})
}
