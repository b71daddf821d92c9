package release

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/vaultmesh/remembrancer/pkg/archive"
	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/timestamp"
)

// The files of a genesis, in the repository. Beside the archive lie its digest as
// sha256sum writes it, .sha256, its signature, .asc, and for the archive and for
// the signature one token of each authority, .<authority>.tsr.
const (
	GenesisText    = "dist/GENESIS" // called GENESIS in the archive
	GenesisFile    = "GENESIS.yaml"
	GenesisArchive = "dist/genesis.tar.gz"

	genesisSum = GenesisArchive + ".sha256"
)

// maxGenesis bounds GENESIS.yaml, in bytes.
const maxGenesis = 64 << 20

// Genesis is the seal of one commit: what it holds, by digests that do not
// depend on SHA-1, and who sealed it with which witnesses of time.
//
// # Why the archive holds two texts
//
// The archive that is signed and stamped holds GENESIS and GENESIS.yaml, and not
// the tree. Who doubts a repository has the repository: what they lack is
// something short that fixes all of it, which a signature and a timestamp can be
// put on, and which can be printed. GENESIS.yaml fixes a commit four times over:
// by its id, by the id of its tree, by the SHA-256 of its git archive, and by the
// SHA-256 of every file, so that it can be checked without git, too. A copy of
// the tree would put every byte into the repository twice and prove no more.
//
// # Determinism
//
// GENESIS, GENESIS.yaml and the archive follow from the commit and the settings:
// on any machine and at any time they are the same bytes. The time in them is the
// committer's. The archive is a ustar of both, of mode 0644, in gzip blocks that
// are stored and not compressed, because compressors differ from version to
// version. What was signed are its bytes; they are never made again to verify it.
//
// # GENESIS.yaml
//
// It is YAML that any reader takes, in one fixed order and form; ParseGenesis
// takes nothing but what YAML writes. The list of files is in the format of
// sha256sum, with names escaped as it does, and of the bytes that are committed,
// which a checkout may convert.
type Genesis struct {
	Repository string // the log's origin: a URL without a scheme
	Tag        string // name of the tag that was sealed; empty: none
	TagObject  string // id of the annotated tag; empty: the tag is not annotated
	Commit     string // id of the commit, 40 hex digits
	Tree       string // id of its tree, 40 hex digits
	Epoch      int64  // the committer's time, in seconds since 1970

	ArchiveSHA256 [sha256.Size]byte // of the commit's git archive, not compressed

	Operator    openpgp.Fingerprint // the key that signs
	Trust       string              // folder of the trust anchors
	Development bool                // a key or an authority is one for development
	Required    int                 // how many authorities, under distinct roots, must have stamped it
	Authorities []GenesisAuthority  // in order of names

	Files      []GenesisEntry // in git's order
	Links      []GenesisEntry // symbolic links: the digest is that of where they lead
	Submodules []GenesisEntry
}

// GenesisAuthority is a time-stamping authority that a genesis names.
type GenesisAuthority struct {
	Name        string // of its folder among the trust anchors
	RootSPKI    [][sha256.Size]byte
	Untrusted   bool // the folder holds certificates that a chain goes through
	Development bool
}

// GenesisEntry is a tracked path.
type GenesisEntry struct {
	Path   string
	Digest string // SHA-256 in hex; of a submodule, its commit's id
}

// GenesisSettings is what a genesis says beside the commit.
type GenesisSettings struct {
	Repository  string              // the log's origin: a URL without a scheme
	Tag         string              // empty: none
	TagObject   string              // id of the annotated tag; empty: the tag is not annotated
	Operator    openpgp.Fingerprint // the key that will sign
	Trust       string              // folder of the trust anchors
	Authorities []Authority         // those that will stamp it
	Quorum      Quorum              // how many of them must
	Development bool                // the key is one for development; an authority says so itself
}

// NewGenesis seals a commit.
func NewGenesis(src archive.Source, c archive.Commit, s GenesisSettings) (Genesis, error) {
	g := Genesis{
		Repository: s.Repository, Tag: s.Tag, TagObject: s.TagObject, Operator: s.Operator, Trust: s.Trust,
		Development: s.Development, Required: s.Quorum.n,
	}
	if g.Required == 0 {
		g.Required = len(s.Authorities)
	}
	for _, a := range s.Authorities {
		g.Authorities = append(g.Authorities, GenesisAuthority{a.Name, a.RootSPKI, len(a.Untrusted) > 0, a.Development})
		g.Development = g.Development || a.Development
	}
	slices.SortFunc(g.Authorities, func(a, b GenesisAuthority) int { return strings.Compare(a.Name, b.Name) })
	g, err := g.of(src, c)
	if err != nil {
		return Genesis{}, fmt.Errorf("genesis: %w", err)
	}
	return g, nil
}

