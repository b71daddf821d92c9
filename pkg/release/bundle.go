package release

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // git's names of objects
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/proof"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
	"github.com/vaultmesh/remembrancer/pkg/timestamp"
)

// The files of an evidence bundle; see [VerifyBundle].
const (
	bundleSeal      = "SEAL"
	bundleSums      = SumsFile
	bundleSumsSig   = SumsFile + ".asc"
	bundleGuide     = "VERIFY.md"
	bundleScript    = "verify.sh"
	bundlePrints    = "keys/FINGERPRINTS"
	bundleTag       = "tag/tag.raw"
	bundleCommit    = "tag/commit.raw"
	bundleReceipt   = "ledger/receipt"
	bundleReceiptBy = "ledger/receipt.asc"
	bundleProof     = "ledger/proof"
	bundleHead      = "ledger/checkpoint"
	bundlePolicy    = "ledger/policy"
	bundleToken     = "SEAL.tsr"
)

// Bounds of a bundle.
const (
	maxBundleFiles = 4096
	maxBundleDepth = 6
	maxEvidence    = 8 << 20  // bytes of a file that is not an artifact
	maxArtifact    = 16 << 30 // bytes of an artifact
)

// MinTimestamps is how many tokens, under distinct roots, each seal of a bundle
// must have: with one, a single authority could say what it likes.
const MinTimestamps = 2

// bundleName is what files and folders may be called: names that no shell, no
// file system and no sha256sum reads in two ways.
var bundleName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._+@=,~-]{0,199}$`)

// CheckBundlePath says why a path cannot be in a bundle.
func CheckBundlePath(p string) error {
	for _, name := range strings.Split(p, "/") {
		if !bundleName.MatchString(name) || strings.HasSuffix(name, ".") {
			return fmt.Errorf("path %.200q: want names of letters, digits and . _ + @ = , ~ - that begin with a letter or digit", p)
		}
	}
	if strings.Count(p, "/") >= maxBundleDepth {
		return fmt.Errorf("path %.200q: want at most %d folders", p, maxBundleDepth-1)
	}
	return nil
}

// parseListing reads a list of digests in its one form, with paths that can be in
// a bundle.
func parseListing(self string, data []byte) (map[string]string, error) {
	sums, err := ParseSums(self, data)
	if err != nil {
		return nil, err
	}
	if len(sums) > maxBundleFiles || !bytes.Equal(sums.Bytes(), data) {
		return nil, fmt.Errorf("%s: want at most %d lines as sha256sum --text writes them", self, maxBundleFiles)
	}
	all := map[string]string{}
	for _, sum := range sums {
		if err := CheckBundlePath(sum.Name); err != nil {
			return nil, fmt.Errorf("%s: %w", self, err)
		}
		all[sum.Name] = sum.Hex()
	}
	return all, nil
}

func renderListing(digests map[string]string) []byte {
	var b bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(digests)) {
		fmt.Fprintf(&b, "%s  %s\n", digests[name], name)
	}
	return b.Bytes()
}

// BundleEvidence is what a bundle is made of, beside the artifacts and the tokens.
type BundleEvidence struct {
	Tag        string // name of the tag
	TagObject  []byte // as git cat-file tag prints it
	Commit     []byte // as git cat-file commit prints it
	Sums       []byte // SHA256SUMS
	SumsBy     []byte // SHA256SUMS.asc
	Proof      []byte // of the release receipt, as remembrancer log prove writes it
	Policy     []byte // of the log
	Keys       []*openpgp.Key
	Repository string // the log's origin
}

// Files returns the files that the seal covers, and the seal: always the same for
// the same evidence.
func (e BundleEvidence) Files() (map[string][]byte, error) {
	sums, err := parseListing(bundleSums, e.Sums)
	if err != nil {
		return nil, err
	}
	p, err := checkpoint.ParseProof(e.Proof)
	if err != nil {
		return nil, err
	}
	line, _, _ := bytes.Cut(p.Extra, []byte("\n"))
	entry, err := receipt.ParseLine(line)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{
		bundleSums: e.Sums, bundleSumsSig: e.SumsBy, bundleTag: e.TagObject, bundleCommit: e.Commit,
		bundleReceipt: entry.Receipt.Bytes(), bundleProof: e.Proof, bundleHead: p.Checkpoint, bundlePolicy: e.Policy,
	}
	for _, s := range entry.Signatures {
		if s.Fingerprint == entry.Receipt.Issuer() {
			files[bundleReceiptBy] = openpgp.Armor(s.Packet)
		}
	}
	if files[bundleReceiptBy] == nil {
		return nil, fmt.Errorf("the proof is of a line without the signature of its issuer %s", entry.Receipt.Issuer())
	}
	var prints bytes.Buffer
	keys := slices.SortedFunc(slices.Values(e.Keys), func(a, b *openpgp.Key) int { return strings.Compare(string(a.Fingerprint()), string(b.Fingerprint())) })
	for _, k := range keys {
		files[keyFile(k.Fingerprint())] = k.Armored()
		fmt.Fprintln(&prints, k.Fingerprint())
	}
	files[bundlePrints] = prints.Bytes()
	guide, err := renderGuide(guideData{Tag: e.Tag, Repository: e.Repository, Artifacts: slices.Sorted(maps.Keys(sums))})
	if err != nil {
		return nil, err
	}
	files[bundleGuide], files[bundleScript] = guide, renderScript(guide)
	digests := map[string]string{}
	for name, data := range files {
		digests[name] = digestOf(data)
	}
	files[bundleSeal] = renderListing(digests)
	return files, nil
}

func keyFile(f openpgp.Fingerprint) string { return "keys/" + string(f) + ".asc" }

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// StampFiles returns the files of a token of a seal: the response, and the one
// root and the certificates that it is verified with. folder is "" for the bundle
// itself, or that of a renewal.
func StampFiles(folder string, a Authority, response []byte, v *timestamp.Verified) map[string][]byte {
	at := path.Join(folder, "tsa", a.Name)
	files := map[string][]byte{at + "/" + bundleToken: response, at + "/" + RootsFile: pemOf(v.Root)}
	if len(a.Untrusted) > 0 {
		files[at+"/"+UntrustedFile] = renderCertificates(a.Untrusted)
	}
	return files
}

// BundleReport is the verdict on a bundle, and what it is about.
type BundleReport struct {
	// Verdict is VERIFIED, FAIL, or CONDITIONAL: nothing is wrong, but it leans on
	// keys that no anchor confirms.
	Verdict    string           `json:"verdict"`
	Tag        string           `json:"tag,omitempty"`
	TagObject  string           `json:"tag_object,omitempty"` // git's name of it
	Commit     string           `json:"commit,omitempty"`
	Repository string           `json:"repository,omitempty"` // the log's origin
	Artifacts  []BundleArtifact `json:"artifacts"`
	Signers    []BundleSigner   `json:"signers"`
	Stamps     []BundleStamp    `json:"timestamps"`
	Entry      int64            `json:"entry"` // of the log, from 0
	LogSize    int64            `json:"log_size"`
	LogRoot    string           `json:"log_root,omitempty"`
	LogKey     string           `json:"log_key,omitempty"`
	Judged     time.Time        `json:"judged"`
	Checks     []judge.Check    `json:"checks"`
}

// BundleArtifact is a file that the release consists of.
type BundleArtifact struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"` // bytes
}

