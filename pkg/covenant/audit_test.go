package covenant_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp/cmpopts"
	"gotest.tools/v3/assert"
	"pgregory.net/rapid"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/covenant"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

const segment = "ops/ledger/log/00/00/00.jsonl"

// evil is one way to make a sound repository unsound, and what an audit must
// then say: one letter for each of the eight checks.
type evil struct {
	name   string
	want   string
	detail string // part of the failing check's detail
	do     func(t testing.TB, r *tree, o *covenant.Options)
	// evidence is what the failing check must carry.
	evidence func(r *tree, o covenant.Options) []string
}

// failing is the number of the first check that must fail.
func (e evil) failing() int { return strings.IndexAny(e.want, "F") + 1 }

// resign seals the tree's own lines again after they were changed: what a thief
// of the log key could do.
func resign(t testing.TB, r *tree, change func(lines [][]byte) [][]byte) {
	t.Helper()
	all := bytes.Split([]byte(strings.TrimSuffix(r.text(segment), "\n")), []byte("\n"))
	r.seal(t, logKey(t, origin, 1), change(all))
}

func file(path, data string) func(testing.TB, *tree, *covenant.Options) {
	return func(_ testing.TB, r *tree, _ *covenant.Options) { r.put(path, data) }
}

func edit(path, old, replacement string) func(testing.TB, *tree, *covenant.Options) {
	return func(_ testing.TB, r *tree, _ *covenant.Options) { r.edit(path, old, replacement) }
}

func gone(path string) func(testing.TB, *tree, *covenant.Options) {
	return func(_ testing.TB, r *tree, _ *covenant.Options) { r.remove(path) }
}

func theNote(r *tree, _ covenant.Options) []string { return []string{r.text("ops/ledger/checkpoint")} }

func bothNotes(r *tree, o covenant.Options) []string {
	return []string{string(o.LastSeen), r.text("ops/ledger/checkpoint")}
}

