package legacy

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

func load[T any](t testing.TB, name string) T {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	assert.NilError(t, err)
	var v T
	assert.NilError(t, json.Unmarshal(b, &v))
	return v
}

func same(t testing.TB, got, want []Record) {
	t.Helper()
	assert.Assert(t, reflect.DeepEqual(got, want), "found %v, wanted %v", got, want)
}

func ptr(s string) *string { return &s }

func TestValuesAreWrittenAsPythonWritesThem(t *testing.T) {
	type file struct {
		Accepted []struct{ In, Out string }
		Refused  []string
	}
	vectors := load[file](t, "python.json")
	assert.Assert(t, len(vectors.Accepted) > 600 && len(vectors.Refused) > 50)
	for _, v := range vectors.Accepted {
		got, err := ParseValue([]byte(v.In))
		assert.NilError(t, err, "%.60q", v.In)
		assert.Equal(t, got.JSON(), v.Out, "%.60q", v.In)
	}
	for _, in := range vectors.Refused {
		got, err := ParseValue([]byte(in))
		assert.Assert(t, err != nil, "%.60q", in)
		assert.Equal(t, got, Value{})
	}
}

func TestValueErrorsSayWhereAndWhat(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", "offset 0: found the end, wanted a value"},
		{"[1,]", "offset 3: found ']', wanted a value"},
		{"{1:1}", "offset 1: found '1', wanted a key"},
		{"[1 2]", "offset 3: found '2', wanted ',' or ']'"},
		{"01", "offset 1: found '1', wanted the end"},
		{`"\ud83d\u00"`, `offset 11: found '"', wanted four hex digits`},
		{`"\x"`, `offset 2: found 'x', wanted an escape: one of "\/bfnrtu`},
		{"\"\n\"", `offset 1: found '\n', wanted '"', '\' or a character that needs no escape`},
		{"\xff", "not UTF-8"},
		{"\"\xed\xa0\x80\"", "not UTF-8"},
		{strings.Repeat("1", 4301), "offset 4301: integer of 4301 digits, wanted at most 4300"},
		{strings.Repeat("[", 600), "offset 501: nested deeper than 500"},
	} {
		_, err := ParseValue([]byte(c.in))
		assert.Error(t, err, c.want)
	}
	_, err := ParseValue(make([]byte, maxInput+1))
	assert.Error(t, err, "found 67108865 bytes, wanted at most 67108864")
	_, err = ParseValue([]byte(strings.Repeat("[", 500) + "1" + strings.Repeat("]", 500)))
	assert.NilError(t, err)
}

func TestTextIsNotParsedAsJSON(t *testing.T) {
	got, err := TextValue(`{"a":1}`)
	assert.NilError(t, err)
	assert.Equal(t, got.JSON(), `"{\"a\":1}"`)
	_, err = TextValue("\xff")
	assert.Error(t, err, "text is not UTF-8")
	assert.Equal(t, Value{}.JSON(), "null")
}

func TestRootsEqualTheAncestors(t *testing.T) {
	type vector struct{ Records, Root string }
	given := load[struct {
		Audit []struct {
			Records json.RawMessage
			Root    string `json:"root_from_json"`
		}
	}](t, "vectors.json").Audit
	assert.Equal(t, len(given), 7)
	vectors := load[[]vector](t, "roots.json")
	assert.Equal(t, len(vectors), 9)
	for _, v := range given {
		vectors = append(vectors, vector{string(v.Records), v.Root})
	}
	for i, v := range vectors {
		records, err := ReadJSON([]byte(v.Records))
		assert.NilError(t, err)
		assert.Equal(t, Root(records), v.Root, "vector %d", i)

		before := slices.Clone(records)
		slices.Reverse(records)
		reversed := slices.Clone(records)
		assert.Equal(t, Root(records), v.Root, "vector %d in another order", i)
		same(t, records, reversed)
		if len(before) > 0 {
			before[0].Type += "x"
			assert.Assert(t, Root(before) != v.Root, "vector %d with another type", i)
		}
	}
}

