package index

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"gotest.tools/v3/assert"
)

var (
	deploy = Document{
		ID: "aaaa1111", Kind: "deploy", Name: "scheduler-1.0.0", Issued: "2025-10-19T20:12:20Z",
		Component: "scheduler", Version: "1.0.0", Issuer: "6E4082C6A410F340", State: Sequenced,
		Path: "ops/receipts/deploy/scheduler-1.0.0.receipt", Index: 0, Text: "first release of the café scheduler",
	}
	adr = Document{
		ID: "aaaa2222", Kind: "adr", Name: "ADR-007-gpg-over-x509", Issued: "2025-10-20T00:00:00Z",
		Issuer: "6E4082C6A410F340", State: Sequenced, Path: "ops/receipts/adr/ADR-007.receipt", Index: 1,
		Text: "We sign with OpenPGP. NOT with X.509 OR anything else (see \"notes\"*)",
	}
	late = Document{
		ID: "bbbb3333", Kind: "deploy", Name: "scheduler-1.1.0", Issued: "2025-10-20T00:00:00.5Z",
		Component: "scheduler", Version: "1.1.0", Issuer: "6E4082C6A410F340", State: Pending,
		Path: "ops/receipts/deploy/scheduler-1.1.0.receipt", Index: -1,
	}
	foreign = Document{
		ID: "cccc4444", Kind: "deploy", Name: "scheduler-1.0.0", State: Quarantined,
		Path: "ops/receipts/deploy/copy.receipt", Index: -1, Text: "unsigned",
	}
	all = []Document{deploy, adr, late, foreign}
)

func given(docs ...Document) iter.Seq2[Document, error] {
	return func(yield func(Document, error) bool) {
		for _, d := range docs {
			if !yield(d, nil) {
				return
			}
		}
	}
}

func built(t testing.TB, docs ...Document) *Index {
	t.Helper()
	ix, err := OpenOrRebuild(context.Background(), filepath.Join(t.TempDir(), "index"), "stamp", given(docs...))
	assert.NilError(t, err)
	t.Cleanup(func() { assert.NilError(t, ix.Close()) })
	return ix
}

func ids(docs []Document) []string {
	ids := []string{}
	for _, d := range docs {
		ids = append(ids, d.ID)
	}
	return ids
}

