package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/vaultmesh/remembrancer/pkg/action"
	"github.com/vaultmesh/remembrancer/pkg/covenant"
	"github.com/vaultmesh/remembrancer/pkg/durable"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

var recordKinds = map[string]string{
	"deploy":    "record a deployment: component, version and the digest of what was deployed",
	"adr":       "record a decision",
	"incident":  "record an incident",
	"discovery": "record something that was found out",
}

func recordVerb(kind string) verb {
	deploy := kind == "deploy"
	inputs := []action.Input{
		{Name: "component", Required: deploy, Usage: "What it is about."},
		{Name: "version", Required: deploy, Usage: "Version of the component."},
		{Name: "title", Required: !deploy, Usage: "One line that says it."},
		{Name: "text", Usage: "The text, or @FILE to read it from a file."},
		{Name: "sha256", Usage: "SHA-256 of the evidence, in hex; computed from --evidence when left out."},
		{Name: "evidence", Usage: "File that is the evidence. Its digest is recorded, not its content."},
		{Name: "chain-ref", Usage: "Reference into another system: a transaction, ticket or URL."},
		{Name: "name", Usage: "Name of the receipt's file; made from the other fields when left out."},
		{Name: "issuer", Usage: "Fingerprint of the issuer, where no key is at hand to sign with now."},
	}
	return verb{
		spec: action.Spec{
			Verb: "record " + kind, Summary: recordKinds[kind],
			Description: "Writes a receipt under ops/receipts and signs it. Commit both files; the publisher appends it to the log once it is on the main branch.\n\n" +
				"Without a key the receipt is written unsigned and stays quarantined until its issuer runs remembrancer sign.",
			Inputs:   append(inputs, keyInputs()...),
			Examples: map[bool][]string{true: {"remembrancer record deploy --component app --version v1.0.0 --evidence dist/app.tar.gz"}}[deploy],
		},
		run: func(w *world, v *action.Values, _ *action.Runner) error { return w.record(v, receipt.Kind(kind)) },
	}
}

var adrCreateVerb = verb{
	spec: action.Spec{
		Verb: "adr create", Summary: "record a decision under the next free number",
		Args: "TITLE",
		Inputs: append([]action.Input{
			{Name: "decision", Required: true, Usage: "What was decided, or @FILE."},
			{Name: "context", Usage: "Why a decision was needed, or @FILE."},
			{Name: "consequences", Usage: "What follows from it, or @FILE."},
			{Name: "status", Default: "accepted", Choices: []string{"proposed", "accepted", "superseded"}, Usage: "State of the decision."},
			{Name: "issuer", Usage: "Fingerprint of the issuer, where no key is at hand to sign with now."},
		}, keyInputs()...),
		Examples: []string{`remembrancer adr create "Use SQLite for search" --decision "The index is derived and may be deleted."`},
	},
	run: func(w *world, v *action.Values, _ *action.Runner) error {
		if len(v.Args()) != 1 {
			return misused("want one TITLE, in quotes")
		}
		title := v.Args()[0]
		p, err := w.openProject()
		if err != nil {
			return err
		}
		n, err := nextADR(p)
		if err != nil {
			return err
		}
		predicate := map[string]any{"title": title, "number": int64(n), "status": v.String("status")}
		for _, part := range []string{"context", "decision", "consequences"} {
			text, err := w.text(v.String(part))
			if err != nil {
				return err
			}
			if text != "" {
				predicate[part] = text
			}
		}
		name := fmt.Sprintf("ADR-%03d", n)
		if s := slug(title); s != "" {
			name += "-" + s
		}
		return w.writeReceipt(p, v, receipt.ADR, name, predicate, nil)
	},
}

var adrNumber = regexp.MustCompile(`^ADR-(\d+)`)

func nextADR(p *project) (int, error) {
	entries, err := os.ReadDir(filepath.Join(p.root, p.layout.Receipt(string(receipt.ADR))))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	next := 1
	for _, e := range entries {
		var n int
		if m := adrNumber.FindStringSubmatch(e.Name()); m != nil {
			if _, err := fmt.Sscan(strings.TrimLeft(m[1], "0"), &n); err == nil && n >= next {
				next = n + 1
			}
		}
	}
	return next, nil
}

