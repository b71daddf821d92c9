package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/action"
	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/covenant"
	"github.com/vaultmesh/remembrancer/pkg/durable"
	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

var expiresInput = action.Input{Name: "expires", Default: "1y", Usage: "How long the signing subkey lasts: days or years, as 90d or 1y, or never."}

var keyGenerateVerb = verb{
	spec: action.Spec{
		Verb: "key generate", Summary: "make a signing key whose primary half can be kept offline",
		Description: "Makes an Ed25519 key that GnuPG 2.2 reads: a primary key that only certifies, and a signing subkey that expires. " +
			"Three files go to the state directory, which only their owner can read: secret.asc (all of it, for a safe place offline), signing.asc (the subkey alone, for the job that signs) and public.asc.\n\n" +
			"A passphrase, from REMEMBRANCER_PASSPHRASE or a file descriptor, protects both secret files.",
		Inputs: []action.Input{
			{Name: "name", Usage: "Name in the key's user id. With (development) at its end the key says of itself that it proves nothing to others."},
			{Name: "email", Usage: "E-mail address in it."},
			expiresInput, passphraseInput, passphraseFDInput,
			{Name: "export", Kind: action.Bool, Usage: "Write signing.asc to standard output, which must not be a terminal.", CLIOnly: true},
		},
		Examples: []string{"remembrancer key generate --name 'Acme releases' --email release@example.org"},
	},
	run: func(w *world, v *action.Values, _ *action.Runner) error {
		lasts, err := parseLasts(v.String("expires"))
		if err != nil {
			return err
		}
		if v.Bool("export") && (w.inCI() || isTerminal(w.stdout)) {
			return misused("--export writes a secret key: want standard output to be a file or a pipe, not a terminal or a job's log")
		}
		if err := w.keepsKeysOut(); err != nil {
			return err
		}
		split, err := openpgp.GenerateSplit(v.String("name"), v.String("email"), lasts, w.passphrase(v), w.now(), w.rand)
		if err != nil {
			return misused("%v", err)
		}
		dir, err := w.putSplit(split)
		if err != nil {
			return err
		}
		say := w.say
		if v.Bool("export") {
			say = w.note
			if _, err := w.stdout.Write(split.Signing); err != nil {
				return err
			}
		}
		say("✅ key     %s", split.Public.Fingerprint())
		say("   subkey  %s (signs, %s)", split.Subkey, untilWhen(expiryOf(split.Public, split.Subkey, w.now())))
		say("   public  %s", filepath.Join(dir, publicFile))
		w.note("secret: %s: move it to a safe place offline; it makes new subkeys and revocations", filepath.Join(dir, secretFile))
		w.note("  gh secret set REMEMBRANCER_SIGNING_KEY --env remembrancer < %s", filepath.Join(dir, signingFile))
		return nil
	},
}

var keyInspectVerb = verb{
	spec: action.Spec{
		Verb: "key inspect", Summary: "say what a public key is, what it may do, and whether it is a trust anchor here",
		Args: "FILE|FINGERPRINT",
		Description: "A fingerprint is looked for among the certificates of the repository and in the state directory. " +
			"Keys that GnuPG 2.2 cannot read (version 6, algorithm 27) are refused.",
		Inputs:   []action.Input{{Name: "json", Kind: action.Bool, Usage: "Write JSON.", CLIOnly: true}},
		Examples: []string{"remembrancer key inspect ops/certs/0123456789ABCDEF0123456789ABCDEF01234567.asc"},
	},
	run: inspectKey,
}

var keyRotateVerb = verb{
	spec: action.Spec{
		Verb: "key rotate", Summary: "change a signing key, on the record",
		Description: "With the primary key at hand it gets a new signing subkey; the policy id stays as it is. With --new-key a new key takes over. " +
			"The new certificate is written under ops/certs, and a receipt that names both keys, signed by the old one and endorsed by the new one: both are for a commit by whoever may change trust anchors, since a change that adds them is refused.\n\n" +
			"Once the receipt is in the log and nothing is signed with the old key any more, --retire moves its certificate to ops/certs/retired, where it goes on vouching for what it signed before.",
		Inputs: append([]action.Input{
			{Name: "new-key", Kind: action.Bool, Usage: "Make a new key in place of a new subkey."},
			{Name: "name", Usage: "Name in the new key's user id; the old one's when left out."},
			{Name: "email", Usage: "E-mail address in it."},
			expiresInput,
			{Name: "retire", Usage: "Fingerprint of a key that was rotated away: take it from the trust anchors."},
		}, keyInputs()...),
		Examples: []string{"remembrancer key rotate --new-key --name 'Acme releases 2'"},
	},
	run: rotateKey,
}

