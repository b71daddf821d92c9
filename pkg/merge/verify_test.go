package merge_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/golden"
	"pgregory.net/rapid"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/merge"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/set"
)

// outcomes is what became of each check that did not pass, and the whole.
func outcomes(v merge.Verdict) string {
	var all []string
	for _, c := range v.Checks {
		if c.Status != judge.Pass {
			all = append(all, fmt.Sprintf("%s %s", strings.TrimPrefix(c.ID, "merge/"), c.Status))
		}
	}
	return strings.Join(append(all, v.Outcome()), ", ")
}

func TestTheThreeClaimsComeFirst(t *testing.T) {
	_, file, sidecar := newExample(t).receipt(t)
	v := merge.Verify(file, sidecar, keyring(t, "a", "b"), nil)
	assert.Assert(t, strings.HasPrefix(v.String(), "✅ Both nodes computed same merged_root\n✅ Signatures valid from both parties\n✅ Receipt count matches union of databases\n"), v)
	assert.Assert(t, v.Anchored)
	assert.Equal(t, v.Status(), judge.Pass)
	assert.Equal(t, v.Receipt.Body.Total, 8)
	assert.Equal(t, merge.Verdict{}.Status(), judge.Error)
}

func TestWithoutAnchorsTheVerdictIsConditional(t *testing.T) {
	_, file, sidecar := newExample(t).receipt(t)
	const unknown = "root error, signatures error, operator error, CONDITIONAL"
	for name, c := range map[string]struct {
		anchors *openpgp.Keyring
		want    string
	}{
		"none":     {nil, unknown},
		"empty":    {keyring(t), unknown},
		"others":   {keyring(t, "c"), unknown},
		"one side": {keyring(t, "a"), "root error, signatures error, CONDITIONAL"},
		"the peer": {keyring(t, "b", "c"), unknown},
		"both":     {keyring(t, "a", "b"), "PASS"},
	} {
		v := merge.Verify(file, sidecar, c.anchors, nil)
		assert.Equal(t, outcomes(v), c.want, name)
		assert.Equal(t, v.Anchored, c.want == "PASS")
		if c.want != "PASS" {
			assert.Equal(t, v.Status(), judge.Error, name)
		}
	}
	golden.Assert(t, merge.Verify(file, sidecar, nil, nil).String(), "conditional.golden.txt")

	// The operator may be a third person.
	x := newExample(t)
	x.body.Operator, x.signOperator = signer(t, "c").Fingerprint(), "c"
	_, file, sidecar = x.receipt(t)
	assert.Equal(t, outcomes(merge.Verify(file, sidecar, keyring(t, "a", "b"), nil)), "operator error, CONDITIONAL")
	assert.Equal(t, outcomes(merge.Verify(file, sidecar, keyring(t, "a", "b", "c"), nil)), "PASS")
}

func TestWithoutTheListOfIdsNothingIsRecomputed(t *testing.T) {
	_, file, _ := newExample(t).receipt(t)
	assert.Equal(t, outcomes(merge.Verify(file, nil, keyring(t, "a", "b"), nil)), "root error, count error, conflicts error, ERROR")
	assert.Equal(t, outcomes(merge.Verify(file, nil, nil, nil)), "root error, signatures error, count error, operator error, conflicts error, ERROR")
	// An empty list is a list, and another one.
	assert.Equal(t, outcomes(merge.Verify(file, []byte{}, keyring(t, "a", "b"), nil)), "root fail, count fail, conflicts fail, FAIL")
}

// value is one scalar of a JSON text.
type value struct {
	path       string
	start, end int
	text       string
}

