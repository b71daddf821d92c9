package index

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/vaultmesh/remembrancer/pkg/legacy"
	"gotest.tools/v3/assert"
)

func ptr(s string) *string { return &s }

const memories = "CREATE TABLE memories (id TEXT PRIMARY KEY, timestamp TEXT NOT NULL, type TEXT NOT NULL, component TEXT, version TEXT, hash TEXT, sig TEXT, data JSON, merkle_root TEXT);"

// database makes a database by SQL, in a directory of its own.
func database(t testing.TB, statements string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "remembrancer.db")
	db, err := sql.Open("sqlite", path)
	assert.NilError(t, err)
	db.SetMaxOpenConns(1)
	_, err = db.Exec(statements)
	assert.NilError(t, err)
	assert.NilError(t, db.Close())
	return path
}

func TestTheAncestorsDatabaseHasItsRoot(t *testing.T) {
	records, err := ReadAncestor(t.Context(), filepath.Join("testdata", "remembrancer.db"))
	assert.NilError(t, err)
	data, err := legacy.TextValue(`{"artifact":"SOVEREIGN_LORE_CODEX_V1.md","gpg_key":"6E4082C6A410F340","tsa":"FreeTSA"}`)
	assert.NilError(t, err)
	want := []legacy.Record{{
		ID: "codex-v1.0.0", Timestamp: "2025-10-19T20:18:00Z", Type: "codex",
		Component: ptr("SOVEREIGN_LORE_CODEX_V1"), Version: ptr("v1.0.0"),
		Hash: ptr("31b058bb72430e722442165d1e22d4a0786448073ea52d29ef61ac689964a726"),
		Sig:  ptr("3af690d662b2b74ef9744b6ac3d891faf3aefc6d1cbf3aa1eb9a39270412ddde"),
		Data: data, MerkleRoot: ptr(""),
	}}
	assert.Assert(t, reflect.DeepEqual(records, want), "found %+v", records)
	assert.Equal(t, legacy.Root(records), "d5c64aee1039e6dd71f5818d456cce2e48e6590b6953c13623af6fa1070decea")
}

func TestRowsAreKeptWhole(t *testing.T) {
	path := database(t, memories+`
		INSERT INTO memories VALUES ('z', '2025', 'y', NULL, '', NULL, 'a' || char(0) || 'b', NULL, NULL);
		INSERT INTO memories VALUES ('é', '2024', 'y', '🜂', '1', '2', '3', '{"a":1}', 'm');
		INSERT INTO memories VALUES ('a', '2025', '', NULL, NULL, NULL, NULL, '', NULL);`)
	records, err := ReadAncestor(t.Context(), path)
	assert.NilError(t, err)
	value := func(s string) legacy.Value {
		v, err := legacy.TextValue(s)
		assert.NilError(t, err)
		return v
	}
	want := []legacy.Record{
		{ID: "é", Timestamp: "2024", Type: "y", Component: ptr("🜂"), Version: ptr("1"), Hash: ptr("2"), Sig: ptr("3"), Data: value(`{"a":1}`), MerkleRoot: ptr("m")},
		{ID: "a", Timestamp: "2025", Data: value("")},
		{ID: "z", Timestamp: "2025", Type: "y", Version: ptr(""), Sig: ptr("a\x00b")},
	}
	assert.Assert(t, reflect.DeepEqual(records, want), "found %+v", records)
}

func TestDeclaredTypesDoNotTurnTextIntoTimes(t *testing.T) {
	path := database(t, strings.Replace(memories, "timestamp TEXT", "timestamp TIMESTAMP", 1)+
		"INSERT INTO memories (id, timestamp, type) VALUES ('a', '2025-10-19 20:18:00', 'y')")
	records, err := ReadAncestor(t.Context(), path)
	assert.NilError(t, err)
	assert.Equal(t, records[0].Timestamp, "2025-10-19 20:18:00")
}

func TestAnEmptyTableIsNoRecords(t *testing.T) {
	records, err := ReadAncestor(t.Context(), database(t, memories))
	assert.NilError(t, err)
	assert.Assert(t, records != nil)
	assert.Equal(t, legacy.Root(records), "")
}

func TestWhatARecordCannotHoldIsAnError(t *testing.T) {
	insert := "INSERT INTO memories (id, timestamp, type, sig, data) VALUES "
	for _, c := range []struct{ statements, want string }{
		{"CREATE TABLE other (id)", "no table memories"},
		{"CREATE VIEW memories AS SELECT 1 AS id", "no table memories"},
		{memories + "ALTER TABLE memories ADD COLUMN author TEXT; ALTER TABLE memories ADD COLUMN note", "table memories: unknown columns author, note, wanted only id, timestamp, type, component, version, hash, sig, data, merkle_root"},
		{memories + "ALTER TABLE memories ADD COLUMN up TEXT AS (upper(id))", "table memories: unknown columns up, wanted only id, timestamp, type, component, version, hash, sig, data, merkle_root"},
		{memories + "ALTER TABLE memories DROP COLUMN sig; ALTER TABLE memories DROP COLUMN merkle_root", "table memories: no columns sig, merkle_root"},
		{memories + insert + "('a', 't', 'y', NULL, NULL), ('b', 't', 'y', NULL, x'00')", `row "b": data: found a blob, wanted text`},
		{memories + insert + "('a', 't', 'y', NULL, '12')", `row "a": data: found the number 12, wanted text`},
		{memories + insert + "('a', 't', 'y', NULL, 1.5)", `row "a": data: found the number 1.5, wanted text`},
		{memories + insert + "('a', 't', 'y', x'61', NULL)", `row "a": sig: found a blob, wanted text`},
		{memories + insert + "('a', 't', 'y', CAST(x'ff' AS TEXT), NULL)", `row "a": sig: found text that is not UTF-8, wanted text`},
		{memories + insert + "('a', 's', 'y', NULL, NULL), (NULL, 't', 'y', NULL, NULL)", "row 1 in order of timestamp and id: id: found NULL, wanted text"},
	} {
		path := database(t, c.statements)
		records, err := ReadAncestor(t.Context(), path)
		assert.Error(t, err, "ancestor database "+path+": "+c.want)
		assert.Assert(t, records == nil)
	}
}

