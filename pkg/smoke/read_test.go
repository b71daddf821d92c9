package smoke

import (
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

const block = "  Tests Run:     \x1b[0;36m26\x1b[0m\n  Passed:        20\n  Failed:        0\n  Warnings:      6\n"

var readCases = []struct {
	name, format, out string
	want              Counts
	err               string
}{
	{"legacy line", "smoke-json", "x\nSMOKE_JSON={\"pass\":26,\"total\":27}\ny\n", Counts{Passed: 26, Failed: 1, Total: 27, Format: "smoke-json"}, ""},
	{"coloured, CRLF, no newline at the end", "smoke-json", "\x1b(B\x1b[mSMOKE_JSON={\"pass\":1,\"total\":1}\x1b]8;;x\x07\x1b[0m\r", Counts{Passed: 1, Total: 1, Format: "smoke-json"}, ""},
	{"versioned line", "smoke-json", `SMOKE_JSON={"v":1,"pass":20,"fail":1,"skip":2,"warn":3,"total":26}`, Counts{Passed: 20, Failed: 1, Skipped: 2, Warned: 3, Total: 26, Format: "smoke-json"}, ""},
	{"versioned line with names", "smoke-json", `SMOKE_JSON={"v":1,"pass":2,"fail":0,"skip":0,"warn":0,"total":2,"ids":["b","a"]}`, Counts{Passed: 2, Total: 2, Format: "smoke-json", IDs: []string{"a", "b"}, IDsSHA256: hexSHA256([]byte("a\nb\n"))}, ""},
	{"versioned line with digest of names", "smoke-json", `SMOKE_JSON={"v":1,"pass":2,"fail":0,"skip":0,"warn":0,"total":2,"ids_sha256":"` + strings.Repeat("ab", 32) + `"}`, Counts{Passed: 2, Total: 2, Format: "smoke-json", IDsSHA256: strings.Repeat("ab", 32)}, ""},
	{"largest exact number", "smoke-json", `SMOKE_JSON={"pass":9007199254740991,"total":9007199254740991}`, Counts{Passed: maxCount, Total: maxCount, Format: "smoke-json"}, ""},

	{"two lines", "smoke-json", "SMOKE_JSON={\"pass\":1,\"total\":1}\n\nSMOKE_JSON={\"pass\":1,\"total\":1}\n", Counts{}, "two SMOKE_JSON lines (output lines 1 and 3): wanted exactly one"},
	{"no line", "smoke-json", block, Counts{}, `no result found on standard output: print one line SMOKE_JSON={"pass":N,"total":N}`},
	{"not at line start", "smoke-json", "a\n SMOKE_JSON={\"pass\":1,\"total\":1}\n", Counts{}, `no result found on standard output: print one line SMOKE_JSON={"pass":N,"total":N} (output line 2 has SMOKE_JSON=, but not at the start of the line)`},
	{"invalid JSON", "smoke-json", `SMOKE_JSON={"pass":1,"total":1`, Counts{}, `SMOKE_JSON on output line 1: not valid JSON: found "{\"pass\":1,\"total\":1", wanted SMOKE_JSON={"pass":N,"total":N}`},
	{"text after the object", "smoke-json", `SMOKE_JSON={"pass":1,"total":1} ok`, Counts{}, `SMOKE_JSON on output line 1: not valid JSON: found "{\"pass\":1,\"total\":1} ok", wanted SMOKE_JSON={"pass":N,"total":N}`},
	{"not an object", "smoke-json", `SMOKE_JSON=[1,1]`, Counts{}, `SMOKE_JSON on output line 1: found "[1,1]", wanted an object such as SMOKE_JSON={"pass":N,"total":N}`},
	{"repeated key, escaped", "smoke-json", `SMOKE_JSON={"pass":1,"total":27,"p\u0061ss":27}`, Counts{}, `SMOKE_JSON on output line 1: key "pass" is given twice`},
	{"fraction", "smoke-json", `SMOKE_JSON={"pass":1.0,"total":1}`, Counts{}, `SMOKE_JSON on output line 1: "pass": found 1.0, wanted a whole number from 0 to 2^53-1`},
	{"exponent", "smoke-json", `SMOKE_JSON={"pass":1e0,"total":1}`, Counts{}, `SMOKE_JSON on output line 1: "pass": found 1e0, wanted a whole number from 0 to 2^53-1`},
	{"sign", "smoke-json", `SMOKE_JSON={"pass":-1,"total":1}`, Counts{}, `SMOKE_JSON on output line 1: "pass": found -1, wanted a whole number from 0 to 2^53-1`},
	{"too large", "smoke-json", `SMOKE_JSON={"pass":1,"total":9007199254740992}`, Counts{}, `SMOKE_JSON on output line 1: "total": found 9007199254740992, wanted a whole number from 0 to 2^53-1`},
	{"number in quotes", "smoke-json", `SMOKE_JSON={"pass":"1","total":1}`, Counts{}, `SMOKE_JSON on output line 1: "pass": found "1", wanted a whole number from 0 to 2^53-1`},
	{"pass above total", "smoke-json", `SMOKE_JSON={"pass":2,"total":1}`, Counts{}, `SMOKE_JSON on output line 1: pass is 2, more than total 1`},
	{"missing total", "smoke-json", `SMOKE_JSON={"pass":2}`, Counts{}, `SMOKE_JSON on output line 1: key "total" is missing; wanted pass, total`},
	{"missing warn", "smoke-json", `SMOKE_JSON={"v":1,"pass":2,"fail":0,"skip":0,"total":2}`, Counts{}, `SMOKE_JSON on output line 1: key "warn" is missing; wanted v, pass, fail, skip, warn, total`},
	{"legacy with warn", "smoke-json", `SMOKE_JSON={"pass":2,"warn":0,"total":2}`, Counts{}, `SMOKE_JSON on output line 1: more keys than pass and total: wanted "v":1 beside them`},
	{"unknown key", "smoke-json", `SMOKE_JSON={"pass":2,"total":2,"rating":8}`, Counts{}, `SMOKE_JSON on output line 1: "rating": unknown key; known keys: pass, total; or v, pass, fail, skip, warn, total, ids, ids_sha256`},
	{"unknown version", "smoke-json", `SMOKE_JSON={"v":2,"pass":2,"fail":0,"skip":0,"warn":0,"total":2}`, Counts{}, `SMOKE_JSON on output line 1: "v" is 2, wanted 1`},
	{"does not add up", "smoke-json", `SMOKE_JSON={"v":1,"pass":2,"fail":0,"skip":0,"warn":0,"total":3}`, Counts{}, `SMOKE_JSON on output line 1: counts do not add up: passed 2 + failed 0 + warned 0 + skipped 0 is 2, total says 3`},
	{"wrong number of names", "smoke-json", `SMOKE_JSON={"v":1,"pass":2,"fail":0,"skip":0,"warn":0,"total":2,"ids":["a"]}`, Counts{}, `SMOKE_JSON on output line 1: ids has 1 names, total says 2`},
	{"repeated name", "smoke-json", `SMOKE_JSON={"v":1,"pass":2,"fail":0,"skip":0,"warn":0,"total":2,"ids":["a","a"]}`, Counts{}, `SMOKE_JSON on output line 1: ids: "a" is given twice`},
	{"name of two lines", "smoke-json", `SMOKE_JSON={"v":1,"pass":1,"fail":0,"skip":0,"warn":0,"total":1,"ids":["a\nb"]}`, Counts{}, `SMOKE_JSON on output line 1: "ids": found "a\nb", wanted a name of printable UTF-8`},
	{"names and digest", "smoke-json", `SMOKE_JSON={"v":1,"pass":1,"fail":0,"skip":0,"warn":0,"total":1,"ids":["a"],"ids_sha256":"` + strings.Repeat("ab", 32) + `"}`, Counts{}, `SMOKE_JSON on output line 1: both ids and ids_sha256 are given, wanted one of them`},
	{"bad digest", "smoke-json", `SMOKE_JSON={"v":1,"pass":1,"fail":0,"skip":0,"warn":0,"total":1,"ids_sha256":"AB"}`, Counts{}, `SMOKE_JSON on output line 1: "ids_sha256": found "AB", wanted 64 lower-case hex digits`},

	{"block", "human", block, Counts{Passed: 20, Warned: 6, Total: 26, Format: "human"}, ""},
	{"block among prose", "human", "RATING: 8.0/10\nFailed: could not say\n" + block + "26/26\n", Counts{Passed: 20, Warned: 6, Total: 26, Format: "human"}, ""},
	{"block twice", "human", block + block, Counts{}, `"Tests Run:" is printed twice (output lines 1 and 5): wanted exactly once`},
	{"block incomplete", "human", "Tests Run: 26\nPassed: 26\nFailed: 0\n", Counts{}, `the printed block has no "Warnings:" line: wanted Tests Run: Passed: Failed: Warnings:`},
	{"block does not add up", "human", "Tests Run: 26\nPassed: 26\nFailed: 1\nWarnings: 0\n", Counts{}, "the printed block: counts do not add up: passed 26 + failed 1 + warned 0 + skipped 0 is 27, total says 26"},
	{"block with a fraction", "human", "Tests Run: 26\nPassed: 20/26\n", Counts{}, `output line 2: "Passed:": found "20/26", wanted a whole number alone`},
	{"no block", "human", "RATING: 8.0/10\n", Counts{}, `no result found on standard output: print the lines "Tests Run:", "Passed:", "Failed:" and "Warnings:", each with its number`},

	{"auto takes the line", "auto", "Passed: 3\nSMOKE_JSON={\"pass\":27,\"total\":27}\n", Counts{Passed: 27, Total: 27, Format: "smoke-json"}, ""},
	{"auto takes the block", "auto", block, Counts{Passed: 20, Warned: 6, Total: 26, Format: "human"}, ""},
	{"auto with both in agreement keeps the finer one", "auto", block + `SMOKE_JSON={"pass":20,"total":26}`, Counts{Passed: 20, Warned: 6, Total: 26, Format: "smoke-json+human"}, ""},
	{"auto with both, line better", "auto", block + `SMOKE_JSON={"pass":26,"total":26}`, Counts{
		Passed: 20, Warned: 6, Total: 26, Format: "smoke-json+human",
		Disagreement: "two results disagree: SMOKE_JSON says 26 of 26 passed (failed 0, warned 0, skipped 0), the printed block says 20 of 26 passed (failed 0, warned 6, skipped 0)",
	}, ""},
	{"auto with both, block better", "auto", strings.NewReplacer("20", "26", "6\n", "0\n").Replace("Tests Run: 26 \nPassed: 20\nFailed: 0\nWarnings: 6\n") + `SMOKE_JSON={"pass":25,"total":26}`, Counts{
		Passed: 25, Failed: 1, Total: 26, Format: "smoke-json+human",
		Disagreement: "two results disagree: SMOKE_JSON says 25 of 26 passed (failed 1, warned 0, skipped 0), the printed block says 26 of 26 passed (failed 0, warned 0, skipped 0)",
	}, ""},
	{"auto with both, kinds differ", "auto", block + `SMOKE_JSON={"v":1,"pass":20,"fail":6,"skip":0,"warn":0,"total":26}`, Counts{
		Passed: 20, Failed: 6, Total: 26, Format: "smoke-json+human",
		Disagreement: "two results disagree: SMOKE_JSON says 20 of 26 passed (failed 6, warned 0, skipped 0), the printed block says 20 of 26 passed (failed 0, warned 6, skipped 0)",
	}, ""},
	{"auto with both, totals differ", "auto", "Tests Run: 27\nPassed: 27\nFailed: 0\nWarnings: 0\n" + `SMOKE_JSON={"pass":26,"total":26}`, Counts{
		Passed: 26, Total: 26, Format: "smoke-json+human",
		Disagreement: "two results disagree: SMOKE_JSON says 26 of 26 passed (failed 0, warned 0, skipped 0), the printed block says 27 of 27 passed (failed 0, warned 0, skipped 0)",
	}, ""},
	{"auto with a broken block", "auto", "Tests Run: 26\n" + `SMOKE_JSON={"pass":26,"total":26}`, Counts{}, `the printed block has no "Passed:" line: wanted Tests Run: Passed: Failed: Warnings: (set format: smoke-json to read the SMOKE_JSON line only)`},
	{"auto with a broken line", "auto", block + "SMOKE_JSON={}\n", Counts{}, `SMOKE_JSON on output line 5: key "pass" is missing; wanted pass, total`},
	{"auto with neither", "auto", "8.0/10\n", Counts{}, `no result found on standard output: print one line SMOKE_JSON={"pass":N,"total":N}, or the lines "Tests Run:", "Passed:", "Failed:" and "Warnings:"`},
}

func TestReadersTakeWhatIsSaidAndNothingElse(t *testing.T) {
	for _, tc := range readCases {
		t.Run(tc.name, func(t *testing.T) {
			read, err := ReaderFor(tc.format)
			assert.NilError(t, err)
			got, err := read([]byte(tc.out))
			if tc.err != "" {
				assert.Error(t, err, tc.err)
			} else {
				assert.NilError(t, err)
			}
			assert.DeepEqual(t, got, tc.want)
		})
	}
}

func TestUnknownFormatNamesTheKnownOnes(t *testing.T) {
	_, err := ReaderFor("junit")
	assert.Error(t, err, `format "junit" is not known: wanted one of auto, smoke-json, human`)
}

// Whatever a reader returns adds up, and a failed read returns nothing.
func FuzzReadersReturnCountsThatAddUp(f *testing.F) {
	for _, tc := range readCases {
		f.Add([]byte(tc.out))
	}
	f.Fuzz(func(t *testing.T, out []byte) {
		for _, r := range readers {
			c, err := r.read(out)
			if err != nil {
				assert.DeepEqual(t, c, Counts{})
				continue
			}
			assert.NilError(t, c.check())
			got := Judge(ran(string(out), 0), c, Expect{})
			assert.Assert(t, got.Verdict != Error)
			assert.Assert(t, got.Verdict == Fail || (c.Passed == c.Total && c.Total > 0 && c.Disagreement == ""))
		}
	})
}