func TestRootOfARowOfTheAncestorsDatabase(t *testing.T) {
	data, err := TextValue(`{"artifact":"SOVEREIGN_LORE_CODEX_V1.md","gpg_key":"6E4082C6A410F340","tsa":"FreeTSA"}`)
	assert.NilError(t, err)
	r := Record{
		ID: "codex-v1.0.0", Timestamp: "2025-10-19T20:18:00Z", Type: "codex",
		Component: ptr("SOVEREIGN_LORE_CODEX_V1"), Version: ptr("v1.0.0"),
		Hash: ptr("31b058bb72430e722442165d1e22d4a0786448073ea52d29ef61ac689964a726"),
		Sig:  ptr("3af690d662b2b74ef9744b6ac3d891faf3aefc6d1cbf3aa1eb9a39270412ddde"),
		Data: data, MerkleRoot: ptr(""),
	}
	const want = "d5c64aee1039e6dd71f5818d456cce2e48e6590b6953c13623af6fa1070decea"
	assert.Equal(t, Root([]Record{r}), want)
	assert.Equal(t, Leaf(r), want)

	r.MerkleRoot = nil
	assert.Equal(t, Leaf(r), want, "merkle_root is outside the leaf")
	r.Sig = nil
	null := Leaf(r)
	r.Sig = ptr("")
	assert.Assert(t, Leaf(r) != null, "NULL and the empty string differ")
	r.Sig = ptr("3af690d662b2b74ef9744b6ac3d891faf3aefc6d1cbf3aa1eb9a39270412ddde")
	r.Data, err = ParseValue([]byte(`{"artifact":"SOVEREIGN_LORE_CODEX_V1.md","gpg_key":"6E4082C6A410F340","tsa":"FreeTSA"}`))
	assert.NilError(t, err)
	assert.Assert(t, Leaf(r) != want, "an object and the string that holds it differ")
}

func TestRepeatedLastRecordKeepsTheRootSoReadersRefuseIt(t *testing.T) {
	a, b, c := Record{ID: "a"}, Record{ID: "b"}, Record{ID: "c"}
	assert.Equal(t, Root([]Record{a, b, c}), Root([]Record{a, b, c, c}))
	row := `{"id":%q,"timestamp":"","type":""}`
	_, err := ReadJSON(fmt.Appendf(nil, "["+row+","+row+","+row+"]", "a", "c", "c"))
	assert.Error(t, err, `legacy records: record 2: id "c" is also the id of record 1`)
}

func TestOrderIsByCodePoint(t *testing.T) {
	// In UTF-16 the first would be last: 0xd83d < 0xffee.
	records, err := ReadJSON([]byte(`[{"id":"\ud83d\udf02","timestamp":"t","type":""},{"id":"\uffee","timestamp":"t","type":""},{"id":"\ud83d","timestamp":"t","type":""}]`))
	assert.NilError(t, err)
	leaf := func(i int) string { return Leaf(records[i]) }
	right := hexSum([]byte(leaf(0) + leaf(0)))
	assert.Equal(t, Root(records), hexSum([]byte(hexSum([]byte(leaf(2)+leaf(1)))+right)))
}

func TestLeafPanicsOnAStringNoReaderMakes(t *testing.T) {
	defer func() { assert.Equal(t, recover(), `legacy: string "\xff" is not UTF-8`) }()
	Leaf(Record{ID: "\xff"})
}

func TestRecordsAreKeptWhole(t *testing.T) {
	one := `{"id":"i","timestamp":"t","type":"y","component":"c","version":"v","hash":"h","sig":"s","data":[1.50,null],"merkle_root":"m"}`
	data, err := ParseValue([]byte("[1.5,null]"))
	assert.NilError(t, err)
	full := Record{"i", "t", "y", ptr("c"), ptr("v"), ptr("h"), ptr("s"), data, ptr("m")}
	for _, c := range []struct {
		in   string
		want []Record
	}{
		{"[]", []Record{}},
		{"[" + one + "]", []Record{full}},
		{`{"records":[` + one + "]}", []Record{full}},
		{`{"memories":[` + one + "]}", []Record{full}},
		{`[{"id":"","timestamp":"","type":"","sig":null,"hash":""}]`, []Record{{Hash: ptr("")}}},
		{`[{"id":"x","id":"i","timestamp":"","type":"","data":1,"data":null}]`, []Record{{ID: "i"}}},
	} {
		got, err := ReadJSON([]byte(c.in))
		assert.NilError(t, err)
		same(t, got, c.want)
	}
}