func (w *world) record(v *action.Values, kind receipt.Kind) error {
	p, err := w.openProject()
	if err != nil {
		return err
	}
	if len(v.Args()) > 0 {
		return misused("unexpected argument %q", v.Args()[0])
	}
	predicate := map[string]any{}
	for flag, field := range map[string]string{"component": "component", "version": "version", "title": "title", "chain-ref": "chain_ref"} {
		if s := v.String(flag); s != "" {
			predicate[field] = s
		}
	}
	text, err := w.text(v.String("text"))
	if err != nil {
		return err
	}
	if text != "" {
		predicate["text"] = text
	}
	subject, err := w.evidence(p, v.String("evidence"), v.String("sha256"))
	if err != nil {
		return err
	}
	if subject == nil && kind == receipt.Deploy {
		return misused("a deployment needs --evidence FILE or --sha256 DIGEST: a receipt without a digest attests nothing")
	}
	name := v.String("name")
	if name == "" {
		name = strings.Trim(v.String("component")+"-"+v.String("version"), "-")
		if kind != receipt.Deploy {
			words := slug(v.String("title"))
			if words == "" {
				return misused("--title %q has no letters a to z and no digits to make a file name of: choose one with --name", v.String("title"))
			}
			name = w.now().UTC().Format(time.DateOnly) + "-" + words
		}
	}
	return w.writeReceipt(p, v, kind, name, predicate, subject)
}

// text returns a flag's text, read from a file when it begins with "@".
func (w *world) text(s string) (string, error) {
	file, ok := strings.CutPrefix(s, "@")
	if ok {
		b, err := os.ReadFile(w.path(file))
		if err != nil {
			return "", misused("%v", err)
		}
		s = string(b)
	}
	if !utf8.ValidString(s) {
		return "", misused("text is not UTF-8")
	}
	return s, nil
}

// evidence returns the subject that a digest or a file makes, nil for neither.
func (w *world) evidence(p *project, file, sum string) (*receipt.Subject, error) {
	sum = strings.ToLower(sum)
	if b, err := hex.DecodeString(sum); sum != "" && (err != nil || len(b) != sha256.Size) {
		return nil, misused("--sha256 %q: want 64 hex digits", sum)
	}
	if file == "" {
		if sum == "" {
			return nil, nil
		}
		return &receipt.Subject{Name: "sha256:" + sum, SHA256: sum}, nil
	}
	got, err := sumFile(w.path(file))
	if err != nil {
		return nil, misused("--evidence: %v", err)
	}
	if sum != "" && sum != got {
		return nil, failed("%s has SHA-256 %s, but --sha256 says %s: nothing was recorded", file, got, sum)
	}
	name := filepath.ToSlash(file)
	if rel, err := filepath.Rel(p.root, w.path(file)); err == nil && filepath.IsLocal(rel) {
		name = filepath.ToSlash(rel)
	} else {
		name = filepath.Base(name)
	}
	return &receipt.Subject{Name: name, SHA256: got}, nil
}

func sumFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

var notSlug = regexp.MustCompile(`[^a-z0-9]+`)

// slug makes a file name part of a title.
func slug(s string) string {
	s = strings.Trim(notSlug.ReplaceAllString(strings.ToLower(s), "-"), "-")
	if len(s) > 48 {
		s = strings.Trim(s[:48], "-")
	}
	return s
}

// writeReceipt makes, signs and writes one receipt. Without a subject the
// receipt is about its own text.
func (w *world) writeReceipt(p *project, v *action.Values, kind receipt.Kind, name string, predicate map[string]any, subject *receipt.Subject) error {
	if err := receipt.CheckName(name); err != nil {
		return misused("%v; choose one with --name", err)
	}
	s, err := w.signer(v, p)
	if err != nil && !errors.Is(err, errNoKey) {
		return err
	}
	var issuer openpgp.Fingerprint
	switch given := v.String("issuer"); {
	case s != nil && given == "":
		issuer = s.Fingerprint()
	case given != "":
		if issuer, err = openpgp.ParseFingerprint(given); err != nil {
			return misused("--issuer: %v", err)
		}
	case w.inCI():
		return fmt.Errorf("%w; under CI a receipt is not left unsigned", errNoKey)
	default:
		if issuer, err = p.onlyAnchor(); err != nil {
			return err
		}
	}
	if subject == nil {
		canon, err := receipt.Canonical(predicate)
		if err != nil {
			return misused("%v", err)
		}
		subject = &receipt.Subject{Name: string(kind) + "/" + name, SHA256: digest(canon)}
	}
	r, err := receipt.New(receipt.Statement{
		Kind: kind, Issuer: issuer, Name: name, Issued: w.now(), Subjects: []receipt.Subject{*subject}, Predicate: predicate,
	})
	if err != nil {
		return misused("%v", err)
	}
	return w.putReceipt(p, r, s)
}

