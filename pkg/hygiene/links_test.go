package hygiene_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/hygiene"
	"github.com/vaultmesh/remembrancer/pkg/judge"
)

var documents = hygiene.Rules{Links: []string{"**/*.md"}, Archive: []string{"archive/**"}}

// site is what the links of the tests lead to.
var site = tree{
	"docs/GUIDE.md":      "# Guide\n\n## Set up\n\ntext\n\n## Set up\n\n<a name=\"old-name\"></a>\n",
	"docs/with space.md": "# A\n", "docs/100%.md": "# A\n", "docs/é.md": "# A\n",
	"docs/README.md":   "# Documents\n",
	"cmd/tool/main.go": "package main\n\nfunc main() {}", // three lines
	"img/logo.svg":     "<svg/>", "linked": symlink, "mod": submodule, "empty.txt": "",
}

// following returns the findings in a document at from.
func following(t testing.TB, from, text string) []string {
	t.Helper()
	tr := maps.Clone(site)
	tr[from] = text
	c := one(t, "links", tr, documents, nil)
	assert.Assert(t, c.Status != judge.Error, c.Detail)
	var out []string
	for _, l := range lines(c) {
		out = append(out, strings.TrimPrefix(l, from))
	}
	return out
}

func TestLinksThatResolve(t *testing.T) {
	for _, text := range []string{
		"[a](docs/GUIDE.md)", "[a](./docs/../docs/GUIDE.md#guide)", "[a](docs)", "[a](docs/)", "[a](.)", "[a](./)", "[a](/)", "[a](/docs/GUIDE.md#set-up-1)",
		"[a](docs/GUIDE.md#old-name)", "[a](docs/GUIDE.md#user-content-set-up)", "[a](docs#documents)", "[a](docs/GUIDE.md?plain=1#L3)", "[a](docs/GUIDE.md?x#set-up)",
		"[a](<docs/with space.md>)", "[a](docs/with%20space.md)", "[a](docs/100%25.md)", "[a](docs/100%.md)", "[a](docs/%C3%A9.md)", "[a](docs/é.md)",
		"[a](cmd/tool/main.go#L1)", "[a](cmd/tool/main.go#L2-L3)", "[a](cmd/tool/main.go#L2C1-L3C4)", "[a](img/logo.svg#layer)", "[a](linked)", "[a](mod)",
		"[a](https://example.org/x.md#y)", "[a](mailto:a@example.org)", "[a](//example.org)", "[a](#top)", "[a](#)", "<https://example.org>", "<a@example.org>",
		"![a](img/logo.svg 'title')", "[a][b]\n\n[b]: docs/GUIDE.md#set-up", "[ref]\n\n[REF]: <docs/with space.md>", "[![a](img/logo.svg)](docs/GUIDE.md)",
		`<a href="docs/GUIDE.md#set-up">a</a> <img src='img/logo.svg'>`, "<p align=center>\n<img src=img/logo.svg>\n</p>", "<picture><source srcset=\"img/logo.svg 2x, img/logo.svg\"></picture>",
		`<a href="docs/with&#32;space.md">`, `[a](docs/with&#32;space.md)`, `[a](docs/GUIDE\.md)`,
		// What is no link.
		"`[a](nowhere.md)`", "```\n[a](nowhere.md)\n```", "    [a](nowhere.md)", "\\[a](nowhere.md)", "[a][nowhere]", "[x] done", "<!-- [a](nowhere.md) <a href=nowhere> -->",
		"<div>\n<!-- <img src=nowhere> -->\n</div>", "text[^1]\n\n[^1]: nowhere.md", "<a data-href=\"nowhere\">",
		// Anchors of the document itself.
		"# Here\n[a](#here)", "[a](#there)\n\nThere\n=====", "# A `code` _b_ [link](docs) ![image](img/logo.svg)\n[a](#a-code-b-link-)",
		"# ![image](img/logo.svg) A\n[a](#-a) [a](#a)", "<h1>\n  Big\n</h1>\n\n[a](#big)", "<h1 align=\"center\">Big <b>Title</b></h1>\n\n[a](#big-title)", "<span id=\"spot\">x</span> [a](#spot)", "> # Quoted\n\n[a](#quoted)", "- # Listed\n\n[a](#listed)",
		"---\ntitle: x\n---\n# After\n[a](#after)",
	} {
		t.Run(text, func(t *testing.T) { assert.DeepEqual(t, following(t, "README.md", text), []string(nil)) })
	}
	assert.DeepEqual(t, following(t, "docs/new/a.md", "[a](../GUIDE.md#set-up) [b](../../cmd/tool) [c](/img/logo.svg) ![d](../../img/logo.svg)"), []string(nil))
}