func TestRecordsThatCannotBeKeptAreErrors(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{`[`, "legacy records: offset 1: found the end, wanted a value"},
		{`1`, "legacy records: found a number, wanted a list"},
		{`{}`, "legacy records: found an object with 0 members, wanted one of: records, memories"},
		{`{"records":[],"memories":[]}`, "legacy records: found an object with 2 members, wanted one of: records, memories"},
		{`{"memories":{}}`, "legacy records: found an object, wanted a list"},
		{`{"rows":[],"more":1}`, `legacy records: unknown keys "more", "rows", wanted only records, memories`},
		{`[7]`, "legacy records: record 0: found a number, wanted an object"},
		{`[{"id":"i","type":"y"}]`, "legacy records: record 0: timestamp: found nothing, wanted a string"},
		{`[{"id":1,"timestamp":"t","type":"y"}]`, "legacy records: record 0: id: found a number, wanted a string"},
		{`[{"id":"i","timestamp":"t","type":null}]`, "legacy records: record 0: type: found null, wanted a string"},
		{`[{"id":"i","timestamp":"t","type":"y","sig":false}]`, "legacy records: record 0: sig: found a boolean, wanted a string or null"},
		{
			`[{"id":"i","timestamp":"t","type":"y"},{"id":"j","timestamp":"t","type":"y","z":1,"author":2}]`,
			`legacy records: record 1: unknown keys "author", "z", wanted only id, timestamp, type, component, version, hash, sig, data, merkle_root`,
		},
	} {
		got, err := ReadJSON([]byte(c.in))
		assert.Error(t, err, c.want)
		assert.Assert(t, got == nil)
	}
}

type mergeVector struct {
	Left       json.RawMessage
	Right      json.RawMessage
	LeftHead   string   `json:"left_head"`
	RightHead  string   `json:"right_head"`
	MergedHead string   `json:"merged_head"`
	MergedIDs  []string `json:"merged_ids"`
}

func TestMergesEqualTheAncestors(t *testing.T) {
	given := load[struct{ Merges []mergeVector }](t, "vectors.json").Merges
	assert.Equal(t, len(given), 2)
	more := load[[]mergeVector](t, "merges.json")
	assert.Equal(t, len(more), 8)
	for i, v := range slices.Concat(given, more) {
		left, err := ReadEvents(v.Left)
		assert.NilError(t, err)
		right, err := ReadEvents(v.Right)
		assert.NilError(t, err)
		lh, rh, mh, ids, err := CheckMerge(left, right)
		assert.NilError(t, err)
		assert.DeepEqual(t, []string{lh, rh, mh}, []string{v.LeftHead, v.RightHead, v.MergedHead})
		assert.DeepEqual(t, ids, v.MergedIDs)

		_, _, swapped, _, err := CheckMerge(right, left)
		assert.NilError(t, err)
		assert.Equal(t, swapped, v.MergedHead, "vector %d swapped", i)
	}
}

func TestTheMergeRuleLetsAnAttackerReplaceAnEvent(t *testing.T) {
	honest, err := ReadEvents([]byte(`[{"event_id":"deploy-1","payload":"honest"}]`))
	assert.NilError(t, err)
	for try := range 100 {
		forged, err := ReadEvents(fmt.Appendf(nil, `[{"event_id":"deploy-1","payload":"forged %d"}]`, try))
		assert.NilError(t, err)
		_, forgedHead, merged, ids, err := CheckMerge(honest, forged)
		assert.NilError(t, err)
		assert.DeepEqual(t, ids, []string{"deploy-1"})
		if merged == forgedHead {
			return
		}
	}
	t.Fatal("100 tries, and the honest event is still there")
}

func TestEventsThatPythonWouldConfuseAreErrors(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{`{}`, "legacy events: found an object, wanted a list"},
		{`[`, "legacy events: offset 1: found the end, wanted a value"},
		{`[[]]`, "legacy events: event 0: found a list, wanted an object"},
		{`[{"event_id":"a"},{"event_id":1}]`, "legacy events: event 1: event_id: found a number, wanted a string"},
		{`[{"event_id":true}]`, "legacy events: event 0: event_id: found a boolean, wanted a string"},
	} {
		_, err := ReadEvents([]byte(c.in))
		assert.Error(t, err, c.want)
	}
	_, _, _, _, err := CheckMerge(nil, []Event{{}})
	assert.Error(t, err, "legacy merge: event 0: not an event")
}