func evils() []evil {
	const asc = ".0123456789012345678901234567890123456789.asc"
	return []evil{
		// 1. paths
		{name: "a receipt is a link", want: "FPPPPPPP", detail: "ops/receipts/deploy/x.receipt is a symbolic link", do: func(_ testing.TB, r *tree, _ *covenant.Options) {
			r.link("ops/receipts/deploy/x.receipt", "../../../main.go")
		}},
		{name: "a segment is a link", want: "FPEEEEEE", detail: segment + " is a symbolic link", do: func(_ testing.TB, r *tree, _ *covenant.Options) {
			r.link(segment, "/etc/passwd")
		}},
		{name: "the ledger is a link", want: "FEEEEEEE", detail: "ops/ledger is a symbolic link", do: func(_ testing.TB, r *tree, _ *covenant.Options) {
			for p := range r.files {
				if strings.HasPrefix(p, "ops/ledger/") {
					r.remove(p)
				}
			}
			r.link("ops/ledger", "elsewhere")
		}},
		{name: "all of it is a link", want: "FEEEEEEE", detail: "ops is not a folder", do: func(_ testing.TB, r *tree, _ *covenant.Options) {
			for p := range r.files {
				if strings.HasPrefix(p, "ops/") {
					r.remove(p)
				}
			}
			r.link("ops", "elsewhere")
		}},
		{name: "a submodule", want: "FPPPPPPP", detail: "ops/receipts/deploy is not a regular file", do: func(_ testing.TB, r *tree, _ *covenant.Options) {
			r.submodule("ops/receipts/deploy")
		}},
		{name: "attributes in the ledger", want: "FPPPPPPP", detail: "ops/ledger/.gitattributes would change", do: file("ops/ledger/.gitattributes", "* text\n")},
		{name: "attributes above the ledger", want: "FPPPPPPP", detail: "ops/.gitattributes would change", do: file("ops/.gitattributes", "* text\n")},
		{name: "attributes in other letters", want: "FPPPPPPP", detail: "ops/receipts/.GitAttributes would change", do: file("ops/receipts/.GitAttributes", "* text\n")},
		{name: "a segment in one digit", want: "FPPPPPPP", detail: "has no place there", do: file("ops/ledger/log/00/00/1.jsonl", "x\n")},
		{name: "a segment in capitals", want: "FPPPPPPP", detail: "has no place there", do: file("ops/ledger/log/00/00/00.JSONL", "x\n")},
		{name: "a checkpoint in capitals", want: "FPPPPPPP", detail: "has no place there", do: file("ops/ledger/Checkpoint", "x\n")},
		{name: "a second ledger in capitals", want: "FPPPPPPP", detail: "ops/Ledger/checkpoint has no place there", do: file("ops/Ledger/checkpoint", "x\n")},
		{name: "an unknown ledger file", want: "FPPPPPPP", detail: "has no place there", do: file("ops/ledger/claim", "x\n")},
		{name: "a snapshot without a date", want: "FPPPPPPP", detail: "has no place there", do: file("ops/ledger/snapshots/latest.json", "{}")},
		{name: "an unknown kind", want: "FPPPPPPP", detail: "has no place there", do: file("ops/receipts/rumour/x.receipt", "{}")},
		{name: "a kind in capitals", want: "FPPPPPPP", detail: "has no place there", do: file("ops/receipts/Deploy/x.receipt", "{}")},
		{name: "a receipt without a kind", want: "FPPPPPPP", detail: "has no place there", do: file("ops/receipts/x.receipt", "{}")},
		{name: "a receipt in a folder", want: "FPPPPPPP", detail: "has no place there", do: file("ops/receipts/deploy/a/b.receipt", "{}")},
		{name: "a receipt in capitals", want: "FPPPPPPP", detail: "has no place there", do: file("ops/receipts/deploy/x.RECEIPT", "{}")},
		{name: "a device name", want: "FPPPPPPP", detail: "has no place there", do: file("ops/receipts/deploy/nul.receipt", "{}")},
		{name: "a signature of no fingerprint", want: "FPPPPPPP", detail: "has no place there", do: file("ops/receipts/deploy/x.receipt.asc", "x")},
		{name: "a signature of a small fingerprint", want: "FPPPPPPP", detail: "has no place there", do: file("ops/receipts/deploy/x.receipt"+strings.Replace(asc, "0", "a", 1), "x")},
		{name: "names that fold together", want: "FPPPPPPP", detail: "are one name on some file systems", do: file("ops/receipts/deploy/APP-v1.receipt", "{}")},

		// 2. checkpoint
		{name: "another log key", want: "PFEEEEEE", detail: "want a key of the policy", do: func(t testing.TB, r *tree, _ *covenant.Options) {
			r.seal(t, logKey(t, origin, 9), lines(entries()))
		}, evidence: theNote},
		{name: "another log", want: "PFEEEEEE", detail: "want a key of the policy", do: func(t testing.TB, r *tree, _ *covenant.Options) {
			r.seal(t, logKey(t, "github.com/mallory/example", 1), lines(entries()))
		}, evidence: theNote},
		{name: "a changed size", want: "PFEEEEEE", detail: "invalid signature", do: edit("ops/ledger/checkpoint", "\n5\n", "\n4\n"), evidence: theNote},
		{name: "no note at all", want: "PFEEEEEE", detail: "malformed note", do: file("ops/ledger/checkpoint", "none\n"), evidence: theNote},
		{name: "an empty checkpoint", want: "PFEEEEEE", detail: "malformed note", do: file("ops/ledger/checkpoint", ""), evidence: func(*tree, covenant.Options) []string { return []string{""} }},
		{name: "no witness of a quorum", want: "PFEEEEEE", detail: "lacks the policy's quorum", do: func(t testing.TB, r *tree, _ *covenant.Options) {
			r.put("ops/ledger/policy", "log "+logKey(t, origin, 1).VerifierKey()+"\nwitness w "+witness(t).VerifierKey()+"\nquorum w\n")
		}, evidence: theNote},
		{name: "the pinned policy is another", want: "PFEEEEEE", detail: "is not the pinned one", do: func(t testing.TB, _ *tree, o *covenant.Options) {
			o.Policy = policy(t, string(checkpoint.NewPolicy(logKey(t, origin, 9).VerifierKey())))
		}, evidence: func(r *tree, o covenant.Options) []string {
			return []string{string(o.Policy.Bytes()), r.text("ops/ledger/policy")}
		}},
		{name: "the pinned id is another", want: "PFEEEEEE", detail: "pinned is 00", do: func(_ testing.TB, _ *tree, o *covenant.Options) {
			o.PolicyID = strings.Repeat("00", 32)
		}},
		{name: "an issuer was added to the pinned", want: "PFEEEEEE", detail: "pinned is", do: func(t testing.TB, r *tree, o *covenant.Options) {
			o.PolicyID = trust(t, r).ID()
			r.put("ops/certs/mallory.asc", string(stranger(t).Public().Armored()))
		}},
		{name: "entries without a checkpoint", want: "PFEEEEEE", detail: "there are entries, but no checkpoint", do: gone("ops/ledger/checkpoint")},
		{name: "a checkpoint that was seen is gone", want: "PFEEEEEE", detail: "one was seen before", do: func(t testing.TB, r *tree, o *covenant.Options) {
			o.LastSeen = []byte(r.text("ops/ledger/checkpoint"))
			r.seal(t, logKey(t, origin, 1), nil)
		}, evidence: func(_ *tree, o covenant.Options) []string { return []string{string(o.LastSeen)} }},

		// 3. entries
		{name: "a changed entry", want: "PPFEEEEE", detail: "entries do not hash to the signed root", do: edit(segment, `"payload":"eyJ`, `"payload":"eyK`), evidence: theNote},
		{name: "a changed signature", want: "PPFEEEEE", detail: "entries do not hash to the signed root", do: edit(segment, `"sig":"`, `"sig":"A`), evidence: theNote},
		{name: "the last entry is gone", want: "PPFEEEEE", detail: "holds 4 entries, want 5", do: func(_ testing.TB, r *tree, _ *covenant.Options) {
			all := strings.SplitAfter(r.text(segment), "\n")
			r.put(segment, strings.Join(all[:4], ""))
		}, evidence: theNote},
		{name: "the first entry is gone", want: "PPFEEEEE", detail: "holds 4 entries, want 5", do: func(_ testing.TB, r *tree, _ *covenant.Options) {
			all := strings.SplitAfter(r.text(segment), "\n")
			r.put(segment, strings.Join(all[1:], ""))
		}, evidence: theNote},
		{name: "an entry too many", want: "PPFEEEEE", detail: "holds 6 entries, want 5", do: func(_ testing.TB, r *tree, _ *covenant.Options) {
			r.put(segment, r.text(segment)+"more\n")
		}, evidence: theNote},
		{name: "two entries changed places", want: "PPFEEEEE", detail: "entries do not hash to the signed root", do: func(_ testing.TB, r *tree, _ *covenant.Options) {
			all := strings.SplitAfter(r.text(segment), "\n")
			all[0], all[1] = all[1], all[0]
			r.put(segment, strings.Join(all, ""))
		}, evidence: theNote},
		{name: "a segment too many", want: "PPFEEEEE", detail: "01.jsonl holds entries above the checkpoint", do: file("ops/ledger/log/00/00/01.jsonl", "more\n"), evidence: theNote},
		{name: "no segment", want: "PPFEEEEE", detail: "holds 0 entries, want 5", do: gone(segment), evidence: theNote},
		{name: "an empty segment", want: "PPFEEEEE", detail: "is empty", do: file(segment, ""), evidence: theNote},
		{name: "no final newline", want: "PPFEEEEE", detail: "does not end in a newline", do: func(_ testing.TB, r *tree, _ *covenant.Options) {
			r.put(segment, strings.TrimSuffix(r.text(segment), "\n"))
		}, evidence: theNote},
		{name: "lines ended by CRLF", want: "PPFEEEEE", detail: "entries do not hash to the signed root", do: func(_ testing.TB, r *tree, _ *covenant.Options) {
			r.put(segment, strings.ReplaceAll(r.text(segment), "\n", "\r\n"))
		}, evidence: theNote},
		{name: "an edge that leads", want: "PPFEEEEE", detail: "leads the checkpoint", do: file("ops/ledger/edge", "256\n"+strings.Repeat("A", 43)+"=\n"), evidence: theNote},
		{name: "an edge that is none", want: "PPFEEEEE", detail: "edge", do: file("ops/ledger/edge", "0\r\n"), evidence: theNote},

		// 4. lines; all signed again with the log's own key
		{name: "a line that is not canonical", want: "PPPFEEEP", detail: "entry 1: log line does not encode back to itself", do: func(t testing.TB, r *tree, _ *covenant.Options) {
			resign(t, r, func(l [][]byte) [][]byte {
				l[1] = bytes.Replace(l[1], []byte(`,"payloadType"`), []byte(`, "payloadType"`), 1)
				return l
			})
		}},
		{name: "a line that is no envelope", want: "PPPFEEEP", detail: "entry 5: log line is not a DSSE envelope", do: func(t testing.TB, r *tree, _ *covenant.Options) {
			resign(t, r, func(l [][]byte) [][]byte { return append(l, []byte("hello")) })
		}},
		{name: "a statement that is not canonical", want: "PPPFEEEP", detail: "entry 0: log line: receipt is not canonical JSON", do: func(t testing.TB, r *tree, _ *covenant.Options) {
			resign(t, r, func(l [][]byte) [][]byte {
				s := entries()[0].Receipt.Bytes()
				spaced := bytes.Replace(s, []byte(":"), []byte(": "), 1)
				l[0] = bytes.Replace(l[0], []byte(base64.StdEncoding.EncodeToString(s)), []byte(base64.StdEncoding.EncodeToString(spaced)), 1)
				return l
			})
		}},
		{name: "a signature twice", want: "PPPFEEEP", detail: "entry 5 repeats the signature of", do: func(t testing.TB, r *tree, _ *covenant.Options) {
			resign(t, r, func(l [][]byte) [][]byte { return append(l, l[4]) })
		}},

		// 5. signatures; all signed again with the log's own key
		{name: "an unknown issuer", want: "PPPPFPPP", detail: "unknown issuer", do: func(t testing.TB, r *tree, _ *covenant.Options) {
			s := stranger(t)
			foreign, err := receipt.New(receipt.Statement{Kind: receipt.Audit, Issuer: s.Fingerprint(), Issued: now, Subjects: []receipt.Subject{{Name: "x", SHA256: digest(nil)}}})
			assert.NilError(t, err)
			sig, err := receipt.Sign(t.Context(), foreign, s)
			assert.NilError(t, err)
			e, err := receipt.NewEntry(foreign, sig)
			assert.NilError(t, err)
			resign(t, r, func(l [][]byte) [][]byte { return append(l, e.Line()) })
		}},
		{name: "an issuer is no anchor any more", want: "PPPPFPPP", detail: "entry 0: ", do: gone("ops/certs/issuer.asc")},
		{name: "an endorser is no anchor", want: "PPPPFPPP", detail: "entry 1: ", do: gone("ops/certs/endorser.asc")},
		{name: "endorsed, but not issued", want: "PPPPFPPP", detail: "entry 5: receipt", do: func(t testing.TB, r *tree, _ *covenant.Options) {
			e := entry(t, statement(t, receipt.Audit, "", nil), "endorser")
			resign(t, r, func(l [][]byte) [][]byte { return append(l, e.Line()) })
		}},
		{name: "endorsed before it was issued", want: "PPPPFPPP", detail: "entry 5: receipt", do: func(t testing.TB, r *tree, _ *covenant.Options) {
			s := statement(t, receipt.Audit, "", nil)
			resign(t, r, func(l [][]byte) [][]byte {
				return append(l, entry(t, s, "endorser").Line(), entry(t, s, "issuer").Line())
			})
		}},
		{name: "a signature of another receipt", want: "PPPPFPPP", detail: "entry 5: receipt", do: func(t testing.TB, r *tree, _ *covenant.Options) {
			e := receipt.Entry{Receipt: statement(t, receipt.Audit, "", nil), Signatures: entries()[0].Signatures}
			resign(t, r, func(l [][]byte) [][]byte { return append(l, e.Line()) })
		}},
		{name: "a bad endorsement", want: "PPPPFPPP", detail: "entry 5: receipt", do: func(t testing.TB, r *tree, _ *covenant.Options) {
			s := statement(t, receipt.Audit, "", nil)
			e := entry(t, s, "issuer", "endorser")
			for i, sig := range e.Signatures {
				if sig.Fingerprint == signer(t, "endorser").Fingerprint() {
					e.Signatures[i].Packet[len(sig.Packet)-1] ^= 1
				}
			}
			resign(t, r, func(l [][]byte) [][]byte { return append(l, e.Line()) })
		}},
		{name: "signed in the future", want: "PPPPFPPP", detail: "entry 0: ", do: func(_ testing.TB, _ *tree, o *covenant.Options) { o.Now = now.AddDate(0, 0, -1) }},

		// 6. receipt files
		{name: "a changed receipt file", want: "PPPPPFPP", detail: "ops/receipts/deploy/app-v1.receipt differs from entry 0", do: edit("ops/receipts/deploy/app-v1.receipt", "artifact", "Artifact")},
		{name: "a newline after a receipt", want: "PPPPPFPP", detail: "ops/receipts/adr/adr-001.receipt differs from entry 1", do: func(_ testing.TB, r *tree, _ *covenant.Options) {
			r.put("ops/receipts/adr/adr-001.receipt", r.text("ops/receipts/adr/adr-001.receipt")+"\n")
		}},
		{name: "a receipt file is gone", want: "PPPPPFPP", detail: "ops/receipts/incident/incident-1.receipt was sequenced as entry 4 and is gone", do: gone("ops/receipts/incident/incident-1.receipt")},
		{name: "a receipt file became a link", want: "FPPPPEPP", detail: "is a symbolic link", do: func(_ testing.TB, r *tree, _ *covenant.Options) {
			r.link("ops/receipts/deploy/app-v1.receipt", "x")
		}},
		{name: "the receipts became a file", want: "FPPPPFPP", detail: "ops/receipts has no place there", do: func(_ testing.TB, r *tree, _ *covenant.Options) {
			for p := range r.files {
				if strings.HasPrefix(p, "ops/receipts/") {
					r.remove(p)
				}
			}
			r.put("ops/receipts", "none")
		}},
		{name: "archived, but changed", want: "PPPPPFPP", detail: "differs from entry 0", do: func(t testing.TB, r *tree, _ *covenant.Options) {
			archive(t, r, entries()[0].Receipt)
			r.edit("ops/receipts/deploy/app-v1.receipt", "artifact", "Artifact")
		}},
		{name: "another one was archived", want: "PPPPPFPP", detail: "app-v1.receipt was sequenced as entry 0 and is gone", do: func(t testing.TB, r *tree, _ *covenant.Options) {
			archive(t, r, entries()[1].Receipt)
			r.remove("ops/receipts/deploy/app-v1.receipt")
		}},
		{name: "archived by a receipt of another kind", want: "PPPPPFPP", detail: "app-v1.receipt was sequenced as entry 0 and is gone", do: func(t testing.TB, r *tree, _ *covenant.Options) {
			e := entry(t, statement(t, receipt.Audit, "", nil, receipt.Subject{Name: "app-v1", SHA256: digest(entries()[0].Receipt.Bytes())}), "issuer")
			resign(t, r, func(l [][]byte) [][]byte { return append(l, e.Line()) })
			r.remove("ops/receipts/deploy/app-v1.receipt")
		}},

		// 7. root line and badge
		{name: "no root line", want: "PPPPPPFP", detail: `0 lines "Merkle Root: <hex>"`, do: edit(layout.Docs, "Merkle Root: ", "Root: ")},
		{name: "two root lines", want: "PPPPPPFP", detail: `2 lines "Merkle Root: <hex>"`, do: func(_ testing.TB, r *tree, _ *covenant.Options) {
			r.put(layout.Docs, r.text(layout.Docs)+r.text(layout.Docs))
		}},
		{name: "another root", want: "PPPPPPFP", detail: "the ledger's is", do: func(_ testing.TB, r *tree, _ *covenant.Options) {
			r.put(layout.Docs, "Merkle Root: "+strings.Repeat("ab", 32)+"\n")
		}},
		{name: "a root in capitals", want: "PPPPPPFP", detail: "want 64 lower-case hex digits", do: func(_ testing.TB, r *tree, _ *covenant.Options) {
			head, root, _ := strings.Cut(r.text(layout.Docs), "Merkle Root: ")
			r.put(layout.Docs, head+"Merkle Root: "+strings.ToUpper(root))
		}},
		{name: "a root of 63 digits", want: "PPPPPPFP", detail: "want 64 lower-case hex digits", do: func(_ testing.TB, r *tree, _ *covenant.Options) {
			r.put(layout.Docs, strings.TrimRight(r.text(layout.Docs), "0123456789abcdef\n")+strings.Repeat("a", 63)+"\n")
		}},
		{name: "no index document", want: "PPPPPPFP", detail: "file does not exist", do: gone(layout.Docs)},
		{name: "another badge", want: "PPPPPPFP", detail: "ops/status/badge.json says 10/10", do: file("ops/status/badge.json", "10/10")},
		{name: "no badge", want: "PPPPPPFP", detail: "ops/status/badge.shields.json: ", do: gone("ops/status/badge.shields.json")},
		{name: "a badge that nothing backs", want: "PPPPPPFP", detail: "no admitted verdict backs it", do: func(t testing.TB, r *tree, _ *covenant.Options) {
			resign(t, r, func(l [][]byte) [][]byte { return slices.Delete(l, 2, 3) })
		}},

		// 8. append-only
		{name: "rolled back", want: "PPPPPPPF", detail: "does not extend the one of the last one seen: size 5", do: func(t testing.TB, r *tree, o *covenant.Options) {
			o.LastSeen = []byte(r.text("ops/ledger/checkpoint"))
			r.seal(t, logKey(t, origin, 1), lines(entries()[:4]))
			r.remove("ops/receipts/incident/incident-1.receipt")
		}, evidence: bothNotes},
		{name: "a fork of one size", want: "PPPPPPPF", detail: "does not extend the one of the last one seen: size 5", do: func(t testing.TB, _ *tree, o *covenant.Options) {
			o.LastSeen = note(t, logKey(t, origin, 1), checkpoint.Body{Origin: origin, Size: 5, Root: ledger.Root(nil)})
		}, evidence: bothNotes},
		{name: "a fork below", want: "PPPPPPPF", detail: "does not extend the one of the last one seen: size 3", do: func(t testing.TB, _ *tree, o *covenant.Options) {
			o.LastSeen = note(t, logKey(t, origin, 1), checkpoint.Body{Origin: origin, Size: 3, Root: ledger.Root(nil)})
		}, evidence: bothNotes},
		{name: "a fork in history", want: "PPPPPPPF", detail: "does not extend the one of c1: size 2", do: func(t testing.TB, _ *tree, o *covenant.Options) {
			o.History = []covenant.Past{{Commit: "c2", Note: prefix(t, 3)}, {Commit: "c1", Note: note(t, logKey(t, origin, 1), checkpoint.Body{Origin: origin, Size: 2, Root: ledger.Root(nil)})}}
		}, evidence: func(r *tree, o covenant.Options) []string {
			return []string{string(o.History[1].Note), r.text("ops/ledger/checkpoint")}
		}},
		{name: "a predecessor of another key", want: "PPPPPPPF", detail: "checkpoint of c1: checkpoint: signed by", do: func(t testing.TB, _ *tree, o *covenant.Options) {
			o.History = []covenant.Past{{Commit: "c1", Note: note(t, logKey(t, origin, 9), ledger.Empty(origin))}}
		}, evidence: func(r *tree, o covenant.Options) []string {
			return []string{string(o.History[0].Note), r.text("ops/ledger/checkpoint")}
		}},
		{name: "the ledger of history is gone", want: "PPPPPPFF", detail: "no admitted verdict backs it", do: func(t testing.TB, r *tree, o *covenant.Options) {
			o.History = []covenant.Past{{Commit: "c1", Note: []byte(r.text("ops/ledger/checkpoint"))}}
			r.seal(t, logKey(t, origin, 1), nil)
		}},
		{name: "another origin than before", want: "PPPPPPPF", detail: "does not extend", do: func(t testing.TB, r *tree, o *covenant.Options) {
			other := logKey(t, "github.com/vaultmesh/other", 2)
			r.put("ops/ledger/policy", "log "+logKey(t, origin, 1).VerifierKey()+"\nlog "+other.VerifierKey()+"\nquorum none\n")
			body := head(t, r)
			body.Origin = other.Origin()
			o.LastSeen = note(t, other, body)
		}, evidence: bothNotes},
	}
}