// values finds the scalars of a JSON text, with their places.
func values(t testing.TB, data []byte) (all []value) {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var walk func(path string)
	walk = func(path string) {
		tok, err := dec.Token()
		assert.NilError(t, err)
		if tok == json.Delim('{') {
			for dec.More() {
				key, err := dec.Token()
				assert.NilError(t, err)
				walk(path + "." + key.(string))
			}
			_, err := dec.Token()
			assert.NilError(t, err)
			return
		}
		end := int(dec.InputOffset())
		raw, err := json.Marshal(tok)
		assert.NilError(t, err)
		if s, ok := tok.(string); ok {
			var b bytes.Buffer
			enc := json.NewEncoder(&b)
			enc.SetEscapeHTML(false)
			assert.NilError(t, enc.Encode(s))
			raw = bytes.TrimSuffix(b.Bytes(), []byte("\n"))
		}
		assert.Equal(t, string(data[end-len(raw):end]), string(raw))
		all = append(all, value{path, end - len(raw), end, string(raw)})
	}
	walk("")
	_, err := dec.Token()
	assert.Assert(t, errors.Is(err, io.EOF))
	return all
}

// others returns values of the same kind.
func (v value) others() (all []string) {
	switch {
	case v.text == "true":
		return []string{"false"}
	case v.text[0] != '"':
		return []string{"1" + v.text, v.text + "1", "0"}
	case v.text == `""`:
		return []string{`"` + strings.Repeat("0", 64) + `"`}
	}
	inner := v.text[1 : len(v.text)-1]
	all = append(all, `""`)
	for _, at := range []int{0, len(inner) / 2, len(inner) - 1} {
		c := inner[at]
		var other byte
		switch {
		case c == '0' || c == 'A' || c == 'a':
			other = c + 1
		case c >= '0' && c <= '9':
			other = '0'
		case c >= 'A' && c <= 'Z':
			other = 'A'
		case c >= 'a' && c <= 'z':
			other = 'a'
		default:
			continue // a place within a letter or an escape
		}
		all = append(all, `"`+inner[:at]+string(other)+inner[at+1:]+`"`)
	}
	return all
}

func TestNoFieldCanBeChanged(t *testing.T) {
	// A second merge has every field.
	r, _, _ := newExample(t).receipt(t)
	x := newExample(t)
	var err error
	x.body.Previous, err = r.Body.Digest()
	assert.NilError(t, err)
	_, file, sidecar := x.receipt(t)
	anchors := keyring(t, "a", "b")
	assert.Equal(t, outcomes(merge.Verify(file, sidecar, anchors, nil)), "chain unclaimed, PASS")

	fields := values(t, file)
	assert.Equal(t, len(fields), 3+2*11+7+6)
	for _, f := range fields {
		for _, other := range f.others() {
			changed := slices.Concat(file[:f.start], []byte(other), file[f.end:])
			if bytes.Equal(changed, file) {
				continue
			}
			v := merge.Verify(changed, sidecar, anchors, nil)
			assert.Equal(t, v.Outcome(), "FAIL", "%s: %s", f.path, other)
		}
	}
	lines := strings.SplitAfter(string(file), "\n")
	for i, line := range lines {
		less := strings.Join(slices.Delete(slices.Clone(lines), i, i+1), "")
		if less == string(file) {
			continue // what comes after the last newline
		}
		assert.Equal(t, merge.Verify([]byte(less), sidecar, anchors, nil).Outcome(), "FAIL", line)
	}
	for i := 0; i < len(sidecar); i += 7 {
		changed := bytes.Clone(sidecar)
		changed[i] ^= 1
		assert.Equal(t, outcomes(merge.Verify(file, changed, anchors, nil)), "root fail, count fail, conflicts fail, chain unclaimed, FAIL")
	}
}

