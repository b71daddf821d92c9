package index

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/vaultmesh/remembrancer/pkg/legacy"
)

// maxAncestor bounds what is read into memory, in bytes of the database file. The
// ancestor needed about 500 bytes a record.
const maxAncestor = 256 << 20

var ancestorColumns = []string{"id", "timestamp", "type", "component", "version", "hash", "sig", "data", "merkle_root"}

// ReadAncestor reads all records from a database of the ancestor: a SQLite file whose
// table "memories" has exactly the columns id, timestamp, type, component, version,
// hash, sig, data and merkle_root. They come in the ancestor's order, by timestamp and
// id. NULL stays nil; data stays the string that holds JSON, as the ancestor's root has
// it. A value of another type than text, text that is not UTF-8, a missing or further
// column, and damage anywhere in the file are errors.
//
// The file is opened as one that nobody writes to: nothing is written to it or beside
// it. A write-ahead log or journal beside it holds part of its content, so a non-empty
// one is an error too.
func ReadAncestor(ctx context.Context, path string) ([]legacy.Record, error) {
	records, err := readAncestor(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("ancestor database %s: %w", path, err)
	}
	return records, nil
}

func readAncestor(ctx context.Context, path string) ([]legacy.Record, error) {
	if err := checkHeader(path); err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxAncestor {
		return nil, fmt.Errorf("found %d bytes, wanted at most %d", info.Size(), maxAncestor)
	}
	for _, suffix := range []string{"-wal", "-journal"} {
		switch info, err := os.Stat(path + suffix); {
		case errors.Is(err, os.ErrNotExist):
		case err != nil:
			return nil, err
		case info.Size() > 0:
			return nil, fmt.Errorf("found unfinished writes in %s%s, wanted a database at rest\nhint: sqlite3 %s 'PRAGMA wal_checkpoint(TRUNCATE)'", path, suffix, path)
		}
	}
	db, err := openImmutable(path)
	if err != nil {
		return nil, err
	}
	defer db.Close()

	// An index that misses a row would hide it from an ordered query.
	var integrity string
	if err := db.QueryRowContext(ctx, "PRAGMA integrity_check(1)").Scan(&integrity); err != nil {
		return nil, fmt.Errorf("damaged: %w", err)
	}
	if integrity != "ok" {
		return nil, fmt.Errorf("damaged: %s", strings.ReplaceAll(integrity, "\n", " "))
	}

	var tables int
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'memories'").Scan(&tables); err != nil {
		return nil, err
	}
	if tables == 0 {
		return nil, errors.New("no table memories")
	}
	rows, err := db.QueryContext(ctx, "SELECT name FROM pragma_table_xinfo('memories')")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var found []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		found = append(found, name)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	if extra := without(found, ancestorColumns); len(extra) > 0 {
		return nil, fmt.Errorf("table memories: unknown columns %s, wanted only %s", strings.Join(extra, ", "), strings.Join(ancestorColumns, ", "))
	}
	if missing := without(ancestorColumns, found); len(missing) > 0 {
		return nil, fmt.Errorf("table memories: no columns %s", strings.Join(missing, ", "))
	}

	// The plus signs change no value; they take away the columns' declared types, which
	// the driver would otherwise use to turn some text into times.
	rows, err = db.QueryContext(ctx, "SELECT +"+strings.Join(ancestorColumns, ", +")+" FROM memories ORDER BY timestamp, id") //nolint:gosec // G202: the columns are constants
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	records := []legacy.Record{}
	for rows.Next() {
		values := make([]any, len(ancestorColumns))
		targets := make([]any, len(values))
		for i := range values {
			targets[i] = &values[i]
		}
		if err := rows.Scan(targets...); err != nil {
			return nil, err
		}
		r, err := ancestorRecord(values)
		if err != nil {
			name := fmt.Sprintf("row %d in order of timestamp and id", len(records))
			if id, ok := values[0].(string); ok {
				name = fmt.Sprintf("row %q", id)
			}
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		records = append(records, r)
	}
	return records, rows.Err()
}

// ancestorRecord makes a record of the values of ancestorColumns.
func ancestorRecord(values []any) (legacy.Record, error) {
	texts := make([]*string, len(values))
	for i, v := range values {
		wrong := ""
		switch v := v.(type) {
		case nil:
			if i < 3 { // id too: SQLite admits NULL in a primary key that is text
				wrong = "NULL"
			}
		case string:
			if !utf8.ValidString(v) {
				wrong = "text that is not UTF-8"
			}
			texts[i] = &v
		case []byte:
			wrong = "a blob"
		default:
			wrong = fmt.Sprintf("the number %v", v)
		}
		if wrong != "" {
			return legacy.Record{}, fmt.Errorf("%s: found %s, wanted text", ancestorColumns[i], wrong)
		}
	}
	r := legacy.Record{
		ID:         *texts[0],
		Timestamp:  *texts[1],
		Type:       *texts[2],
		Component:  texts[3],
		Version:    texts[4],
		Hash:       texts[5],
		Sig:        texts[6],
		MerkleRoot: texts[8],
	}
	if texts[7] != nil {
		var err error
		if r.Data, err = legacy.TextValue(*texts[7]); err != nil {
			return legacy.Record{}, fmt.Errorf("data: %w", err)
		}
	}
	return r, nil
}

// without returns the names that are not among others, in their order.
func without(names, others []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		return slices.Contains(others, name)
	})
}
