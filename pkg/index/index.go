// Package index hides SQLite. It does two things that need it and nothing else: it
// reads the ancestor's database ([ReadAncestor]), and it keeps the search index that
// query, list, timeline and receipt answer from.
//
// # The search index
//
// The index is derived: it holds nothing that the repository does not hold, and may be
// deleted at any time. It is one file, written once and never changed: [Rebuild] writes
// a new file beside it and renames it over the old one, so a reader sees the old index
// or the new one to its end, never a mixture, and a crash leaves at worst a temporary file. Since
// no one writes to an index in place, readers take no locks and any number of them may
// run at once, in one process or many.
//
// Each index carries a stamp, a string that its maker chooses to name the state it was
// derived from (a hash of checkpoint, trust state and file list). [Open] with another
// stamp, of a file that is absent, damaged or from another version of this package,
// fails with [ErrStale]: rebuild and open again, or let [OpenOrRebuild] do both.
//
//	ix, err := index.OpenOrRebuild(ctx, path, stamp, documents)
//	if err != nil {
//		return err
//	}
//	defer ix.Close()
//	hits, err := ix.Query(ctx, "scheduler 1.0", 20)
//
// Answers are for people who look for something. Whoever can write the file can make it
// lie, so no verdict may rest on it: a receipt found here is verified where it lies.
package index

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	_ "modernc.org/sqlite" // the pure Go driver "sqlite"
)

// The states of a document.
const (
	Sequenced   = "sequenced"   // in the log
	Pending     = "pending"     // validly signed, waiting for the publisher
	Quarantined = "quarantined" // refused: without a valid signature by a known issuer
)

// Document is one receipt as the index knows it. ID and State are required.
type Document struct {
	ID        string // of the receipt; the same receipt in two places has one ID
	Kind      string
	Name      string
	Issued    string // RFC 3339 in UTC ("…Z"), or "" if it could not be read
	Component string
	Version   string
	Issuer    string
	State     string // Sequenced, Pending or Quarantined
	Path      string // in the repository; "" if only the log has it; (ID, Path) is unique
	Index     int64  // in the log if State is Sequenced, else -1
	Text      string // whatever else should be found
}

// Errors that callers branch on; the error's text has the details.
var (
	ErrStale     = errors.New("search index must be rebuilt")
	ErrNotFound  = errors.New("nothing of this id or name")
	ErrAmbiguous = errors.New("ambiguous")
)

// schemaVersion changes with the schema, with what the columns mean and with how text
// is cut into words; an index of another version is stale.
const schemaVersion = 1

// applicationID marks the file as ours, so that another program's database is stale
// rather than misread. It spells "Rmbr".
const applicationID = 0x526d6272

// issued_key is issued with nine digits of fraction: as text, "…00Z" sorts after
// "…00.5Z". The table search holds only words; its rows are document's.
const schema = `
CREATE TABLE stamp (stamp TEXT NOT NULL) STRICT;
CREATE TABLE document (
	rowid      INTEGER PRIMARY KEY,
	id         TEXT NOT NULL,
	kind       TEXT NOT NULL,
	name       TEXT NOT NULL,
	issued     TEXT NOT NULL,
	component  TEXT NOT NULL,
	version    TEXT NOT NULL,
	issuer     TEXT NOT NULL,
	state      TEXT NOT NULL,
	path       TEXT NOT NULL,
	log_index  INTEGER NOT NULL,
	text       TEXT NOT NULL,
	issued_key TEXT NOT NULL,
	UNIQUE (id, path)
) STRICT;
CREATE INDEX document_issued ON document (issued_key, id);
CREATE INDEX document_name ON document (name);
CREATE VIRTUAL TABLE search USING fts5 (
	id, kind, name, component, version, issuer, path, text,
	content = 'document', content_rowid = 'rowid', tokenize = 'unicode61 remove_diacritics 2'
);`

