package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/action"
	"github.com/vaultmesh/remembrancer/pkg/covenant"
	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
	"github.com/vaultmesh/remembrancer/pkg/release"
)

// verifyFile judges the detached signature of a file by the keys that were given,
// and nothing else.
func (w *world) verifyFile(v *action.Values) error {
	name := v.Args()[0]
	switch {
	case v.String("sig") == "":
		return misused("want the signature of %s: --sig FILE", name)
	case len(v.List("trust")) == 0:
		return misused("want the key that you trust: --trust FILE; a key that comes with the signature proves nothing")
	case v.String("policy") != "" || len(v.List("trust-anchor")) > 0:
		return misused("--policy and --trust-anchor are for --proof; a file is judged by --sig and --trust")
	}
	now := w.now()
	at := now
	if s := v.String("at"); s != "" {
		var err error
		if at, err = time.Parse(time.RFC3339, s); err != nil {
			return misused("--at %q: want a time such as 2026-01-02T15:04:05Z", s)
		}
		if at.After(now) {
			return misused("--at %s is in the future", s)
		}
	}
	data, err := os.ReadFile(w.path(name))
	if err != nil {
		return err
	}
	text, err := os.ReadFile(w.path(v.String("sig")))
	if err != nil {
		return err
	}
	keys, err := w.readKeys(v.List("trust"))
	if err != nil {
		return err
	}
	result := map[string]any{"file": name, "signature": v.String("sig"), "verdict": "pass", "judged_at": at.UTC().Format(time.RFC3339)}
	code := exitPass
	signed, err := judgeSignature(keys, data, text, at)
	if err != nil {
		code, result["verdict"], result["detail"] = exitFail, "fail", err.Error()
		if errors.Is(err, openpgp.ErrUnknownIssuer) {
			code, result["verdict"] = exitUnjudged, "error"
		}
	} else {
		result["key"], result["signing_key"], result["claimed"] = signed.Fingerprint, signed.SigningKey, signed.Created.Format(time.RFC3339)
		result["development"] = signed.Development
	}
	switch {
	case v.Bool("json"):
		if err := w.sayJSON(result); err != nil {
			return err
		}
	case code == exitPass:
		w.say("✅ OpenPGP signature valid: %s, by %s, which claims %s", action.Defang(name), signed, signed.Created.Format(time.RFC3339))
		w.say("   when it was made is the signer's word: a timestamp of the signature shows it, remembrancer rfc3161-verify %s", action.Defang(v.String("sig")))
	case code == exitFail:
		w.say("❌ OpenPGP signature not valid: %s: %s", action.Defang(name), action.Defang(err.Error()))
	default:
		w.say("🚫 %s %s", action.Defang(name), action.Defang(err.Error()))
	}
	return quietly(code)
}