func TestLinksThatDoNot(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"a\n\nb [a](nowhere.md)", ":3: link to nowhere.md: there is no nowhere.md | "},
		{"[a](docs/GUIDES.md)", ":1: link to docs/GUIDES.md: there is no docs/GUIDES.md | did you mean docs/GUIDE.md"},
		{"[a](guide/GUIDE.md)", ":1: link to guide/GUIDE.md: there is no guide/GUIDE.md | did you mean docs/GUIDE.md"},
		{"[a](with%20space.md)", ":1: link to with%20space.md: there is no with space.md | did you mean docs/with%20space.md"},
		{"[a](doc)", ":1: link to doc: there is no doc | did you mean docs"},
		{"[a](Docs/guide.md#set-up)", ":1: link to Docs/guide.md#set-up: the case differs, found docs/GUIDE.md | did you mean docs/GUIDE.md"},
		{"[a](docs/GUIDE.md/)", ":1: link to docs/GUIDE.md/: docs/GUIDE.md is no folder | did you mean docs/GUIDE.md"},
		{"[a](../other/x.md)", ":1: link to ../other/x.md: leads out of the repository, wanted a path in it or a whole URL | "},
		{"[a](/../x)", ":1: link to /../x: leads out of the repository, wanted a path in it or a whole URL | "},
		{"[a](../..)", ":1: link to ../..: leads out of the repository, wanted a path in it or a whole URL | "},
		{"[a]()", ":1: link to nothing | "},
		{"[a](mod/x.md)", ":1: link to mod/x.md: mod is a submodule, whose files this repository does not hold | "},
		{"[a](mod#x)", ":1: link to mod#x: mod is a submodule, whose files this repository does not hold | "},
		{"[a](linked/x.md)", ":1: link to linked/x.md: linked is a symbolic link, which GitHub does not follow | "},
		{"[a](cmd/tool/main.go#L4)", ":1: link to cmd/tool/main.go#L4: cmd/tool/main.go has 3 lines | "},
		{"[a](cmd/tool/main.go#L1-L99999999999999999999)", ":1: link to cmd/tool/main.go#L1-L99999999999999999999: cmd/tool/main.go has 3 lines | "},
		{"[a](cmd/tool/main.go#L0)", ":1: link to cmd/tool/main.go#L0: cmd/tool/main.go has 3 lines | "},
		{"[a](empty.txt#L1)", ":1: link to empty.txt#L1: empty.txt has 0 lines | "},
		{"[a](docs/GUIDE.md?plain=1#L99)", ":1: link to docs/GUIDE.md?plain=1#L99: docs/GUIDE.md has 9 lines | "},
		{"[a](docs/GUIDE.md#L3)", ":1: link to docs/GUIDE.md#L3: docs/GUIDE.md has no heading with this anchor | "},
		{"[a](docs/GUIDE.md#setup)", ":1: link to docs/GUIDE.md#setup: docs/GUIDE.md has no heading with this anchor | did you mean #set-up"},
		{"[a](docs/GUIDE.md#Set-Up)", ":1: link to docs/GUIDE.md#Set-Up: anchors are in lower case | did you mean #set-up"},
		{"[a](docs/GUIDE.md#set-up-2)", ":1: link to docs/GUIDE.md#set-up-2: docs/GUIDE.md has no heading with this anchor | did you mean #set-up-1"},
		{"[a](docs#nowhere)", ":1: link to docs#nowhere: docs/README.md has no heading with this anchor | "},
		{"[a](img#x)", ":1: link to img#x: the folder has no README.md for the fragment to be in | "},
		{"[a](#here)", ":1: link to #here: README.md has no heading with this anchor | "},
		{"![a](img/logo.png)", ":1: link to img/logo.png: there is no img/logo.png | did you mean img/logo.svg"},
		{"x\n[a][b]\n\n[b]: nowhere", ":2: link to nowhere: there is no nowhere | "},
		{"| a |\n|---|\n| [a](nowhere) |", ":3: link to nowhere: there is no nowhere | "},
		{"text[^1]\n\n[^1]: see [a](nowhere)", ":3: link to nowhere: there is no nowhere | "},
		{"x <a\n href='nowhere'>", ":2: link to nowhere: there is no nowhere | "},
		{"> <p>\n> <img src=\"nowhere\">\n> </p>", ":2: link to nowhere: there is no nowhere | "},
		{"<IMG SRC=nowhere>", ":1: link to nowhere: there is no nowhere | "},
		{"<img srcset=\"img/logo.svg, nowhere 2x\">", ":1: link to nowhere: there is no nowhere | "},
		{"---\na: b\n---\n\n[a](nowhere)", ":5: link to nowhere: there is no nowhere | "},
		{"[a](C:/x.md)", ":1: link to C:/x.md: there is no C:/x.md | "},
		{"[a](docs\\GUIDE.md)", `:1: link to docs\GUIDE.md: there is no docs\GUIDE.md | did you mean docs/GUIDE.md`},
		{"[a](nowhere%1b%ff)", `:1: link to nowhere%1b%ff: there is no nowhere\x1b\xff | `},
	} {
		t.Run(test.text, func(t *testing.T) {
			assert.DeepEqual(t, following(t, "README.md", test.text), []string{test.want})
		})
	}
	assert.DeepEqual(t, following(t, "docs/new/a.md", "[a](GUIDE.md)\n[b](../../../x)\n[c](../New)\n[d](x)"), []string{
		":1: link to GUIDE.md: there is no docs/new/GUIDE.md | did you mean ../GUIDE.md",
		":2: link to ../../../x: leads out of the repository, wanted a path in it or a whole URL | ",
		":3: link to ../New: the case differs, found docs/new | did you mean .",
		":4: link to x: there is no docs/new/x | ",
	})
}