const insertDocument = `INSERT INTO document
		(id, kind, name, issued, component, version, issuer, state, path, log_index, text, issued_key)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`

const columns = `d.id, d.kind, d.name, d.issued, d.component, d.version, d.issuer, d.state, d.path, d.log_index, d.text`

// Index answers questions. Its methods may be called from several goroutines; within
// one Index they take turns.
type Index struct {
	db   *sql.DB
	path string

	mu sync.Mutex // one question at a time
	// The one connection, kept from Open to Close: a second would open the path anew
	// and might find an index that has replaced this one.
	conn *sql.Conn
}

// Open opens the index at path if it was built by this version of the package and
// carries the stamp; otherwise the error wraps [ErrStale] and says what was found.
func Open(ctx context.Context, path, stamp string) (*Index, error) {
	ix, found, err := open(ctx, path)
	switch {
	case ctx.Err() != nil:
		if err == nil {
			ix.Close()
		}
		return nil, ctx.Err()
	case err != nil:
		// A file that cannot be read is rebuilt; if it cannot be replaced either,
		// Rebuild says why.
		return nil, fmt.Errorf("index %s: %w: %w", path, ErrStale, err)
	case found != stamp:
		ix.Close()
		return nil, fmt.Errorf("index %s: %w: found stamp %q, wanted %q", path, ErrStale, found, stamp)
	}
	return ix, nil
}

func open(ctx context.Context, path string) (*Index, string, error) {
	if err := checkHeader(path); err != nil {
		return nil, "", err
	}
	db, err := openImmutable(path)
	if err != nil {
		return nil, "", err
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		db.Close()
		return nil, "", err
	}
	ix := &Index{db: db, path: path, conn: conn}
	var application, version int64
	var stamp string
	err = errors.Join(
		conn.QueryRowContext(ctx, "PRAGMA application_id").Scan(&application),
		conn.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version),
	)
	if err == nil && application != applicationID {
		err = errors.New("not a search index")
	}
	if err == nil && version != schemaVersion {
		err = fmt.Errorf("found schema version %d, wanted %d", version, schemaVersion)
	}
	if err == nil {
		err = conn.QueryRowContext(ctx, "SELECT stamp FROM stamp").Scan(&stamp)
	}
	if err != nil {
		ix.Close()
		return nil, "", err
	}
	return ix, stamp, nil
}

// OpenOrRebuild opens the index and rebuilds it from docs first if it is stale; docs is
// not touched otherwise.
func OpenOrRebuild(ctx context.Context, path, stamp string, docs iter.Seq2[Document, error]) (*Index, error) {
	ix, err := Open(ctx, path, stamp)
	if !errors.Is(err, ErrStale) {
		return ix, err
	}
	if err := Rebuild(ctx, path, stamp, docs); err != nil {
		return nil, err
	}
	return Open(ctx, path, stamp)
}

// Rebuild writes an index of docs with the stamp to path. The first error that docs
// yields, or a document that breaks the rules of [Document], ends it: then the file at
// path is as it was. The directory must exist. On Windows an index that a reader has open
// cannot be replaced; that is an error too.
func Rebuild(ctx context.Context, path, stamp string, docs iter.Seq2[Document, error]) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("rebuild index %s: %w", path, err)
		}
	}()
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	temp := f.Name()
	defer func() {
		if err != nil {
			os.Remove(temp)
		}
	}()
	defer f.Close()
	if err := build(ctx, temp, stamp, docs); err != nil {
		return err
	}
	// Without this a crash could leave a renamed file without its content. The rename
	// itself may be lost: then the old index is there, and stale.
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil { // Windows does not rename an open file
		return err
	}
	return os.Rename(temp, path)
}

