package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/action"
	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/proof"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

var (
	ledgerInput = action.Input{Name: "ledger", Usage: "Folder of the ledger; that of this repository when left out."}
	policyInput = action.Input{Name: "policy", Usage: "Log policy to verify under; the ledger's own when left out, and the verdict says so."}
)

// logFiles is a ledger's folder with the policy to judge it by.
type logFiles struct {
	dir    string
	read   ledger.Read
	policy *checkpoint.Policy
	own    bool // the policy is the folder's own
}

func (w *world) openLog(v *action.Values) (*logFiles, error) {
	l := &logFiles{dir: v.String("ledger")}
	if l.dir == "" {
		p, err := w.openProject()
		if err != nil {
			return nil, err
		}
		l.dir = filepath.Join(p.root, filepath.FromSlash(p.layout.Ledger("")))
	}
	l.dir = w.path(l.dir)
	root, err := os.OpenRoot(l.dir)
	if err != nil {
		return nil, err
	}
	// The process ends with the verb; the folder is read until then.
	l.read = func(name string) ([]byte, error) { return root.ReadFile(filepath.FromSlash(name)) }
	file := v.String("policy")
	l.own = file == ""
	var text []byte
	if l.own {
		text, err = l.read(ledger.PolicyPath)
	} else {
		text, err = os.ReadFile(w.path(file))
	}
	if err != nil {
		return nil, fmt.Errorf("log policy: %w", err)
	}
	l.policy, err = checkpoint.ParsePolicy(text)
	return l, err
}

// head returns the verified checkpoint; ok is false for a log that has none.
func (l *logFiles) head() (v checkpoint.Verified, ok bool, err error) {
	note, err := l.read(ledger.CheckpointPath)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := l.read(ledger.SegmentPath(0)); errors.Is(err, fs.ErrNotExist) {
			return v, false, nil
		}
		return v, false, failed("there are entries, but no checkpoint")
	}
	if err != nil {
		return v, false, err
	}
	if v, err = l.policy.Open(note); err != nil {
		return v, false, failed("%v", err)
	}
	return v, true, nil
}

var logVerifyVerb = verb{
	spec: action.Spec{
		Verb: "log verify", Summary: "re-hash a ledger and compare it with its signed checkpoint",
		Inputs: []action.Input{
			ledgerInput, policyInput,
			{Name: "json", Kind: action.Bool, Usage: "Print the verdict as JSON.", CLIOnly: true},
		},
		Examples: []string{"remembrancer log verify --ledger ops/ledger"},
	},
	run: func(w *world, v *action.Values, _ *action.Runner) error {
		l, err := w.openLog(v)
		if err != nil {
			return err
		}
		cp, begun, err := l.head()
		result := map[string]any{"verdict": "pass", "policy": "given"}
		if l.own {
			result["policy"] = "the ledger's own"
		}
		if err == nil && begun {
			b := cp.Body()
			result["origin"], result["size"], result["root"] = b.Origin, b.Size, fmt.Sprintf("%x", b.Root[:])
			_, err = ledger.Verify(l.read, b)
		} else if err == nil {
			result["size"] = 0
		}
		code := exitPass
		if err != nil {
			var path *fs.PathError
			code = exitFail
			result["verdict"], result["detail"] = "fail", err.Error()
			if errors.As(err, &path) && !errors.Is(err, fs.ErrNotExist) {
				code, result["verdict"] = exitUnjudged, "error"
			}
		}
		if v.Bool("json") {
			out, err := json.Marshal(result)
			if err != nil {
				return err
			}
			w.say("%s", out)
			return quietly(code)
		}
		switch {
		case err != nil:
			w.say("❌ %v", err)
		case !begun:
			w.say("✅ the log has not begun: it has no entries and no checkpoint")
		default:
			w.say("✅ size %v, root %v: every entry re-hashed, signed for %v", result["size"], result["root"], result["origin"])
			if l.own {
				w.say("   under the ledger's own policy, which is no authority over itself: give yours with --policy")
			}
		}
		return quietly(code)
	},
}

