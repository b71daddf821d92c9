package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/vaultmesh/remembrancer/pkg/action"
	"github.com/vaultmesh/remembrancer/pkg/index"
	"github.com/vaultmesh/remembrancer/pkg/legacy"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

var importVerb = verb{
	spec: action.Spec{
		Verb: "import", Summary: "take over the ancestor's memories, with its root",
		Description: "Reads the ancestor's SQLite database or its JSON form and writes its root as a receipt of kind legacy-root and each record as a " +
			"receipt of kind memory. A legacy root is never offered as a root of this log: lists of different lengths can share one.",
		Args: "FILE",
		Inputs: append([]action.Input{
			{Name: "dry-run", Kind: action.Bool, Usage: "Print the ancestor's root and write nothing."},
			{Name: "issuer", Usage: "Fingerprint of the issuer, where no key is at hand to sign with now."},
		}, keyInputs()...),
		Examples: []string{"remembrancer import --dry-run remembrancer.db"},
	},
	run: func(w *world, v *action.Values, _ *action.Runner) error {
		if len(v.Args()) != 1 {
			return misused("want one FILE: the ancestor's database or JSON")
		}
		file := w.path(v.Args()[0])
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		records, err := w.readAncestor(file, data)
		if err != nil {
			return fmt.Errorf("%s: %w", v.Args()[0], err)
		}
		root := legacy.Root(records)
		if v.Bool("dry-run") {
			w.say("%s", root)
			return nil
		}
		if len(records) == 0 {
			return failed("%s holds no records: there is nothing to import", v.Args()[0])
		}
		p, err := w.openProject()
		if err != nil {
			return err
		}
		source := receipt.Subject{Name: filepath.Base(file), SHA256: digest(data)}
		if err := w.takeOver(p, v, receipt.LegacyRoot, "legacy-"+root[:16], "legacy_root", map[string]any{
			"legacy_root": root, "records": int64(len(records)), "rule": "vaultmesh-remembrancer-merkle",
		}, &source); err != nil {
			return err
		}
		for _, r := range records {
			name, predicate, subject := memoryOf(r, root)
			if err := w.takeOver(p, v, receipt.Memory, name, "legacy_leaf", predicate, &subject); err != nil {
				return fmt.Errorf("record %q: %w", r.ID, err)
			}
		}
		w.note("✅ %d records, legacy root %s", len(records), root)
		return nil
	},
}

// memoryOf is what a receipt says of one of the ancestor's records, of a list with
// this root.
func memoryOf(r legacy.Record, root string) (name string, predicate map[string]any, subject receipt.Subject) {
	leaf := legacy.Leaf(r)
	predicate = map[string]any{"legacy_leaf": leaf, "legacy_record": string(legacy.Preimage(r)), "legacy_root": root}
	for field, s := range map[string]*string{"component": r.Component, "version": r.Version, "legacy_merkle_root": r.MerkleRoot} {
		if s != nil {
			predicate[field] = strings.ToValidUTF8(*s, "\uFFFD")
		}
	}
	if name = slug(r.ID); name != "" {
		name += "-"
	}
	return name + leaf[:16], predicate, receipt.Subject{Name: "legacy_record", SHA256: leaf}
}

// takeOver writes one receipt of an import, unless an earlier import wrote it: a
// second import completes what a first one left undone, and two ancestors may
// share records. The digest in the identity field says which receipt it is.
func (w *world) takeOver(p *project, v *action.Values, kind receipt.Kind, name, identity string, predicate map[string]any, subject *receipt.Subject) error {
	path := p.layout.Receipt(string(kind) + "/" + name + ".receipt")
	was, err := os.ReadFile(filepath.Join(p.root, filepath.FromSlash(path)))
	if errors.Is(err, fs.ErrNotExist) {
		return w.writeReceipt(p, v, kind, name, predicate, subject)
	}
	if err != nil {
		return err
	}
	r, err := receipt.Parse(was)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if r.Kind() != kind || r.Field(identity) != predicate[identity] {
		return failed("%s is there already and holds something else", path)
	}
	switch _, err := os.Stat(filepath.Join(p.root, filepath.FromSlash(p.layout.Receipt(r.SignatureFile(r.Issuer()))))); {
	case errors.Is(err, fs.ErrNotExist):
		w.note("⚠️  %s is there already, unsigned: remembrancer sign %[1]s", path)
	case err != nil:
		return err
	default:
		w.note("%s is there already", path)
	}
	return nil
}

func (w *world) readAncestor(file string, data []byte) ([]legacy.Record, error) {
	if bytes.HasPrefix(data, []byte("SQLite format 3\x00")) {
		return index.ReadAncestor(w.ctx, file)
	}
	records, err := legacy.ReadJSON(data)
	if err != nil {
		return nil, fmt.Errorf("neither an SQLite database nor the JSON form: %w", err)
	}
	return records, nil
}