func TestWhatIsNoDatabaseIsAnError(t *testing.T) {
	dir := t.TempDir()
	good, err := os.ReadFile(filepath.Join("testdata", "remembrancer.db"))
	assert.NilError(t, err)
	torn := append([]byte(nil), good...)
	copy(torn[4096:], make([]byte, 4096)) // the table's first page
	for name, c := range map[string]struct {
		content []byte
		want    string
	}{
		"text":  {[]byte("SQLite format 3, or so"), "not a SQLite database"},
		"empty": {nil, "not a SQLite database"},
		"head":  {good[:100], "damaged: "},
		"cut":   {good[:len(good)/2], "damaged: "},
		"torn":  {torn, "damaged: "},
	} {
		path := filepath.Join(dir, name)
		assert.NilError(t, os.WriteFile(path, c.content, 0o600))
		_, err := ReadAncestor(t.Context(), path)
		assert.ErrorContains(t, err, "ancestor database "+path+": "+c.want)
	}
	_, err = ReadAncestor(t.Context(), filepath.Join(dir, "absent"))
	assert.ErrorIs(t, err, os.ErrNotExist)
	_, err = ReadAncestor(t.Context(), dir)
	assert.ErrorContains(t, err, "not a regular file")
}

func TestReadingLeavesTheDirectoryAsItWas(t *testing.T) {
	for _, mode := range []string{"DELETE", "WAL"} {
		path := database(t, "PRAGMA journal_mode = "+mode+";"+memories+"INSERT INTO memories (id, timestamp, type) VALUES ('a', 't', 'y')")
		before, err := os.ReadFile(path)
		assert.NilError(t, err)
		// With permission to write neither file nor directory, as from a read-only checkout.
		assert.NilError(t, os.Chmod(path, 0o400))
		assert.NilError(t, os.Chmod(filepath.Dir(path), 0o500))
		records, err := ReadAncestor(t.Context(), path)
		assert.NilError(t, os.Chmod(filepath.Dir(path), 0o700))
		assert.NilError(t, err)
		assert.Equal(t, len(records), 1)
		assert.DeepEqual(t, names(t, filepath.Dir(path)), []string{"remembrancer.db"})
		after, err := os.ReadFile(path)
		assert.NilError(t, err)
		assert.DeepEqual(t, after, before)
	}
}

func TestWritesNotYetInTheFileAreAnError(t *testing.T) {
	path := database(t, "PRAGMA journal_mode = WAL;"+memories)
	db, err := sql.Open("sqlite", path)
	assert.NilError(t, err)
	defer db.Close()
	_, err = db.Exec("INSERT INTO memories (id, timestamp, type) VALUES ('a', 't', 'y')")
	assert.NilError(t, err)
	_, err = ReadAncestor(t.Context(), path)
	assert.ErrorContains(t, err, "found unfinished writes in "+path+"-wal, wanted a database at rest\nhint: sqlite3 ")
	assert.NilError(t, db.Close())
	records, err := ReadAncestor(t.Context(), path)
	assert.NilError(t, err)
	assert.Equal(t, len(records), 1)

	assert.NilError(t, os.WriteFile(path+"-journal", []byte("x"), 0o600))
	_, err = ReadAncestor(t.Context(), path)
	assert.ErrorContains(t, err, "found unfinished writes in "+path+"-journal")
}

// A changed byte is an error or records, never a crash, and never a file beside it.
func FuzzReadAncestor(f *testing.F) {
	good, err := os.ReadFile(filepath.Join("testdata", "remembrancer.db"))
	assert.NilError(f, err)
	f.Add(uint16(0), byte(0))
	f.Add(uint16(18), byte(2))
	f.Add(uint16(4096), byte(13))
	f.Add(uint16(8000), byte(255))
	f.Fuzz(func(t *testing.T, at uint16, to byte) {
		path := filepath.Join(t.TempDir(), "remembrancer.db")
		b := append([]byte(nil), good...)
		b[int(at)%len(b)] = to
		assert.NilError(t, os.WriteFile(path, b, 0o600))
		records, err := ReadAncestor(context.Background(), path)
		if err != nil {
			assert.Assert(t, records == nil)
		} else {
			legacy.Root(records)
		}
		assert.DeepEqual(t, names(t, filepath.Dir(path)), []string{"remembrancer.db"})
	})
}
