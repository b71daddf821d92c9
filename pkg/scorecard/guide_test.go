package scorecard_test

import (
	"strings"
	"testing"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/scorecard"
)

const guide = "# Guide\n" +
	"Inline `remembrancer list deploy|adr` counts, `a` remembrancer `b` and `not remembrancer` do not.\n" +
	"```sh\n" +
	"remembrancer smoke --expect 3 # remembrancer comment\n" +
	"A=1 B='two words' ./bin/remembrancer record adr \\\n" +
	"  --title 'It is; so' | tail && remembrancer gate\n" +
	"echo \"$(remembrancer publish --dry-run)\"\n" +
	"```\n" +
	"```console\n" +
	"$ remembrancer federation sync --peer URL\n" +
	"remembrancer printed this\n" +
	"```\n" +
	"````yaml\n" +
	"run: remembrancer not-shell\n" +
	"```\n" +
	"````\n"

func TestCommandsAreThoseThatADocumentTypes(t *testing.T) {
	assert.DeepEqual(t, scorecard.Commands([]byte(guide), "remembrancer"), []scorecard.Typed{
		{2, []string{"list", "deploy"}},
		{4, []string{"smoke", "--expect", "3"}},
		{5, []string{"record", "adr", "--title", "It is; so"}},
		{5, []string{"gate"}},
		{10, []string{"federation", "sync", "--peer", "URL"}},
	})
}

func TestAGuideIsCompleteOrSaysWhatIsNot(t *testing.T) {
	typed := scorecard.Commands([]byte(guide), "remembrancer")
	e := scorecard.Guide("docs/G.md", []byte(guide), typed, []string{"Guide"}, []string{"federation sync", "smoke"}, nil)
	assert.Equal(t, e.State, scorecard.Proven)
	assert.DeepEqual(t, e.Files, []string{"docs/G.md"})
	e = scorecard.Guide("docs/G.md", []byte(guide), typed, []string{"smoke-test"}, []string{"federation"}, []string{"line 4: odd"})
	assert.Equal(t, e.State, scorecard.Wanting)
	assert.Equal(t, e.Detail, "it does not name smoke-test; line 4: odd")
	e = scorecard.Guide("docs/G.md", nil, nil, nil, []string{"federation sync"}, nil)
	assert.Equal(t, e.Detail, "it does not type federation sync; it shows no command to type")
}

// What a document types depends on nothing that is not in a block: text around it
// changes no command.
func FuzzCommands(f *testing.F) {
	f.Add(guide)
	f.Add("```sh\nremembrancer 'a\n```\n")
	f.Fuzz(func(t *testing.T, doc string) {
		found := scorecard.Commands([]byte(doc), "remembrancer")
		lines := strings.Split(doc, "\n")
		for _, c := range found {
			assert.Assert(t, c.Line >= 1 && c.Line <= len(lines))
		}
		if len(found) > 0 {
			assert.Assert(t, strings.Contains(doc, "`"))
		}
		assert.DeepEqual(t, scorecard.Commands([]byte(doc), "remembrancer"), found)
	})
}