var logShowVerb = verb{
	spec: action.Spec{
		Verb: "log show", Summary: "show the log's head and entries",
		Args: "[INDEX]",
		Inputs: []action.Input{
			ledgerInput, policyInput,
			{Name: "json", Kind: action.Bool, Usage: "Print the raw log lines.", CLIOnly: true},
		},
	},
	run: func(w *world, v *action.Values, _ *action.Runner) error {
		l, err := w.openLog(v)
		if err != nil {
			return err
		}
		cp, begun, err := l.head()
		if err != nil {
			return err
		}
		if !begun {
			w.note("the log has not begun")
			return nil
		}
		only := int64(-1)
		if a := v.Args(); len(a) > 0 {
			if only, err = strconv.ParseInt(a[0], 10, 64); len(a) > 1 || err != nil || only < 0 {
				return misused("INDEX %q: want a number from 0", strings.Join(a, " "))
			}
			if only >= cp.Body().Size {
				return failed("entry %d: the log has %d", only, cp.Body().Size)
			}
		}
		b := cp.Body()
		if only < 0 && !v.Bool("json") {
			w.say("log %s\nsize %d\nroot %x", b.Origin, b.Size, b.Root[:])
		}
		return ledger.Lines(l.read, b, func(i int64, line []byte) error {
			if only >= 0 && i != only {
				return nil
			}
			if v.Bool("json") {
				w.say("%s", line)
				return nil
			}
			e, err := receipt.ParseLine(line)
			if err != nil {
				return failed("entry %d: %v", i, err)
			}
			w.say("%6d  %s  %-12s %s  %s", i, e.Receipt.Issued().UTC().Format(time.RFC3339), e.Receipt.Kind(), e.Receipt.ID().String()[:16], e.Receipt.Name())
			if only >= 0 {
				w.say("%s", e.Receipt.Bytes())
			}
			return nil
		})
	},
}

var logProveVerb = verb{
	spec: action.Spec{
		Verb: "log prove", Summary: "make a proof file that a receipt is in the log",
		Description: "Writes a C2SP tlog-proof to standard output that remembrancer verify --proof checks offline.",
		Args:        "ID|NAME|INDEX",
		Inputs: []action.Input{
			ledgerInput, policyInput,
			{Name: "certs", Usage: "Folder of the trust anchors; the one beside the ledger when left out."},
		},
		Examples: []string{"remembrancer log prove 3f2a91c0 > receipt.tlog-proof"},
	},
	run: func(w *world, v *action.Values, _ *action.Runner) error {
		if len(v.Args()) != 1 {
			return misused("want one ID (or its beginning), NAME or INDEX")
		}
		l, err := w.openLog(v)
		if err != nil {
			return err
		}
		cp, begun, err := l.head()
		if err != nil {
			return err
		}
		if !begun {
			return failed("the log has not begun")
		}
		leaves, err := ledger.Verify(l.read, cp.Body())
		if err != nil {
			return failed("%v", err)
		}
		at, line, err := findEntry(l.read, cp.Body(), v.Args()[0])
		if err != nil {
			return err
		}
		hashes, err := ledger.NewTree(leaves).Inclusion(cp.Body().Size, at)
		if err != nil {
			return err
		}
		certs := v.String("certs")
		if certs == "" {
			certs = filepath.Join(l.dir, "..", "certs")
		}
		key, err := findCert(w.path(certs), line.Receipt.Issuer())
		if err != nil {
			return err
		}
		_, err = w.stdout.Write(proof.Marshal(line.Line(), key, at, hashes, cp.Note()))
		return err
	},
}

// findEntry finds the one entry that carries the issuer's signature of the
// receipt a person means.
func findEntry(read ledger.Read, body checkpoint.Body, key string) (at int64, e receipt.Entry, err error) {
	var index int64 = -1
	if len(key) < 10 && strings.Trim(key, "0123456789") == "" {
		if _, err := fmt.Sscanf(key, "%d", &index); err != nil {
			return 0, e, misused("INDEX %q: want a number", key)
		}
	}
	var found []int64
	err = ledger.Lines(read, body, func(i int64, line []byte) error {
		x, err := receipt.ParseLine(line)
		if err != nil {
			return failed("entry %d: %v", i, err)
		}
		r := x.Receipt
		byID := len(key) >= 4 && strings.HasPrefix(r.ID().String(), strings.ToLower(key))
		if i != index && !byID && (r.Name() == "" || r.Name() != key) {
			return nil
		}
		issued := false
		for _, s := range x.Signatures {
			issued = issued || s.Fingerprint == r.Issuer()
		}
		if issued {
			if i == index {
				found = nil
			}
			if index < 0 || i == index {
				found, at, e = append(found, i), i, x
			}
		}
		return nil
	})
	switch {
	case err != nil:
		return 0, e, err
	case len(found) == 0:
		return 0, e, failed("no entry %q in the log: remembrancer list shows what there is", key)
	case len(found) > 1:
		return 0, e, failed("%q fits the entries %v: give the index or more of the id", key, found)
	}
	return at, e, nil
}