var stranger = func() func(t testing.TB) openpgp.Signer {
	make := sync.OnceValues(func() (openpgp.Signer, error) {
		secret, _, err := openpgp.Generate("Mallory", "", now.AddDate(-1, 0, 0), zeros{})
		if err != nil {
			return nil, err
		}
		return openpgp.FromArmored(secret, nil, clock)
	})
	return func(t testing.TB) openpgp.Signer {
		t.Helper()
		s, err := make()
		assert.NilError(t, err)
		return s
	}
}()

// archive adds an archive receipt for r to a tree's log.
func archive(t testing.TB, tr *tree, r *receipt.Receipt) {
	t.Helper()
	e := entry(t, statement(t, receipt.Archive, "", nil, receipt.Subject{Name: r.Name(), SHA256: digest(r.Bytes())}), "issuer")
	resign(t, tr, func(l [][]byte) [][]byte { return append(l, e.Line()) })
}

func policy(t testing.TB, text string) *checkpoint.Policy {
	t.Helper()
	p, err := checkpoint.ParsePolicy([]byte(text))
	assert.NilError(t, err)
	return p
}

func trust(t testing.TB, r *tree) *covenant.Trust {
	t.Helper()
	tr, err := covenant.LoadTrust(r, layout)
	assert.NilError(t, err)
	return tr
}

