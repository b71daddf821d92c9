package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/action"
	"github.com/vaultmesh/remembrancer/pkg/covenant"
	"github.com/vaultmesh/remembrancer/pkg/index"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
	"github.com/vaultmesh/remembrancer/pkg/publish"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

// openIndex opens the search index of a project, deriving it anew when the
// receipts or the log have changed.
func (w *world) openIndex(p *project) (*index.Index, error) {
	dir, err := w.stateDir()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "index", shortHash(p.root)+".sqlite")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	stamp, err := p.stamp()
	if err != nil {
		return nil, err
	}
	return index.OpenOrRebuild(w.ctx, path, stamp, w.documents(p))
}

// stamp names the state that the index is derived from: every file of the ops
// folder with its size and time, and the commit.
func (p *project) stamp() (string, error) {
	var b strings.Builder
	if h, err := p.repo.Resolve("HEAD"); err == nil {
		b.WriteString(h.String())
	}
	err := filepath.WalkDir(filepath.Join(p.root, filepath.FromSlash(p.layout.Ops)), func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "\n%s %d %d", path, info.Size(), info.ModTime().UnixNano())
		return nil
	})
	return digest([]byte(b.String())), err
}

// documents yields every receipt of the work tree and of its log.
func (w *world) documents(p *project) iter.Seq2[index.Document, error] {
	return func(yield func(index.Document, error) bool) {
		tree := publish.WorkTree(p.root)
		trust, err := covenant.LoadTrust(tree, p.layout)
		if err != nil {
			yield(index.Document{}, err)
			return
		}
		logged := map[receipt.ID]bool{}
		for n, entry := range logEntries(tree, p.layout) {
			if logged[entry.Receipt.ID()] {
				continue
			}
			logged[entry.Receipt.ID()] = true
			d := document(entry.Receipt, index.Sequenced, n)
			if f := entry.Receipt.File(); f != "" {
				d.Path = p.layout.Receipt(f)
			}
			if !yield(d, nil) {
				return
			}
		}
		files, bad, err := publish.Receipts(tree, p.layout, trust.Keys, w.now())
		if err != nil {
			yield(index.Document{}, err)
			return
		}
		for _, f := range files {
			if logged[f.Receipt.ID()] {
				continue
			}
			state := index.Pending
			if !f.Issued {
				state = index.Quarantined
			}
			d := document(f.Receipt, state, -1)
			d.Path = f.Path
			if !yield(d, nil) {
				return
			}
		}
		for _, q := range bad {
			w.note("⚠️  quarantined %s: %s", q.Path, q.Reason)
		}
	}
}

func document(r *receipt.Receipt, state string, n int64) index.Document {
	return index.Document{
		ID: r.ID().String(), Kind: string(r.Kind()), Name: r.Name(), Issued: r.Issued().UTC().Format(time.RFC3339),
		Component: r.Field("component"), Version: r.Field("version"), Issuer: string(r.Issuer()),
		State: state, Index: n, Text: words(r.Bytes()),
	}
}

// words is the text of a statement's values, for the search.
func words(statement []byte) string {
	var b strings.Builder
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case string:
			b.WriteString(v + "\n")
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			for _, e := range v {
				walk(e)
			}
		}
	}
	var v any
	if json.Unmarshal(statement, &v) == nil {
		walk(v)
	}
	return b.String()
}

// logEntries yields the readable entries of a tree's log, for showing: it proves
// nothing.
func logEntries(t covenant.Tree, l covenant.Layout) iter.Seq2[int64, receipt.Entry] {
	return func(yield func(int64, receipt.Entry) bool) {
		for n := int64(0); ; n++ {
			data, err := t.Blob(l.Ledger(ledger.SegmentPath(n)))
			if err != nil {
				return
			}
			i := n * ledger.SegmentSize
			for line := range strings.Lines(string(data)) {
				if e, err := receipt.ParseLine([]byte(strings.TrimSuffix(line, "\n"))); err == nil && !yield(i, e) {
					return
				}
				i++
			}
		}
	}
}

var jsonInput = action.Input{Name: "json", Kind: action.Bool, Usage: "Print JSON, one object a line.", CLIOnly: true}