func TestReceiptsOfTheAncestorParse(t *testing.T) {
	for name, want := range map[string]Receipt{
		"scheduler-1.0.0.receipt": {
			Type: "deployment", Component: "scheduler", Version: "1.0.0",
			Timestamp: time.Date(2025, 10, 23, 0, 31, 26, 0, time.UTC),
			Evidence:  Evidence{SHA256: "9fe65ef6bf4f6da65a5f6dbe8200fdf80f337726658f47439253f75eed47c9e5"},
			Status:    "active", VerifiedBy: "remembrancer-cli",
		},
		"test-app-v3.0.0.receipt": {
			Type: "deployment", Component: "test-app", Version: "v3.0.0",
			Timestamp: time.Date(2025, 10, 19, 20, 12, 20, 0, time.UTC),
			Evidence:  Evidence{"ops/test-artifacts/test-app.tar.gz", "daf975c58917ba77c3f0f5e016c4cb8d59ba7c958adb2123e1034c81da9a170a"},
			Status:    "active", VerifiedBy: "remembrancer-cli",
		},
	} {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		assert.NilError(t, err)
		got, err := ParseReceipt(b)
		assert.NilError(t, err)
		assert.DeepEqual(t, got, want)
	}
}

const goodReceipt = `---
type: deployment
component: c
version: v1
timestamp: 2025-10-23T00:31:26Z
evidence:
  artifact: Ψ: "quoted"
  sha256:
status: active
verified_by: me
---
`

func TestReceiptValuesAreTheRestOfTheLine(t *testing.T) {
	got, err := ParseReceipt([]byte(goodReceipt))
	assert.NilError(t, err)
	assert.DeepEqual(t, got.Evidence, Evidence{Artifact: `Ψ: "quoted"`})
}

func TestMalformedReceiptsAreErrors(t *testing.T) {
	for _, c := range []struct{ old, new, want string }{
		{"---\ntype", "type", `line 1: found "type: deployment", wanted "---"`},
		{goodReceipt, `{"component": "psi-field"}`, `line 1: found "{\"component\": \"psi-field\"}", wanted "---"`},
		{"me\n---\n", "me\n", `no second line "---" ends the head`},
		{"status: active\n", "", "no status"},
		{"status: active", "status:", "status is empty"},
		{"status: active", "status:active", `line 9: found "status:active", wanted a blank after the colon`},
		{"status: active", "status", `line 9: found "status", wanted "key: value"`},
		{"status: active", "status: active\nstatus: active", "line 10: second status"},
		{"status: active", "  status: active", `line 9: unknown key "evidence.status"`},
		{"status: active", "signed_by: x", `line 9: unknown key "signed_by"`},
		{"status: active", "status: active\r", `line 9: found a control character in "status: active\r", wanted plain text and LF line ends`},
		{"evidence:\n", "evidence: x\n", `line 6: found evidence "x", wanted artifact and sha256 on lines of their own`},
		{"evidence:\n  artifact", "evidence.artifact", `line 6: unknown key "evidence.artifact"`},
		{"evidence:\n", "", `line 6: unknown key "  artifact"`},
		{"  sha256:", "  sha256: 66e8b91951670eee345785ddbbeb9cb3bc203b51", `evidence.sha256: found "66e8b91951670eee345785ddbbeb9cb3bc203b51", wanted 64 lower-case hex digits or nothing`},
		{"  sha256:", "  sha256: " + strings.Repeat("A", 64), `evidence.sha256: found "` + strings.Repeat("A", 64) + `", wanted 64 lower-case hex digits or nothing`},
		{"26Z", "26.5Z", `timestamp: found "2025-10-23T00:31:26.5Z", wanted UTC like 2006-01-02T15:04:05Z`},
		{"10-23", "13-23", `timestamp: found "2025-13-23T00:31:26Z", wanted UTC like 2006-01-02T15:04:05Z`},
		{"Ψ", "\xff", "not UTF-8"},
		{"me\n---\n", "me\n---\n" + strings.Repeat("x", maxReceipt), "found 65694 bytes, wanted at most 65536"},
	} {
		assert.Assert(t, strings.Contains(goodReceipt, c.old), "%q", c.old)
		got, err := ParseReceipt([]byte(strings.Replace(goodReceipt, c.old, c.new, 1)))
		assert.Error(t, err, "legacy receipt: "+c.want)
		assert.Equal(t, got, Receipt{})
	}
}