// head returns the body of a tree's checkpoint.
func head(t testing.TB, r *tree) checkpoint.Body {
	t.Helper()
	text, _, _ := strings.Cut(r.text("ops/ledger/checkpoint"), "\n\n")
	body, err := checkpoint.ParseBody([]byte(text + "\n"))
	assert.NilError(t, err)
	return body
}

// prefix returns the checkpoint of the first entries.
func prefix(t testing.TB, size int) []byte {
	t.Helper()
	r := newTree()
	r.seal(t, logKey(t, origin, 1), lines(entries()[:size]))
	return []byte(r.text("ops/ledger/checkpoint"))
}

func TestASoundRepositoryPasses(t *testing.T) {
	r := sound(t)
	o := options()
	o.LastSeen = prefix(t, 4)
	o.History = []covenant.Past{{Commit: "c3", Note: []byte(r.text("ops/ledger/checkpoint"))}, {Commit: "c2", Note: prefix(t, 4)}, {Commit: "c1", Note: prefix(t, 1)}}
	report := covenant.Audit(r, o)
	root := head(t, r).Root
	want := []covenant.Finding{
		{Check: 1, Name: "paths", Status: "pass", Detail: "12 files, all regular and in their places"},
		{Check: 2, Name: "checkpoint", Status: "pass", Detail: fmt.Sprintf("size 5, root %x, signed for %s", root[:], origin)},
		{Check: 3, Name: "entries", Status: "pass", Detail: "5 entries hash to the root"},
		{Check: 4, Name: "lines", Status: "pass", Detail: "5 lines are canonical, no signature twice"},
		{Check: 5, Name: "signatures", Status: "pass", Detail: "every receipt is signed by its issuer; 2 trust anchors"},
		{Check: 6, Name: "receipt files", Status: "pass", Detail: "3 files are what was sequenced"},
		{Check: 7, Name: "root line and badge", Status: "pass", Detail: "docs/REMEMBRANCER.md states the root"},
		{Check: 8, Name: "append-only", Status: "pass", Detail: "extends 3 earlier checkpoints"},
	}
	assert.DeepEqual(t, report.Findings, want, cmpopts.IgnoreUnexported(covenant.Finding{}))
	assert.Equal(t, report.Status(), covenant.Pass)
	assert.Assert(t, report.FirstUse)
	assert.Equal(t, report.PolicyID, trust(t, r).ID())
	assert.Equal(t, len(report.Entries), 5)
	assert.DeepEqual(t, report.Checkpoint.Body(), head(t, r))
	assert.Equal(t, len(report.Failures()), 0)

	o.PolicyID, o.HistoryShallow = report.PolicyID, true
	pinned := covenant.Audit(r, o)
	assert.Equal(t, pinned.Status(), covenant.Pass)
	assert.Assert(t, !pinned.FirstUse)
	assert.Equal(t, finding(t, pinned, 8).Detail, "extends 3 earlier checkpoints; the clone is shallow, older ones were not at hand")
}