func names(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	assert.NilError(t, err)
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestDocumentsComeBackWhole(t *testing.T) {
	ix := built(t, all...)
	got, err := ix.Timeline(t.Context(), "")
	assert.NilError(t, err)
	assert.DeepEqual(t, got, []Document{foreign, deploy, adr, late})
}

func TestQueryFindsEveryWordAndTheBeginningOfTheLast(t *testing.T) {
	ix := built(t, all...)
	for _, c := range []struct {
		text string
		want []string
	}{
		{"café", []string{"aaaa1111"}},
		{"CAFE", []string{"aaaa1111"}},
		{"first sched", []string{"aaaa1111"}},
		{"sched first", []string{}},
		{"scheduler 1.1.0", []string{"bbbb3333"}},
		{"1.1", []string{"bbbb3333"}},
		{"0.1.1", []string{}},
		{"aaaa1", []string{"aaaa1111"}},
		{"openpgp", []string{"aaaa2222"}},
		{"ADR-007", []string{"aaaa2222"}},
		{"copy.receipt", []string{"cccc4444"}},
		{"first absent", []string{}},
		{"", []string{}},
		{"--- \"", []string{}},
		{"first ---", []string{"aaaa1111"}},
		{"first --- café", []string{"aaaa1111"}},
		// What FTS5 would take for an operator is a word.
		{"first NOT café", []string{}},
		{"sign NOT with", []string{"aaaa2222"}},
		{"openpgp OR unsigned", []string{}},
		{"kind:deploy", []string{}},
		{"NEAR(first, release)", []string{}},
		{"\"notes\"*", []string{"aaaa2222"}},
		{"openpgp\x00not", []string{"aaaa2222"}},
		{"open\xffpgp", []string{}},
	} {
		got, err := ix.Query(t.Context(), c.text, 0)
		assert.NilError(t, err, "%q", c.text)
		assert.DeepEqual(t, ids(got), c.want)
	}
	got, err := ix.Query(t.Context(), "scheduler", 2)
	assert.NilError(t, err)
	assert.Equal(t, len(got), 2)
	_, err = ix.Query(t.Context(), strings.Repeat("x", 1025), 0)
	assert.Error(t, err, "query: found 1025 bytes, wanted at most 1024")
	_, err = ix.Query(t.Context(), strings.Repeat("x ", 512), 0)
	assert.NilError(t, err)
}

func TestListFilters(t *testing.T) {
	ix := built(t, all...)
	for _, c := range []struct {
		filter Filter
		want   []string
	}{
		{Filter{}, []string{"bbbb3333", "aaaa2222", "aaaa1111", "cccc4444"}},
		{Filter{Limit: 1}, []string{"bbbb3333"}},
		{Filter{Kind: "deploy"}, []string{"bbbb3333", "aaaa1111", "cccc4444"}},
		{Filter{Kind: "deploy' OR 1=1 --"}, []string{}},
		{Filter{Kind: "deploy", Component: "scheduler"}, []string{"bbbb3333", "aaaa1111"}},
		{Filter{Since: "2025-10-20"}, []string{"bbbb3333", "aaaa2222"}},
		{Filter{Since: "2025-10-20T00:00:00.25Z"}, []string{"bbbb3333"}},
		{Filter{Since: "2025-10-20T02:00:00.25+02:00"}, []string{"bbbb3333"}},
		{Filter{Until: "2025-10-19"}, []string{"aaaa1111"}},
		{Filter{Until: "2025-10-20"}, []string{"bbbb3333", "aaaa2222", "aaaa1111"}},
		{Filter{Until: "2025-10-20T00:00:00.5Z"}, []string{"aaaa2222", "aaaa1111"}},
		{Filter{Since: "2025-10-20", Until: "2025-10-19"}, []string{}},
	} {
		got, err := ix.List(t.Context(), c.filter)
		assert.NilError(t, err)
		assert.DeepEqual(t, ids(got), c.want)
	}
	_, err := ix.List(t.Context(), Filter{Until: "soon"})
	assert.Error(t, err, `until: found "soon", wanted a date like 2006-01-02 or a time like 2006-01-02T15:04:05Z`)
	_, err = ix.Timeline(t.Context(), "2025")
	assert.Error(t, err, `since: found "2025", wanted a date like 2006-01-02 or a time like 2006-01-02T15:04:05Z`)
}

func TestTimelineIsOldestFirstAndByIDWithinAMoment(t *testing.T) {
	twin := adr
	twin.ID, twin.Issued = "aaaa0000", "2025-10-20T00:00:00.000Z"
	ix := built(t, late, adr, twin, deploy)
	got, err := ix.Timeline(t.Context(), "2025-10-20")
	assert.NilError(t, err)
	assert.DeepEqual(t, ids(got), []string{"aaaa0000", "aaaa2222", "bbbb3333"})
}

func TestGetFindsOneOrSaysWhichThereAre(t *testing.T) {
	named := late
	named.ID, named.Name, named.Path = "dddd5555", "aaaa1111", "x"
	twin := late
	twin.ID, twin.Path = "bbbb3333ff", "y"
	pendingCopy := deploy
	pendingCopy.State, pendingCopy.Index, pendingCopy.Path = Pending, -1, "a"
	ix := built(t, append(all, named, twin, pendingCopy)...)
	for _, c := range []struct {
		key  string
		want Document
	}{
		{"aaaa1111", deploy},        // an id wins over the name of another
		{"scheduler-1.0.0", deploy}, // a quarantined one does not hide it
		{"aaaa2", adr},
		{"ADR-007-gpg-over-x509", adr},
		{"cccc", foreign},
		{"bbbb3333", late}, // an id wins over those it begins
	} {
		got, err := ix.Get(t.Context(), c.key)
		assert.NilError(t, err, c.key)
		assert.DeepEqual(t, got, c.want)
	}
	for _, key := range []string{"", "ccc", "eeee", "scheduler", "cccc%", "cccc_444", "cccc\xff", "\x00"} {
		_, err := ix.Get(t.Context(), key)
		assert.ErrorIs(t, err, ErrNotFound)
		assert.Error(t, err, fmt.Sprintf("%q: nothing of this id or name", key))
	}
	_, err := ix.Get(t.Context(), "aaaa")
	assert.ErrorIs(t, err, ErrAmbiguous)
	assert.Error(t, err, `"aaaa": ambiguous, wanted one of:
  aaaa1111 deploy scheduler-1.0.0 2025-10-19T20:12:20Z
  aaaa2222 adr ADR-007-gpg-over-x509 2025-10-20T00:00:00Z`)
	_, err = ix.Get(t.Context(), "scheduler-1.1.0")
	assert.Error(t, err, `"scheduler-1.1.0": ambiguous, wanted one of:
  bbbb3333 deploy scheduler-1.1.0 2025-10-20T00:00:00.5Z
  bbbb3333ff deploy scheduler-1.1.0 2025-10-20T00:00:00.5Z`)
}

func TestCandidatesAreFewAndStayOnTheirLines(t *testing.T) {
	var docs []Document
	for i := range 12 {
		docs = append(docs, Document{ID: fmt.Sprintf("ffff%02d", i), Name: "x\n\x1b[2J\"", State: Pending, Index: -1})
	}
	_, err := built(t, docs...).Get(t.Context(), "ffff")
	lines := strings.Split(err.Error(), "\n")
	assert.Equal(t, len(lines), 12)
	assert.Equal(t, lines[1], `  ffff00 x\n\x1b[2J\"`)
	assert.Equal(t, lines[11], "  and 2 more")
}

func TestDocumentsThatBreakTheRulesAreErrorsAndTheOldIndexStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "index")
	assert.NilError(t, Rebuild(t.Context(), path, "old", given(deploy)))
	change := func(f func(*Document)) iter.Seq2[Document, error] {
		d := adr
		f(&d)
		return given(deploy, d)
	}
	for _, c := range []struct {
		docs iter.Seq2[Document, error]
		want string
	}{
		{change(func(d *Document) { d.ID = "" }), `document "": no id`},
		{change(func(d *Document) { d.State = "" }), `document "aaaa2222": found state "", wanted sequenced, pending or quarantined`},
		{change(func(d *Document) { d.Index = -1 }), `document "aaaa2222": found sequenced with log index -1, wanted an index in the log if sequenced, else -1`},
		{change(func(d *Document) { d.State = Pending }), `document "aaaa2222": found pending with log index 1, wanted an index in the log if sequenced, else -1`},
		{change(func(d *Document) { d.Issued = "2025-10-20T00:00:00+00:00" }), `document "aaaa2222": issued: found "2025-10-20T00:00:00+00:00", wanted RFC 3339 in UTC like 2006-01-02T15:04:05Z`},
		{change(func(d *Document) { d.Text = "a\xff" }), `document "aaaa2222": "a\xff" is not UTF-8`},
		{given(adr, adr), `document "aaaa2222": given twice with path "ops/receipts/adr/ADR-007.receipt"`},
		{func(yield func(Document, error) bool) { yield(Document{}, errors.New("unreadable")) }, "unreadable"},
	} {
		assert.Error(t, Rebuild(t.Context(), path, "new", c.docs), "rebuild index "+path+": "+c.want)
		assert.DeepEqual(t, names(t, filepath.Dir(path)), []string{"index"})
	}
	assert.ErrorContains(t, Rebuild(t.Context(), path, "\xff", given()), `stamp "\xff" is not UTF-8`)
	ix, err := Open(t.Context(), path, "old")
	assert.NilError(t, err)
	defer ix.Close()
	got, err := ix.Get(t.Context(), deploy.ID)
	assert.NilError(t, err)
	assert.DeepEqual(t, got, deploy)
}