func TestNoBitCanBeChanged(t *testing.T) {
	_, file, sidecar := newExample(t).receipt(t)
	anchors := keyring(t, "a", "b")
	rapid.Check(t, func(t *rapid.T) {
		changed, ids := bytes.Clone(file), bytes.Clone(sidecar)
		in := changed
		if rapid.Bool().Draw(t, "in the ids") {
			in = ids
		}
		in[rapid.IntRange(0, len(in)-1).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		assert.Equal(t, merge.Verify(changed, ids, anchors, nil).Outcome(), "FAIL")
	})
}

// What both sides have signed may still be wrong.
func TestEachLieThatBothSidesSignIsFound(t *testing.T) {
	for name, c := range map[string]struct {
		lie  func(t *testing.T, x *example)
		want string
	}{
		"none": {func(*testing.T, *example) {}, "PASS"},
		"another root": {func(_ *testing.T, x *example) {
			x.body.Merged = set.Empty
		}, "root fail, FAIL"},
		"another root before": {func(t *testing.T, x *example) {
			x.a.side.RootBefore = set.Empty
			x.a.setNote(t, x.body.Trust)
		}, "root fail, FAIL"},
		"another root before at the peer": {func(t *testing.T, x *example) {
			x.b.side.RootBefore = set.Empty
			x.b.setNote(t, x.body.Trust)
		}, "root fail, FAIL"},
		"a receipt that neither had": {func(_ *testing.T, x *example) {
			x.sidecar.OnlyA = append(x.sidecar.OnlyA, id(9))
		}, "root fail, count fail, FAIL"},
		"a receipt left out": {func(_ *testing.T, x *example) {
			x.sidecar.OnlyA = x.sidecar.OnlyA[1:]
		}, "root fail, count fail, FAIL"},
		"a receipt of the other one": {func(_ *testing.T, x *example) {
			x.sidecar.Both, x.sidecar.OnlyA = x.sidecar.Both[1:], append(x.sidecar.OnlyA, x.sidecar.Both[0])
		}, "root fail, count fail, FAIL"},
		"another total":  {func(_ *testing.T, x *example) { x.body.Total++ }, "count fail, FAIL"},
		"more from peer": {func(_ *testing.T, x *example) { x.body.AddedToA++ }, "count fail, FAIL"},
		"more to peer":   {func(_ *testing.T, x *example) { x.body.AddedToB++ }, "count fail, FAIL"},
		"another count": {func(t *testing.T, x *example) {
			x.a.side.Count++
			x.a.setNote(t, x.body.Trust)
		}, "count fail, FAIL"},
		"another count at the peer": {func(t *testing.T, x *example) {
			x.b.side.Count--
			x.b.setNote(t, x.body.Trust)
		}, "count fail, FAIL"},
		"a set note of another count":       {func(_ *testing.T, x *example) { x.a.side.Count++ }, "count fail, sets fail, FAIL"},
		"a set note of another trust state": {func(t *testing.T, x *example) { x.a.setNote(t, strings.Repeat("0", 64)) }, "sets fail, FAIL"},
		"another trust state":               {func(_ *testing.T, x *example) { x.body.Trust = strings.Repeat("0", 64) }, "sets fail, FAIL"},
		"a set note of another node": {func(t *testing.T, x *example) {
			x.a.side.Node = "local/node-x"
			x.a.setNote(t, x.body.Trust)
			x.a.side.Node = "local/node-a"
		}, "sets fail, FAIL"},
		"a set note of the other side": {func(_ *testing.T, x *example) { x.a.side.SetNote = x.b.side.SetNote }, "sets fail, FAIL"},
		"no set note":                  {func(_ *testing.T, x *example) { x.b.side.SetNote = "" }, "sets fail, FAIL"},
		"a checkpoint as set note": {func(_ *testing.T, x *example) {
			x.b.side.Set, x.b.side.SetNote = x.b.side.Log, x.b.side.Checkpoint
		}, "sets fail, FAIL"},
		"a checkpoint of the other side": {func(_ *testing.T, x *example) { x.a.side.Checkpoint = x.b.side.Checkpoint }, "checkpoints fail, FAIL"},
		"a checkpoint of another root": {func(_ *testing.T, x *example) {
			x.a.side.Checkpoint = strings.Replace(x.a.side.Checkpoint, "\n8\n", "\n9\n", 1)
		}, "checkpoints fail, FAIL"},
		"no checkpoint":        {func(_ *testing.T, x *example) { x.b.side.Checkpoint = "" }, "checkpoints fail, FAIL"},
		"a log that is short":  {func(t *testing.T, x *example) { x.b.grow(t, 4) }, "checkpoints fail, FAIL"},
		"a set note as a head": {func(_ *testing.T, x *example) { x.b.side.Checkpoint = x.b.side.SetNote }, "checkpoints fail, FAIL"},
		"more conflicts":       {func(_ *testing.T, x *example) { x.body.Conflicts++ }, "conflicts fail, FAIL"},
		"a conflict not named": {func(_ *testing.T, x *example) { x.sidecar.Conflicts = nil }, "conflicts fail, FAIL"},
		"a conflict of others": {func(_ *testing.T, x *example) {
			x.sidecar.Conflicts = []merge.Conflict{{File: "adr/x.receipt", IDs: sorted(1, 9)}}
		}, "conflicts fail, FAIL"},
		"one side for the other":      {func(_ *testing.T, x *example) { x.signB = "a" }, "root fail, signatures fail, FAIL"},
		"the sides exchanged":         {func(_ *testing.T, x *example) { x.signA, x.signB = "b", "a" }, "root fail, signatures fail, FAIL"},
		"another for the operator":    {func(_ *testing.T, x *example) { x.signOperator = "b" }, "operator fail, FAIL"},
		"a stranger for the operator": {func(_ *testing.T, x *example) { x.signOperator = "c" }, "operator fail, FAIL"},
	} {
		t.Run(name, func(t *testing.T) {
			x := newExample(t)
			c.lie(t, x)
			_, file, sidecar := x.receipt(t)
			assert.Equal(t, outcomes(merge.Verify(file, sidecar, keyring(t, "a", "b"), nil)), c.want)
		})
	}
	t.Run("a list that is none", func(t *testing.T) {
		x := newExample(t)
		r, _, _ := x.receipt(t)
		junk := []byte("nothing\n")
		r.Body.IDs = digest(junk)
		r = resign(t, r)
		file, err := r.Marshal()
		assert.NilError(t, err)
		assert.Equal(t, outcomes(merge.Verify(file, junk, keyring(t, "a", "b"), nil)), "root fail, count fail, conflicts fail, FAIL")
	})
}

// resign signs a receipt as a and b would.
func resign(t testing.TB, r *merge.Receipt) *merge.Receipt {
	t.Helper()
	body, err := r.Body.Bytes()
	assert.NilError(t, err)
	a, err := signer(t, "a").Sign(t.Context(), merge.PAE(body))
	assert.NilError(t, err)
	b, err := signer(t, "b").Sign(t.Context(), merge.PAE(body))
	assert.NilError(t, err)
	return &merge.Receipt{Body: r.Body, SigA: a, SigB: b, SigOperator: a}
}

// Two nodes without a receipt agree, too.
func TestEmptyNodesMerge(t *testing.T) {
	x := newExample(t)
	for _, p := range []*party{x.a, x.b} {
		p.ids = nil
		p.side.RootBefore, p.side.Count = set.Empty, 0
		p.setNote(t, x.body.Trust)
		p.side.Checkpoint = ""
	}
	x.sidecar = merge.NewSidecar(setOf(), setOf(), nil)
	x.body.Merged, x.body.Total, x.body.AddedToA, x.body.AddedToB, x.body.Conflicts = set.Empty, 0, 0, 0, 0
	_, file, sidecar := x.receipt(t)
	assert.Equal(t, outcomes(merge.Verify(file, sidecar, keyring(t, "a", "b"), nil)), "PASS")
}

func TestMergesAreChained(t *testing.T) {
	first, _, _ := newExample(t).receipt(t)
	sum, err := first.Body.Digest()
	assert.NilError(t, err)
	// next is a later merge of the two, when both have what the first one united.
	next := func(edit func(x *example)) *example {
		x := newExample(t)
		all := sorted(0, 1, 2, 3, 4, 5, 6, 7)
		for _, p := range []*party{x.a, x.b} {
			p.ids = all
			p.side.RootBefore, p.side.Count = set.Root(all), len(all)
			p.setNote(t, x.body.Trust)
			p.grow(t, 12)
		}
		x.sidecar = merge.NewSidecar(setOf(all...), setOf(all...), x.sidecar.Conflicts)
		x.body.AddedToA, x.body.AddedToB = 0, 0
		x.body.Previous = sum
		if edit != nil {
			edit(x)
		}
		return x
	}
	for name, c := range map[string]struct {
		edit     func(x *example)
		previous *merge.Receipt
		want     string
	}{
		"at hand":       {nil, first, "PASS"},
		"not at hand":   {nil, nil, "chain unclaimed, PASS"},
		"another":       {func(x *example) { x.body.Previous = strings.Repeat("0", 64) }, first, "chain fail, FAIL"},
		"not named":     {func(x *example) { x.body.Previous = "" }, first, "chain fail, FAIL"},
		"the other way": {func(x *example) { x.a, x.b, x.signA, x.signB = x.b, x.a, "b", "a" }, first, "PASS"},
		"somebody else": {func(x *example) {
			x.b.side.Fingerprint, x.signB = signer(t, "c").Fingerprint(), "c"
		}, first, "chain fail, FAIL"},
		"a log that was cut": {func(x *example) { x.a.grow(t, 7) }, first, "checkpoints fail, chain fail, FAIL"},
	} {
		t.Run(name, func(t *testing.T) {
			_, file, sidecar := next(c.edit).receipt(t)
			assert.Equal(t, outcomes(merge.Verify(file, sidecar, keyring(t, "a", "b", "c"), c.previous)), c.want)
		})
	}

	t.Run("a set that shrank", func(t *testing.T) {
		x := newExample(t) // as if nothing had been merged
		x.body.Previous = sum
		_, file, sidecar := x.receipt(t)
		v := merge.Verify(file, sidecar, keyring(t, "a", "b"), first)
		assert.Equal(t, outcomes(v), "chain fail, FAIL")
		assert.Equal(t, v.Checks[len(v.Checks)-1].Detail, "local/node-a had 8 receipts after the merge before, and has 6: some are gone")
	})
	t.Run("a set that shrank under another trust state", func(t *testing.T) {
		x := newExample(t)
		x.body.Previous, x.body.Trust = sum, strings.Repeat("0", 64)
		x.a.setNote(t, x.body.Trust)
		x.b.setNote(t, x.body.Trust)
		_, file, sidecar := x.receipt(t)
		assert.Equal(t, outcomes(merge.Verify(file, sidecar, keyring(t, "a", "b"), first)), "PASS")
	})
	t.Run("a log of the same size and another root", func(t *testing.T) {
		x := next(func(x *example) { fork(t, x.a) })
		_, file, sidecar := x.receipt(t)
		v := merge.Verify(file, sidecar, keyring(t, "a", "b"), first)
		assert.Equal(t, outcomes(v), "chain fail, FAIL")
		assert.Equal(t, v.Checks[len(v.Checks)-1].Detail, "the log of local/node-a had 8 entries at the merge before, and has other 8: it was cut or forked")
	})
}

// fork gives the log of a side other entries.
func fork(t testing.TB, p *party) {
	t.Helper()
	p.checkpoint = checkpoint.Body{Origin: p.name, Size: int64(p.logSize), Root: checkpoint.Hash{1}}
	p.head(t)
}

// What a file says never steers the terminal that shows the verdict.
func TestNoTextSteersATerminal(t *testing.T) {
	x := newExample(t)
	x.a.side.SetNote = "\u009b2J\u202e\n\n— x y\n"
	_, file, sidecar := x.receipt(t)
	v := merge.Verify(file, sidecar, keyring(t, "a", "b"), nil)
	assert.Equal(t, outcomes(v), "sets fail, FAIL")
	for _, r := range v.String() {
		assert.Assert(t, r == '\n' || r >= ' ' && r != 0x7f && (r < 0x80 || r > 0x9f) && r != '\u202e', "%q", v.String())
	}
}

func FuzzVerifyNeverPanics(f *testing.F) {
	f.Add(readFile(f, "merge.golden.receipt"), readFile(f, "merge.golden.receipt.ids"))
	f.Fuzz(func(t *testing.T, file, sidecar []byte) {
		v := merge.Verify(file, sidecar, nil, nil)
		assert.Assert(t, v.Status() != judge.Pass)
	})
}