func TestEachWayToTamperTurnsItsCheckRed(t *testing.T) {
	for _, e := range evils() {
		t.Run(e.name, func(t *testing.T) {
			r, o := sound(t), options()
			e.do(t, r, &o)
			report := covenant.Audit(r, o)
			assert.Equal(t, letters(report), e.want, "%+v", report.Findings)
			assert.Equal(t, report.Status(), covenant.Fail)
			f := finding(t, report, e.failing())
			assert.Assert(t, strings.Contains(f.Detail, e.detail), "%s", f.Detail)
			if e.evidence != nil {
				assert.DeepEqual(t, f.Evidence, e.evidence(r, o))
			}
		})
	}
}

func TestMoreTamperingNeverTurnsAFailureIntoAPass(t *testing.T) {
	all := evils()
	rapid.Check(t, func(rt *rapid.T) {
		r, o := sound(t), options()
		done := map[string]bool{}
		picks := rapid.SliceOfNDistinct(rapid.IntRange(0, len(all)-1), 2, 4, rapid.ID[int]).Draw(rt, "evils")
		for _, i := range picks {
			before := o
			if !further(r, done, func() { all[i].do(&quiet{TB: t}, r, &o) }) {
				o = before
			}
		}
		if report := covenant.Audit(r, o); report.Status() == covenant.Pass {
			rt.Fatalf("passes: %v", picks)
		}
	})
}