func TestWhatIsNotThisIndexIsStaleAndRebuilt(t *testing.T) {
	execute := func(path, statement string) {
		db, err := sql.Open("sqlite", path)
		assert.NilError(t, err)
		_, err = db.Exec(statement)
		assert.NilError(t, errors.Join(err, db.Close()))
	}
	for _, c := range []struct {
		name, want string
		spoil      func(path string)
	}{
		{"other stamp", `found stamp "old", wanted "new"`, func(string) {}},
		{"absent", "no such file", func(path string) { assert.NilError(t, os.Remove(path)) }},
		{"empty", "not a SQLite database", func(path string) { assert.NilError(t, os.Truncate(path, 0)) }},
		{"text", "not a SQLite database", func(path string) { assert.NilError(t, os.WriteFile(path, []byte("hello"), 0o600)) }},
		{"cut", "malformed", func(path string) { assert.NilError(t, os.Truncate(path, 4096)) }},
		{"head only", "not a search index", func(path string) { assert.NilError(t, os.Truncate(path, 60)) }},
		{"other schema", "found schema version 99, wanted 1", func(path string) { execute(path, "PRAGMA user_version = 99") }},
		{"other program", "not a search index", func(path string) { execute(path, "PRAGMA application_id = 7") }},
		{"no stamp", "no rows", func(path string) { execute(path, "DELETE FROM stamp") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "index")
			assert.NilError(t, Rebuild(t.Context(), path, "old", given(adr)))
			c.spoil(path)
			_, err := Open(t.Context(), path, "new")
			assert.ErrorIs(t, err, ErrStale)
			assert.ErrorContains(t, err, c.want)

			ix, err := OpenOrRebuild(t.Context(), path, "new", given(deploy))
			assert.NilError(t, err)
			defer ix.Close()
			got, err := ix.List(t.Context(), Filter{})
			assert.NilError(t, err)
			assert.DeepEqual(t, got, []Document{deploy})
			assert.DeepEqual(t, names(t, filepath.Dir(path)), []string{"index"})
		})
	}
}