// of returns the same genesis of a commit.
func (g Genesis) of(src archive.Source, c archive.Commit) (Genesis, error) {
	g.Commit, g.Tree, g.Epoch = c.ID(), c.Tree(), c.Time()
	g.Files, g.Links, g.Submodules = nil, nil, nil
	h := sha256.New()
	// This also makes sure that the source is the commit's.
	if err := archive.Tar(h, src, c); err != nil {
		return Genesis{}, err
	}
	h.Sum(g.ArchiveSHA256[:0])
	err := src.Walk("", func(p string, mode fs.FileMode, id string) error {
		var data []byte
		var err error
		list := &g.Files
		switch {
		case mode&fs.ModeSymlink != 0:
			var target string
			target, err = src.Link(p)
			data, list = []byte(target), &g.Links
		case mode.IsRegular():
			data, err = src.Blob(p)
		default:
			g.Submodules = append(g.Submodules, GenesisEntry{p, id})
			return nil
		}
		sum := sha256.Sum256(data)
		*list = append(*list, GenesisEntry{p, hex.EncodeToString(sum[:])})
		return err
	})
	if err != nil {
		return Genesis{}, err
	}
	byPath := func(a, b GenesisEntry) int { return strings.Compare(a.Path, b.Path) }
	for _, list := range [][]GenesisEntry{g.Files, g.Links, g.Submodules} {
		slices.SortFunc(list, byPath)
	}
	if err := g.check(); err != nil {
		return Genesis{}, err
	}
	_, err = ParseGenesis(g.YAML()) // what cannot be read back is no seal
	return g, err
}

// archiveCommand makes the digest of the git archive again.
func (g Genesis) archiveCommand() string {
	return "git -c tar.umask=0002 -c core.autocrlf=false archive --format=tar " + g.Commit + " | sha256sum"
}

// YAML returns GENESIS.yaml.
func (g Genesis) YAML() []byte {
	var b bytes.Buffer
	text := func(key, value string) { fmt.Fprintf(&b, "%s: \"%s\"\n", key, value) }
	b.WriteString("# The genesis of a repository, as " + GenesisText + " says in words.\ngenesis: 1\n")
	text("repository", g.Repository)
	if g.Tag != "" {
		text("tag", g.Tag)
	}
	if g.TagObject != "" {
		text("tag_object", g.TagObject)
	}
	text("commit", g.Commit)
	text("tree", g.Tree)
	fmt.Fprintf(&b, "source_date_epoch: %d\n", g.Epoch)
	text("git_archive_tar_sha256", hex.EncodeToString(g.ArchiveSHA256[:]))
	text("git_archive_command", g.archiveCommand())
	text("operator_key", string(g.Operator))
	text("trust", g.Trust)
	fmt.Fprintf(&b, "development: %t\ntimestamps_required: %d\ntimestamp_authorities:\n", g.Development, g.Required)
	for _, a := range g.Authorities {
		text("  - name", a.Name)
		b.WriteString("    root_spki:\n")
		for _, spki := range a.RootSPKI {
			fmt.Fprintf(&b, "      - \"%x\"\n", spki[:])
		}
		fmt.Fprintf(&b, "    untrusted: %t\n    development: %t\n", a.Untrusted, a.Development)
	}
	b.WriteString("verify: |\n")
	for line := range strings.Lines(g.commands()) {
		b.WriteString("  " + line)
	}
	for _, l := range []struct {
		key     string
		entries []GenesisEntry
	}{{"submodules", g.Submodules}, {"links", g.Links}, {"files", g.Files}} {
		if len(l.entries) == 0 {
			continue
		}
		b.WriteString(l.key + ": |\n")
		for _, e := range l.entries {
			b.WriteString("  " + e.line() + "\n")
		}
	}
	return b.Bytes()
}