// An audit that remembers what it proved says what one says that does not.
func TestAMemoryHidesNothing(t *testing.T) {
	for _, e := range evils() {
		if e.name == "signed in the future" {
			continue // what was in the past once stays so
		}
		t.Run(e.name, func(t *testing.T) {
			var memory covenant.Proven
			o := options()
			o.Proven = &memory
			assert.Equal(t, letters(covenant.Audit(sound(t), o)), "PPPPPPPP")
			assert.Equal(t, letters(covenant.Audit(sound(t), o)), "PPPPPPPP")

			r := sound(t)
			e.do(t, r, &o)
			warm := covenant.Audit(r, o)
			o.Proven = nil
			cold := covenant.Audit(r, o)
			assert.DeepEqual(t, warm.Findings, cold.Findings, cmpopts.IgnoreUnexported(covenant.Finding{}))
			assert.Equal(t, len(warm.Entries), len(cold.Entries))
		})
	}
}

func TestWhatCannotBeReadIsNeverJudged(t *testing.T) {
	for path, want := range map[string]string{
		"ops/ledger/policy":                  "PEEEEEEE",
		"ops/certs/issuer.asc":               "PEEEEEEE",
		"ops/ledger/checkpoint":              "PEEEEEEE",
		segment:                              "PPEEEEEE",
		"ops/ledger/log/00/00/01.jsonl":      "PPEEEEEE",
		"ops/ledger/edge":                    "PPEEEEEE",
		"ops/receipts/deploy/app-v1.receipt": "PPPPPEPP",
		layout.Docs:                          "PPPPPPEP",
		"ops/status/badge.json":              "PPPPPPEP",
		"walk ops":                           "EPPPPPPP",
		"walk ops/certs":                     "PEEEEEEE",
	} {
		t.Run(path, func(t *testing.T) {
			for _, err := range []error{errGone, &fs.PathError{Op: "read", Path: path, Err: fs.ErrPermission}} {
				r := sound(t)
				r.broken[path] = err
				report := covenant.Audit(r, options())
				assert.Equal(t, letters(report), want, "%+v", report.Findings)
				assert.Equal(t, report.Status(), covenant.Error)
			}
		})
	}
	t.Run("no policy", func(t *testing.T) {
		r := sound(t)
		r.remove("ops/ledger/policy")
		assert.Equal(t, letters(covenant.Audit(r, options())), "PEEEEEEE")
	})
	t.Run("a policy that is none", func(t *testing.T) {
		r := sound(t)
		r.put("ops/ledger/policy", "trust everyone\n")
		assert.Equal(t, letters(covenant.Audit(r, options())), "PEEEEEEE")
	})
	t.Run("a trust anchor that is none", func(t *testing.T) {
		r := sound(t)
		r.put("ops/certs/more.asc", "a key\n")
		assert.Equal(t, letters(covenant.Audit(r, options())), "PEEEEEEE")
	})
	t.Run("attributes above a deep folder", func(t *testing.T) {
		deep := newTree()
		for p, n := range sound(t).files {
			if strings.HasPrefix(p, "ops/") {
				p = "deep/" + p
			}
			deep.files[p] = n
		}
		o := options()
		o.Layout.Ops = "deep/ops"
		assert.Equal(t, letters(covenant.Audit(deep, o)), "PPPPPPPP")
		deep.broken["deep/.gitattributes"] = errGone
		assert.Equal(t, letters(covenant.Audit(deep, o)), "EPPPPPPP")
		deep.broken = nil
		deep.put("deep/.gitattributes", "ops/** text\n")
		assert.Equal(t, letters(covenant.Audit(deep, o)), "FPPPPPPP")
	})
}

func TestAReportWithoutFindingsIsAnError(t *testing.T) {
	assert.Equal(t, (&covenant.Report{}).Status(), covenant.Error)
	assert.Equal(t, (&covenant.Report{Findings: []covenant.Finding{{Check: 1}}}).Status(), covenant.Error)
	assert.Equal(t, covenant.Status(0).String(), "invalid")
}

func TestALogThatHasNotBegunPasses(t *testing.T) {
	r := repo(t, nil)
	report := covenant.Audit(r, options())
	assert.Equal(t, letters(report), "PPPPPPPP", "%+v", report.Findings)
	assert.Equal(t, finding(t, report, 2).Detail, "the log has not begun: no entry was published yet")
	assert.Assert(t, report.Checkpoint.Note() == nil)

	r.put("ops/status/badge.json", "{}")
	assert.Equal(t, letters(covenant.Audit(r, options())), "PPPPPPFP")
}

func TestAnArchivedReceiptFileMayBeGone(t *testing.T) {
	r := sound(t)
	archive(t, r, entries()[0].Receipt)
	assert.Equal(t, letters(covenant.Audit(r, options())), "PPPPPPPP")
	r.remove("ops/receipts/deploy/app-v1.receipt")
	assert.Equal(t, letters(covenant.Audit(r, options())), "PPPPPPPP")
}