// BundleSigner is a signature.
type BundleSigner struct {
	Of          string              `json:"of"` // what was signed, in words
	Fingerprint openpgp.Fingerprint `json:"fingerprint"`
	Names       []string            `json:"names"` // as the key itself says
	Claimed     time.Time           `json:"claimed"`
	Anchored    bool                `json:"anchored"`
	Development bool                `json:"development,omitempty"` // as the key itself says
}

// BundleStamp is a timestamp.
type BundleStamp struct {
	Of       string    `json:"of"` // path of the seal
	Name     string    `json:"name"`
	Subject  string    `json:"subject"` // of the root's certificate
	Time     time.Time `json:"time"`
	Root     string    `json:"root_spki"`
	Serial   string    `json:"serial"`
	Anchored bool      `json:"anchored"`
}

// The verdicts of [VerifyBundle].
const (
	Verified    = "VERIFIED"
	Failed      = "FAIL"
	Conditional = "CONDITIONAL"
)

// bundle is one that is being judged.
type bundle struct {
	files    fs.FS
	sizes    map[string]int64 // of all files, by path
	digests  map[string]string
	anchors  Anchors
	now      time.Time
	report   *BundleReport
	keys     *openpgp.Keyring
	sums     map[string]string
	seal     map[string]string
	renewals []string
	first    []*timestamp.Verified // of the seal itself
	tag      tagObject
	broken   error // a file could not be read, though it is there
}