var escapes = strings.NewReplacer(`\`, `\\`, "\n", `\n`, "\r", `\r`)

// line is the entry as sha256sum writes it.
func (e GenesisEntry) line() string {
	name := escapes.Replace(e.Path)
	if name != e.Path {
		return `\` + e.Digest + "  " + name
	}
	return e.Digest + "  " + name
}

// commands are those that verify a genesis with what every system has had for
// decades: gpg, openssl, git, tar, gzip, sha256sum.
func (g Genesis) commands() string {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	asc := GenesisArchive + ".asc"
	say("# Type these in a clone of the repository that holds these files. The fingerprint and the")
	say("# root_spki digests above must also reach you by another way than this repository; and read")
	say("# the commands before you type them, for they come with what they verify.")
	say("# Who sealed it. The line VALIDSIG must end with the fingerprint; that the key has expired")
	say("# since is no fault, that it was revoked needs an explanation.")
	say("gpg --import %s/*.asc", g.Trust)
	say("gpg --status-fd 1 --verify %s %s | grep 'VALIDSIG .* %s$'", asc, GenesisArchive, g.Operator)
	say("# When, by each authority's word. It is verified at the moment that the token itself names,")
	say("# because the certificate of an authority expires long before its tokens are useless.")
	for _, a := range g.Authorities {
		certs := path.Join(g.Trust, "tsa", a.Name)
		say("openssl x509 -in %s/ca.pem -pubkey -noout | openssl pkey -pubin -outform DER | sha256sum", certs)
		untrusted := ""
		if a.Untrusted {
			untrusted = " -untrusted " + certs + "/untrusted.pem"
		}
		for _, f := range []string{GenesisArchive, asc} {
			token := f + "." + a.Name + ".tsr"
			say(`at=$(date -u -d "$(openssl ts -reply -in %s -text 2>/dev/null | sed -n 's/^Time stamp: //p')" +%%s)`, token)
			say("openssl ts -verify -data %s -in %s -CAfile %s/ca.pem%s -attime $at", f, token, certs, untrusted)
		}
	}
	say("# What. The archive holds these very files, and its digest is the one that was published.")
	say("(cd %s && sha256sum -c %s)", path.Dir(GenesisArchive), path.Base(genesisSum))
	say("gzip -dc %s | sha256sum", GenesisArchive)
	say("gzip -dc %s | tar -xOf - %s | cmp - %s", GenesisArchive, path.Base(GenesisText), GenesisText)
	say("gzip -dc %s | tar -xOf - %s | cmp - %s", GenesisArchive, GenesisFile, GenesisFile)
	if g.Tag != "" {
		object := g.TagObject
		if object == "" {
			object = g.Commit
		}
		say("test \"$(git rev-parse refs/tags/%s)\" = %s", g.Tag, object)
		say("test \"$(git rev-parse refs/tags/%s^{commit})\" = %s", g.Tag, g.Commit)
	}
	say("test \"$(git rev-parse %s^{tree})\" = %s", g.Commit, g.Tree)
	say("# On Windows add -c core.eol=lf; attributes of the clone or the machine must not apply.")
	say("%s | grep %x", g.archiveCommand(), g.ArchiveSHA256[:])
	if len(g.Files) > 0 {
		say("# Every file as it was committed. In a checkout of the commit, sha256sum -c takes the same list;")
		say("# there the files differ that .gitattributes converts (eol=crlf, ident).")
		say("sed '1,/^files: |$/d; s/^  //' %s | while read -r sum name; do", GenesisFile)
		say(`  case $sum in '\'*) sum=${sum#?} name=$(printf %%b "$name") ;; esac`)
		say("  git cat-file blob %s:\"$name\" | sha256sum | grep -q \"^$sum \" || { echo \"differs: $name\"; exit 1; }", g.Commit)
		say("done")
	}
	return b.String()
}

// Text returns GENESIS: the seal in words.
func (g Genesis) Text() []byte {
	var b bytes.Buffer
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	say("GENESIS of %s", g.Repository)
	say("")
	say("This seals one state of the repository:")
	say("")
	if g.Tag != "" {
		say("  tag      %s", g.Tag)
	}
	say("  commit   %s", g.Commit)
	say("  tree     %s", g.Tree)
	say("  time     %s, as the committer says", time.Unix(g.Epoch, 0).UTC().Format("2006-01-02 15:04:05 UTC"))
	say("  content  files: %d, links: %d, submodules: %d", len(g.Files), len(g.Links), len(g.Submodules))
	say("  sha256   %x", g.ArchiveSHA256[:])
	say("           of what this command writes:")
	say("           %s", strings.TrimSuffix(g.archiveCommand(), " | sha256sum"))
	say("")
	say("It is signed by the OpenPGP key")
	say("")
	say("  %s", g.Operator)
	say("")
	say("and stamped (RFC 3161) by at least %d of", g.Required)
	say("")
	for _, a := range g.Authorities {
		say("  %s", a.Name)
	}
	say("")
	if g.Development {
		say("A key or an authority of it is one for DEVELOPMENT: it proves nothing to anybody else.")
		say("")
	}
	say("The signature says that the holder of the key vouches for this state. The timestamps say that")
	say("archive and signature existed at the time they name. Neither says that the software is good.")
	say("")
	say("%s holds the digest of every file, and the commands that verify all of this by hand.", GenesisFile)
	say("remembrancer genesis verify carries them out at once.")
	return b.Bytes()
}

// GenesisPart is a file of a genesis that follows from it.
type GenesisPart struct {
	Name string
	Data []byte
}

// Written returns what is there before a genesis is signed and stamped: GENESIS,
// GENESIS.yaml, the archive and its digest.
func (g Genesis) Written() ([]GenesisPart, error) {
	data, err := g.Archive()
	return []GenesisPart{
		{GenesisText, g.Text()},
		{GenesisFile, g.YAML()},
		{GenesisArchive, data},
		{genesisSum, fmt.Appendf(nil, "%x  %s\n", sha256.Sum256(data), path.Base(GenesisArchive))},
	}, err
}