func TestReceiptsThatAreNotYetSequencedDoNotDisturb(t *testing.T) {
	r := sound(t)
	r.put("ops/receipts/deploy/app-v2.receipt", "not even a receipt")
	r.put("ops/status/other.json", "{}")
	r.put("ops/README.md", "")
	assert.Equal(t, letters(covenant.Audit(r, options())), "PPPPPPPP")
}

// many are enough entries to seal a segment.
var many = sync.OnceValue(func() []receipt.Entry {
	var all []receipt.Entry
	for i := range ledger.SegmentSize + 3 {
		all = append(all, entry(&testing.T{}, statement(&testing.T{}, receipt.Audit, "", map[string]any{"n": i}), "issuer"))
	}
	return all
})

func TestSealedSegmentsAndTheEdge(t *testing.T) {
	sealed := repo(t, many())
	audit := func(change func(r *tree)) string {
		r := sealed.clone()
		change(r)
		return letters(covenant.Audit(r, options()))
	}
	const next = "ops/ledger/log/00/00/01.jsonl"
	assert.Equal(t, audit(func(*tree) {}), "PPPPPPPP")
	assert.Equal(t, audit(func(r *tree) { r.remove("ops/ledger/edge") }), "PPPPPPPP", "an edge may lag")
	assert.Equal(t, audit(func(r *tree) { r.put("ops/ledger/edge", "0\n") }), "PPPPPPPP", "an edge may lag")
	for name, change := range map[string]func(r *tree){
		"an edge with another hash": func(r *tree) { r.put("ops/ledger/edge", "256\n"+strings.Repeat("A", 43)+"=\n") },
		"an edge with a flipped bit": func(r *tree) {
			size, hash, _ := strings.Cut(r.text("ops/ledger/edge"), "\n")
			flipped := []byte(hash)
			if flipped[0]++; flipped[0] > 'y' {
				flipped[0] = 'B'
			}
			r.put("ops/ledger/edge", size+"\n"+string(flipped))
		},
		"an edge of another size": func(r *tree) { r.edit("ops/ledger/edge", "256", "512") },
		"a line less in the sealed segment": func(r *tree) {
			_, rest, _ := strings.Cut(r.text(segment), "\n")
			r.put(segment, rest)
		},
		"a line moved to the next segment": func(r *tree) {
			all := strings.SplitAfter(r.text(segment), "\n")
			r.put(next, all[255]+r.text(next))
			r.put(segment, strings.Join(all[:255], ""))
		},
		"a line moved to the segment before": func(r *tree) {
			line, rest, _ := strings.Cut(r.text(next), "\n")
			r.put(segment, r.text(segment)+line+"\n")
			r.put(next, rest)
		},
		"no open segment":                    func(r *tree) { r.remove(next) },
		"no sealed segment":                  func(r *tree) { r.remove(segment) },
		"a segment far above the checkpoint": func(r *tree) { r.put("ops/ledger/log/01/00/00.jsonl", "x\n") },
		"a third segment":                    func(r *tree) { r.put("ops/ledger/log/00/00/02.jsonl", "x\n") },
	} {
		assert.Equal(t, audit(change)[:7], "PPFEEEE", name)
	}
}

func TestAClaimIsHeldToItsBody(t *testing.T) {
	r := sound(t)
	body := head(t, r)
	r.remove("ops/ledger/checkpoint")
	r.remove(layout.Docs)
	o := options()
	o.Claimed = &body
	report := covenant.Audit(r, o)
	assert.Equal(t, letters(report), "PPPPPP")
	assert.Equal(t, len(report.Entries), 5)

	body.Size = 4
	assert.Equal(t, letters(covenant.Audit(r, o)), "PPFEEE")
	body = head(t, sound(t))
	o.PolicyID = "00"
	assert.Equal(t, letters(covenant.Audit(r, o))[:2], "PF")
}

func TestThePolicyIDIsFrozen(t *testing.T) {
	r := sound(t)
	id := trust(t, r).ID()
	assert.Equal(t, id, goldenPolicyID)

	// What it is made of, spelt out.
	fingerprints := []string{string(signer(t, "issuer").Fingerprint()), string(signer(t, "endorser").Fingerprint())}
	slices.Sort(fingerprints)
	text := strings.ReplaceAll(r.text("ops/ledger/policy"), "\n", `\n`)
	assert.Equal(t, id, digest([]byte("remembrancer/policy/v1\n"+
		`{"issuers":["`+strings.Join(fingerprints, `","`)+`"],"log_policy":"`+text+`","roots":{"fingerprints":[],"threshold":0},"tsa":[]}`)))

	// File names and order of the certificates do not matter.
	r.put("ops/certs/zzz.asc", r.text("ops/certs/endorser.asc"))
	r.remove("ops/certs/endorser.asc")
	assert.Equal(t, trust(t, r).ID(), id)
	// Everything else does.
	r.put("ops/ledger/policy", "# a comment\n"+r.text("ops/ledger/policy"))
	assert.Assert(t, trust(t, r).ID() != id)
}