var keyRevokeVerb = verb{
	spec: action.Spec{
		Verb: "key revoke", Summary: "take the trust from a key, from an entry of the log on",
		Args: "FINGERPRINT",
		Description: "Writes a receipt, signed by another trust anchor, that names the reason, the time and the size and root of the log up to which the key counts. " +
			"Once it is in the log, --import puts the revocation certificate into the key's file under ops/certs and keeps the copy from before under ops/certs/retired: gpg believes nothing of a revoked key, whatever the reason.",
		Inputs: append([]action.Input{
			{Name: "reason", Default: "compromised", Choices: []string{"compromised", "superseded", "retired"}, Usage: "Why."},
			{Name: "certificate", Kind: action.Path, Usage: "Revocation certificate, as gpg --gen-revoke makes one; made with the secret key of the state directory when left out."},
			{Name: "size", Kind: action.Int, Usage: "Size of the log up to which the key counts; all that is published when left out."},
			{Name: "import", Kind: action.Bool, Usage: "The receipt is in the log: revoke the certificate in ops/certs."},
		}, keyInputs()...),
		Examples: []string{"remembrancer key revoke 0123456789ABCDEF0123456789ABCDEF01234567 --reason compromised --certificate revoke.asc"},
	},
	run: revokeKey,
}

var lastsRE = regexp.MustCompile(`^([1-9][0-9]{0,3})([dy])$`)

func parseLasts(s string) (time.Duration, error) {
	if s == "never" {
		return 0, nil
	}
	m := lastsRE.FindStringSubmatch(s)
	if m == nil {
		return 0, misused("--expires %q: want days or years, as 90d or 1y, or never", s)
	}
	n, _ := strconv.Atoi(m[1]) // four digits
	days := time.Duration(n) * 24 * time.Hour
	if m[2] == "y" {
		if n > 100 {
			return 0, misused("--expires %q: want at most 100y", s)
		}
		days *= 365
	}
	return days, nil
}

// The files of a key in the state directory.
const (
	secretFile     = "secret.asc"
	signingFile    = "signing.asc"
	publicFile     = "public.asc"
	revocationFile = "revocation.asc"
)

func keyFolder(f openpgp.Fingerprint) string { return "keys/openpgp/" + string(f) }

// keepsKeysOut refuses a state directory in the work tree around us.
func (w *world) keepsKeysOut() error {
	repo, err := gitrepo.Open(w.dir)
	if err != nil {
		_, err := w.stateDir()
		return err
	}
	return w.keepsOut(repo.Root())
}

// putSplit writes a key's files to the state directory and returns their folder.
func (w *world) putSplit(split *openpgp.SplitKey) (string, error) {
	for name, data := range map[string][]byte{secretFile: split.Secret, signingFile: split.Signing, publicFile: split.Public.Armored()} {
		if err := w.putKeyFile(split.Public.Fingerprint(), name, data); err != nil {
			return "", err
		}
	}
	dir, err := w.stateDir()
	return filepath.Join(dir, filepath.FromSlash(keyFolder(split.Public.Fingerprint()))), err
}

func (w *world) putKeyFile(f openpgp.Fingerprint, name string, data []byte) error {
	dir, err := w.stateDir()
	if err != nil {
		return err
	}
	file := filepath.Join(dir, filepath.FromSlash(keyFolder(f)), name)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	return durable.Put(file, data, 0o600)
}