// Archive returns the archive that is signed and stamped.
func (g Genesis) Archive() ([]byte, error) {
	data, err := g.tar()
	return stored(data), err
}

func (g Genesis) tar() ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range []struct {
		name string
		data []byte
	}{{path.Base(GenesisText), g.Text()}, {GenesisFile, g.YAML()}} {
		err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.name, Size: int64(len(f.data)), Mode: 0o644, ModTime: time.Unix(g.Epoch, 0), Format: tar.FormatUSTAR})
		if err != nil {
			return nil, err
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return b.Bytes(), err
}

// stored wraps data in gzip (RFC 1952) without compressing it, so that no
// compressor has a say in the bytes: no name, no time, no system.
func stored(data []byte) []byte {
	const most = 1<<16 - 1
	out := []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}
	for rest := data; ; {
		n := min(len(rest), most)
		last := byte(0)
		if n == len(rest) {
			last = 1
		}
		out = append(out, last)
		out = binary.LittleEndian.AppendUint16(out, uint16(n))
		out = binary.LittleEndian.AppendUint16(out, ^uint16(n))
		out = append(out, rest[:n]...)
		if rest = rest[n:]; last == 1 {
			break
		}
	}
	out = binary.LittleEndian.AppendUint32(out, crc32.ChecksumIEEE(data))
	return binary.LittleEndian.AppendUint32(out, uint32(len(data)))
}

// What the fields may hold. They stand in command lines without quotes.
var (
	repositoryForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._~/:@+-]*$`)
	tagForm        = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/+-]*$`)
	folderForm     = regexp.MustCompile(`^[A-Za-z0-9._][A-Za-z0-9._/-]*$`)
	operatorForm   = regexp.MustCompile(`^([0-9A-F]{40}|[0-9A-F]{64})$`)
	objectForm     = regexp.MustCompile(`^[0-9a-f]{40}$`)
	digestForm     = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// ParseGenesis reads GENESIS.yaml. It takes only what YAML writes.
func ParseGenesis(data []byte) (Genesis, error) {
	g, err := parseGenesis(data)
	if err == nil && !bytes.Equal(g.YAML(), data) {
		err = errors.New("it is not in the one form in which it is written")
	}
	if err != nil {
		return Genesis{}, fmt.Errorf("%s: %w", GenesisFile, err)
	}
	return g, nil
}