func build(ctx context.Context, path, stamp string, docs iter.Seq2[Document, error]) (err error) {
	if !utf8.ValidString(stamp) {
		return fmt.Errorf("stamp %q is not UTF-8", stamp)
	}
	// No one else sees the temporary file and a failure discards it, so it needs
	// neither a journal (which would be a second file) nor syncing by SQLite.
	db, err := openDSN(path, url.Values{
		"mode":    {"rw"},
		"_pragma": {"journal_mode(OFF)", "synchronous(OFF)", "temp_store(MEMORY)"},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // does nothing once committed
	if _, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = %d;", applicationID, schemaVersion)+schema); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO stamp VALUES (?)", stamp); err != nil {
		return err
	}
	insert, err := tx.PrepareContext(ctx, insertDocument) //nolint:sqlclosecheck // it is closed below
	if err != nil {
		return err
	}
	defer insert.Close()
	for d, err := range docs {
		if err != nil {
			return err
		}
		key, err := check(d)
		if err != nil {
			return fmt.Errorf("document %q: %w", d.ID, err)
		}
		result, err := insert.ExecContext(ctx, d.ID, d.Kind, d.Name, d.Issued, d.Component, d.Version, d.Issuer, d.State, d.Path, d.Index, d.Text, key)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil {
			return err
		} else if n != 1 {
			return fmt.Errorf("document %q: given twice with path %q", d.ID, d.Path)
		}
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO search (search) VALUES ('rebuild'); INSERT INTO search (search) VALUES ('optimize')"); err != nil {
		return err
	}
	return tx.Commit()
}

// check returns the document's issued_key.
func check(d Document) (key string, err error) {
	for _, s := range []string{d.ID, d.Kind, d.Name, d.Component, d.Version, d.Issuer, d.Path, d.Text} {
		if !utf8.ValidString(s) {
			return "", fmt.Errorf("%.60q is not UTF-8", s)
		}
	}
	switch {
	case d.ID == "":
		return "", errors.New("no id")
	case d.State != Sequenced && d.State != Pending && d.State != Quarantined:
		return "", fmt.Errorf("found state %q, wanted %s, %s or %s", d.State, Sequenced, Pending, Quarantined)
	case d.State == Sequenced && d.Index < 0, d.State != Sequenced && d.Index != -1:
		return "", fmt.Errorf("found %s with log index %d, wanted an index in the log if sequenced, else -1", d.State, d.Index)
	case d.Issued == "":
		return "", nil
	}
	t, err := time.Parse(time.RFC3339, d.Issued)
	if err != nil || !strings.HasSuffix(d.Issued, "Z") {
		return "", fmt.Errorf("issued: found %q, wanted RFC 3339 in UTC like 2006-01-02T15:04:05Z", d.Issued)
	}
	return timeKey(t), nil
}

func timeKey(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000000Z") }

// Close releases the file.
func (ix *Index) Close() error { return errors.Join(ix.conn.Close(), ix.db.Close()) }

const (
	maxQuery = 1024 // bytes; enough for any question, and it bounds the work
	newest   = "d.issued_key DESC, d.id, d.path"
	oldest   = "d.issued_key, d.id, d.path"
)

// Query returns the documents in which every word of text occurs, best first; the last
// word may be the beginning of one. Words are parted by white space; case and
// diacritics do not count. A word with punctuation, such as v1.0.0, is found where its
// parts stand side by side. No character has a special meaning; text with neither
// letter nor digit finds nothing. A limit of 0 is none. Text of more than 1024 bytes is
// an error.
func (ix *Index) Query(ctx context.Context, text string, limit int) ([]Document, error) {
	if len(text) > maxQuery {
		return nil, fmt.Errorf("query: found %d bytes, wanted at most %d", len(text), maxQuery)
	}
	match := expression(text)
	if match == "" {
		return nil, nil
	}
	return ix.documents(ctx, `SELECT `+columns+` FROM search JOIN document d ON d.rowid = search.rowid
		WHERE search MATCH ? ORDER BY search.rank, `+newest+` LIMIT ?`, match, sqlLimit(limit))
}

// expression turns a person's words into an FTS5 expression in which each word is a
// quoted string, so that none of FTS5's operators can be reached from outside; "" if
// there is no word. Words without letter or digit have no tokens and are dropped.
func expression(text string) string {
	var words []string
	for _, word := range strings.FieldsFunc(text, func(c rune) bool { return unicode.IsSpace(c) || c == 0 }) {
		word = strings.ToValidUTF8(word, " ")
		if strings.ContainsFunc(word, func(c rune) bool { return unicode.IsLetter(c) || unicode.IsNumber(c) }) {
			words = append(words, `"`+strings.ReplaceAll(word, `"`, `""`)+`"`)
		}
	}
	if len(words) == 0 {
		return ""
	}
	return strings.Join(words, " ") + "*"
}

// Filter narrows a list; its zero value lets everything through.
type Filter struct {
	Kind      string // exactly
	Component string // exactly
	Since     string // first moment: RFC 3339, or a date, which is its first moment in UTC
	Until     string // moment after the last: RFC 3339, or a date, which includes that whole day in UTC
	Limit     int    // 0 is none
}

// List returns the documents that pass the filter, newest first. Since or Until leaves
// out documents without a time.
func (ix *Index) List(ctx context.Context, f Filter) ([]Document, error) {
	return ix.list(ctx, f, newest)
}

// Timeline returns the documents issued since then (a [Filter]'s Since; "" for all),
// oldest first, those of one moment by id.
func (ix *Index) Timeline(ctx context.Context, since string) ([]Document, error) {
	return ix.list(ctx, Filter{Since: since}, oldest)
}

func (ix *Index) list(ctx context.Context, f Filter, order string) ([]Document, error) {
	where := []string{"true"}
	var args []any
	add := func(condition, arg string) {
		where = append(where, condition)
		args = append(args, arg)
	}
	if f.Kind != "" {
		add("d.kind = ?", f.Kind)
	}
	if f.Component != "" {
		add("d.component = ?", f.Component)
	}
	if f.Since != "" {
		t, _, err := moment(f.Since)
		if err != nil {
			return nil, fmt.Errorf("since: %w", err)
		}
		add("d.issued_key >= ?", timeKey(t))
	}
	if f.Until != "" {
		t, isDate, err := moment(f.Until)
		if err != nil {
			return nil, fmt.Errorf("until: %w", err)
		}
		if isDate {
			t = t.AddDate(0, 0, 1)
		}
		add("d.issued_key != '' AND d.issued_key < ?", timeKey(t))
	}
	args = append(args, sqlLimit(f.Limit))
	return ix.documents(ctx, `SELECT `+columns+` FROM document d WHERE `+strings.Join(where, " AND ")+` ORDER BY `+order+` LIMIT ?`, args...)
}

func moment(s string) (t time.Time, isDate bool, err error) {
	if t, err := time.Parse(time.DateOnly, s); err == nil {
		return t, true, nil
	}
	t, err = time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, false, fmt.Errorf("found %q, wanted a date like 2006-01-02 or a time like 2006-01-02T15:04:05Z", s)
	}
	return t, false, nil
}

// minPrefix keeps "a" from being taken for the beginning of an id.
const minPrefix = 4

// Get returns the one document whose id is key, or else whose name is key or whose id
// begins with key (at least 4 characters). Quarantined documents count only if no other
// matches: what anyone may drop into a repository must not hide a receipt. Of a receipt
// in several places it is the sequenced one, then a pending one, by path. If none
// matches the error wraps [ErrNotFound]; if several do, it wraps [ErrAmbiguous] and
// lists them.
func (ix *Index) Get(ctx context.Context, key string) (Document, error) {
	if !utf8.ValidString(key) {
		return Document{}, fmt.Errorf("%q: %w", key, ErrNotFound)
	}
	const best = ` ORDER BY d.state = '` + Quarantined + `', d.id, d.state != '` + Sequenced + `', d.path`
	found, err := ix.documents(ctx, `SELECT `+columns+` FROM document d WHERE d.id = ?`+best, key)
	if err != nil {
		return Document{}, err
	}
	if len(found) > 0 {
		return found[0], nil
	}
	after := key + "\U0010ffff"
	if len(key) < minPrefix {
		after = key // an empty range
	}
	found, err = ix.documents(ctx, `SELECT `+columns+` FROM document d WHERE d.name = ?1 OR d.id >= ?1 AND d.id < ?2`+best, key, after)
	if err != nil {
		return Document{}, err
	}
	var distinct []Document
	for _, d := range found {
		if d.State == Quarantined && found[0].State != Quarantined {
			break // the good ones come first
		}
		if len(distinct) == 0 || distinct[len(distinct)-1].ID != d.ID {
			distinct = append(distinct, d)
		}
	}
	switch len(distinct) {
	case 0:
		return Document{}, fmt.Errorf("%q: %w", key, ErrNotFound)
	case 1:
		return distinct[0], nil
	}
	return Document{}, fmt.Errorf("%q: %w, wanted one of:%s", key, ErrAmbiguous, candidates(distinct))
}

func candidates(docs []Document) string {
	const most = 10
	var b strings.Builder
	for i, d := range docs {
		if i == most {
			fmt.Fprintf(&b, "\n  and %d more", len(docs)-most)
			break
		}
		b.WriteString("\n ")
		for _, s := range []string{d.ID, d.Kind, d.Name, d.Issued} {
			if s != "" {
				// Names come from files that anyone may add: keep them on their line.
				quoted := strconv.Quote(s)
				b.WriteString(" " + quoted[1:len(quoted)-1])
			}
		}
	}
	return b.String()
}

// sqlLimit translates "0 is none" to SQL, where -1 is none and 0 is nothing.
func sqlLimit(n int) int {
	if n <= 0 {
		return -1
	}
	return n
}

func (ix *Index) documents(ctx context.Context, query string, args ...any) (docs []Document, err error) {
	defer func() {
		if err == nil {
			return
		}
		docs = nil
		if ctx.Err() == nil {
			err = fmt.Errorf("index %s is damaged: %w\nhint: delete it; it is rebuilt at the next use", ix.path, err)
		}
	}()
	ix.mu.Lock()
	defer ix.mu.Unlock()
	rows, err := ix.conn.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var d Document
		if err := rows.Scan(&d.ID, &d.Kind, &d.Name, &d.Issued, &d.Component, &d.Version, &d.Issuer, &d.State, &d.Path, &d.Index, &d.Text); err != nil {
			return nil, err
		}
		docs = append(docs, d)
	}
	return docs, rows.Err()
}

// checkHeader tells other files from databases before SQLite sees them, which reports
// them with codes, and takes an empty file for an empty database.
func checkHeader(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	const magic = "SQLite format 3\x00"
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("not a regular file")
	}
	b := make([]byte, len(magic))
	if n, _ := f.ReadAt(b, 0); string(b[:n]) != magic {
		return errors.New("not a SQLite database")
	}
	return nil
}

// openImmutable opens a database that nobody writes to while it is open. SQLite then
// takes no locks and creates no file beside it. The schema is not trusted: it may come
// from someone else's repository.
func openImmutable(path string) (*sql.DB, error) {
	return openDSN(path, url.Values{
		"mode":      {"ro"},
		"immutable": {"1"},
		"_pragma":   {"query_only(1)", "trusted_schema(0)", "cell_size_check(1)", "temp_store(MEMORY)"},
	})
}

func openDSN(path string, options url.Values) (*sql.DB, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	name := filepath.ToSlash(abs)
	if !strings.HasPrefix(name, "/") { // C:/x is /C:/x in a URI
		name = "/" + name
	}
	u := url.URL{Scheme: "file", Path: name, RawQuery: options.Encode()}
	db, err := sql.Open("sqlite", u.String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	return db, nil
}