// readKeys reads files with one public key each.
func (w *world) readKeys(files []string) (*openpgp.Keyring, error) {
	var keys []*openpgp.Key
	for _, f := range files {
		data, err := os.ReadFile(w.path(f))
		if err != nil {
			return nil, err
		}
		k, err := openpgp.ParsePublic(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		keys = append(keys, k)
	}
	return openpgp.NewKeyring(keys...)
}

// judgeSignature judges a signature, armored or binary, as of a time: it must have
// been there, and its key in force. The error is openpgp.ErrUnknownIssuer when
// another key made it, about which nothing is known.
func judgeSignature(keys *openpgp.Keyring, data, text []byte, at time.Time) (openpgp.Verified, error) {
	packet := text
	if len(text) == 0 || text[0]&0x80 == 0 {
		var err error
		if packet, err = openpgp.Dearmor(text); err != nil {
			return openpgp.Verified{}, err
		}
	}
	fingerprint, id := signatureIssuer(packet)
	if fingerprint == "" && id == "" {
		return openpgp.Verified{}, errors.New("it is no OpenPGP signature of version 4, or does not name its key")
	}
	for _, f := range keys.Fingerprints() {
		k, _ := keys.Lookup(f)
		for _, part := range k.Parts(at) {
			if fingerprint != part.Fingerprint && (fingerprint != "" || !strings.HasSuffix(string(part.Fingerprint), id)) {
				continue
			}
			v, err := openpgp.Verify(keys, f, data, packet, openpgp.VerifyOptions{Now: at})
			if err != nil {
				return v, err
			}
			for _, until := range []time.Time{part.Expires, k.Expires()} {
				if !until.IsZero() && !at.Before(until) {
					return v, fmt.Errorf("key %s expired at %s, and nothing shows that the signature was there before: give --at TIME with the time of a timestamp of the signature", v.SigningKey, until.Format(time.RFC3339))
				}
			}
			return v, nil
		}
	}
	made := "key " + id
	if fingerprint != "" {
		made = fmt.Sprintf("key %s (fingerprint %s)", fingerprint[len(fingerprint)-16:], fingerprint)
	}
	return openpgp.Verified{}, unknownSigner("cannot be judged: made by " + made + ", which is not among those given")
}

// unknownSigner is openpgp.ErrUnknownIssuer in words for people.
type unknownSigner string

func (u unknownSigner) Error() string      { return string(u) }
func (unknownSigner) Is(target error) bool { return target == openpgp.ErrUnknownIssuer }

// signatureIssuer returns what a version 4 signature packet says about the key
// that made it (RFC 9580 section 5.2.3): its fingerprint, or else its id. It is a
// claim, to look for the key by; empty when there is none.
func signatureIssuer(packet []byte) (f openpgp.Fingerprint, id string) {
	if len(packet) < 2 {
		return "", ""
	}
	head := 2
	if packet[0]&0x40 == 0 { // the old form of the header
		head = map[byte]int{0: 2, 1: 3, 2: 5}[packet[0]&3]
	} else if packet[1] >= 192 {
		head = 3
	}
	if head == 0 || len(packet) < head+6 || packet[head] != 4 {
		return "", ""
	}
	rest := packet[head+4:]
	for range 2 { // the hashed subpackets, and the others
		if len(rest) < 2 {
			return f, id
		}
		n := int(binary.BigEndian.Uint16(rest))
		if len(rest) < 2+n {
			return f, id
		}
		area := rest[2 : 2+n]
		rest = rest[2+n:]
		for len(area) > 1 {
			size := int(area[0])
			if size == 0 || size >= 192 || len(area) < 1+size {
				break // none that names a key is that long
			}
			kind, body := area[1]&0x7f, area[2:1+size]
			switch {
			case kind == 33 && len(body) == 21 && body[0] == 4 && f == "":
				f = openpgp.Fingerprint(fmt.Sprintf("%X", body[1:]))
			case kind == 16 && len(body) == 8 && id == "":
				id = fmt.Sprintf("%X", body)
			}
			area = area[1+size:]
		}
	}
	return f, id
}

var verifyFullVerb = verb{
	spec: action.Spec{
		Verb: "verify-full", Summary: "verify a file by all the evidence there is for it", Args: "FILE",
		Description: "Four checks: a receipt in the ledger names the file by its digest, and is signed by a trust anchor; that receipt leads to the log's signed head; FILE.asc is a trust anchor's signature; " +
			"and pinned authorities stamped the file or its signature. What is missing fails: nothing is skipped.",
		Inputs: []action.Input{
			ledgerInput, policyInput,
			{Name: "json", Kind: action.Bool, Usage: "Print the verdict as JSON.", CLIOnly: true},
		},
		Examples: []string{"remembrancer verify-full dist/app.tar.gz"},
	},
	run: runVerifyFull,
}

func runVerifyFull(w *world, v *action.Values, _ *action.Runner) error {
	if len(v.Args()) != 1 {
		return misused("want one file")
	}
	p, err := w.openProject()
	if err != nil {
		return err
	}
	h, err := p.head("HEAD")
	if err != nil {
		return err
	}
	trust, err := covenant.LoadTrust(h.tree, p.layout)
	if err != nil {
		return err
	}
	authorities, err := release.Authorities(h.tree, tsaFolder(p.layout))
	if err != nil {
		return err
	}
	l, err := w.openLog(v)
	if err != nil {
		return err
	}
	file := w.path(v.Args()[0])
	digest, err := fileDigest(file)
	if err != nil {
		return err
	}
	checks := w.fullLedger(l, trust, digest)
	checks = append(checks, w.fullSignature(trust, file), w.fullTimestamp(authorities, file))
	verdict := judge.Sum(checks, nil)
	if v.Bool("json") {
		if err := w.sayJSON(verdict); err != nil {
			return err
		}
		return quietly(verdictExit(verdict.Status))
	}
	for _, c := range verdict.Checks {
		w.sayCheck(c)
	}
	w.say("%s  %s, SHA-256 %s", strings.ToUpper(verdict.Status.String()), action.Defang(v.Args()[0]), digest)
	return quietly(verdictExit(verdict.Status))
}

func lacking(format string, args ...any) judge.Finding {
	return judge.Finding{Message: fmt.Sprintf(format, args...)}
}

// fullLedger looks for a file's receipt, and proves it to be in the log.
func (w *world) fullLedger(l *logFiles, trust *covenant.Trust, digest string) []judge.Check {
	const claimDigest, claimLog = "a receipt names the file by its digest", "the receipt is in the log"
	cp, begun, err := l.head()
	if err == nil && !begun {
		err = failed("the log has not begun")
	}
	var leaves int
	if err == nil {
		all, lerr := ledger.Verify(l.read, cp.Body())
		leaves, err = len(all), lerr
	}
	if err != nil {
		return []judge.Check{judge.Judged("full/digest", claimDigest, "", lacking("there is no log that holds: %v", err)), judge.Judged("full/inclusion", claimLog, "", lacking("%v", err))}
	}
	at, found := int64(-1), receipt.Entry{}
	var refused []judge.Finding
	err = ledger.Lines(l.read, cp.Body(), func(i int64, line []byte) error {
		e, err := receipt.ParseLine(line)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(e.Receipt.Subjects(), func(s receipt.Subject) bool { return s.SHA256 == digest }) {
			return nil
		}
		if issued, err := e.Verify(trust.Keys, w.now()); err != nil || !issued {
			refused = append(refused, lacking("entry %d names it, but is not signed by a trust anchor: %v", i, err))
			return nil
		}
		at, found = i, e
		return nil
	})
	if err != nil {
		return []judge.Check{judge.Unjudged("full/digest", claimDigest, err), judge.Unjudged("full/inclusion", claimLog, err)}
	}
	if at < 0 {
		refused = append(refused, lacking("no receipt in the log names the SHA-256 %s", digest))
		return []judge.Check{judge.Judged("full/digest", claimDigest, "", refused...), judge.Judged("full/inclusion", claimLog, "", lacking("there is no such receipt"))}
	}
	r, body := found.Receipt, cp.Body()
	named := judge.Judged("full/digest", claimDigest, "SHA-256 "+digest)
	named.Evidence = []string{fmt.Sprintf("receipt %s, %s %s, issued %s by %s", r.ID(), r.Kind(), r.Name(), r.Issued().UTC().Format(time.RFC3339), r.Issuer())}
	in := judge.Judged("full/inclusion", claimLog, fmt.Sprintf("entry %d of the log %s", at, body.Origin))
	in.Evidence = []string{fmt.Sprintf("%d entries re-hashed to the signed root %x", leaves, body.Root[:])}
	return []judge.Check{named, in}
}

func (w *world) fullSignature(trust *covenant.Trust, file string) judge.Check {
	const id, claim = "full/signature", "a trust anchor signed the file"
	text, err := os.ReadFile(file + ".asc")
	if errors.Is(err, fs.ErrNotExist) {
		return judge.Judged(id, claim, "", lacking("%s.asc is missing", filepath.Base(file)))
	}
	data, derr := os.ReadFile(file)
	if err := errors.Join(err, derr); err != nil {
		return judge.Unjudged(id, claim, err)
	}
	signed, err := judgeSignature(trust.Keys, data, text, w.now())
	if err != nil {
		return judge.Judged(id, claim, "", lacking("%v", err))
	}
	c := judge.Judged(id, claim, filepath.Base(file)+".asc")
	c.Evidence = []string{fmt.Sprintf("by %s, which claims %s", signed, signed.Created.Format(time.RFC3339))}
	return c
}

func (w *world) fullTimestamp(authorities []release.Authority, file string) judge.Check {
	const id, claim = "full/timestamp", "a pinned authority stamped the file or its signature"
	entries, err := os.ReadDir(filepath.Dir(file))
	if err != nil {
		return judge.Unjudged(id, claim, err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	var found []judge.Finding
	var evidence []string
	for _, of := range []string{filepath.Base(file), filepath.Base(file) + ".asc"} {
		tokens := map[string][]byte{}
		for _, t := range release.TokenFiles(of, names) {
			if tokens[t], err = readToken(filepath.Join(filepath.Dir(file), t)); err != nil {
				return judge.Unjudged(id, claim, err)
			}
		}
		if len(tokens) == 0 {
			continue
		}
		data, err := os.ReadFile(filepath.Join(filepath.Dir(file), of))
		if err != nil {
			return judge.Unjudged(id, claim, err)
		}
		for _, s := range release.VerifyTokens(authorities, of, tokens, bytes.NewReader(data), w.now()) {
			if s.Err != nil {
				found = append(found, judge.Finding{Path: path.Base(s.File), Message: s.Err.Error()})
				continue
			}
			evidence = append(evidence, fmt.Sprintf("%s: %s by %s", s.File, s.Verified.Time.Format(time.RFC3339), s.Authority))
		}
	}
	if len(found)+len(evidence) == 0 {
		found = append(found, lacking("there is no token: %s.<authority>.tsr is missing", filepath.Base(file)))
	}
	c := judge.Judged(id, claim, fmt.Sprintf("%d tokens", len(evidence)), found...)
	c.Evidence = evidence
	return c
}