func parseGenesis(data []byte) (g Genesis, err error) {
	if len(data) > maxGenesis {
		return g, fmt.Errorf("found %d bytes, wanted at most %d", len(data), maxGenesis)
	}
	if !utf8.Valid(data) {
		return g, errors.New("found bytes that are not UTF-8")
	}
	r := genesisReader{lines: strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")}
	r.comment()
	r.exactly("genesis: 1")
	g.Repository = r.text("repository", repositoryForm)
	if r.at("tag: ") {
		g.Tag = r.text("tag", tagForm)
	}
	if r.at("tag_object: ") {
		g.TagObject = r.text("tag_object", objectForm)
	}
	g.Commit = r.text("commit", objectForm)
	g.Tree = r.text("tree", objectForm)
	g.Epoch = r.number("source_date_epoch", 1<<40)
	g.ArchiveSHA256 = r.digest("git_archive_tar_sha256")
	r.skip("git_archive_command: ") // follows from the commit
	g.Operator = openpgp.Fingerprint(r.text("operator_key", operatorForm))
	g.Trust = r.text("trust", folderForm)
	g.Development = r.flag("development")
	g.Required = int(r.number("timestamps_required", 100))
	r.exactly("timestamp_authorities:")
	for r.at("  - name: ") {
		a := GenesisAuthority{Name: r.text("  - name", authorityName)}
		r.exactly("    root_spki:")
		for r.at("      - ") {
			a.RootSPKI = append(a.RootSPKI, r.spki())
		}
		a.Untrusted = r.flag("    untrusted")
		a.Development = r.flag("    development")
		g.Authorities = append(g.Authorities, a)
	}
	r.exactly("verify: |")
	for r.at("  ") { // follow from the rest
		r.line()
	}
	for _, l := range []struct {
		key  string
		list *[]GenesisEntry
		form *regexp.Regexp
	}{{"submodules", &g.Submodules, objectForm}, {"links", &g.Links, digestForm}, {"files", &g.Files, digestForm}} {
		if r.at(l.key + ": |") {
			*l.list = r.entries(l.form)
		}
	}
	if r.err == nil && len(r.lines) > 0 {
		r.fail("the end")
	}
	if r.err != nil {
		return g, r.err
	}
	return g, g.check()
}

// check refuses what has the right form and makes no sense.
func (g Genesis) check() error {
	if g.TagObject != "" && g.Tag == "" {
		return errors.New("tag_object without a tag")
	}
	if len(g.Authorities) == 0 || g.Required < 1 || g.Required > len(g.Authorities) {
		return fmt.Errorf("timestamps_required is %d of %d authorities, wanted at least 1 and as many at most", g.Required, len(g.Authorities))
	}
	for i, a := range g.Authorities {
		if i > 0 && g.Authorities[i-1].Name >= a.Name {
			return fmt.Errorf("authority %s is out of order, or twice", a.Name)
		}
		if len(a.RootSPKI) == 0 {
			return fmt.Errorf("authority %s has no root", a.Name)
		}
		if a.Development && !g.Development {
			return fmt.Errorf("authority %s is one for development, and the genesis says it is none", a.Name)
		}
	}
	for _, list := range [][]GenesisEntry{g.Files, g.Links, g.Submodules} {
		for i, e := range list {
			if i > 0 && list[i-1].Path >= e.Path {
				return fmt.Errorf("%q is out of order, or twice", e.Path)
			}
			if !fs.ValidPath(e.Path) || e.Path == "." {
				return fmt.Errorf("%q is not a path in UTF-8, which alone can be written here: rename the file", e.Path)
			}
			for _, c := range e.Path {
				// What YAML can write as it is, and no line of it ends.
				if c < ' ' && c != '\t' && c != '\n' && c != '\r' || c >= 0x7f && c < 0xa0 || c == '\u2028' || c == '\u2029' || c == '\ufeff' || c == 0xfffe || c == 0xffff {
					return fmt.Errorf("%q holds %U, which cannot be written here: rename the file", e.Path, c)
				}
			}
		}
	}
	return nil
}

// genesisReader takes lines from the front, until something is not as wanted.
type genesisReader struct {
	lines []string
	read  int
	err   error
}

func (r *genesisReader) at(prefix string) bool {
	return r.err == nil && len(r.lines) > 0 && strings.HasPrefix(r.lines[0], prefix)
}

func (r *genesisReader) line() string {
	if len(r.lines) == 0 {
		return ""
	}
	l := r.lines[0]
	r.lines, r.read = r.lines[1:], r.read+1
	return l
}

func (r *genesisReader) fail(wanted string) {
	if r.err == nil {
		found := "the end"
		if len(r.lines) > 0 {
			found = strconv.Quote(r.lines[0][:min(len(r.lines[0]), 100)])
		}
		r.err = fmt.Errorf("line %d: found %s, wanted %s", r.read+1, found, wanted)
	}
}

func (r *genesisReader) skip(prefix string) {
	if !r.at(prefix) {
		r.fail(prefix)
		return
	}
	r.line()
}

func (r *genesisReader) exactly(line string) {
	if !r.at(line) || r.lines[0] != line {
		r.fail(line)
		return
	}
	r.line()
}

func (r *genesisReader) comment() { r.skip("#") }

// text reads key: "value".
func (r *genesisReader) text(key string, form *regexp.Regexp) string {
	if r.at("") {
		if v, ok := strings.CutPrefix(r.lines[0], key+`: "`); ok {
			if v, ok := strings.CutSuffix(v, `"`); ok && form.MatchString(v) {
				r.line()
				return v
			}
		}
	}
	r.fail(fmt.Sprintf("%s: and in quotes %s", strings.TrimLeft(key, " -"), form))
	return ""
}

func (r *genesisReader) digest(key string) (d [sha256.Size]byte) {
	if b, err := hex.DecodeString(r.text(key, digestForm)); err == nil {
		copy(d[:], b)
	}
	return d
}

// spki reads an item of a list.
func (r *genesisReader) spki() (d [sha256.Size]byte) {
	v := strings.Trim(strings.TrimPrefix(r.lines[0], "      - "), `"`)
	if b, err := hex.DecodeString(v); err == nil && len(b) == len(d) {
		copy(d[:], b)
		r.line()
		return d
	}
	r.fail("a SHA-256 in quotes")
	return d
}

func (r *genesisReader) number(key string, most int64) int64 {
	if r.at(key + ": ") {
		if n, err := strconv.ParseInt(r.lines[0][len(key)+2:], 10, 64); err == nil && n >= 0 && n <= most {
			r.line()
			return n
		}
	}
	r.fail(fmt.Sprintf("%s: and a number from 0 to %d", key, most))
	return 0
}

func (r *genesisReader) flag(key string) bool {
	if r.at("") {
		switch r.lines[0] {
		case key + ": true", key + ": false":
			return strings.HasSuffix(r.line(), "true")
		}
	}
	r.fail(strings.TrimSpace(key) + ": true or false")
	return false
}

// entries reads the lines of a list.
func (r *genesisReader) entries(form *regexp.Regexp) (all []GenesisEntry) {
	r.line()
	for r.at("  ") {
		l := r.lines[0][2:]
		rest, escaped := strings.CutPrefix(l, `\`)
		sum, name, ok := strings.Cut(rest, "  ")
		if escaped {
			name = unescape(name)
		}
		e := GenesisEntry{name, sum}
		if !ok || !form.MatchString(sum) || e.line() != l {
			r.fail("a digest, two spaces and a path, as sha256sum writes them")
			return nil
		}
		r.line()
		all = append(all, e)
	}
	if len(all) == 0 {
		r.fail("a list that is not empty")
	}
	return all
}

func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		switch s[i] {
		case 'n':
			b.WriteByte('\n')
		case 'r':
			b.WriteByte('\r')
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// GenesisEvidence is what a genesis is held to.
type GenesisEvidence struct {
	// Read returns a file of the genesis; an absent one is fs.ErrNotExist.
	Read func(name string) ([]byte, error)
	// Repository is the log's origin.
	Repository string
	// Commit returns a commit of the repository; an absent one is fs.ErrNotExist.
	Commit func(id string) (archive.Source, archive.Commit, error)
	// Ancestor reports whether a commit is in the history that is judged.
	Ancestor func(id string) (bool, error)
	// Tag returns the object that a tag names, and the commit that this leads to;
	// an absent tag is fs.ErrNotExist.
	Tag func(name string) (object, commit string, err error)
	// Keys are the trust anchors.
	Keys *openpgp.Keyring
	// Authorities are those that the repository pins.
	Authorities []Authority
	// Now bounds all times from above.
	Now time.Time
}

// The checks of a genesis. What each claims is how it is said when it passes.
var genesisClaims = []struct{ id, claim string }{
	{"genesis/files", "the genesis is whole"},
	{"genesis/repository", "it is of this repository"},
	{"genesis/commit", "the sealed commit is in its history"},
	{"genesis/tag", "the sealed tag names it"},
	{"genesis/content", "git archive and every file are as sealed"},
	{"genesis/signature", "OpenPGP signature valid"},
	{"genesis/timestamp", "RFC3161 timestamp valid"},
}

// VerifyGenesis carries out every check of a genesis:
//
//   - genesis/files: GENESIS, GENESIS.yaml, the archive and its digest are there,
//     and are what follows from GENESIS.yaml, byte for byte
//   - genesis/repository: it names this repository
//   - genesis/commit: the commit is in the history, with this tree and time
//   - genesis/tag: the tag is the object that was sealed, and leads to the commit
//   - genesis/content: the digest of the git archive, and the list of files with
//     their digests, are computed again from the commit's blobs
//   - genesis/signature: the operator's key signed the archive's bytes, and is
//     among the trust anchors
//   - genesis/timestamp: enough authorities, under distinct roots that the genesis
//     names and the repository pins, stamped the archive and its signature
//
// A file that is missing fails its check. What could not be read is an error.
func VerifyGenesis(e GenesisEvidence) []judge.Check {
	v := genesisVerifier{GenesisEvidence: e}
	checks := []func() (detail string, evidence []string, findings []judge.Finding, err error){
		v.files, v.repository, v.commit, v.tag, v.content, v.signature, v.timestamps,
	}
	var out []judge.Check
	for i, k := range genesisClaims {
		if i > 0 && v.broken {
			out = append(out, judge.Unjudged(k.id, k.claim, errors.New("the genesis itself is not whole")))
			continue
		}
		if k.id == "genesis/tag" && v.g.Tag == "" {
			out = append(out, judge.NotClaimed(k.id, k.claim, "no tag was sealed"))
			continue
		}
		detail, evidence, findings, err := checks[i]()
		c := judge.Judged(k.id, k.claim, detail, findings...)
		if err != nil && c.Status != judge.Fail {
			c = judge.Unjudged(k.id, k.claim, err)
		}
		c.Evidence = evidence
		if i == 0 {
			v.broken = c.Status != judge.Pass
		}
		out = append(out, c)
	}
	return out
}

type genesisVerifier struct {
	GenesisEvidence
	g      Genesis
	sealed []byte // the archive
	broken bool
	asc    []byte    // the signature's file, once it was verified
	signed time.Time // when it says it was made
}

// need returns a file, or a finding that it is missing.
func (v *genesisVerifier) need(name string) ([]byte, []judge.Finding, error) {
	data, err := v.Read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, []judge.Finding{{Path: name, Message: "is missing", Fix: "remembrancer genesis seal"}}, nil
	}
	return data, nil, err
}

// judgedWrong is the outcome of a file that was read and is not what it should be.
func judgedWrong(name string, why error) (string, []string, []judge.Finding, error) {
	return "", nil, []judge.Finding{{Path: name, Message: why.Error()}}, nil
}

func (v *genesisVerifier) files() (detail string, evidence []string, findings []judge.Finding, err error) {
	found := map[string][]byte{}
	for _, name := range []string{GenesisText, GenesisFile, GenesisArchive, genesisSum} {
		data, missing, err := v.need(name)
		if err != nil {
			return "", nil, nil, err
		}
		findings = append(findings, missing...)
		found[name] = data
	}
	if len(findings) > 0 {
		return "", nil, findings, nil
	}
	if v.g, err = ParseGenesis(found[GenesisFile]); err != nil {
		return judgedWrong(GenesisFile, err)
	}
	plain, err := v.g.tar()
	if err != nil {
		return "", nil, nil, err
	}
	v.sealed = stored(plain)
	written, err := v.g.Written()
	if err != nil {
		return "", nil, nil, err
	}
	for _, f := range written {
		if got := found[f.Name]; !bytes.Equal(got, f.Data) {
			findings = append(findings, judge.Finding{Path: f.Name, Message: fmt.Sprintf("has SHA-256 %x, what follows from %s has %x", sha256.Sum256(got), GenesisFile, sha256.Sum256(f.Data))})
		}
	}
	if v.g.Development {
		findings = append(findings, judge.Finding{Message: "a key or an authority of it is one for development: it proves nothing to anybody else", Warning: true})
	}
	return fmt.Sprintf("%s, sha256 of the tar in it %x", GenesisArchive, sha256.Sum256(plain)), nil, findings, nil
}

func (v *genesisVerifier) repository() (string, []string, []judge.Finding, error) {
	if v.g.Repository != v.Repository {
		return "", nil, []judge.Finding{{Path: GenesisFile, Message: fmt.Sprintf("is of %s, this is %s", v.g.Repository, v.Repository)}}, nil
	}
	return v.g.Repository, nil, nil, nil
}

func (v *genesisVerifier) commit() (string, []string, []judge.Finding, error) {
	_, c, err := v.Commit(v.g.Commit)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil, nil, fmt.Errorf("commit %s is not here; hint: git fetch --unshallow --tags", v.g.Commit)
	}
	if err != nil {
		return "", nil, nil, err
	}
	var findings []judge.Finding
	differs := func(what string, got, want any) {
		findings = append(findings, judge.Finding{Path: GenesisFile, Message: fmt.Sprintf("the commit's %s is %v, sealed was %v", what, got, want)})
	}
	if c.ID() != v.g.Commit {
		differs("id", c.ID(), v.g.Commit)
	}
	if c.Tree() != v.g.Tree {
		differs("tree", c.Tree(), v.g.Tree)
	}
	if c.Time() != v.g.Epoch {
		differs("time", c.Time(), v.g.Epoch)
	}
	in, err := v.Ancestor(v.g.Commit)
	if err == nil && !in {
		findings = append(findings, judge.Finding{Message: fmt.Sprintf("commit %s is not in the history of this one", v.g.Commit)})
	}
	return fmt.Sprintf("commit %s, tree %s", v.g.Commit, v.g.Tree), nil, findings, err
}

func (v *genesisVerifier) tag() (string, []string, []judge.Finding, error) {
	object, commit, err := v.Tag(v.g.Tag)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil, nil, fmt.Errorf("tag %s is not here; hint: git fetch --tags", v.g.Tag)
	}
	if err != nil {
		return "", nil, nil, err
	}
	want := v.g.TagObject
	if want == "" {
		want = v.g.Commit
	}
	var findings []judge.Finding
	if object != want || commit != v.g.Commit {
		findings = append(findings, judge.Finding{Message: fmt.Sprintf("tag %s is %s and leads to commit %s, sealed was %s and %s", v.g.Tag, object, commit, want, v.g.Commit)})
	}
	return fmt.Sprintf("tag %s, object %s", v.g.Tag, want), nil, findings, nil
}

func (v *genesisVerifier) content() (string, []string, []judge.Finding, error) {
	src, c, err := v.Commit(v.g.Commit)
	if err != nil {
		return "", nil, nil, err
	}
	again, err := v.g.of(src, c)
	if err != nil {
		return "", nil, nil, err
	}
	var findings []judge.Finding
	if again.ArchiveSHA256 != v.g.ArchiveSHA256 {
		findings = append(findings, judge.Finding{Path: GenesisFile, Message: fmt.Sprintf("the git archive has SHA-256 %x, sealed was %x", again.ArchiveSHA256, v.g.ArchiveSHA256)})
	}
	for _, l := range []struct{ got, want []GenesisEntry }{{again.Files, v.g.Files}, {again.Links, v.g.Links}, {again.Submodules, v.g.Submodules}} {
		findings = append(findings, compare(l.got, l.want)...)
	}
	return fmt.Sprintf("%d files, git archive sha256 %x", len(v.g.Files)+len(v.g.Links), v.g.ArchiveSHA256), nil, findings, nil
}

func compare(got, want []GenesisEntry) (findings []judge.Finding) {
	sealed := map[string]string{}
	for _, e := range want {
		sealed[e.Path] = e.Digest
	}
	for _, e := range got {
		switch d, there := sealed[e.Path]; {
		case !there:
			findings = append(findings, judge.Finding{Path: e.Path, Message: "is in the commit and was not sealed"})
		case d != e.Digest:
			findings = append(findings, judge.Finding{Path: e.Path, Message: fmt.Sprintf("is %s in the commit, sealed was %s", e.Digest, d)})
		}
		delete(sealed, e.Path)
	}
	for p := range sealed {
		findings = append(findings, judge.Finding{Path: p, Message: "was sealed and is not in the commit"})
	}
	return findings
}

func (v *genesisVerifier) signature() (string, []string, []judge.Finding, error) {
	name := GenesisArchive + ".asc"
	armored, missing, err := v.need(name)
	if err != nil || missing != nil {
		return "", nil, missing, err
	}
	packet, err := openpgp.Dearmor(armored)
	if err != nil {
		return judgedWrong(name, err)
	}
	if _, known := v.Keys.Lookup(v.g.Operator); !known {
		return judgedWrong(name, fmt.Errorf("is by %s, which is no trust anchor here", v.g.Operator))
	}
	s, err := openpgp.Verify(v.Keys, v.g.Operator, v.sealed, packet, openpgp.VerifyOptions{Now: v.Now})
	if err != nil {
		return judgedWrong(name, err)
	}
	if s.Development && !v.g.Development {
		return judgedWrong(name, fmt.Errorf("is by %s, and the genesis says that nothing of it is for development", s))
	}
	v.asc, v.signed = armored, s.Created
	return fmt.Sprintf("by %s", s), []string{fmt.Sprintf("made %s, by its own account, with key %s", s.Created.Format(time.RFC3339), s.SigningKey)}, nil, nil
}

func (v *genesisVerifier) timestamps() (string, []string, []judge.Finding, error) {
	if v.asc == nil {
		return "", nil, nil, errors.New("there is no valid signature that could be stamped")
	}
	var good []*timestamp.Verified // of the signature, by authorities that stamped both
	var evidence []string
	var missing, wrong []judge.Finding
	var unread error
	for _, a := range v.g.Authorities {
		var stamped *timestamp.Verified
		both := true
		for _, f := range []struct {
			name string
			data []byte
		}{{GenesisArchive, v.sealed}, {GenesisArchive + ".asc", v.asc}} {
			name := f.name + "." + a.Name + ".tsr"
			stamped = nil
			token, absent, err := v.need(name)
			missing = append(missing, absent...)
			unread = errors.Join(unread, err)
			if token != nil {
				if stamped, err = v.token(a, token, f.data); err != nil {
					wrong = append(wrong, judge.Finding{Path: name, Message: err.Error()})
				} else {
					evidence = append(evidence, fmt.Sprintf("%s: %s, serial %x, root %x", name, stamped.Time.Format(time.RFC3339), stamped.Serial, timestamp.SPKI(stamped.Root)))
				}
			}
			both = both && stamped != nil
		}
		switch {
		case !both:
		case v.signed.After(stamped.Time.Add(timestamp.MaxSkew)):
			wrong = append(wrong, judge.Finding{Path: GenesisArchive + ".asc", Message: fmt.Sprintf("says it was made at %s, after %s stamped it at %s", v.signed.Format(time.RFC3339), a.Name, stamped.Time.Format(time.RFC3339))})
		default:
			good = append(good, stamped)
		}
	}
	detail := fmt.Sprintf("%d of %d authorities stamped archive and signature, wanted %d under distinct roots", len(good), len(v.g.Authorities), v.g.Required)
	if timestamp.Independent(v.g.Required, good...) {
		// What the genesis can do without is said, and does not fail it; a token
		// that is there and wrong does.
		for i := range missing {
			missing[i].Warning = true
		}
		first := slices.MinFunc(good, func(a, b *timestamp.Verified) int { return a.Time.Compare(b.Time) })
		detail += "; sealed before " + first.Time.Format(time.RFC3339)
	} else if unread == nil {
		wrong = append(wrong, judge.Finding{Message: "found " + detail})
	}
	return detail, evidence, append(wrong, missing...), unread
}

// token verifies a token, and that its root is the one that the genesis names.
func (v *genesisVerifier) token(a GenesisAuthority, token, data []byte) (*timestamp.Verified, error) {
	at := slices.IndexFunc(v.Authorities, func(p Authority) bool { return p.Name == a.Name })
	if at < 0 {
		return nil, fmt.Errorf("authority %s is not pinned in this repository", a.Name)
	}
	if v.Authorities[at].Development && !v.g.Development {
		return nil, fmt.Errorf("authority %s is one for development, and the genesis says it is none", a.Name)
	}
	t, err := v.Authorities[at].Verify(token, bytes.NewReader(data), v.Now)
	if err != nil {
		return nil, err
	}
	if spki := timestamp.SPKI(t.Root); !slices.Contains(a.RootSPKI, spki) {
		return nil, fmt.Errorf("its root is %x, which the genesis does not name", spki)
	}
	return t, nil
}
