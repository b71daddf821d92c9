package covenant_test

import (
	"io/fs"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"pgregory.net/rapid"

	"github.com/vaultmesh/remembrancer/pkg/covenant"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

var owned = []string{".github/**", "ops/**", "remembrancer.yaml", "SMOKE_TEST.sh", "scripts/gate-[0-9].*", "deep/**/rules"}

func change() covenant.Change { return covenant.Change{Layout: layout, Owned: owned} }

// pull is a change as a person may propose it: code, receipts, a late signature.
func pull(t testing.TB) (base, merge *tree) {
	t.Helper()
	base = sound(t)
	base.put("docs/guide.md", "Merkle trees\n")
	base.put("vendor/lib/.gitattributes", "* text\n")
	base.submodule("third_party/lib")
	base.link("latest", "docs/guide.md")
	merge = base.clone()
	merge.put("main.go", "package main // changed\n")
	merge.remove("docs/guide.md")
	merge.put("docs/new.md", "a file\n")
	merge.put(layout.Docs, "An introduction.\n"+merge.text(layout.Docs)+"More words.\n")
	for _, r := range []*receipt.Receipt{
		statement(t, receipt.Deploy, "app-v2", nil), statement(t, receipt.Discovery, "it+works", nil),
	} {
		merge.put(layout.Receipt(r.File()), string(r.Bytes()))
	}
	merge.put(layout.Receipt(statement(t, receipt.Deploy, "app-v2", nil).SignatureFile(signer(t, "issuer").Fingerprint())), "signature")
	merge.put(layout.Receipt(entries()[4].Receipt.SignatureFile(signer(t, "endorser").Fingerprint())), "a later endorsement")
	return base, merge
}

// wrong is one way for a change to be refused. want has one letter for each of
// the checks 9 to 13.
type wrong struct {
	name, want, detail string
	do                 func(t testing.TB, m *tree)
}

func (w wrong) failing() int { return strings.IndexAny(w.want, "FE") + 9 }

func add(path, data string) func(testing.TB, *tree) {
	return func(_ testing.TB, m *tree) { m.put(path, data) }
}

func drop(path string) func(testing.TB, *tree) {
	return func(_ testing.TB, m *tree) { m.remove(path) }
}

// mode changes a file's mode and nothing else.
func mode(path string, to fs.FileMode) func(testing.TB, *tree) {
	return func(_ testing.TB, m *tree) { m.files[path] = node{m.files[path].data, to} }
}

func text(t testing.TB, kind receipt.Kind, name string) string {
	return string(statement(t, kind, name, nil).Bytes())
}

func wrongs() []wrong {
	asc := ".receipt." + strings.Repeat("A1", 20) + ".asc"
	return []wrong{
		// 9. what only the publisher writes; ops/** is owned by the gate as well
		{"an entry changed", "FPPFP", segment, func(_ testing.TB, m *tree) { m.edit(segment, "payload", "Payload") }},
		{"a segment added", "FPPFP", "ops/ledger/log/00/00/01.jsonl", add("ops/ledger/log/00/00/01.jsonl", "x\n")},
		{"the checkpoint removed", "FPPFP", "ops/ledger/checkpoint", drop("ops/ledger/checkpoint")},
		{"the checkpoint executable", "FPPFP", "ops/ledger/checkpoint", mode("ops/ledger/checkpoint", 0o755)},
		{"the checkpoint a link", "FPPFP", "ops/ledger/checkpoint", mode("ops/ledger/checkpoint", fs.ModeSymlink)},
		{"the policy changed", "FPPFP", "ops/ledger/policy", add("ops/ledger/policy", "quorum none\n")},
		{"the ledger a link", "FPPFP", "ops/ledger", func(_ testing.TB, m *tree) { m.link("ops/ledger", "x") }},
		{"all of it a link", "FPPFP", "only the publisher writes these: ops", func(_ testing.TB, m *tree) { m.link("ops", "x") }},
		{"a badge changed", "FPPFP", "ops/status/badge.json", add("ops/status/badge.json", "27/27")},
		{"a badge added", "FPPFP", "ops/status/new.json", add("ops/status/new.json", "27/27")},
		{"a trust anchor added", "FPPFP", "ops/certs/mallory.asc", add("ops/certs/mallory.asc", "key")},
		{"a trust anchor removed", "FPPFP", "ops/certs/issuer.asc", drop("ops/certs/issuer.asc")},
		{"another root", "FPPPP", "root line was", func(_ testing.TB, m *tree) { m.edit(layout.Docs, "Merkle Root: ", "Merkle Root: 0") }},
		{"a second root", "FPPPP", "root line was", func(_ testing.TB, m *tree) { m.put(layout.Docs, m.text(layout.Docs)+"Merkle Root: x\n") }},
		{"no root", "FPPPP", "root line was", func(_ testing.TB, m *tree) { m.edit(layout.Docs, "Merkle Root: ", "") }},
		{"no index document", "FPPPP", "root line was", drop(layout.Docs)},
		{"the index document a link", "EPPPP", "not a regular file", func(_ testing.TB, m *tree) { m.link(layout.Docs, "x") }},

		// 10. receipts are only added
		{"a receipt changed", "PFPPP", "ops/receipts/deploy/app-v1.receipt was changed", add("ops/receipts/deploy/app-v1.receipt", "{}")},
		{"a receipt removed", "PFPPP", "ops/receipts/adr/adr-001.receipt was removed or renamed", drop("ops/receipts/adr/adr-001.receipt")},
		{"a signature removed", "PFPPP", ".asc was removed or renamed", func(t testing.TB, m *tree) {
			m.remove(layout.Receipt(entries()[0].Receipt.SignatureFile(signer(t, "issuer").Fingerprint())))
		}},
		{"a receipt renamed", "PFPPF", "incident-1.receipt was removed or renamed", func(_ testing.TB, m *tree) {
			m.put("ops/receipts/incident/incident-9.receipt", m.text("ops/receipts/incident/incident-1.receipt"))
			m.remove("ops/receipts/incident/incident-1.receipt")
		}},
		{"a receipt executable", "PFPPP", "app-v1.receipt was changed", mode("ops/receipts/deploy/app-v1.receipt", 0o755)},
		{"an added link", "PFPPP", "ops/receipts/deploy/l.receipt is not a regular file", func(_ testing.TB, m *tree) { m.link("ops/receipts/deploy/l.receipt", "app-v1.receipt") }},
		{"an added submodule", "PFPPP", "ops/receipts/slo is not a regular file", func(_ testing.TB, m *tree) { m.submodule("ops/receipts/slo") }},
		{"the receipts a link", "PFPFP", "ops/receipts is not a regular file", func(_ testing.TB, m *tree) { m.link("ops/receipts", "x") }},
		{"an added file that is no receipt", "PFPPP", "ops/receipts/README.md has no place there", add("ops/receipts/README.md", "hello")},
		{"a receipt of an unknown kind", "PFPPP", "ops/receipts/rumour/x.receipt has no place there", add("ops/receipts/rumour/x.receipt", "{}")},
		{"a receipt with dots", "PFPPP", "has no place there", add("ops/receipts/deploy/a..b.receipt", "{}")},

		// 11. names and attributes
		{"names in two cases", "PPFPP", `"Main.go" and "main.go" are one name`, add("Main.go", "")},
		{"folders in two cases", "PPFPP", `"DOCS" and "docs" are one name`, add("DOCS/other.md", "")},
		{"a folder and a file in two cases", "PPFPP", `"VENDOR" and "vendor" are one name`, add("VENDOR", "")},
		{"a sharp s", "PPFPP", "are one name", func(_ testing.TB, m *tree) { m.put("docs/straße", ""); m.put("docs/STRASSE", "") }},
		{"the Kelvin sign", "PPFPP", "are one name", func(_ testing.TB, m *tree) { m.put("docs/\u212a", ""); m.put("docs/k", "") }},
		{"composed and decomposed", "PPFPP", "are one name", func(_ testing.TB, m *tree) { m.put("docs/caf\u00e9", ""); m.put("docs/cafe\u0301", "") }},
		{"composed and decomposed, in two cases", "PPFPP", "are one name", func(_ testing.TB, m *tree) { m.put("docs/CAF\u00c9", ""); m.put("docs/cafe\u0301", "") }},
		{"a final sigma", "PPFPP", "are one name", func(_ testing.TB, m *tree) { m.put("docs/ς", ""); m.put("docs/Σ", "") }},
		{"receipts in two cases", "PPFPP", "are one name", func(t testing.TB, m *tree) {
			m.put("ops/receipts/deploy/APP-V2.receipt", text(t, receipt.Deploy, "APP-V2"))
		}},
		{"a second ledger", "PPFFP", `"ops/Ledger" and "ops/ledger" are one name`, add("ops/Ledger/checkpoint", "")},
		{"a second ops", "PPFPP", `"OPS" and "ops" are one name`, add("OPS/ledger/checkpoint", "")},
		{"attributes on the evidence", "PPFFP", "ops/.gitattributes would change", add("ops/.gitattributes", "* text")},
		{"attributes in other letters", "PPFFP", "ops/bin/.GITATTRIBUTES would change", add("ops/bin/.GITATTRIBUTES", "* text")},
		{"a rule after ours", "PPFPP", `the last rule is "ops/** text"`, func(_ testing.TB, m *tree) {
			m.put(".gitattributes", m.text(".gitattributes")+"\n# comment\nops/** text")
		}},
		{"our rule changed", "PPFPP", "the last rule is", func(_ testing.TB, m *tree) { m.edit(".gitattributes", "-filter", "filter=x") }},
		{"our rule commented", "PPFPP", `the last rule is "*.png binary"`, func(_ testing.TB, m *tree) { m.edit(".gitattributes", "/ops", "#/ops") }},
		{"no attributes", "PPFPP", `the last rule is ""`, drop(".gitattributes")},
		{"attributes that are a link", "PPEPP", "not a regular file", func(_ testing.TB, m *tree) { m.link(".gitattributes", "x") }},

		// 12. gate-owned paths
		{"a workflow changed", "PPPFP", "a code owner must approve this head: .github/workflows/gate.yml", add(".github/workflows/gate.yml", "on: never\n")},
		{"a workflow added", "PPPFP", ".github/workflows/other.yml", add(".github/workflows/other.yml", "on: push\n")},
		{"a workflow removed", "PPPFP", ".github/workflows/gate.yml", drop(".github/workflows/gate.yml")},
		{"a workflow with a newline", "PPPFP", "a code owner must approve", add(".github/workflows/a\nb.yml", "on: push\n")},
		{"the folder of workflows a link", "PPPFP", ".github", func(_ testing.TB, m *tree) { m.remove(".github/workflows/gate.yml"); m.link(".github", "x") }},
		{"the smoke test changed", "PPPFP", "SMOKE_TEST.sh", add("SMOKE_TEST.sh", "true; true\n")},
		{"the smoke test no program", "PPPFP", "SMOKE_TEST.sh", mode("SMOKE_TEST.sh", 0o755)},
		{"a configuration added", "PPPFP", "remembrancer.yaml", add("remembrancer.yaml", "version: 1\n")},
		{"a pattern with a class", "PPPFP", "scripts/gate-7.sh", add("scripts/gate-7.sh", "")},
		{"a pattern with stars inside, near", "PPPFP", "deep/rules", add("deep/rules", "")},
		{"a pattern with stars inside, far", "PPPFP", "deep/a/b/rules", add("deep/a/b/rules", "")},

		// 13. reserved kinds
		{"a reserved kind by its folder", "PPPPF", "kind observed comes only from trusted jobs", func(t testing.TB, m *tree) {
			m.put("ops/receipts/observed/run-1.receipt", text(t, receipt.Observed, "run-1"))
		}},
		{"a signature of a reserved kind", "PPPPF", "kind snapshot comes only from trusted jobs", add("ops/receipts/snapshot/s"+asc, "x")},
		{"a reserved kind by its content", "PPPPF", "holds a receipt of kind policy-change, which comes only from trusted jobs", func(t testing.TB, m *tree) {
			m.put("ops/receipts/deploy/p.receipt", text(t, receipt.PolicyChange, "p"))
		}},
		{"a receipt in another folder", "PPPPF", "want it at ops/receipts/adr/a.receipt", func(t testing.TB, m *tree) {
			m.put("ops/receipts/deploy/a.receipt", text(t, receipt.ADR, "a"))
		}},
		{"a receipt of another name", "PPPPF", "want it at ops/receipts/adr/a.receipt", func(t testing.TB, m *tree) {
			m.put("ops/receipts/adr/b.receipt", text(t, receipt.ADR, "a"))
		}},
		{"a receipt without a name", "PPPPF", "holds receipt", func(t testing.TB, m *tree) {
			m.put("ops/receipts/adr/b.receipt", text(t, receipt.ADR, ""))
		}},
		{"a file that is no receipt", "PPPPF", "deploy/n.receipt: receipt is not JSON", add("ops/receipts/deploy/n.receipt", "hello")},
		{"a receipt with a newline", "PPPPF", "deploy/n.receipt: receipt is not canonical JSON", func(t testing.TB, m *tree) {
			m.put("ops/receipts/deploy/n.receipt", text(t, receipt.Deploy, "n")+"\n")
		}},
	}
}

func TestAChangeOfCodeAndNewReceiptsPasses(t *testing.T) {
	base, merge := pull(t)
	r := covenant.CheckChange(base, merge, change())
	assert.Equal(t, letters(r), "PPPPP", "%+v", r.Findings)
	assert.Equal(t, r.Status(), covenant.Pass)
	assert.Equal(t, finding(t, r, 10).Detail, "4 receipt files added, none changed or removed")
	assert.Equal(t, letters(covenant.CheckChange(base, base, change())), "PPPPP")
}

func TestEachWrongChangeTurnsItsCheckRed(t *testing.T) {
	for _, w := range wrongs() {
		t.Run(w.name, func(t *testing.T) {
			base, merge := pull(t)
			w.do(t, merge)
			r := covenant.CheckChange(base, merge, change())
			assert.Equal(t, letters(r), w.want, "%+v", r.Findings)
			assert.Equal(t, r.Status(), outcome(w.want))
			f := finding(t, r, w.failing())
			assert.Assert(t, strings.Contains(f.Detail, w.detail), "%s", f.Detail)

			// A code owner's approval is for check 12 alone.
			c := change()
			c.Approved = true
			approved := letters(covenant.CheckChange(base, merge, c))
			assert.Equal(t, approved, w.want[:3]+"P"+w.want[4:])
		})
	}
}

func TestOwnedPathsAreMatchedByElements(t *testing.T) {
	base, merge := pull(t)
	for _, p := range []string{"github/x", "SMOKE_TEST.sh.md", "a/SMOKE_TEST.sh", "remembrancer-yaml", "scripts/gate-x.sh", "scripts/gate-1/x", "deep/rules/x", "x/.github/y"} {
		merge.put(p, "")
	}
	assert.Equal(t, letters(covenant.CheckChange(base, merge, change())), "PPPPP")

	all := change()
	all.Owned = []string{"**"}
	assert.Equal(t, letters(covenant.CheckChange(base, merge, all)), "PPPFP")
	all.Owned = []string{"docs/ü*"}
	merge.put("docs/über", "")
	assert.Equal(t, letters(covenant.CheckChange(base, merge, all)), "PPPFP")
}

func TestAPatternThatCannotMatchIsAnError(t *testing.T) {
	base, merge := pull(t)
	for _, p := range []string{"/SMOKE_TEST.sh", "docs/", "", "a//b", "docs/["} {
		c := change()
		c.Owned = []string{".github/**", p}
		r := covenant.CheckChange(base, merge, c)
		assert.Equal(t, letters(r), "PPPEP", p)
	}
}

func TestAChangeThatCannotBeReadIsNeverJudged(t *testing.T) {
	for _, side := range []string{"base", "merge"} {
		for path, want := range map[string]string{"walk ": "EEEEE", layout.Docs: "EPPPP", ".gitattributes": "PPEPP", "ops/receipts/deploy/app-v2.receipt": "PPPPE"} {
			base, merge := pull(t)
			broken := map[string]*tree{"base": base, "merge": merge}[side]
			broken.broken = map[string]error{path: errGone}
			r := covenant.CheckChange(base, merge, change())
			if side == "base" && path != "walk " && path != layout.Docs {
				want = "PPPPP" // not read there
			}
			assert.Equal(t, letters(r), want, "%s of %s", path, side)
			assert.Equal(t, r.Status(), outcome(want))
		}
	}
	base, merge := pull(t)
	r := covenant.CheckChange(base, anonymous{merge}, change())
	assert.Equal(t, letters(r), "EEEEE", "contents without an id cannot be compared")
}

// anonymous is a tree whose contents have no ids, as a work tree's have none.
type anonymous struct{ covenant.Tree }

func (a anonymous) Walk(folder string, fn func(string, fs.FileMode, string) error) error {
	return a.Tree.Walk(folder, func(p string, m fs.FileMode, _ string) error { return fn(p, m, "") })
}

func TestADeepFolderIsGuardedFromAbove(t *testing.T) {
	deep := covenant.Layout{Ops: "deep/ops", Docs: layout.Docs}
	base := newTree()
	base.put(layout.Docs, "# Index\n")
	base.put(".gitattributes", covenant.Attributes(deep)+"\n")
	c := covenant.Change{Layout: deep}
	assert.Equal(t, letters(covenant.CheckChange(base, base, c)), "PPPPP")
	merge := base.clone()
	merge.put("deep/.gitattributes", "ops/** text\n")
	assert.Equal(t, letters(covenant.CheckChange(base, merge, c)), "PPFPP")
	merge = base.clone()
	merge.put("deep/ops-old/receipts", "not ours\n")
	merge.put("deep/ops/receipts-old/x", "not ours\n")
	assert.Equal(t, letters(covenant.CheckChange(base, merge, c)), "PPPPP")
}

// What is wrong stays wrong: a check that fails goes on failing, whatever else
// is added to the change.
func TestMoreEvilNeverTurnsAFailureIntoAPass(t *testing.T) {
	all := wrongs()
	base, honest := pull(t)
	rapid.Check(t, func(rt *rapid.T) {
		merge := honest.clone()
		failed, done := map[int]bool{}, map[string]bool{}
		for _, i := range rapid.SliceOfNDistinct(rapid.IntRange(0, len(all)-1), 1, 5, rapid.ID[int]).Draw(rt, "wrongs") {
			further(merge, done, func() { all[i].do(&quiet{TB: t}, merge) })
			for _, f := range covenant.CheckChange(base, merge, change()).Findings {
				if failed[f.Check] && f.Status == "pass" {
					rt.Fatalf("check %d passes again after %q", f.Check, all[i].name)
				}
				failed[f.Check] = failed[f.Check] || f.Status != "pass"
			}
		}
		assert.Assert(rt, len(done) > 0)
	})
}