// VerifyBundle judges an evidence bundle: a folder that shows, to somebody who
// has nothing but it and a few anchors from elsewhere, what was released, by whom
// and when. It holds
//
//	VERIFY.md verify.sh           how to verify it by hand; the same as a script
//	SEAL                          digests of all but artifacts/, tsa/ and renewals/
//	SHA256SUMS SHA256SUMS.asc     digests of the artifacts, and their signature
//	artifacts/                    the files, nothing unlisted
//	keys/                         <fingerprint>.asc, and FINGERPRINTS
//	tag/                          tag.raw and commit.raw: git's objects
//	ledger/                       receipt receipt.asc proof checkpoint policy
//	tsa/<name>/                   SEAL.tsr ca.pem, sometimes untrusted.pem
//	renewals/<date>/              SEAL over all that was there, and tsa/<name>/
//
// The checks, each with its evidence: nothing is missing, unlisted or no regular
// file; SEAL and SHA256SUMS hold; each seal has tokens of two authorities under
// distinct roots; SHA256SUMS, tag and receipt are signed, by keys that could sign
// then and still could when the seal was stamped, not after the stamp, and not
// compromised by then (a tag without a signature may be an artifact, tag.raw, of the
// signed list instead); the tag leads to the commit; the
// receipt names tag, commit and artifacts and is in the log; each renewal covers
// what was there and is later than what it renews.
//
// Anchors confirm the keys. Those of one kind that are given must fit; a kind
// that is not given makes the verdict CONDITIONAL, and so does a single TSA root.
// Nothing inside the bundle counts as an anchor. An error means that the bundle
// could not be read.
func VerifyBundle(files fs.FS, anchors Anchors, now time.Time) (BundleReport, error) {
	r := BundleReport{Judged: now.UTC().Truncate(time.Second), Artifacts: []BundleArtifact{}, Signers: []BundleSigner{}, Stamps: []BundleStamp{}}
	b := &bundle{files: files, anchors: anchors, now: now, report: &r, sizes: map[string]int64{}, digests: map[string]string{}}
	if err := b.layout(); err != nil {
		return r, err
	}
	b.checkSeal()
	b.checkArtifacts()
	b.checkStamps()
	b.checkKeys()
	b.checkSums()
	b.checkTag()
	b.checkReceipt()
	b.checkRenewals()
	b.checkAnchors()
	if b.broken != nil {
		return r, b.broken
	}
	switch judge.Sum(r.Checks, nil).Status {
	case judge.Pass:
		r.Verdict = Verified
	case judge.Fail:
		r.Verdict = Failed
	default:
		r.Verdict = Conditional
	}
	return r, nil
}

func (b *bundle) judged(id, claim, detail string, evidence []string, found ...judge.Finding) {
	c := judge.Judged("bundle/"+id, claim, detail, found...)
	c.Evidence = evidence
	b.report.Checks = append(b.report.Checks, c)
}

func at(p, format string, args ...any) judge.Finding {
	return judge.Finding{Path: p, Message: fmt.Sprintf(format, args...)}
}