func TestAFragmentBehindASymbolicLinkIsAWarning(t *testing.T) {
	c := one(t, "links", tree{"README.md": "[a](linked#x)", "linked": symlink}, documents, nil)
	assert.Equal(t, c.Status, judge.Pass)
	assert.DeepEqual(t, c.Findings, []judge.Finding{{
		Path: "README.md", Line: 1, Message: "link to linked#x: linked is a symbolic link, so the fragment was not looked for", Warning: true,
	}})
}

func TestOnlyTheNamedDocumentsAreRead(t *testing.T) {
	broken := "[a](nowhere)"
	c := one(t, "links", tree{
		"docs/a.md": broken, "docs/b.txt": broken, "archive/c.md": broken, "pkg/testdata/d.md": broken, "vendor/e.md": broken, "f.md": symlink, "g.md": submodule,
	}, documents, nil)
	assert.Equal(t, c.Detail, "1 link in 1 document")
	assert.DeepEqual(t, lines(c), []string{"docs/a.md:1: link to nowhere: there is no docs/nowhere | "})
	c = one(t, "links", tree{"a.md": broken, "docs/b.txt": broken}, hygiene.Rules{Links: []string{"docs/*"}}, nil)
	assert.DeepEqual(t, lines(c), []string{"docs/b.txt:1: link to nowhere: there is no docs/nowhere | "})
}

func TestATooLargeDocumentIsNoPass(t *testing.T) {
	c := one(t, "links", tree{"a.md": strings.Repeat("a", 512<<10+1)}, documents, nil)
	assert.Equal(t, c.Status, judge.Error)
	assert.Equal(t, c.Detail, "a.md: found 524289 bytes, wanted a document of at most 524288; hint: leave it out of the documents whose links are followed")
}

