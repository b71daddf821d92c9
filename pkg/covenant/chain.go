package covenant

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

// Chain is where named artifacts are, and what they are held to.
type Chain struct {
	Tree Tree
	// Files is the work tree, for what is built and not committed; nil: none.
	// What the tree has is taken from the tree.
	Files fs.FS
	Trust *Trust
	// Entries are the admitted receipts, of an audit that passed: their subjects
	// state digests.
	Entries []receipt.Entry
	// Stamps judges the time stamps of a file; nil: no authority is trusted.
	Stamps Stamps
	Now    time.Time
}

// Stamps judges the time stamps of a file. file is its name in its folder, there
// are the names of the files in that folder, and read returns one of them. It
// returns who stamped it when, and what is wrong, "" for nothing; an error says
// why that cannot be judged.
type Stamps func(file string, data []byte, there []string, read func(name string) ([]byte, error)) (evidence []string, wrong string, err error)

// The checks of the proof-chain covenant.
var (
	digestClaim    = claim{"proof-chain/digest", "every artifact has the digest that is stated for it"}
	signatureClaim = claim{"proof-chain/signature", "every artifact is signed by a trusted key"}
	timestampClaim = claim{"proof-chain/timestamp", "every artifact has a trusted timestamp"}
	genesisClaim   = claim{"proof-chain/genesis", "the genesis has digest, signature and timestamp"}
)

// errNoAuthority: what cannot be verified is no evidence.
var errNoAuthority = errors.New("no time-stamping authority is trusted")

// The genesis of a repository.
const (
	GenesisFile    = "GENESIS.yaml"
	GenesisArchive = "dist/genesis.tar.gz"
)

// Artifacts makes the checks of the artifacts that patterns name, as those of
// [Change]. Each artifact must have
//
//   - proof-chain/digest: its SHA-256 in the SHA256SUMS of its folder, in
//     FILE.sha256, or as a subject of an admitted receipt that bears its path or
//     name; a file that states another one fails it;
//   - proof-chain/signature: a detached OpenPGP signature FILE.asc by a trust
//     anchor;
//   - proof-chain/timestamp: RFC 3161 tokens FILE.tsr or FILE.<authority>.tsr, which
//     the chain's Stamps judges. What it says of them is the check's evidence.
//
// A pattern that names nothing fails. Files of evidence are no artifacts.
func Artifacts(c Chain, patterns []string) []judge.Check {
	all := []claim{digestClaim, signatureClaim, timestampClaim}
	var checks []judge.Check
	if len(patterns) == 0 {
		for _, k := range all {
			checks = append(checks, judge.NotClaimed(k.id, k.text, "covenants.artifacts names none"))
		}
		return checks
	}
	names, missing, err := c.find(patterns)
	var stamped []string
	timestamp := func(name string) (string, error) {
		evidence, wrong, err := c.timestamp(name)
		stamped = append(stamped, evidence...)
		return wrong, err
	}
	for i, judgeOne := range []func(string) (string, error){c.digest, c.signature, timestamp} {
		k := all[i]
		if err != nil {
			checks = append(checks, judge.Unjudged(k.id, k.text, err))
			continue
		}
		findings := slices.Clone(missing)
		var unread error
		for _, name := range names {
			f, err := judgeOne(name)
			if err != nil {
				unread = errors.Join(unread, fmt.Errorf("%s: %w", name, err))
			} else if f != "" {
				findings = append(findings, judge.Finding{Path: name, Message: f, Fix: fixes[k.id](name)})
			}
		}
		check := verdictOn(k, fmt.Sprintf("%d artifacts", len(names)), findings, unread)
		if k == timestampClaim {
			check.Evidence = stamped
		}
		checks = append(checks, check)
	}
	return checks
}

// verdictOn: what was found wanting is said before what could not be judged.
func verdictOn(k claim, detail string, findings []judge.Finding, unread error) judge.Check {
	if len(findings) == 0 && unread != nil {
		return judge.Unjudged(k.id, k.text, unread)
	}
	return judge.Judged(k.id, k.text, detail, findings...)
}

var fixes = map[string]func(string) string{
	digestClaim.id: func(p string) string {
		return "cd " + quoted(path.Dir(p)) + " && sha256sum " + quoted(path.Base(p)) + " >> SHA256SUMS"
	},
	signatureClaim.id: func(p string) string { return "gpg --armor --detach-sign " + quoted(p) },
	timestampClaim.id: func(p string) string { return "remembrancer timestamp " + quoted(p) },
}