func (w *world) printDocuments(docs []index.Document, asJSON bool) error {
	if asJSON {
		for _, d := range docs {
			line, err := json.Marshal(map[string]any{
				"id": d.ID, "kind": d.Kind, "name": d.Name, "issued": d.Issued, "component": d.Component,
				"version": d.Version, "issuer": d.Issuer, "state": d.State, "path": d.Path, "index": d.Index,
			})
			if err != nil {
				return err
			}
			w.say("%s", line)
		}
		return nil
	}
	if len(docs) == 0 {
		w.note("nothing found")
		return nil
	}
	t := tabwriter.NewWriter(w.stdout, 0, 0, 2, ' ', 0)
	for _, d := range docs {
		at := d.State
		if d.State == index.Sequenced {
			at = fmt.Sprintf("#%d", d.Index)
		}
		name := d.Name
		if name == "" {
			name = "-"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", d.Issued, d.Kind, name, at, d.ID[:16])
	}
	return t.Flush()
}

func searchVerb(name, summary, args string, inputs []action.Input, find func(w *world, ix *index.Index, v *action.Values) ([]index.Document, error)) verb {
	return verb{
		spec: action.Spec{Verb: name, Summary: summary, Args: args, Inputs: append(inputs, jsonInput)},
		run: func(w *world, v *action.Values, _ *action.Runner) error {
			p, err := w.openProject()
			if err != nil {
				return err
			}
			ix, err := w.openIndex(p)
			if err != nil {
				return err
			}
			defer ix.Close()
			docs, err := find(w, ix, v)
			if err != nil {
				return err
			}
			return w.printDocuments(docs, v.Bool("json"))
		},
	}
}

var listVerb = searchVerb("list", "list receipts, newest first", "[KIND]", []action.Input{
	{Name: "component", Usage: "Only of this component."},
	{Name: "since", Usage: "Only from this date or RFC 3339 time on."},
	{Name: "until", Usage: "Only until this date (included) or time."},
	{Name: "limit", Kind: action.Int, Default: "0", Usage: "At most so many; 0 is all."},
}, func(w *world, ix *index.Index, v *action.Values) ([]index.Document, error) {
	f := index.Filter{Component: v.String("component"), Since: v.String("since"), Until: v.String("until"), Limit: max(0, v.Int("limit"))}
	if a := v.Args(); len(a) > 0 {
		kind := strings.TrimSuffix(a[0], "s") // the ancestor lists "deployments"
		if kind == "deployment" {
			kind = string(receipt.Deploy)
		}
		if len(a) > 1 {
			return nil, misused("want one KIND, found %q", a)
		}
		k, err := receipt.ParseKind(kind)
		if err != nil {
			return nil, misused("%v", err)
		}
		f.Kind = string(k)
	}
	docs, err := ix.List(w.ctx, f)
	return docs, usageOf(err)
})

var queryVerb = searchVerb("query", "search receipts by their words", "WORDS...", []action.Input{
	{Name: "limit", Kind: action.Int, Default: "20", Usage: "At most so many; 0 is all."},
}, func(w *world, ix *index.Index, v *action.Values) ([]index.Document, error) {
	if len(v.Args()) == 0 {
		return nil, misused("want WORDS to search for")
	}
	docs, err := ix.Query(w.ctx, strings.Join(v.Args(), " "), max(0, v.Int("limit")))
	return docs, usageOf(err)
})

var timelineVerb = searchVerb("timeline", "list receipts, oldest first", "", []action.Input{
	{Name: "since", Usage: "Only from this date or RFC 3339 time on."},
}, func(w *world, ix *index.Index, v *action.Values) ([]index.Document, error) {
	docs, err := ix.Timeline(w.ctx, v.String("since"))
	return docs, usageOf(err)
})

// usageOf marks a question that could not be asked as the asker's mistake.
func usageOf(err error) error {
	if err == nil {
		return nil
	}
	return &status{exitUsage, err}
}

var receiptVerb = verb{
	spec: action.Spec{
		Verb: "receipt", Summary: "show one receipt and who signed it", Args: "ID|NAME",
		Inputs: []action.Input{jsonInput},
	},
	run: func(w *world, v *action.Values, _ *action.Runner) error {
		if len(v.Args()) != 1 {
			return misused("want one ID (or its beginning) or NAME")
		}
		p, err := w.openProject()
		if err != nil {
			return err
		}
		r, entries, err := w.lookup(p, v.Args()[0])
		if err != nil {
			return err
		}
		if v.Bool("json") {
			w.say("%s", r.Bytes())
			return nil
		}
		var pretty strings.Builder
		enc := json.NewEncoder(&pretty)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		if err := enc.Encode(json.RawMessage(r.Bytes())); err != nil {
			return err
		}
		w.say("%s", strings.TrimSpace(pretty.String()))
		w.say("")
		w.say("receipt  %s", r.ID())
		w.say("kind     %s, issued %s by %s", r.Kind(), r.Issued().UTC().Format(time.RFC3339), r.Issuer())
		if len(entries) == 0 {
			w.say("log      not sequenced yet")
		}
		for _, e := range entries {
			for _, s := range e.entry.Signatures {
				w.say("log      entry %d, signature of %s", e.index, s.Fingerprint)
			}
		}
		return nil
	},
}

// logged is an entry with its place.
type logged struct {
	index int64
	entry receipt.Entry
}

// lookup finds a receipt by id, beginning of id, or name, and its log entries.
func (w *world) lookup(p *project, key string) (*receipt.Receipt, []logged, error) {
	ix, err := w.openIndex(p)
	if err != nil {
		return nil, nil, err
	}
	defer ix.Close()
	d, err := ix.Get(w.ctx, key)
	if errors.Is(err, index.ErrNotFound) || errors.Is(err, index.ErrAmbiguous) {
		return nil, nil, failed("%v", err)
	}
	if err != nil {
		return nil, nil, err
	}
	tree := publish.WorkTree(p.root)
	var at []logged
	var r *receipt.Receipt
	for n, e := range logEntries(tree, p.layout) {
		if e.Receipt.ID().String() == d.ID {
			at, r = append(at, logged{n, e}), e.Receipt
		}
	}
	if r == nil {
		data, err := tree.Blob(d.Path)
		if err != nil {
			return nil, nil, err
		}
		if r, err = receipt.Parse(data); err != nil {
			return nil, nil, err
		}
	}
	return r, slices.Clip(at), nil
}