func TestThePolicyIDNamesThePinnedAuthoritiesOfTime(t *testing.T) {
	r := sound(t)
	fingerprints := []string{string(signer(t, "issuer").Fingerprint()), string(signer(t, "endorser").Fingerprint())}
	slices.Sort(fingerprints)
	text := strings.ReplaceAll(r.text("ops/ledger/policy"), "\n", `\n`)
	named := func(authorities string) string {
		return digest([]byte("remembrancer/policy/v1\n" +
			`{"issuers":["` + strings.Join(fingerprints, `","`) + `"],"log_policy":"` + text + `","roots":{"fingerprints":[],"threshold":0},"tsa":[` + authorities + `]}`))
	}
	root, pin := strings.Repeat("ab", 32), strings.Repeat("cd", 32)
	pinned := func(name, pins string) string {
		return `{"v":1,"name":"` + name + `","url":"https://tsa.example/","root_spki":["` + root + `"],"pins":[` + pins + `],"development":false}`
	}
	// A folder that is not done yet is no authority.
	r.put("ops/certs/tsa/one/ca.pem", "root")
	assert.Equal(t, trust(t, r).ID(), goldenPolicyID)
	r.put("ops/certs/tsa/one/tsa.json", pinned("one", `{"spki":"`+pin+`","from":"2026-01-01T00:00:00Z","until":""}`))
	r.put("ops/certs/tsa/one-more/tsa.json", pinned("one-more", ""))
	id := trust(t, r).ID()
	assert.Equal(t, id, named(`{"development":false,"name":"one","pins":[{"from":"2026-01-01T00:00:00Z","spki":"`+pin+`","until":""}],"root_spki":["`+root+`"]},`+
		`{"development":false,"name":"one-more","pins":[],"root_spki":["`+root+`"]}`))
	again, err := trust(t, r).With(trust(t, r).Keys)
	assert.NilError(t, err)
	assert.Equal(t, again.ID(), id)

	// The address is no trust, and neither is how the file is laid out.
	for _, same := range [][2]string{{"https://tsa.example/", "http://elsewhere.example/"}, {`"v":1,`, "\n  \"v\": 1,\n"}} {
		c := r.clone()
		c.edit("ops/certs/tsa/one/tsa.json", same[0], same[1])
		assert.Equal(t, trust(t, c).ID(), id)
	}
	for _, change := range [][2]string{
		{root, strings.Repeat("ef", 32)},
		{pin, strings.Repeat("ef", 32)},
		{"2026-01-01", "2026-01-02"},
		{`"until":""`, `"until":"2027-01-01T00:00:00Z"`},
		{`"development":false`, `"development":true`},
	} {
		c := r.clone()
		c.edit("ops/certs/tsa/one/tsa.json", change[0], change[1])
		assert.Assert(t, trust(t, c).ID() != id, "%s is not in the id", change[0])
	}
	gone := r.clone()
	gone.remove("ops/certs/tsa/one/tsa.json")
	assert.Equal(t, trust(t, gone).ID(), named(`{"development":false,"name":"one-more","pins":[],"root_spki":["`+root+`"]}`))

	// An audit that pins the id tells a swapped authority from the one it knows.
	o := options()
	o.PolicyID = id
	assert.Equal(t, covenant.Audit(r, o).Status(), covenant.Pass)
	swapped := r.clone()
	swapped.edit("ops/certs/tsa/one/tsa.json", root, strings.Repeat("ef", 32))
	assert.Equal(t, covenant.Audit(swapped, o).Status(), covenant.Fail)
	assert.Equal(t, letters(covenant.CheckChange(r, swapped, covenant.Change{Layout: layout}))[:1], "F")
}

func TestAuthoritiesThatCannotBeReadAreNotNoAuthorities(t *testing.T) {
	for name, spoil := range map[string]func(*tree){
		"is not a regular file":  func(r *tree) { r.link("ops/certs/tsa/one/tsa.json", "../two/tsa.json") },
		"unexpected end of JSON": func(r *tree) { r.put("ops/certs/tsa/one/tsa.json", "{") },
		`found the name "two"`:   func(r *tree) { r.put("ops/certs/tsa/one/tsa.json", `{"name":"two"}`) },
		errGone.Error(): func(r *tree) {
			r.put("ops/certs/tsa/one/tsa.json", "{}")
			r.broken["ops/certs/tsa/one/tsa.json"] = errGone
		},
	} {
		r := sound(t)
		spoil(r)
		_, err := covenant.LoadTrust(r, layout)
		assert.ErrorContains(t, err, name)
		assert.Equal(t, covenant.Audit(r, options()).Status(), covenant.Error)
	}
}

func TestWithRootWritesWhatRootOfReads(t *testing.T) {
	root := ledger.Root(nil)
	hexRoot := hex.EncodeToString(root[:])
	for doc, want := range map[string]string{
		"":                                   "Merkle Root: " + hexRoot + "\n",
		"no newline":                         "no newline\nMerkle Root: " + hexRoot + "\n",
		"a\nMerkle Root: x\nb\n":             "a\nMerkle Root: " + hexRoot + "\nb\n",
		"Merkle Root: x \t\r\nb":             "Merkle Root: " + hexRoot + "\nb",
		"see Merkle Root: x\n":               "see Merkle Root: x\nMerkle Root: " + hexRoot + "\n",
		"Merkle Root: two words\n":           "Merkle Root: two words\nMerkle Root: " + hexRoot + "\n",
		"Merkle Root: x\nMerkle Root: x y\n": "Merkle Root: " + hexRoot + "\nMerkle Root: x y\n",
	} {
		got, err := covenant.WithRoot([]byte(doc), root)
		assert.NilError(t, err)
		assert.Equal(t, string(got), want)
	}
	_, err := covenant.WithRoot([]byte("Merkle Root: x\nMerkle Root: y\n"), root)
	assert.Error(t, err, `2 lines "Merkle Root: <hex>", want exactly one: remove the others`)
}

func FuzzRootLine(f *testing.F) {
	for _, doc := range []string{"", "a", "Merkle Root: x", "\nMerkle Root: x\r\n", "Merkle Root: x\nMerkle Root: y"} {
		f.Add([]byte(doc))
	}
	root := ledger.Root(nil)
	f.Fuzz(func(t *testing.T, doc []byte) {
		was := bytes.Clone(doc)
		out, err := covenant.WithRoot(doc, root)
		assert.DeepEqual(t, doc, was)
		if err != nil {
			assert.Assert(t, out == nil)
			return
		}
		got, err := covenant.RootOf(out)
		assert.NilError(t, err)
		assert.Equal(t, got, hex.EncodeToString(root[:]))
		again, err := covenant.WithRoot(out, root)
		assert.NilError(t, err)
		assert.DeepEqual(t, again, out)
	})
}