// quoted returns a path as a shell takes it for one word: it may be a stranger's.
func quoted(p string) string {
	if strings.Trim(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./+=@-") == "" && !strings.HasPrefix(p, "-") {
		return p
	}
	return "'" + strings.ReplaceAll(p, "'", `'\''`) + "'"
}

// Genesis is the check proof-chain/genesis: GENESIS.yaml and
// dist/genesis.tar.gz are there, and the archive has all the evidence that an
// artifact must have. Without any of their files it is unclaimed.
func Genesis(c Chain) judge.Check {
	k := genesisClaim
	var there, absent []string
	for _, name := range []string{GenesisFile, GenesisArchive, GenesisArchive + ".asc"} {
		_, err := c.read(name)
		switch {
		case err == nil:
			there = append(there, name)
		case errors.Is(err, fs.ErrNotExist):
			absent = append(absent, name)
		default:
			return judge.Unjudged(k.id, k.text, err)
		}
	}
	if len(there) == 0 {
		return judge.NotClaimed(k.id, k.text, "there is no "+GenesisFile+" and no "+GenesisArchive)
	}
	var findings []judge.Finding
	for _, name := range absent {
		findings = append(findings, judge.Finding{Path: name, Message: "is missing"})
	}
	var unread error
	var stamped []string
	if !slices.Contains(absent, GenesisArchive) {
		timestamp := func(name string) (wrong string, err error) {
			stamped, wrong, err = c.timestamp(name)
			return wrong, err
		}
		for _, judgeOne := range []func(string) (string, error){c.digest, c.signature, timestamp} {
			f, err := judgeOne(GenesisArchive)
			if err != nil {
				unread = errors.Join(unread, fmt.Errorf("%s: %w", GenesisArchive, err))
			} else if f != "" {
				findings = append(findings, judge.Finding{Path: GenesisArchive, Message: f})
			}
		}
	}
	check := verdictOn(k, strings.Join(there, ", "), findings, unread)
	check.Evidence = stamped
	return check
}

// evidence says whether a path is that of evidence, which is about others.
func evidence(p string) bool {
	switch path.Ext(p) {
	case ".asc", ".sig", ".tsr", ".tsq", ".sha256":
		return true
	}
	return path.Base(p) == "SHA256SUMS"
}

// find returns the artifacts, sorted, and a finding for each pattern without one
// and each match that is no regular file.
func (c Chain) find(patterns []string) (names []string, findings []judge.Finding, err error) {
	all := map[string]fs.FileMode{}
	if c.Files != nil {
		err := fs.WalkDir(c.Files, ".", func(p string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && d.Name() == ".git":
				return fs.SkipDir
			case !d.IsDir():
				all[p] = d.Type()
			}
			return nil
		})
		if err != nil {
			return nil, nil, err
		}
	}
	if err := c.Tree.Walk("", func(p string, mode fs.FileMode, _ string) error {
		all[p] = mode.Type()
		return nil
	}); err != nil {
		return nil, nil, err
	}
	paths := slices.Sorted(maps.Keys(all))
	for _, pattern := range patterns {
		found := false
		for _, p := range paths {
			if evidence(p) || !matches(pattern, p) {
				continue
			}
			found = true
			switch {
			case slices.Contains(names, p):
			case all[p] != 0:
				findings = append(findings, judge.Finding{Path: p, Message: "is not a regular file"})
			default:
				names = append(names, p)
			}
		}
		if !found {
			findings = append(findings, judge.Finding{Message: "no artifact is named by " + pattern, Fix: "build it, or remove the pattern from covenants.artifacts"})
		}
	}
	slices.Sort(names)
	return names, findings, nil
}

// read returns a file of the tree, else of the work tree.
func (c Chain) read(name string) ([]byte, error) {
	data, err := read(c.Tree, name)
	if errors.Is(err, fs.ErrNotExist) && c.Files != nil {
		return fs.ReadFile(c.Files, name)
	}
	return data, err
}

// optional returns a file that may be absent.
func (c Chain) optional(name string) (data []byte, there bool, err error) {
	data, err = c.read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	return data, err == nil, err
}