// onlyAnchor is the issuer where there is just one to choose.
func (p *project) onlyAnchor() (openpgp.Fingerprint, error) {
	h, err := p.head("HEAD")
	if err != nil {
		return "", err
	}
	trust, err := covenant.LoadTrust(h.tree, p.layout)
	if err != nil {
		return "", err
	}
	all := trust.Keys.Fingerprints()
	if len(all) != 1 {
		return "", misused("no key is at hand and %s holds %d trust anchors: name the issuer with --issuer", p.layout.Certs(), len(all))
	}
	return all[0], nil
}

// putReceipt writes a receipt and, with a signer, its signature. A receipt never
// replaces another.
func (w *world) putReceipt(p *project, r *receipt.Receipt, s openpgp.Signer) error {
	path, err := p.file(p.layout.Receipt(r.File()))
	if err != nil {
		return err
	}
	switch was, err := os.ReadFile(path); {
	case err == nil && !bytes.Equal(was, r.Bytes()):
		return failed("%s is there already and receipts are never changed: choose another --name", p.layout.Receipt(r.File()))
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	var sig receipt.Signature
	if s != nil {
		if sig, err = receipt.Sign(w.ctx, r, s); err != nil {
			return err
		}
	}
	if err := durable.Put(path, r.Bytes(), 0o644); err != nil {
		return err
	}
	w.say("%s", p.layout.Receipt(r.File()))
	w.note("receipt %s", r.ID())
	if s == nil {
		w.note("⚠️  unsigned: it stays quarantined until its issuer %s runs: remembrancer sign %s", r.Issuer(), p.layout.Receipt(r.File()))
		return nil
	}
	return w.putSignature(p, r, sig)
}

func (w *world) putSignature(p *project, r *receipt.Receipt, sig receipt.Signature) error {
	rel := p.layout.Receipt(r.SignatureFile(sig.Fingerprint))
	path, err := p.file(rel)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(path); err == nil {
		w.note("%s is there already", rel)
		return nil
	}
	if err := durable.Put(path, openpgp.Armor(sig.Packet), 0o644); err != nil {
		return err
	}
	role := "its issuer"
	if sig.Fingerprint != r.Issuer() {
		role = fmt.Sprintf("an endorser; it is valid only once its issuer %s has signed too", r.Issuer())
	}
	w.say("%s", rel)
	w.note("✅ signed by %s (%s)", sig.Fingerprint, role)
	return nil
}

var signVerb = verb{
	spec: action.Spec{
		Verb: "sign", Summary: "sign a receipt, as its issuer or as an endorser",
		Args:   "RECEIPT",
		Inputs: keyInputs(),
	},
	run: func(w *world, v *action.Values, _ *action.Runner) error {
		if len(v.Args()) != 1 {
			return misused("want one RECEIPT: the path of a .receipt file")
		}
		p, err := w.openProject()
		if err != nil {
			return err
		}
		path := w.path(v.Args()[0])
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		r, err := receipt.Parse(data)
		if err != nil {
			return fmt.Errorf("%s: %w", v.Args()[0], err)
		}
		want := filepath.Join(p.root, filepath.FromSlash(p.layout.Receipt(r.File())))
		if same, err := sameFile(path, want); r.File() == "" || err != nil || !same {
			return failed("%s holds receipt %s, which belongs at %s", v.Args()[0], r.ID(), p.layout.Receipt(r.File()))
		}
		s, err := w.signer(v, p)
		if err != nil {
			return err
		}
		sig, err := receipt.Sign(w.ctx, r, s)
		if err != nil {
			return err
		}
		return w.putSignature(p, r, sig)
	},
}

func sameFile(a, b string) (bool, error) {
	fa, err := os.Stat(a)
	if err != nil {
		return false, err
	}
	fb, err := os.Stat(b)
	if err != nil {
		return false, err
	}
	return os.SameFile(fa, fb), nil
}