// layout lists the files, and finds what must not be there.
func (b *bundle) layout() error {
	var found []judge.Finding
	folded := map[string]string{}
	err := fs.WalkDir(b.files, ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case p == ".":
			return nil
		case len(folded) > 2*maxBundleFiles:
			return fmt.Errorf("more than %d files", maxBundleFiles)
		}
		if other, taken := folded[strings.ToLower(p)]; taken {
			found = append(found, at(p, "differs from %s only in the size of its letters", other))
		}
		folded[strings.ToLower(p)] = p
		if err := CheckBundlePath(p); err != nil {
			found = append(found, judge.Finding{Message: err.Error()})
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if d.IsDir() {
			return nil
		}
		if !d.Type().IsRegular() {
			found = append(found, at(p, "is %s, want a regular file", kindOf(d.Type())))
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		b.sizes[p] = info.Size()
		limit := int64(maxEvidence)
		if strings.HasPrefix(p, "artifacts/") {
			limit = maxArtifact
		}
		if info.Size() > limit {
			found = append(found, at(p, "has %d bytes, want at most %d", info.Size(), limit))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("bundle: %w", err)
	}
	for _, p := range []string{
		bundleSeal, bundleSums, bundleSumsSig, bundleGuide, bundleScript, bundlePrints, bundleTag, bundleCommit,
		bundleReceipt, bundleReceiptBy, bundleProof, bundleHead, bundlePolicy,
	} {
		if _, ok := b.sizes[p]; !ok {
			found = append(found, at(p, "is missing"))
		}
	}
	b.seal, found = b.listing(bundleSeal, found)
	b.sums, found = b.listing(bundleSums, found)
	found = append(found, b.unlisted()...)
	b.judged("layout", "the folder holds what it lists, and nothing else", fmt.Sprintf("%d files", len(b.sizes)), nil, found...)
	return nil
}

func kindOf(m fs.FileMode) string {
	if m&fs.ModeSymlink != 0 {
		return "a symbolic link"
	}
	return "something special"
}

// listing reads a listing; one that is not there was found missing already.
func (b *bundle) listing(p string, found []judge.Finding) (map[string]string, []judge.Finding) {
	data, err := b.read(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, found
	}
	if err == nil {
		var all map[string]string
		if all, err = parseListing(p, data); err == nil {
			return all, found
		}
	}
	return nil, append(found, at(p, "%v", err))
}

// unlisted finds the files that nothing in the bundle accounts for.
func (b *bundle) unlisted() (found []judge.Finding) {
	for _, p := range slices.Sorted(maps.Keys(b.sizes)) {
		parts := strings.Split(p, "/")
		switch _, sealed := b.seal[p]; {
		case p == bundleSeal:
		case parts[0] == "artifacts":
			if _, ok := b.sums[strings.TrimPrefix(p, "artifacts/")]; !ok {
				found = append(found, at(p, "is not listed in %s", bundleSums))
			}
			if sealed {
				found = append(found, at(p, "is listed in %s, which is for evidence", bundleSeal))
			}
		case parts[0] == "tsa":
			found = append(found, stampFile(p, parts[1:])...)
		case parts[0] == "renewals":
			found = append(found, b.renewalFile(p, parts[1:])...)
		case !sealed:
			found = append(found, at(p, "is not listed in %s", bundleSeal))
		}
	}
	for _, p := range slices.Sorted(maps.Keys(b.seal)) {
		if first, _, _ := strings.Cut(p, "/"); first == "tsa" || first == "renewals" || p == bundleSeal {
			found = append(found, at(p, "is listed in %s, which cannot cover it", bundleSeal))
		}
	}
	return found
}

func stampFile(p string, parts []string) []judge.Finding {
	if len(parts) != 2 || CheckAuthorityName(parts[0]) != nil || parts[1] != bundleToken && parts[1] != RootsFile && parts[1] != UntrustedFile {
		return []judge.Finding{at(p, "is no file of a timestamp: want tsa/<name>/ with %s, %s and maybe %s", bundleToken, RootsFile, UntrustedFile)}
	}
	return nil
}

func (b *bundle) renewalFile(p string, parts []string) []judge.Finding {
	if len(parts) < 2 || !renewalName.MatchString(parts[0]) {
		return []judge.Finding{at(p, "is no file of a renewal: want renewals/<year>/ with %s and tsa/", bundleSeal)}
	}
	if !slices.Contains(b.renewals, parts[0]) {
		b.renewals = append(b.renewals, parts[0])
	}
	if len(parts) == 2 && parts[1] == bundleSeal {
		return nil
	}
	if parts[1] != "tsa" {
		return []judge.Finding{at(p, "is not listed anywhere")}
	}
	return stampFile(p, parts[2:])
}

// read returns a file that is not an artifact.
func (b *bundle) read(p string) ([]byte, error) {
	size, ok := b.sizes[p]
	if !ok {
		return nil, fmt.Errorf("%s: %w", p, fs.ErrNotExist)
	}
	if size > maxEvidence {
		return nil, fmt.Errorf("%s: %d bytes are too many", p, size)
	}
	f, err := b.files.Open(p)
	if err != nil {
		return nil, b.cannot(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxEvidence+1))
	if err == nil && len(data) > maxEvidence {
		err = fmt.Errorf("%s: grew while it was read", p)
	}
	if err != nil {
		return nil, b.cannot(err)
	}
	return data, nil
}

// cannot keeps the first error of reading: it says nothing about the evidence.
func (b *bundle) cannot(err error) error {
	if b.broken == nil {
		b.broken = err
	}
	return err
}

// digest returns the SHA-256 of a file in hex.
func (b *bundle) digest(p string) (string, error) {
	if d, ok := b.digests[p]; ok {
		return d, nil
	}
	if _, ok := b.sizes[p]; !ok {
		return "", fmt.Errorf("%s: %w", p, fs.ErrNotExist)
	}
	f, err := b.files.Open(p)
	if err != nil {
		return "", b.cannot(err)
	}
	defer f.Close()
	h := sha256.New()
	if n, err := io.Copy(h, io.LimitReader(f, maxArtifact+1)); err != nil || n > maxArtifact {
		return "", b.cannot(errors.Join(err, fmt.Errorf("%s: cannot be read to its end", p)))
	}
	b.digests[p] = hex.EncodeToString(h.Sum(nil))
	return b.digests[p], nil
}

// compare finds the files of a listing that are missing or other bytes.
func (b *bundle) compare(list map[string]string, folder string) (found []judge.Finding) {
	for _, name := range slices.Sorted(maps.Keys(list)) {
		p := path.Join(folder, name)
		switch got, err := b.digest(p); {
		case errors.Is(err, fs.ErrNotExist):
			found = append(found, at(p, "is listed and missing"))
		case err != nil:
			found = append(found, at(p, "%v", err))
		case got != list[name]:
			found = append(found, at(p, "has the SHA-256 %s, listed is %s", got, list[name]))
		}
	}
	return found
}

func (b *bundle) checkSeal() {
	found := b.compare(b.seal, "")
	if b.seal == nil {
		found = append(found, at(bundleSeal, "is missing or not readable"))
	}
	digest, _ := b.digest(bundleSeal)
	b.judged("seal", "the evidence is what was sealed", fmt.Sprintf("%d files in SEAL", len(b.seal)), []string{"SHA-256 of SEAL: " + digest}, found...)
}

func (b *bundle) checkArtifacts() {
	found := b.compare(b.sums, "artifacts")
	if b.sums == nil {
		found = append(found, at(bundleSums, "is missing or not readable"))
	}
	var evidence []string
	for _, name := range slices.Sorted(maps.Keys(b.sums)) {
		evidence = append(evidence, b.sums[name]+"  "+name)
		b.report.Artifacts = append(b.report.Artifacts, BundleArtifact{name, b.sums[name], b.sizes["artifacts/"+name]})
	}
	b.judged("artifacts", "the artifacts are those of SHA256SUMS", count(len(b.sums), "artifact"), evidence, found...)
}

func (b *bundle) checkStamps() {
	tokens, evidence, found := b.stamps("", time.Time{})
	b.first = tokens
	b.judged("timestamps", "two independent authorities stamped the seal", count(len(tokens), "token"), evidence, found...)
}

// stamps verifies the tokens of a seal, each with the one root beside it. after
// is a time that all of them must be later than.
func (b *bundle) stamps(folder string, after time.Time) (tokens []*timestamp.Verified, evidence []string, found []judge.Finding) {
	sealPath := path.Join(folder, bundleSeal)
	seal, err := b.read(sealPath)
	if err != nil {
		return nil, nil, []judge.Finding{at(sealPath, "%v", err)}
	}
	prefix, names := path.Join(folder, "tsa")+"/", []string{}
	for p := range b.sizes {
		if rest, ok := strings.CutPrefix(p, prefix); ok {
			if name, _, _ := strings.Cut(rest, "/"); !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	roots := map[[sha256.Size]byte]string{}
	for _, name := range names {
		v, err := b.stamp(prefix+name, seal)
		if err != nil {
			found = append(found, at(prefix+name, "%v", err))
			continue
		}
		if !v.Time.After(after) {
			found = append(found, at(prefix+name, "is of %s, not later than what it renews (%s)", momentText(v.Time), momentText(after)))
		}
		root := timestamp.SPKI(v.Root)
		if other, twice := roots[root]; twice {
			found = append(found, at(prefix+name, "has the same root as %s: the same authority twice", other))
		}
		roots[root] = name
		tokens = append(tokens, v)
		anchored := slices.Contains(b.anchors.TSARoots, root)
		b.report.Stamps = append(b.report.Stamps, BundleStamp{sealPath, name, v.Root.Subject.String(), v.Time, hex.EncodeToString(root[:]), v.Serial.String(), anchored})
		evidence = append(evidence, fmt.Sprintf("%s: %s, root key %x", name, momentText(v.Time), root))
	}
	if len(roots) < MinTimestamps {
		found = append(found, at(sealPath, "has good tokens under %d distinct roots, want %d", len(roots), MinTimestamps))
	}
	return tokens, evidence, found
}

func (b *bundle) stamp(folder string, seal []byte) (*timestamp.Verified, error) {
	token, err := b.read(folder + "/" + bundleToken)
	if err != nil {
		return nil, err
	}
	text, err := b.read(folder + "/" + RootsFile)
	if err != nil {
		return nil, err
	}
	opts := timestamp.Options{Now: b.now}
	if opts.Roots, err = ParseCertificates(text); err != nil {
		return nil, fmt.Errorf("%s: %w", RootsFile, err)
	}
	// openssl's commands show the first of several, and trust them all.
	if len(opts.Roots) != 1 {
		return nil, fmt.Errorf("%s: found %d certificates, want the one root", RootsFile, len(opts.Roots))
	}
	if err := CheckRoot(opts.Roots[0]); err != nil {
		return nil, fmt.Errorf("%s: %w", RootsFile, err)
	}
	if text, err := b.read(folder + "/" + UntrustedFile); err == nil {
		if opts.Untrusted, err = ParseCertificates(text); err != nil {
			return nil, fmt.Errorf("%s: %w", UntrustedFile, err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return timestamp.Verify(token, bytes.NewReader(seal), opts)
}

func (b *bundle) checkKeys() {
	var found []judge.Finding
	var keys []*openpgp.Key
	var prints, evidence []string
	for _, p := range slices.Sorted(maps.Keys(b.sizes)) {
		if !strings.HasPrefix(p, "keys/") || p == bundlePrints {
			continue
		}
		data, err := b.read(p)
		if err != nil {
			found = append(found, at(p, "%v", err))
			continue
		}
		k, err := openpgp.ParsePublic(data)
		if err != nil {
			found = append(found, at(p, "%v", err))
			continue
		}
		if p != keyFile(k.Fingerprint()) {
			found = append(found, at(p, "holds the key %s, want it in %s", k.Fingerprint(), keyFile(k.Fingerprint())))
			continue
		}
		keys, prints = append(keys, k), append(prints, string(k.Fingerprint())+"\n")
		evidence = append(evidence, fmt.Sprintf("%s %s", k.Fingerprint(), strings.Join(k.UserIDs(), ", ")))
	}
	if text, err := b.read(bundlePrints); err != nil || string(text) != strings.Join(prints, "") {
		found = append(found, at(bundlePrints, "does not list the fingerprints of the keys beside it"))
	}
	if len(keys) == 0 {
		found = append(found, at("keys", "holds no key"))
	}
	var err error
	if b.keys, err = openpgp.NewKeyring(keys...); err != nil {
		found = append(found, at("keys", "%v", err))
	}
	b.judged("keys", "the keys are whole and named by their fingerprints", count(len(keys), "key"), evidence, found...)
}

// signed finds the key that made a signature, and judges it at the time of the
// stamps, which is evidence, and not at the time it claims, which is none.
func (b *bundle) signed(what, p string, message, packet []byte) (evidence []string, found []judge.Finding) {
	var v openpgp.Verified
	err := errors.New("there is no key to verify it with")
	for _, f := range b.keys.Fingerprints() {
		if v, err = openpgp.Verify(b.keys, f, message, packet, openpgp.VerifyOptions{Now: b.now}); err == nil || errors.Is(err, openpgp.ErrRevoked) {
			break
		}
	}
	if err != nil {
		if errors.Is(err, openpgp.ErrRevoked) {
			err = fmt.Errorf("%w: a bundle carries the key as it was before", err)
		}
		return nil, []judge.Finding{at(p, "signature: %v", err)}
	}
	key, _ := b.keys.Lookup(v.Fingerprint)
	expires := signsUntil(key, v.SigningKey)
	compromised, stolen := b.anchors.Compromised[v.Fingerprint]
	for _, t := range b.first {
		when := momentText(t.Time)
		switch {
		case v.Created.After(t.Time):
			found = append(found, at(p, "claims to be signed at %s, after it was stamped at %s", momentText(v.Created), when))
		case !expires.IsZero() && !t.Time.Before(expires):
			found = append(found, at(p, "was stamped at %s, when key %s had expired at %s: nothing shows that it was signed in time", when, v.SigningKey, momentText(expires)))
		case stolen && !t.Time.Before(compromised):
			found = append(found, at(p, "was stamped at %s, when key %s was in other hands since %s", when, v.Fingerprint, momentText(compromised)))
		}
	}
	if len(b.first) == 0 {
		found = append(found, at(p, "nothing shows when it was signed: no token is good"))
	}
	anchored := slices.Contains(b.anchors.Keys, v.Fingerprint)
	b.report.Signers = append(b.report.Signers, BundleSigner{what, v.Fingerprint, key.UserIDs(), v.Created, anchored, v.Development})
	return []string{fmt.Sprintf("by %s, which claims %s", v, momentText(v.Created))}, found
}

// signsUntil is when a part of a key, or the whole key, expires, whichever is
// earlier; the zero time if never. After that only a thief would sign.
func signsUntil(k *openpgp.Key, part openpgp.Fingerprint) time.Time {
	until := k.Expires()
	for _, p := range k.Parts(time.Unix(0, 0)) {
		if p.Fingerprint == part && !p.Expires.IsZero() && (until.IsZero() || p.Expires.Before(until)) {
			until = p.Expires
		}
	}
	return until
}

func (b *bundle) checkSums() {
	const claim = "the list of artifacts is signed, and was when it was stamped"
	sums, err1 := b.read(bundleSums)
	text, err2 := b.read(bundleSumsSig)
	packet, err3 := openpgp.Dearmor(text)
	if err := errors.Join(err1, err2); err != nil {
		b.judged("signature", claim, "", nil, at(bundleSumsSig, "%v", err))
		return
	}
	if err3 != nil {
		b.judged("signature", claim, "", nil, at(bundleSumsSig, "%v", err3))
		return
	}
	evidence, found := b.signed("the list of artifacts", bundleSumsSig, sums, packet)
	b.judged("signature", claim, "SHA256SUMS", evidence, found...)
}

// tagObject is what a tag says.
type tagObject struct {
	name, commit    string
	payload, packet []byte // nil for one that carries no signature
}

const beginSignature = "-----BEGIN PGP SIGNATURE-----\n"

// parseTag reads an annotated tag of a commit, signed or not.
func parseTag(raw []byte) (t tagObject, err error) {
	head, _, ok := strings.Cut(string(raw), "\n\n")
	lines := strings.Split(head, "\n")
	if !ok || len(lines) != 4 || !strings.HasPrefix(lines[3], "tagger ") || lines[1] != "type commit" {
		return t, errors.New("is no annotated tag of a commit: want object, type commit, tag and tagger")
	}
	t.commit, _ = strings.CutPrefix(lines[0], "object ")
	if id, err := hex.DecodeString(t.commit); err != nil || len(id) != sha1.Size || strings.ToLower(t.commit) != t.commit {
		return t, fmt.Errorf("found %q, want the object of the tag", lines[0])
	}
	if t.name, ok = strings.CutPrefix(lines[2], "tag "); !ok || t.name == "" {
		return t, fmt.Errorf("found %q, want the name of the tag", lines[2])
	}
	at := bytes.Index(raw, []byte("\n"+beginSignature))
	if n := bytes.Count(raw, []byte("-----BEGIN ")); at < 0 && n == 0 {
		return t, nil
	} else if at < 0 || n != 1 {
		return t, fmt.Errorf("tag %s carries something else than one OpenPGP signature", t.name)
	}
	t.payload = raw[:at+1]
	t.packet, err = openpgp.Dearmor(raw[at+1:])
	return t, err
}

// objectName is git's name of an object.
func objectName(kind string, data []byte) string {
	h := sha1.New() //nolint:gosec // git's names of objects
	fmt.Fprintf(h, "%s %d\x00", kind, len(data))
	h.Write(data)
	return hex.EncodeToString(h.Sum(nil))
}

func (b *bundle) checkTag() {
	const claim = "the tag is signed and leads to the commit"
	raw, err1 := b.read(bundleTag)
	commit, err2 := b.read(bundleCommit)
	if err := errors.Join(err1, err2); err != nil {
		b.judged("tag", claim, "", nil, at(bundleTag, "%v", err))
		return
	}
	t, err := parseTag(raw)
	if err != nil {
		b.judged("tag", claim, "", nil, at(bundleTag, "%v", err))
		return
	}
	b.tag = t
	b.report.Tag, b.report.TagObject, b.report.Commit = t.name, objectName("tag", raw), t.commit
	var evidence []string
	var found []judge.Finding
	switch listed, ok := b.sums[path.Base(bundleTag)]; {
	case t.packet != nil:
		evidence, found = b.signed("the tag", bundleTag, t.payload, t.packet)
	case ok && listed == digestOf(raw):
		evidence = []string{"it carries no signature; the signed list of artifacts holds it"}
	default:
		found = append(found, at(bundleTag, "carries no signature, and SHA256SUMS does not list it as %s", path.Base(bundleTag)))
	}
	if id := objectName("commit", commit); id != t.commit {
		found = append(found, at(bundleCommit, "is commit %s, the tag leads to %s", id, t.commit))
	}
	evidence = append(evidence, "tag object "+b.report.TagObject, "commit "+t.commit)
	b.judged("tag", claim, "tag "+t.name, evidence, found...)
}

func (b *bundle) checkReceipt() {
	const claim = "a receipt of this release is in the log"
	var read [5][]byte
	var err error
	for i, p := range []string{bundleReceipt, bundleReceiptBy, bundleProof, bundleHead, bundlePolicy} {
		data, readErr := b.read(p)
		read[i], err = data, errors.Join(err, readErr)
	}
	var r *receipt.Receipt
	var packet []byte
	var v proof.Verdict
	if err == nil {
		if r, err = receipt.Parse(read[0]); err == nil {
			if packet, err = openpgp.Dearmor(read[1]); err == nil {
				v, err = proof.Verify(read[2], read[4], proof.Options{Now: b.now, Issuers: b.keys})
			}
		}
	}
	if err != nil {
		b.judged("receipt", claim, "", nil, at("ledger", "%v", err))
		return
	}
	evidence, found := b.signed("the receipt", bundleReceiptBy, receipt.PAE(r.Bytes()), packet)
	if n := len(b.report.Signers); len(found) == 0 && b.report.Signers[n-1].Fingerprint != r.Issuer() {
		found = append(found, at(bundleReceiptBy, "is by %s, the receipt names the issuer %s", b.report.Signers[n-1].Fingerprint, r.Issuer()))
	}
	if !bytes.Equal(v.Receipt.Bytes(), r.Bytes()) {
		found = append(found, at(bundleProof, "is of the receipt %s, not of %s", v.Receipt.ID(), r.ID()))
	}
	for _, f := range v.Findings {
		if !f.OK {
			found = append(found, at(bundleProof, "%s: %s", f.Name, f.Detail))
		}
	}
	if v.Pass() {
		body := v.Checkpoint.Body()
		if !bytes.Equal(v.Checkpoint.Note(), read[3]) {
			found = append(found, at(bundleHead, "is not the checkpoint that the proof leads to"))
		}
		b.report.Repository, b.report.Entry, b.report.LogSize = body.Origin, v.Index, body.Size
		b.report.LogRoot, b.report.LogKey = hex.EncodeToString(body.Root[:]), v.Checkpoint.LogKey()
		evidence = append(evidence, fmt.Sprintf("entry %d of the log %s of size %d, root %x", v.Index, body.Origin, body.Size, body.Root[:]))
	}
	found = append(found, b.about(r)...)
	b.judged("receipt", claim, "receipt "+r.ID().String(), evidence, found...)
}

// about finds what a receipt does not name of this release.
func (b *bundle) about(r *receipt.Receipt) (found []judge.Finding) {
	if r.Kind() != receipt.Release {
		found = append(found, at(bundleReceipt, "is of kind %s, want %s", r.Kind(), receipt.Release))
	}
	says := map[string]bool{}
	var statement any
	if err := json.Unmarshal(r.Bytes(), &statement); err == nil {
		collect(statement, says)
	}
	if !says[b.tag.name] {
		found = append(found, at(bundleReceipt, "does not name the tag %q", b.tag.name))
	}
	if !says[b.tag.commit] {
		found = append(found, at(bundleReceipt, "does not name the commit %q", b.tag.commit))
	}
	for _, name := range slices.Sorted(maps.Keys(b.sums)) {
		if !says[b.sums[name]] {
			found = append(found, at(bundleReceipt, "does not name the artifact %s by its SHA-256 %s", name, b.sums[name]))
		}
	}
	return found
}

// collect gathers the strings of a JSON value.
func collect(v any, into map[string]bool) {
	switch v := v.(type) {
	case string:
		into[v] = true
	case []any:
		for _, x := range v {
			collect(x, into)
		}
	case map[string]any:
		for _, x := range v {
			collect(x, into)
		}
	}
}

// checkAnchors confirms, by what came from elsewhere, the keys that everything
// above leans on.
func (b *bundle) checkAnchors() {
	b.anchorKeys()
	b.anchorRoots()
	const claim = "the log's key is the one you know"
	switch key := b.report.LogKey; {
	case len(b.anchors.LogKeys) == 0:
		b.unanchored("log-key", claim, "log_keys", key)
	case !slices.Contains(b.anchors.LogKeys, key):
		b.judged("log-key", claim, "", nil, at(bundleHead, "is signed by %s, which is not among your log_keys", orNothing(key)))
	default:
		b.judged("log-key", claim, key, nil)
	}
	if b.anchors.PolicyID != "" {
		b.report.Checks = append(b.report.Checks, judge.Unjudged("bundle/policy", "the trust state is the one you know",
			errors.New("a bundle does not hold the whole trust state: judge policy_id with remembrancer verify-audit in the repository, and leave it out here")))
	}
}

func (b *bundle) anchorKeys() {
	const claim = "the signing keys are those you know"
	var found []judge.Finding
	var seen []string
	for _, s := range b.report.Signers {
		seen = append(seen, string(s.Fingerprint))
		if !s.Anchored {
			found = append(found, at(keyFile(s.Fingerprint), "signed %s and is not among your keys", s.Of))
		}
	}
	slices.Sort(seen)
	seen = slices.Compact(seen)
	switch {
	case len(b.anchors.Keys) == 0:
		b.unanchored("signers", claim, "keys", strings.Join(seen, ", "))
	case len(seen) == 0:
		b.judged("signers", claim, "", nil, at("keys", "no signature is good"))
	default:
		b.judged("signers", claim, count(len(seen), "key"), seen, found...)
	}
}

func (b *bundle) anchorRoots() {
	const claim = "the time-stamping authorities are those you know"
	roots := map[string]map[string]bool{} // known roots of each seal
	var seen []string
	for _, s := range b.report.Stamps {
		seen = append(seen, s.Root)
		if roots[s.Of] == nil {
			roots[s.Of] = map[string]bool{}
		}
		if s.Anchored {
			roots[s.Of][s.Root] = true
		}
	}
	slices.Sort(seen)
	seen = slices.Compact(seen)
	want := min(len(b.anchors.TSARoots), MinTimestamps)
	var found []judge.Finding
	if len(roots) == 0 {
		found = append(found, at("tsa", "has no good token"))
	}
	for _, of := range slices.Sorted(maps.Keys(roots)) {
		if n := len(roots[of]); n < want {
			found = append(found, at(of, "is stamped under %d of your tsa_roots, want %d", n, want))
		}
	}
	switch {
	case len(b.anchors.TSARoots) == 0:
		b.unanchored("authorities", claim, "tsa_roots", strings.Join(seen, ", "))
	case len(found) > 0:
		b.judged("authorities", claim, "", seen, found...)
	case len(b.anchors.TSARoots) < MinTimestamps:
		b.report.Checks = append(b.report.Checks, judge.Unjudged("bundle/authorities", claim,
			errors.New("your anchors give one of the tsa_roots: two independent ones are needed, and the second is nobody's that you know")))
	default:
		b.judged("authorities", claim, fmt.Sprintf("%d roots known", len(b.anchors.TSARoots)), seen)
	}
}

func (b *bundle) unanchored(id, claim, kind, found string) {
	b.report.Checks = append(b.report.Checks, judge.Unjudged("bundle/"+id, claim,
		fmt.Errorf("your anchors give no %s: this leans on %s, on the bundle's own word; get it from elsewhere", kind, orNothing(found))))
}

func count(n int, of string) string {
	if n != 1 {
		of += "s"
	}
	return fmt.Sprintf("%d %s", n, of)
}

func orNothing(s string) string {
	if s == "" {
		return "nothing that verifies"
	}
	return s
}