// digest says what is wrong with an artifact's digest, "" for nothing.
func (c Chain) digest(name string) (string, error) {
	data, err := c.read(name)
	if err != nil {
		return "", err
	}
	got, stated := digest(data), 0
	for _, file := range []string{path.Join(path.Dir(name), "SHA256SUMS"), name + ".sha256"} {
		text, there, err := c.optional(file)
		if err != nil {
			return "", err
		}
		if !there {
			continue
		}
		for i, line := range strings.Split(string(text), "\n") {
			sum, of, ok := strings.Cut(strings.TrimRight(line, "\r"), " ")
			of = strings.TrimPrefix(strings.TrimPrefix(strings.TrimPrefix(of, " "), "*"), "./")
			if !ok || of != path.Base(name) {
				continue
			}
			if !isSHA256(sum) {
				return fmt.Sprintf("%s:%d is not a SHA-256 and a name", file, i+1), nil
			}
			if !strings.EqualFold(sum, got) {
				return fmt.Sprintf("has SHA-256 %s, %s states %s", got, file, sum), nil
			}
			stated++
		}
	}
	for _, e := range c.Entries {
		for _, s := range e.Receipt.Subjects() {
			if s.SHA256 == got && (s.Name == name || s.Name == path.Base(name)) {
				stated++
			}
		}
	}
	if stated == 0 {
		return fmt.Sprintf("has SHA-256 %s, which no SHA256SUMS, no %s.sha256 and no admitted receipt states", got, path.Base(name)), nil
	}
	return "", nil
}

func isSHA256(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == sha256.Size
}

// signature says what is wrong with an artifact's signature, "" for nothing.
func (c Chain) signature(name string) (string, error) {
	data, err := c.read(name)
	if err != nil {
		return "", err
	}
	armored, there, err := c.optional(name + ".asc")
	switch {
	case err != nil:
		return "", err
	case !there:
		return path.Base(name) + ".asc is missing", nil
	case c.Trust == nil:
		return "", errors.New("no trust anchors to judge its signature by")
	}
	packet, err := openpgp.Dearmor(armored)
	if err != nil {
		return fmt.Sprintf("%s.asc: %v", path.Base(name), err), nil
	}
	var why error
	for _, f := range c.Trust.Keys.Fingerprints() {
		_, err := openpgp.Verify(c.Trust.Keys, f, data, packet, openpgp.VerifyOptions{Now: c.Now})
		if err == nil {
			return "", nil
		}
		why = errors.Join(why, err)
	}
	if why == nil {
		return "", errors.New("no trust anchors to judge its signature by")
	}
	return fmt.Sprintf("%s.asc is no good signature of a trusted key: %s", path.Base(name), strings.ReplaceAll(why.Error(), "\n", "; ")), nil
}

// timestamp says what is wrong with an artifact's timestamps, "" for nothing, and
// what they say.
func (c Chain) timestamp(name string) (evidence []string, wrong string, err error) {
	folder, file := path.Split(name)
	there, err := c.list(folder)
	if err != nil {
		return nil, "", err
	}
	// Another file's token is none of this one's: only Stamps knows their names.
	if !slices.ContainsFunc(there, func(n string) bool { return strings.HasPrefix(n, file+".") && path.Ext(n) == ".tsr" }) {
		return nil, file + ".tsr is missing", nil
	}
	if c.Stamps == nil {
		return nil, "", errNoAuthority
	}
	data, err := c.read(name)
	if err != nil {
		return nil, "", err
	}
	return c.Stamps(file, data, there, func(n string) ([]byte, error) { return c.read(folder + n) })
}

// list returns the names of the files in a folder, "" or ending in a slash, of the
// tree and of the work tree.
func (c Chain) list(folder string) (names []string, err error) {
	add := func(p string) {
		if rel, ok := strings.CutPrefix(p, folder); ok && !strings.Contains(rel, "/") && !slices.Contains(names, rel) {
			names = append(names, rel)
		}
	}
	if err := c.Tree.Walk(strings.TrimSuffix(folder, "/"), func(p string, _ fs.FileMode, _ string) error {
		add(p)
		return nil
	}); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if c.Files != nil {
		entries, err := fs.ReadDir(c.Files, path.Clean(folder))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			if !e.IsDir() {
				add(folder + e.Name())
			}
		}
	}
	return names, nil
}