// What parses is a fixed point: its own form parses to the same value.
func FuzzValue(f *testing.F) {
	vectors := load[struct{ Accepted []struct{ In string } }](f, "python.json")
	for _, v := range vectors.Accepted[:100] {
		f.Add([]byte(v.In))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		v, err := ParseValue(in)
		if err != nil {
			assert.Equal(t, v, Value{})
			return
		}
		again, err := ParseValue([]byte(v.JSON()))
		assert.NilError(t, err)
		assert.Equal(t, again, v)
		for _, c := range []byte(v.JSON()) {
			assert.Assert(t, 0x20 <= c && c < 0x7f)
		}
	})
}

// Records written as JSON from what was read have the same leaves and root.
func FuzzReadJSON(f *testing.F) {
	f.Add([]byte(`[]`))
	f.Add([]byte(`{"records":[{"id":"\ud800","timestamp":"t","type":"y","component":null,"version":"","data":{"a":1e400}}]}`))
	f.Add([]byte(`{"memories":[{"id":"a","timestamp":"t","type":"y","merkle_root":"m"},{"id":"b","timestamp":"s","type":"y","sig":"🜂"}]}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		records, err := ReadJSON(in)
		if err != nil {
			assert.Assert(t, records == nil)
			return
		}
		out := []byte("[")
		for i, r := range records {
			if i > 0 {
				out = append(out, ',')
			}
			out = append(out, `{"id":`...)
			out = appendString(out, r.ID)
			out = append(out, `,"timestamp":`...)
			out = appendString(out, r.Timestamp)
			out = append(out, `,"type":`...)
			out = appendString(out, r.Type)
			out = append(out, `,"component":`...)
			out = appendNullable(out, r.Component)
			out = append(out, `,"version":`...)
			out = appendNullable(out, r.Version)
			out = append(out, `,"hash":`...)
			out = appendNullable(out, r.Hash)
			out = append(out, `,"sig":`...)
			out = appendNullable(out, r.Sig)
			out = append(out, `,"merkle_root":`...)
			out = appendNullable(out, r.MerkleRoot)
			out = append(out, `,"data":`...)
			out = append(out, r.Data.JSON()...)
			out = append(out, '}')
		}
		again, err := ReadJSON(append(out, ']'))
		assert.NilError(t, err)
		same(t, again, records)
		assert.Equal(t, Root(again), Root(records))
	})
}

// A merge is the same from both sides and merging its own result changes nothing.
func FuzzCheckMerge(f *testing.F) {
	f.Add([]byte(`[{"event_id":"1","a":1}]`), []byte(`[{"event_id":"1","a":2},{"a":0}]`))
	f.Add([]byte(`[]`), []byte(`[{"event_id":0.0}]`))
	f.Fuzz(func(t *testing.T, l, r []byte) {
		left, err := ReadEvents(l)
		if err != nil {
			return
		}
		right, err := ReadEvents(r)
		if err != nil {
			return
		}
		lh, rh, merged, ids, err := CheckMerge(left, right)
		assert.NilError(t, err)
		lh2, rh2, merged2, ids2, err := CheckMerge(right, left)
		assert.NilError(t, err)
		assert.DeepEqual(t, []string{lh, rh, merged}, []string{rh2, lh2, merged2})
		assert.DeepEqual(t, ids, ids2)
	})
}

// A receipt that parses, written in the ancestor's layout, parses to the same receipt.
func FuzzParseReceipt(f *testing.F) {
	f.Add([]byte(goodReceipt))
	f.Add([]byte("---\n---\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := ParseReceipt(in)
		if err != nil {
			assert.Equal(t, r, Receipt{})
			return
		}
		again, err := ParseReceipt(fmt.Appendf(nil, "---\ntype: %s\ncomponent: %s\nversion: %s\ntimestamp: %s\nevidence:\n  artifact: %s\n  sha256: %s\nstatus: %s\nverified_by: %s\n---\n",
			r.Type, r.Component, r.Version, r.Timestamp.Format(time.RFC3339), r.Evidence.Artifact, r.Evidence.SHA256, r.Status, r.VerifiedBy))
		assert.NilError(t, err)
		assert.Equal(t, again, r)
	})
}