func TestAFreshIndexIsNotRebuilt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a?b#c%41 d", "index")
	assert.NilError(t, os.Mkdir(filepath.Dir(path), 0o700))
	assert.NilError(t, Rebuild(t.Context(), path, "s", given(deploy)))
	ix, err := OpenOrRebuild(t.Context(), path, "s", func(func(Document, error) bool) { t.Error("documents were read") })
	assert.NilError(t, err)
	assert.NilError(t, ix.Close())
	assert.DeepEqual(t, names(t, filepath.Dir(path)), []string{"index"})
}

func TestACancelledCallIsNotStale(t *testing.T) {
	path := filepath.Join(t.TempDir(), "index")
	assert.NilError(t, Rebuild(t.Context(), path, "s", given(deploy)))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Open(ctx, path, "s")
	assert.Error(t, err, "context canceled")
	assert.ErrorIs(t, Rebuild(ctx, path, "s", given(deploy)), context.Canceled)
	assert.DeepEqual(t, names(t, filepath.Dir(path)), []string{"index"})

	ix, err := Open(t.Context(), path, "s")
	assert.NilError(t, err)
	defer ix.Close()
	_, err = ix.Query(ctx, "scheduler", 0)
	assert.Error(t, err, "context canceled")
	got, err := ix.Query(t.Context(), "scheduler", 0)
	assert.NilError(t, err)
	assert.DeepEqual(t, got, []Document{deploy})
}

func TestADirectoryInTheWayIsAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "index")
	assert.NilError(t, os.MkdirAll(filepath.Join(path, "x"), 0o700))
	_, err := Open(t.Context(), path, "s")
	assert.ErrorIs(t, err, ErrStale)
	_, err = OpenOrRebuild(t.Context(), path, "s", given(deploy))
	assert.Assert(t, err != nil && !errors.Is(err, ErrStale))
	assert.DeepEqual(t, names(t, filepath.Dir(path)), []string{"index"})
}

func TestReadersKeepTheirIndexWhileItIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "index")
	assert.NilError(t, Rebuild(t.Context(), path, "0", given(deploy)))
	ix, err := Open(t.Context(), path, "0")
	assert.NilError(t, err)
	defer ix.Close()
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for range 20 {
				got, err := ix.Query(t.Context(), "scheduler", 0)
				if err != nil || !slices.Equal(got, []Document{deploy}) {
					t.Errorf("found %v, %v", got, err)
				}
			}
		})
	}
	for i := range 5 {
		assert.Check(t, Rebuild(t.Context(), path, fmt.Sprint(i+1), given(adr)))
	}
	wait.Wait()
	got, err := ix.List(t.Context(), Filter{})
	assert.NilError(t, err)
	assert.DeepEqual(t, got, []Document{deploy})
}

func TestDamageFoundLateSaysWhatToDo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "index")
	big := deploy
	big.Text = strings.Repeat("word ", 10000)
	assert.NilError(t, Rebuild(t.Context(), path, "s", given(big)))
	b, err := os.ReadFile(path)
	assert.NilError(t, err)
	for at := 4096 * 3; at < len(b); at += 4096 {
		b[at] = 0xee // no such kind of page
	}
	assert.NilError(t, os.WriteFile(path, b, 0o600))
	ix, err := Open(t.Context(), path, "s")
	assert.NilError(t, err)
	defer ix.Close()
	_, err = ix.Query(t.Context(), "word", 0)
	assert.ErrorContains(t, err, "index "+path+" is damaged: ")
	assert.ErrorContains(t, err, "hint: delete it; it is rebuilt at the next use")
}

// Whatever is asked, the answer is documents, in which the words occur.
func FuzzQuery(f *testing.F) {
	for _, s := range []string{"", "a", "\"", "*", "a*", "^a", "a AND", "NOT", "NEAR(", "id:x", "{id}:", "-a", "a+b", "(", "\x00", "\xff", "é", "𞤀", "'", "--", ";", "﷽", "a\u0301"} {
		f.Add(s)
	}
	ix := built(f, all...)
	f.Fuzz(func(t *testing.T, text string) {
		got, err := ix.Query(context.Background(), text, 0)
		if len(text) > maxQuery {
			assert.Assert(t, err != nil)
			return
		}
		assert.NilError(t, err)
		for _, d := range got {
			assert.Assert(t, slices.Contains(all, d))
		}
		if _, err := ix.Get(context.Background(), text); err != nil {
			assert.Assert(t, errors.Is(err, ErrNotFound) || errors.Is(err, ErrAmbiguous), "%v", err)
		}
	})
}