// The anchors are those that GitHub gives these headings.
func TestAnchorsAreGitHubs(t *testing.T) {
	for _, test := range []struct{ heading, anchor string }{
		{"Hello World", "hello-world"},
		{"What's new?", "whats-new"},
		{"a & b", "a--b"},
		{"a &amp; b", "a--b"},
		{"C++ / C#", "c--c"},
		{"v1.2.3 (beta)", "v123-beta"},
		{"under_score and-dash", "under_score-and-dash"},
		{"`go test ./...`", "go-test-"},
		{"**Bold** *it* ~~old~~ text", "bold-it-old-text"},
		{"[A link](https://example.org) here", "a-link-here"},
		{"Emoji 🎉 party", "emoji--party"},
		{":rocket: Launch", "rocket-launch"},
		{"⚡️ Fast", "%EF%B8%8F-fast"}, // the invisible selector stays
		{"Привет мир", "привет-мир"},
		{"Ünïcode ÉTÉ", "ünïcode-été"},
		{"中文 标题", "中文-标题"},
		{"日本語（括弧）", "日本語括弧"},
		{"हिन्दी", "हिन्दी"},
		{"1. First", "1-first"},
		{"Trailing hashes ##", "trailing-hashes"},
		{"snake\\_case", "snake_case"},
		{"a <b>tag</b> here", "a-tag-here"},
		{"x ⓐ Ⅳ", "x-ⓐ-ⅳ"},
		{"Two  spaces", "two--spaces"},
		{"<https://example.org>", "httpsexampleorg"},
	} {
		t.Run(test.heading, func(t *testing.T) {
			assert.DeepEqual(t, following(t, "a.md", fmt.Sprintf("# %s\n\n[a](#%s)\n", test.heading, test.anchor)), []string(nil))
		})
	}
}

func TestRepeatedAnchorsAreNumbered(t *testing.T) {
	text := "# A\n# A\n# A-1\n# A\n## !\n## ?\n"
	assert.DeepEqual(t, following(t, "a.md", text+"[](#a) [](#a-1) [](#a-1-1) [](#a-2) [](#-1)"), []string(nil))
	assert.DeepEqual(t, following(t, "a.md", text+"[](#a-3)"), []string{":7: link to #a-3: a.md has no heading with this anchor | did you mean #a-1"})
}

func FuzzLinksAreAlwaysJudged(f *testing.F) {
	f.Add("[a](b)", "README.md")
	f.Add("---\n---\n# a\n<h1>b</h1>\n<!-- <a href='\n", "docs/a b.md")
	f.Add("[a]: <\x00>\n[a] ![](\xff%zz#%) <img srcset=',,'> [^1]\n\n[^1]: # x", "-.md")
	f.Fuzz(func(t *testing.T, text, from string) {
		if len(text) > 2000 || len(from) > 300 {
			return // nested quotes cost the parser the square of their depth
		}
		tr := maps.Clone(site)
		tr[from+".md"] = text
		for _, c := range hygiene.Check(tr, documents, &hygiene.WorkTree{Untracked: []string{from}}) {
			assert.Assert(t, c.Status != judge.Error, c.Detail)
			for _, f := range c.Findings {
				assert.Assert(t, !strings.ContainsAny(f.Message+f.Fix, "\x00\x1b\n"), "%q", f)
			}
		}
	})
}

// BenchmarkCheck judges a tree of 2,000 files, 400 of them documents.
func BenchmarkCheck(b *testing.B) {
	tr := tree{".gitignore": strings.Repeat("*.log\n/build/\n!keep\ndocs/**/tmp\n", 10)}
	for i := range 1600 {
		tr[fmt.Sprintf("src/pkg%d/file%d.go", i%40, i)] = fmt.Sprintf("package p%d\n", i) + strings.Repeat("// a line of text that is somewhat long\n", 200)
	}
	for i := range 400 {
		tr[fmt.Sprintf("docs/d%d/doc%d.md", i%20, i)] = fmt.Sprintf("# Doc %d\n\n", i) + strings.Repeat("Some [link](../../src/pkg1) and `code`, then [more](#doc-"+fmt.Sprint(i)+").\n\n", 30)
	}
	for b.Loop() {
		for _, c := range hygiene.Check(tr, hygiene.Rules{Root: []string{"*"}, MaxFile: 1 << 20, Links: []string{"**/*.md"}}, nil) {
			assert.Assert(b, c.Status == judge.Pass || c.Status == judge.Unclaimed, "%v", c)
		}
	}
}