func findCert(dir string, f openpgp.Fingerprint) (*openpgp.Key, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("trust anchors: %w; give their folder with --certs", err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".asc") {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		k, err := openpgp.ParsePublic(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.Name(), err)
		}
		if k.Fingerprint() == f {
			return k, nil
		}
	}
	return nil, fmt.Errorf("no key of issuer %s in %s: give the folder of trust anchors with --certs", f, dir)
}

var verifyVerb = verb{
	spec: action.Spec{
		Verb: "verify", Summary: "verify a proof file, or the signature of a file, offline", Args: "[FILE]",
		Description: "With --proof, judges that a receipt is in a log. With FILE, judges its detached OpenPGP signature by the keys of --trust alone: " +
			"made by one of them, over these bytes, and at the time --at, by default now, already there and the key in force.",
		Inputs: []action.Input{
			{Name: "proof", Usage: "Proof file, as remembrancer log prove writes it."},
			{Name: "policy", Usage: "Log policy you trust. Without one the verdict is conditional."},
			{Name: "trust-anchor", Kind: action.List, Usage: "Public key of an issuer you trust; then no other issuer is accepted."},
			{Name: "sig", Usage: "Detached signature of FILE."},
			{Name: "trust", Kind: action.List, Usage: "Public key to judge that signature by."},
			{Name: "at", Usage: "Time to judge the signature as of, such as that of a timestamp of it: 2026-01-02T15:04:05Z."},
			{Name: "json", Kind: action.Bool, Usage: "Print the verdict as JSON.", CLIOnly: true},
		},
		Exit: "Without --policy there is nothing to judge a proof by: exit status 3. So it is for a signature that was made by another key than those given.",
		Examples: []string{
			"remembrancer verify --proof receipt.tlog-proof --policy ops/ledger/policy",
			"remembrancer verify app.tar.gz --sig app.tar.gz.asc --trust release-key.asc",
		},
	},
	run: func(w *world, v *action.Values, _ *action.Runner) error {
		switch {
		case v.String("proof") != "" && (len(v.Args()) > 0 || v.String("sig") != "" || len(v.List("trust")) > 0 || v.String("at") != ""):
			return misused("--proof takes neither FILE nor --sig, --trust and --at")
		case v.String("proof") == "" && len(v.Args()) == 1:
			return w.verifyFile(v)
		case v.String("proof") == "":
			return misused("proof is required; give --proof TEXT, or one FILE with --sig and --trust")
		}
		if v.String("policy") == "" {
			return errors.New("CONDITIONAL: no --policy: the proof names its log's key itself, which proves nothing; get the log policy from its owner")
		}
		bundle, err := os.ReadFile(w.path(v.String("proof")))
		if err != nil {
			return err
		}
		policy, err := os.ReadFile(w.path(v.String("policy")))
		if err != nil {
			return err
		}
		opts := proof.Options{Now: w.now()}
		if files := v.List("trust-anchor"); len(files) > 0 {
			if opts.Issuers, err = w.readKeys(files); err != nil {
				return err
			}
		}
		verdict, err := proof.Verify(bundle, policy, opts)
		if err != nil {
			return err
		}
		return w.sayVerdict(verdict, v.Bool("json"), opts.Issuers != nil)
	},
}

func (w *world) sayVerdict(v proof.Verdict, asJSON, anchored bool) error {
	code, word := exitPass, "PASS"
	if !v.Pass() {
		code, word = exitFail, "FAIL"
	}
	if asJSON {
		findings := []map[string]any{}
		for _, f := range v.Findings {
			findings = append(findings, map[string]any{"name": f.Name, "ok": f.OK, "detail": f.Detail})
		}
		out, err := json.Marshal(map[string]any{
			"verdict": strings.ToLower(word), "findings": findings, "receipt": v.Receipt.ID().String(), "kind": v.Receipt.Kind(),
			"issuer": v.Receipt.Issuer(), "index": v.Index, "issuer_pinned": anchored, "development": v.Development,
		})
		if err != nil {
			return err
		}
		w.say("%s", out)
		return quietly(code)
	}
	for _, f := range v.Findings {
		w.say("%s %-11s %s", mark(map[bool]string{true: "pass", false: "fail"}[f.OK]), f.Name, f.Detail)
	}
	w.say("%s  receipt %s, kind %s", word, v.Receipt.ID(), v.Receipt.Kind())
	if !anchored && code == exitPass {
		w.say("      the issuer is believed because this log admitted it: pin it with --trust-anchor")
	}
	return quietly(code)
}