// keyFile returns a file of a key in the state directory, nil if it is not there.
func (w *world) keyFile(f openpgp.Fingerprint, name string) ([]byte, error) {
	d, err := w.state()
	if err != nil {
		return nil, err
	}
	defer d.Close()
	b, err := d.Get(keyFolder(f) + "/" + name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

func untilWhen(t time.Time) string {
	if t.IsZero() {
		return "never expires"
	}
	return "expires " + t.UTC().Format(time.DateOnly)
}

func expiryOf(k *openpgp.Key, part openpgp.Fingerprint, now time.Time) time.Time {
	for _, p := range k.Parts(now) {
		if p.Fingerprint == part {
			return p.Expires
		}
	}
	return time.Time{}
}

// certificate finds a key among the work tree's certificates: its path, below
// the root, and its bytes. The path is empty if it is not there.
func (p *project) certificate(folder string, f openpgp.Fingerprint) (string, []byte, error) {
	entries, err := os.ReadDir(filepath.Join(p.root, filepath.FromSlash(folder)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", nil, err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() || !strings.HasSuffix(e.Name(), ".asc") {
			continue
		}
		data, err := os.ReadFile(filepath.Join(p.root, filepath.FromSlash(folder), e.Name()))
		if err != nil {
			return "", nil, err
		}
		if key, err := openpgp.ParsePublic(data); err == nil && key.Fingerprint() == f {
			return folder + "/" + e.Name(), data, nil
		}
	}
	return "", nil, nil
}

func inspectKey(w *world, v *action.Values, _ *action.Runner) error {
	if len(v.Args()) != 1 {
		return misused("want one FILE or FINGERPRINT of a public key")
	}
	arg := v.Args()[0]
	p, projectErr := w.openProject()
	var data []byte
	f, err := openpgp.ParseFingerprint(arg)
	if err == nil {
		if projectErr == nil {
			for _, folder := range []string{p.layout.Certs(), p.layout.RetiredCerts()} {
				if data == nil {
					if _, data, err = p.certificate(folder, f); err != nil {
						return err
					}
				}
			}
		}
		if data == nil {
			if data, err = w.keyFile(f, publicFile); err != nil {
				return err
			}
		}
		if data == nil {
			return fmt.Errorf("no certificate of key %s here: give its file", f)
		}
	} else if data, err = os.ReadFile(w.path(arg)); err != nil {
		return err
	}
	key, err := openpgp.ParsePublic(data)
	if err != nil {
		return fmt.Errorf("%s: %w", arg, err)
	}
	anchor := "unknown"
	if projectErr == nil {
		if h, err := p.head("HEAD"); err == nil {
			if trust, err := covenant.LoadTrust(h.tree, p.layout); err == nil {
				anchor = "no"
				if _, retired := trust.Retired.Lookup(key.Fingerprint()); retired {
					anchor = "retired"
				}
				if _, active := trust.Keys.Lookup(key.Fingerprint()); active {
					anchor = "yes"
				}
			}
		}
	}
	parts := key.Parts(w.now())
	signs := slices.ContainsFunc(parts, func(p openpgp.Part) bool { return p.CannotSign == "" })
	if v.Bool("json") {
		b, err := json.MarshalIndent(keyJSON(key, parts, signs, anchor), "", "  ")
		if err != nil {
			return err
		}
		w.say("%s", b)
		return nil
	}
	w.say("key %s", key.Fingerprint())
	for _, id := range key.UserIDs() {
		w.say("  user id       %s", action.Defang(id))
	}
	for _, part := range parts {
		kind := "subkey"
		if part.Primary {
			kind = "primary"
		}
		w.say("  %-13s %s %s, %s, created %s, %s", kind, part.Fingerprint, part.Algorithm, strings.Join(part.Can, "+"), part.Created.Format(time.DateOnly), untilWhen(part.Expires))
		for _, r := range part.Revocations {
			w.say("                revoked %s: %s", r.At.Format(time.DateOnly), r.Reason)
		}
		if part.CannotSign != "" {
			w.say("                does not sign: %s", part.CannotSign)
		}
	}
	w.say("  signs now     %s", map[bool]string{true: "yes", false: "no"}[signs])
	w.say("  trust anchor  %s", anchor)
	return nil
}

func keyJSON(key *openpgp.Key, parts []openpgp.Part, signs bool, anchor string) map[string]any {
	at := func(t time.Time) any {
		if t.IsZero() {
			return nil
		}
		return t.UTC().Format(time.RFC3339)
	}
	revocations := func(all []openpgp.Revocation) []any {
		out := []any{}
		for _, r := range all {
			out = append(out, map[string]any{"at": at(r.At), "reason": r.Reason})
		}
		return out
	}
	list := []any{}
	for _, p := range parts {
		can := p.Can
		if can == nil {
			can = []string{}
		}
		list = append(list, map[string]any{
			"fingerprint": p.Fingerprint, "primary": p.Primary, "algorithm": p.Algorithm, "can": can, "created": at(p.Created),
			"expires": at(p.Expires), "revocations": revocations(p.Revocations), "signs_now": p.CannotSign == "", "why_not": p.CannotSign,
		})
	}
	return map[string]any{
		"fingerprint": key.Fingerprint(), "user_ids": key.UserIDs(), "created": at(key.Created()), "expires": at(key.Expires()),
		"revocations": revocations(key.Revocations()), "parts": list, "signs_now": signs, "trust_anchor": anchor,
	}
}

// standingTrust is the trust of HEAD, by which a change of keys is prepared.
func (p *project) standingTrust() (*head, *covenant.Trust, error) {
	h, err := p.head("HEAD")
	if err != nil {
		return nil, nil, err
	}
	trust, err := covenant.LoadTrust(h.tree, p.layout)
	return h, trust, err
}

// wrongKey says that a key is no trust anchor, and which are.
func wrongKey(l covenant.Layout, trust *covenant.Trust, f openpgp.Fingerprint) error {
	if _, ok := trust.Keys.Lookup(f); ok {
		return nil
	}
	var names []string
	for _, f := range trust.Keys.Fingerprints() {
		names = append(names, string(f))
	}
	return failed("the key given is %s, which is no trust anchor: %s holds %s", f, l.Certs(), strings.Join(names, ", "))
}

// policyWith is the policy id of a trust state with another set of anchors.
func policyWith(trust *covenant.Trust, gone openpgp.Fingerprint, more ...*openpgp.Key) (string, error) {
	keys := more
	for _, f := range trust.Keys.Fingerprints() {
		if f != gone && !slices.ContainsFunc(more, func(k *openpgp.Key) bool { return k.Fingerprint() == f }) {
			k, _ := trust.Keys.Lookup(f)
			keys = append(keys, k)
		}
	}
	ring, err := openpgp.NewKeyring(keys...)
	if err != nil {
		return "", err
	}
	next, err := trust.With(ring)
	if err != nil {
		return "", err
	}
	return next.ID(), nil
}

func (w *world) sayPolicy(was, is string) {
	if was == is {
		w.say("   the policy id stays %s", is)
		return
	}
	w.say("   the policy id changes from %s\n                         to %s", was, is)
	w.say("   pin the new one wherever the old one is: the trusted workflow, and whoever verifies")
}

func rotateKey(w *world, v *action.Values, _ *action.Runner) error {
	lasts, err := parseLasts(v.String("expires"))
	if err != nil {
		return err
	}
	p, err := w.openProject()
	if err != nil {
		return err
	}
	_, trust, err := p.standingTrust()
	if err != nil {
		return err
	}
	if f := v.String("retire"); f != "" {
		return w.retireKey(p, trust, f)
	}
	old, err := w.signer(v, p)
	if err != nil {
		return err
	}
	if err := wrongKey(p.layout, trust, old.Fingerprint()); err != nil {
		return err
	}
	change := covenant.KeyChange{Old: old.Fingerprint(), New: old.Fingerprint()}
	var split *openpgp.SplitKey
	if v.Bool("new-key") {
		name, email := v.String("name"), v.String("email")
		if name == "" && email == "" {
			name, email = splitUserID(old.Public().UserIDs()[0])
		}
		split, err = openpgp.GenerateSplit(name, email, lasts, w.passphrase(v), w.now(), w.rand)
		if err != nil {
			return misused("%v", err)
		}
		change.New = split.Public.Fingerprint()
	} else {
		secret, _, err := w.secretKey(v, p)
		if err != nil {
			return err
		}
		if secret == nil {
			return misused("the key is with gpg, which makes its own subkeys: gpg --quick-add-key %s ed25519 sign %s, then export it to %s; or --new-key", old.Fingerprint(), v.String("expires"), p.layout.Certs())
		}
		if split, err = openpgp.AddSigningSubkey(secret, w.passphrase(v), lasts, w.now(), w.rand); err != nil {
			return fmt.Errorf("%w\nwithout its primary key it can only hand over to another: --new-key", err)
		}
		change.NewSubkey = split.Subkey
	}
	cert, _, err := p.certificate(p.layout.Certs(), change.New)
	if err != nil {
		return err
	}
	if cert == "" {
		cert = p.layout.Certs() + "/" + string(change.New) + ".asc"
	}
	signers := []openpgp.Signer{old}
	if change.New != change.Old {
		next, err := openpgp.FromArmored(split.Signing, w.passphrase(v), w.now)
		if err != nil {
			return err
		}
		signers = append(signers, next)
	}
	dir, err := w.putSplit(split)
	if err != nil {
		return err
	}
	if err := w.replaceStored(v, p, change, split); err != nil {
		return err
	}
	if err := w.putFile(p, cert, split.Public.Armored()); err != nil {
		return err
	}
	name := w.now().UTC().Format(time.DateOnly) + "-rotation-" + strings.ToLower(string(split.Subkey[24:]))
	if err := w.putKeyChange(p, name, cert, split.Public.Armored(), change, signers...); err != nil {
		return err
	}
	is, err := policyWith(trust, "", split.Public)
	if err != nil {
		return err
	}
	w.say("✅ key %s: %s takes over, %s", change.Old, split.Subkey, untilWhen(expiryOf(split.Public, split.Subkey, w.now())))
	w.sayPolicy(trust.ID(), is)
	w.say("   next: hand the new key to the publishing job, commit, push to %s, and publish", p.cfg.Publish.Branch)
	w.note("  gh secret set REMEMBRANCER_SIGNING_KEY --env remembrancer < %s", filepath.Join(dir, signingFile))
	if change.New != change.Old {
		w.say("   then: remembrancer key rotate --retire %s", change.Old)
	}
	return nil
}

// replaceStored puts the new key in the place of the one that init made, if that
// was the one rotated, and keeps the old one for its revocation.
func (w *world) replaceStored(v *action.Values, p *project, c covenant.KeyChange, split *openpgp.SplitKey) error {
	if w.fd.key != nil || v.String("signing-key") != "" || v.String("key") != "" {
		return nil
	}
	origin, err := p.origin()
	if err != nil {
		return err
	}
	if c.New == c.Old {
		return w.putSecret(origin, issuerKey, split.Secret)
	}
	stored, err := w.storedKey(origin, issuerKey)
	if err != nil {
		return err
	}
	if err := w.putKeyFile(c.Old, secretFile, stored); err != nil {
		return err
	}
	return w.putSecret(origin, issuerKey, split.Signing)
}

// splitUserID takes a user id apart, as "name <email>".
func splitUserID(id string) (name, email string) {
	name, rest, ok := strings.Cut(id, "<")
	if !ok {
		return id, ""
	}
	return strings.TrimSpace(name), strings.TrimSuffix(rest, ">")
}

// putFile writes a file of the work tree.
func (w *world) putFile(p *project, name string, data []byte) error {
	file, err := p.file(name)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	if err := durable.Put(file, data, 0o644); err != nil {
		return err
	}
	w.say("%s", name)
	return nil
}

// putKeyChange writes a receipt about a key: issued by the first signer, and
// endorsed by the others. Its subject is the certificate it is about.
func (w *world) putKeyChange(p *project, name, cert string, data []byte, c covenant.KeyChange, signers ...openpgp.Signer) error {
	r, err := receipt.New(receipt.Statement{
		Kind: receipt.KeyRotation, Issuer: signers[0].Fingerprint(), Name: name, Issued: w.now(),
		Subjects: []receipt.Subject{{Name: cert, SHA256: digest(data)}}, Predicate: c.Predicate(),
	})
	if err != nil {
		return err
	}
	if err := w.putReceipt(p, r, signers[0]); err != nil {
		return err
	}
	for _, s := range signers[1:] {
		sig, err := receipt.Sign(w.ctx, r, s)
		if err != nil {
			return err
		}
		if err := w.putSignature(p, r, sig); err != nil {
			return err
		}
	}
	return nil
}

// changed is a tree with other files in it; nil takes one away.
type changed struct {
	covenant.Tree
	files map[string][]byte
}

func (c changed) Blob(name string) ([]byte, error) {
	data, ours := c.files[name]
	switch {
	case !ours:
		return c.Tree.Blob(name)
	case data == nil:
		return nil, &fs.PathError{Op: "read", Path: name, Err: fs.ErrNotExist}
	}
	return data, nil
}

func (c changed) Walk(folder string, fn func(name string, mode fs.FileMode, id string) error) error {
	if err := c.Tree.Walk(folder, func(name string, mode fs.FileMode, id string) error {
		if _, ours := c.files[name]; ours {
			return nil
		}
		return fn(name, mode, id)
	}); err != nil {
		return err
	}
	for name, data := range c.files {
		if data != nil && (folder == "" || strings.HasPrefix(name, folder+"/")) {
			if err := fn(name, 0o644, digest(data)); err != nil {
				return err
			}
		}
	}
	return nil
}

// putCerts changes certificates in the work tree, if the log stands up to its
// audit with them.
func (w *world) putCerts(p *project, files map[string][]byte) error {
	h, err := p.head("HEAD")
	if err != nil {
		return err
	}
	audit := covenant.Audit(changed{h.tree, files}, covenant.Options{Layout: p.layout, Now: w.now()})
	for _, f := range audit.Failures() {
		return failed("%s would no longer pass its audit: %s: %s\nnothing was changed; is the receipt published, and HEAD up to date? git pull", h.where, f.Name, f.Detail)
	}
	for name, data := range files {
		if data == nil {
			continue
		}
		if err := w.putFile(p, name, data); err != nil {
			return err
		}
	}
	for name, data := range files {
		if data != nil {
			continue
		}
		file, err := p.file(name)
		if err != nil {
			return err
		}
		if err := os.Remove(file); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) retireKey(p *project, trust *covenant.Trust, text string) error {
	f, err := openpgp.ParseFingerprint(text)
	if err != nil {
		return misused("--retire: %v", err)
	}
	if err := wrongKey(p.layout, trust, f); err != nil {
		return err
	}
	cert, data, err := p.certificate(p.layout.Certs(), f)
	if err != nil {
		return err
	}
	if cert == "" {
		return failed("the work tree has no certificate of key %s under %s", f, p.layout.Certs())
	}
	if err := w.putCerts(p, map[string][]byte{cert: nil, path.Join(p.layout.RetiredCerts(), string(f)+".asc"): data}); err != nil {
		return err
	}
	is, err := policyWith(trust, f)
	if err != nil {
		return err
	}
	w.say("✅ key %s is no trust anchor any more; what it signed up to its rotation stands", f)
	w.sayPolicy(trust.ID(), is)
	w.say("   next: commit and push to %s", p.cfg.Publish.Branch)
	return nil
}

func revokeKey(w *world, v *action.Values, _ *action.Runner) error {
	if len(v.Args()) != 1 {
		return misused("want one FINGERPRINT")
	}
	f, err := openpgp.ParseFingerprint(v.Args()[0])
	if err != nil {
		return misused("%v", err)
	}
	reason, err := openpgp.ParseReason(v.String("reason"))
	if err != nil {
		return misused("--reason: %v", err)
	}
	p, err := w.openProject()
	if err != nil {
		return err
	}
	h, trust, err := p.standingTrust()
	if err != nil {
		return err
	}
	before, ok := trust.Keys.Lookup(f)
	if !ok {
		return wrongKey(p.layout, trust, f)
	}
	if before.Revoked() {
		return failed("key %s is revoked in %s already", f, p.layout.Certs())
	}
	certificate, after, err := w.revocation(v, p, before, reason)
	if err != nil {
		return err
	}
	cert, data, err := p.certificate(p.layout.Certs(), f)
	if err != nil {
		return err
	}
	if cert == "" {
		return failed("the work tree has no certificate of key %s under %s", f, p.layout.Certs())
	}
	if v.Bool("import") {
		if err := w.putCerts(p, map[string][]byte{cert: after.Armored(), path.Join(p.layout.RetiredCerts(), string(f)+".asc"): data}); err != nil {
			return err
		}
		w.say("✅ key %s is revoked; its copy from before is kept for what it signed below the cutoff", f)
		w.sayPolicy(trust.ID(), trust.ID())
		w.say("   next: commit and push to %s", p.cfg.Publish.Branch)
		return nil
	}
	s, err := w.signer(v, p)
	if err != nil {
		return err
	}
	if s.Fingerprint() == f {
		return misused("the key given is %s, the one that is to be revoked: want another trust anchor's, since a thief has this one too; remembrancer key rotate --new-key makes one", f)
	}
	if err := wrongKey(p.layout, trust, s.Fingerprint()); err != nil {
		return err
	}
	audit, err := w.audit(p, h, "")
	if err != nil {
		return err
	}
	if audit.Status() != covenant.Pass {
		return failed("the ledger of %s does not pass its audit: a cutoff needs one that does; see remembrancer verify-audit", h.where)
	}
	change := covenant.KeyChange{Old: f, Reason: reason, Size: int64(len(audit.Entries))}
	if v.Given("size") {
		change.Size = int64(v.Int("size"))
	}
	if change.Size < 0 || change.Size > int64(len(audit.Entries)) {
		return misused("--size %d: the log has %d entries", change.Size, len(audit.Entries))
	}
	change.Root = ledger.Root(nil)
	if change.Size > 0 {
		leaves := make([]checkpoint.Hash, change.Size)
		for i := range leaves {
			leaves[i] = ledger.RecordHash(audit.Entries[i].Line())
		}
		if change.Root, err = ledger.NewTree(leaves).Root(change.Size); err != nil {
			return err
		}
	}
	if err := w.putKeyFile(f, revocationFile, certificate); err != nil {
		return err
	}
	name := w.now().UTC().Format(time.DateOnly) + "-revocation-" + strings.ToLower(string(f[24:]))
	if err := w.putKeyChange(p, name, cert, data, change, s); err != nil {
		return err
	}
	w.say("✅ key %s: %s; it counts below entry %d, root %x", f, reason, change.Size, change.Root[:])
	w.say("   next: commit, push to %s and publish with another key; then: remembrancer key revoke %s --import", p.cfg.Publish.Branch, f)
	return nil
}

// revocation returns the certificate that revokes a key, given, kept from before
// or made, and the key with it.
func (w *world) revocation(v *action.Values, p *project, key *openpgp.Key, reason openpgp.Reason) (certificate []byte, after *openpgp.Key, err error) {
	f := key.Fingerprint()
	if file := v.String("certificate"); file != "" {
		if certificate, err = os.ReadFile(w.path(file)); err != nil {
			return nil, nil, err
		}
	}
	if certificate == nil {
		if certificate, err = w.keyFile(f, revocationFile); err != nil {
			return nil, nil, err
		}
	}
	if certificate == nil {
		origin, err := p.origin()
		if err != nil {
			return nil, nil, err
		}
		kept, err1 := w.keyFile(f, secretFile)
		issuer, err2 := w.storedKey(origin, issuerKey)
		if err := errors.Join(err1, err2); err != nil {
			return nil, nil, err
		}
		for _, secret := range [][]byte{kept, issuer} {
			if certificate != nil || secret == nil || !openpgp.IsSecretOf(secret, f) {
				continue
			}
			if certificate, err = openpgp.Revoke(secret, w.passphrase(v), reason, "", w.now()); err != nil {
				return nil, nil, err
			}
		}
	}
	if certificate == nil {
		return nil, nil, misused("the secret key %s is not in the state directory: give a certificate with --certificate\nhint: gpg --gen-revoke %s", f, f)
	}
	if after, err = key.WithRevocation(certificate); err != nil {
		return nil, nil, err
	}
	return certificate, after, nil
}
