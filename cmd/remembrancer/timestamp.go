package main

import (
	"bufio"
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/action"
	"github.com/vaultmesh/remembrancer/pkg/config"
	"github.com/vaultmesh/remembrancer/pkg/covenant"
	"github.com/vaultmesh/remembrancer/pkg/durable"
	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
	"github.com/vaultmesh/remembrancer/pkg/publish"
	"github.com/vaultmesh/remembrancer/pkg/release"
	"github.com/vaultmesh/remembrancer/pkg/timestamp"
	"github.com/vaultmesh/remembrancer/pkg/tsa"
)

var timestampVerb = verb{
	spec: action.Spec{
		Verb: "timestamp", Summary: "have files time-stamped by the pinned authorities", Args: "FILE...",
		Description: "Asks each pinned RFC 3161 authority, verifies its answer completely, and writes it as FILE.<authority>.tsr. " +
			"A token that is there and good is kept, FILE.tsr included; nothing is ever overwritten. An authority that fails is asked again after a pause, then the next one is asked; " +
			"release.timestamps decides whether what there is suffices. Stamp a signature as well: only that shows when it was made.",
		Inputs: []action.Input{
			{Name: "authority", Kind: action.List, Usage: "Ask only this one; without it those of release.authorities, or all that are pinned"},
			{Name: "timeout", Kind: action.Duration, Default: "1m", Usage: "What one authority gets, all attempts together."},
			{Name: "json", Kind: action.Bool, Usage: "Print the tokens as JSON.", CLIOnly: true},
		},
		Exit:     "Where too few authorities answered, 3: what was got is kept, and the same command asks for the rest. 1 where another file lies in a token's place.",
		Examples: []string{"remembrancer timestamp dist/app.tar.gz dist/app.tar.gz.asc"},
	},
	run: runTimestamp,
}

var tsaBootstrapVerb = verb{
	spec: action.Spec{
		Verb: "tsa bootstrap", Summary: "pin a time-stamping authority", Args: "NAME",
		Description: "Asks the authority for a token of random bytes, shows which root it leads to, and pins that root and the signing key in ops/certs/tsa/NAME. " +
			"What the authority itself sends is no reason to trust it: compare the root's SHA-256 with what it publishes elsewhere, and hand over what you found there.\n\n" +
			"A pinned root is never changed. A new signing key under the same root is added with --rotate; tokens of the old one stay good.",
		Inputs: []action.Input{
			{Name: "url", Usage: "Address of the authority; the pinned one when left out."},
			{Name: "ca", Usage: "File of the authority's root, PEM or DER. Without it, the root that the token carries along is shown."},
			{Name: "ca-url", Usage: "Address of such a file."},
			{Name: "confirm", Usage: "SHA-256 of the root's key or certificate, found elsewhere: pins without asking."},
			{Name: "yes", Kind: action.Bool, Usage: "Refused: there is nothing to compare with. Use --confirm."},
			{Name: "rotate", Kind: action.Bool, Usage: "Add the authority's new signing key, and its new address, under the pinned root."},
			{Name: "development", Kind: action.Bool, Usage: "Mark it as an authority for trying things out, which proves nothing to others."},
		},
		Examples: []string{"remembrancer tsa bootstrap freetsa --url https://freetsa.org/tsr --ca-url https://freetsa.org/files/cacert.pem"},
	},
	run: runTSABootstrap,
}

var rfc3161VerifyVerb = verb{
	spec: action.Spec{
		Verb: "rfc3161-verify", Summary: "verify the time stamps of a file", Args: "[FILE]",
		Description: "Finds FILE.tsr and FILE.<authority>.tsr, and verifies each by the authorities pinned in the repository around FILE, or else around the working directory: " +
			"FILE.<authority>.tsr by that one alone, FILE.tsr by any. All tokens that are there must be good. The file itself is digested; a request, FILE.tsq, never stands in for it. " +
			"A token stays good after its signer's certificate has expired.\n\n" +
			"With --tsr, --data and --root it verifies one token by these roots alone, anywhere.",
		Inputs: []action.Input{
			{Name: "require", Default: "any", Usage: "How many authorities under distinct roots must have stamped FILE: all, any, or a number."},
			{Name: "tsr", Usage: "Token or response to verify."},
			{Name: "data", Usage: "File that it is of."},
			{Name: "root", Usage: "PEM file of the roots to believe."},
			{Name: "untrusted", Usage: "PEM file of certificates that a chain may go through."},
			{Name: "nonce", Usage: "Nonce that the token must bear, in hex."},
			{Name: "policy", Usage: "TSA policy that the token must name, such as 1.2.3.4.1."},
			{Name: "json", Kind: action.Bool, Usage: "Print the verdict as JSON.", CLIOnly: true},
		},
		Exit: "1 when a token is not valid for this file and these roots, one that cannot be parsed included; 3 when there is no token, no file or no pinned authority.",
		Examples: []string{
			"remembrancer rfc3161-verify dist/app.tar.gz",
			"remembrancer rfc3161-verify --tsr app.tar.gz.tsr --data app.tar.gz --root ca.pem",
		},
	},
	run: runRFC3161Verify,
}

// tsaFolder is where authorities are pinned.
func tsaFolder(l covenant.Layout) string { return path.Join(l.Certs(), release.AuthorityFolder) }

func (w *world) tsaOptions(timeout time.Duration) tsa.Options {
	return tsa.Options{Random: w.rand, Now: w.now, Timeout: timeout, Progress: func(line string) { w.note("%s", action.Defang(line)) }}
}

func runTimestamp(w *world, v *action.Values, _ *action.Runner) error {
	files := v.Args()
	if len(files) == 0 {
		return misused("want the files to stamp")
	}
	p, err := w.openProject()
	if err != nil {
		return err
	}
	quorum, err := release.ParseQuorum(p.cfg.Release.Timestamps)
	if err != nil {
		return err
	}
	names := v.List("authority")
	if len(names) == 0 {
		names = p.cfg.Release.Authorities
	}
	authorities, err := release.Authorities(publish.WorkTree(p.root), tsaFolder(p.layout))
	if err != nil {
		return err
	}
	if authorities, err = release.Select(authorities, names); err != nil {
		return misused("%v", err)
	}
	result := []map[string]any{}
	for _, name := range files {
		s := stamping{w: w, name: name, file: w.path(name), authorities: authorities, quorum: quorum, kept: map[string]string{}}
		tokens, err := s.stamp(v.Duration("timeout"))
		var list []map[string]any
		for _, t := range tokens {
			j := tokenJSON(t.Verified)
			file, kept := s.kept[t.Authority.Name]
			if !kept {
				file = t.Authority.TokenFile(name)
			}
			j["file"], j["authority"], j["kept"], j["development"] = file, t.Authority.Name, kept, t.Authority.Development
			list = append(list, j)
			if !v.Bool("json") {
				w.say("%s %s: %s by %s", map[bool]string{true: "kept ", false: "wrote"}[kept], file, t.Verified.Time.Format(time.RFC3339), t.Authority.Name)
			}
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		result = append(result, map[string]any{"file": name, "tokens": list})
		if _, err := os.Stat(s.file + ".asc"); err == nil && !slices.Contains(files, name+".asc") {
			w.note("%s.asc is not stamped with it: nothing shows yet when it was signed", name)
		}
	}
	if v.Bool("json") {
		return w.sayJSON(map[string]any{"files": result})
	}
	return nil
}

// stamping is a file that is being stamped.
type stamping struct {
	w           *world
	name, file  string // as given, and where it is
	authorities []release.Authority
	quorum      release.Quorum
	kept        map[string]string // files of tokens that were there, by authority
}

// stamp returns the tokens of the file after it has written those that were
// missing. Each is written once the last authority has answered: a crash before
// that loses nothing that cannot be asked for again.
func (s *stamping) stamp(timeout time.Duration) ([]tsa.Token, error) {
	if ext := filepath.Ext(s.file); ext == ".tsr" || ext == ".tsq" {
		return nil, misused("it is a token or a request itself")
	}
	data, err := openRegular(s.file)
	if err != nil {
		return nil, err
	}
	defer data.Close()
	var have []tsa.Token
	for _, a := range s.authorities {
		t, err := s.existing(a, data)
		if err != nil {
			return nil, err
		}
		if t != nil {
			have = append(have, *t)
		}
	}
	tokens, err := tsa.Stamp(s.w.ctx, data, s.authorities, s.quorum, have, s.w.tsaOptions(timeout))
	for _, t := range tokens {
		if _, kept := s.kept[t.Authority.Name]; kept {
			continue
		}
		file := t.Authority.TokenFile(s.file)
		if _, lerr := os.Lstat(file); !errors.Is(lerr, fs.ErrNotExist) {
			return nil, errors.Join(err, failed("%s appeared while it was asked for: it is left as it is", file))
		}
		if perr := durable.Put(file, t.Response, 0o644); perr != nil {
			return nil, errors.Join(err, perr)
		}
	}
	return tokens, err
}

// existing returns the token of an authority that is there already, nil for none.
// FILE.tsr counts for the authority that it is of; in the place of a token only a
// good one may lie.
func (s *stamping) existing(a release.Authority, data io.ReadSeeker) (*tsa.Token, error) {
	for _, name := range []string{a.TokenFile(s.name), s.name + ".tsr"} {
		response, err := readToken(s.w.path(name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if _, err := data.Seek(0, io.SeekStart); err != nil {
			return nil, err
		}
		verified, err := a.Verify(response, data, s.w.now())
		if err == nil {
			s.kept[a.Name] = name
			return &tsa.Token{Authority: a, Response: response, Verified: verified}, nil
		}
		if name != s.name+".tsr" {
			return nil, failed("%s is there and is no token of this file: it is never overwritten, move it away\n%v", name, err)
		}
	}
	return nil, nil
}

// openRegular opens a file to be digested.
func openRegular(file string) (*os.File, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", file)
	}
	return os.Open(file)
}

// readToken reads a .tsr file. More than one can be of is not read.
func readToken(file string) ([]byte, error) {
	f, err := openRegular(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, timestamp.MaxResponse+1))
}

func runTSABootstrap(w *world, v *action.Values, _ *action.Runner) error {
	if len(v.Args()) != 1 {
		return misused("want one name for the authority, such as freetsa")
	}
	name := v.Args()[0]
	if err := release.CheckAuthorityName(name); err != nil {
		return misused("%v", err)
	}
	switch {
	case v.String("ca") != "" && v.String("ca-url") != "":
		return misused("--ca and --ca-url: want one of them")
	case v.Bool("yes") && v.String("confirm") == "":
		return misused("--yes: there is nothing to compare the root with; find the SHA-256 of its key or certificate where the authority publishes it, and use --confirm")
	}
	p, err := w.openProject()
	if err != nil {
		return err
	}
	all, err := release.Authorities(publish.WorkTree(p.root), tsaFolder(p.layout))
	if err != nil {
		return err
	}
	at := slices.IndexFunc(all, func(a release.Authority) bool { return a.Name == name })
	address := v.String("url")
	if address == "" && at >= 0 {
		address = all[at].URL
	}
	if address == "" {
		return misused("%s is not pinned yet: want its address with --url", name)
	}
	if err := release.CheckAuthorityURL(address); err != nil {
		return misused("%v", err)
	}
	opts := w.tsaOptions(0)
	roots, err := w.givenRoots(v, opts)
	if err != nil {
		return err
	}
	if at >= 0 {
		// Its own root is known; whatever else is sent along is none.
		roots = append(roots, all[at].Roots...)
	}
	proposal, err := tsa.Propose(w.ctx, name, address, roots, opts)
	if err != nil && at >= 0 && v.String("ca") == "" && v.String("ca-url") == "" {
		// Show both roots, where the token carries another one.
		if other, oerr := tsa.Propose(w.ctx, name, address, nil, opts); oerr == nil {
			proposal, err = other, nil
		}
	}
	if err != nil {
		return err
	}
	proposal.Authority.Development = v.Bool("development")
	w.say("%s", strings.TrimRight(action.Defang(proposal.Text()), "\n"))
	pinned := proposal.Authority
	if at >= 0 {
		pinned, err = proposal.Adopt(all[at], v.Bool("rotate"))
		if errors.Is(err, tsa.ErrChanged) {
			return failed("%v", err)
		}
		if err != nil {
			return err
		}
	}
	if found := v.String("confirm"); found != "" || at < 0 {
		if err := w.confirm(proposal, found); err != nil {
			return err
		}
	}
	before, err := covenant.LoadTrust(publish.WorkTree(p.root), p.layout)
	begun := err == nil // without a log there is no policy id yet
	files := pinned.Files()
	// The pins go last: without them the folder is an error, not an authority.
	for _, f := range []string{release.UntrustedFile, release.RootsFile, release.AuthorityFile} {
		data, ok := files[f]
		if !ok {
			continue
		}
		if err := w.putOnce(p, written{path: path.Join(tsaFolder(p.layout), name, f), data: data, update: at >= 0}); err != nil {
			return err
		}
	}
	if at >= 0 && bytes.Equal(files[release.AuthorityFile], all[at].Files()[release.AuthorityFile]) {
		w.say("✅ %s is pinned already: nothing has changed", name)
		return nil
	}
	w.say("✅ %s is pinned", name)
	if begun {
		after, err := covenant.LoadTrust(publish.WorkTree(p.root), p.layout)
		if err != nil {
			return err
		}
		w.sayPolicy(before.ID(), after.ID())
	}
	w.say("   next: git add %s && git commit", path.Join(tsaFolder(p.layout), name))
	return nil
}

// givenRoots reads the certificates that a person named.
func (w *world) givenRoots(v *action.Values, opts tsa.Options) (roots []*x509.Certificate, err error) {
	switch file, address := v.String("ca"), v.String("ca-url"); {
	case file != "":
		return readCertificates(w.path(file))
	case address != "":
		if err := release.CheckAuthorityURL(address); err != nil {
			return nil, misused("--ca-url: %v", err)
		}
		return tsa.FetchCertificates(w.ctx, address, opts)
	}
	return nil, nil
}

// confirm compares the proposed root with what a person found elsewhere, and asks
// for that where it was not given.
func (w *world) confirm(p tsa.Proposal, found string) error {
	if found == "" {
		if w.inCI() {
			return misused("nobody is here to confirm the root: use --confirm with the SHA-256 that the authority publishes")
		}
		w.note("Find the SHA-256 of the root's key or certificate where the authority publishes it: on its site, in its policy, on paper.")
		w.note("Type what you found there; nothing is pinned without it:")
		line, err := bufio.NewReader(io.LimitReader(w.stdin, 4096)).ReadString('\n')
		if found = strings.TrimSpace(line); found == "" {
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			return failed("nothing was confirmed, nothing is pinned")
		}
	}
	if err := p.Confirm(found); err != nil {
		return failed("nothing is pinned: %v", err)
	}
	return nil
}

func readCertificates(file string) ([]*x509.Certificate, error) {
	f, err := openRegular(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return nil, err
	}
	all, err := tsa.ReadCertificates(data)
	if err != nil {
		return nil, misused("%s: %v", file, err)
	}
	return all, nil
}

func runRFC3161Verify(w *world, v *action.Values, _ *action.Runner) error {
	script := slices.DeleteFunc([]string{"tsr", "data", "root", "untrusted", "nonce", "policy"}, func(name string) bool { return v.String(name) == "" })
	args := v.Args()
	switch {
	case len(args) == 1 && len(script) == 0:
		return w.verifyStamps(args[0], v)
	case len(args) == 0 && len(script) > 0:
		return w.verifyToken(v)
	}
	return misused("want one file, or --tsr, --data and --root")
}

// verifyToken verifies one token by the options alone.
func (w *world) verifyToken(v *action.Values) error {
	for _, name := range []string{"tsr", "data", "root"} {
		if v.String(name) == "" {
			return misused("--%s is missing: want --tsr, --data and --root", name)
		}
	}
	opts := timestamp.Options{Now: w.now()}
	var err error
	if n := v.String("nonce"); n != "" {
		if opts.Nonce, err = parseNonce(n); err != nil {
			return misused("--nonce: %v", err)
		}
	}
	if o := v.String("policy"); o != "" {
		if opts.Policy, err = parseOID(o); err != nil {
			return misused("--policy: %v", err)
		}
	}
	if opts.Roots, err = readCertificates(w.path(v.String("root"))); err != nil {
		return err
	}
	if u := v.String("untrusted"); u != "" {
		if opts.Untrusted, err = readCertificates(w.path(u)); err != nil {
			return err
		}
	}
	response, err := readToken(w.path(v.String("tsr")))
	if err != nil {
		return err
	}
	data, err := openRegular(w.path(v.String("data")))
	if err != nil {
		return err
	}
	defer data.Close()
	s := release.Stamped{File: v.String("tsr")}
	s.Verified, s.Err = timestamp.Verify(response, data, opts)
	return w.sayStamps(stampVerdict{file: v.String("data"), stamps: []release.Stamped{s}, by: "roots of " + v.String("root")}, v.Bool("json"))
}

func parseNonce(s string) (*big.Int, error) {
	n, ok := new(big.Int).SetString(s, 16)
	if !ok || strings.Trim(strings.ToLower(s), "0123456789abcdef") != "" || len(s) > 128 {
		return nil, fmt.Errorf("found %q, wanted hex digits", s)
	}
	return n, nil
}

func parseOID(s string) (asn1.ObjectIdentifier, error) {
	var id asn1.ObjectIdentifier
	for part := range strings.SplitSeq(s, ".") {
		n, err := strconv.ParseUint(part, 10, 31)
		if err != nil || strconv.FormatUint(n, 10) != part {
			return nil, fmt.Errorf("found %q, wanted an object identifier such as 1.2.3.4.1", s)
		}
		id = append(id, int(n))
	}
	if len(id) < 2 {
		return nil, fmt.Errorf("found %q, wanted an object identifier such as 1.2.3.4.1", s)
	}
	return id, nil
}

// verifyStamps verifies the tokens that lie beside a file.
func (w *world) verifyStamps(name string, v *action.Values) error {
	quorum, err := release.ParseQuorum(v.String("require"))
	if err != nil {
		return misused("--require: %v", err)
	}
	switch filepath.Ext(name) {
	case ".tsr", ".tsq":
		return misused("%s is a token or a request: want the file that it is of, %s", name, strings.TrimSuffix(name, filepath.Ext(name)))
	}
	file := w.path(name)
	data, err := openRegular(file)
	if err != nil {
		return fmt.Errorf("%w: what was stamped must be there itself", err)
	}
	defer data.Close()
	entries, err := os.ReadDir(filepath.Dir(file))
	if err != nil {
		return err
	}
	var there []string
	for _, e := range entries {
		there = append(there, e.Name())
	}
	tokens := map[string][]byte{}
	for _, t := range release.TokenFiles(filepath.Base(file), there) {
		if tokens[t], err = readToken(filepath.Join(filepath.Dir(file), t)); err != nil {
			return err
		}
	}
	if len(tokens) == 0 {
		return fmt.Errorf("%s has no time stamp: there is no %[1]s.tsr and no %[1]s.<authority>.tsr; remembrancer timestamp %[1]s", name)
	}
	authorities, where, err := w.authoritiesAround(file)
	if err != nil {
		return err
	}
	if len(authorities) == 0 {
		return fmt.Errorf("%s: %w", where, release.ErrNoAuthority)
	}
	d := stampVerdict{file: name, by: "pins in " + where, stamps: release.VerifyTokens(authorities, filepath.Base(file), tokens, data, w.now())}
	for _, a := range authorities {
		if a.Development {
			d.development = append(d.development, a.Name)
		}
	}
	if d.err() == nil {
		var verified []*timestamp.Verified
		for _, s := range d.stamps {
			verified = append(verified, s.Verified)
		}
		if err := quorum.Check(authorities, verified...); err != nil {
			d.short = failed("%s: %v", name, err)
		}
	}
	return w.sayStamps(d, v.Bool("json"))
}

// authoritiesAround returns the authorities that the repository of a file pins,
// in its work tree, and where. A file outside of any is judged by the repository
// that the command was typed in.
func (w *world) authoritiesAround(file string) ([]release.Authority, string, error) {
	repo, err := gitrepo.Open(filepath.Dir(file))
	if errors.Is(err, gitrepo.ErrNoGit) {
		if repo, err = gitrepo.Open(w.dir); errors.Is(err, gitrepo.ErrNoGit) {
			return nil, "", errors.New("no repository is around it, whose authorities could be believed: use --tsr, --data and --root")
		}
	}
	if err != nil {
		return nil, "", err
	}
	cfg := config.Default()
	data, err := os.ReadFile(filepath.Join(repo.Root(), config.FileName))
	switch {
	case err == nil:
		if cfg, err = config.Parse(config.FileName, data); err != nil {
			return nil, "", misused("%v", err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, "", err
	}
	folder := tsaFolder(covenant.Layout{Ops: cfg.Paths.Ops, Docs: cfg.Paths.Docs})
	all, err := release.Authorities(publish.WorkTree(repo.Root()), folder)
	return all, filepath.Join(repo.Root(), filepath.FromSlash(folder)), err
}

// stampVerdict is what became of the tokens of a file.
type stampVerdict struct {
	file, by    string
	stamps      []release.Stamped
	development []string // authorities whose tokens prove nothing to others
	short       error    // too few are good
}

// err is what was found wanting, or else what could not be judged.
func (d stampVerdict) err() error {
	if d.short != nil {
		return d.short
	}
	var bad, unjudged []string
	for _, s := range d.stamps {
		switch {
		case errors.Is(s.Err, release.ErrNoAuthority):
			unjudged = append(unjudged, fmt.Sprintf("%s: %v", s.File, s.Err))
		case s.Err != nil:
			bad = append(bad, fmt.Sprintf("%s: %v", s.File, s.Err))
		}
	}
	switch {
	case len(bad) > 0:
		return failed("%s", strings.Join(bad, "\n"))
	case len(unjudged) > 0:
		return errors.New(strings.Join(unjudged, "\n"))
	}
	return nil
}

func (w *world) sayStamps(d stampVerdict, asJSON bool) error {
	err := d.err()
	if asJSON {
		list := []map[string]any{}
		for _, s := range d.stamps {
			j := map[string]any{"status": "pass"}
			switch {
			case errors.Is(s.Err, release.ErrNoAuthority):
				j["status"], j["reason"] = "error", s.Err.Error()
			case s.Err != nil:
				j["status"], j["reason"] = "fail", s.Err.Error()
			default:
				j = tokenJSON(s.Verified)
				j["status"] = "pass"
			}
			j["file"], j["authority"], j["development"] = s.File, s.Authority, slices.Contains(d.development, s.Authority)
			list = append(list, j)
		}
		out := map[string]any{"verdict": [...]string{"pass", "fail", "error", "error"}[exitCode(err)], "file": d.file, "judged_by": d.by, "tokens": list}
		if d.short != nil {
			out["reason"] = d.short.Error()
		}
		return errors.Join(w.sayJSON(out), err)
	}
	switch exitCode(err) {
	case exitPass:
		w.say("✅ RFC3161 timestamp valid")
	case exitFail:
		w.say("❌ RFC3161 timestamp not valid")
	default:
		w.say("🚫 RFC3161 timestamp not judged")
	}
	for _, s := range d.stamps {
		if s.Verified == nil {
			continue
		}
		for _, line := range stampLines(s, w.now()) {
			w.say("   %s", action.Defang(line))
		}
		if slices.Contains(d.development, s.Authority) {
			w.say("   ⚠️  %s is an authority for development: its time proves nothing to others", s.Authority)
		}
	}
	if err == nil {
		w.say("   by %s", action.Defang(d.by))
	}
	return err
}

// stampLines is who said when, for a person.
func stampLines(s release.Stamped, now time.Time) []string {
	t := s.Verified
	signer, root := t.SignerSPKI(), timestamp.SPKI(t.Root)
	who := s.Authority
	if who == "" {
		who = release.SubjectOf(t.Signer)
	}
	lines := []string{
		fmt.Sprintf("%s: %s by %s", s.File, t.Time.Format(time.RFC3339Nano), who),
		fmt.Sprintf("  serial %x, policy %s, %s %x", t.Serial, t.Policy, t.Hash, t.Digest),
		fmt.Sprintf("  signer %s, key %x", release.SubjectOf(t.Signer), signer[:]),
		fmt.Sprintf("  root   %s, key %x", release.SubjectOf(t.Root), root[:]),
	}
	if t.Accuracy > 0 {
		lines[0] += fmt.Sprintf(", give or take %s", t.Accuracy)
	}
	if now.After(t.Signer.NotAfter) {
		lines = append(lines, fmt.Sprintf("  the signer's certificate has ended on %s; at the time of the token it was valid", t.Signer.NotAfter.UTC().Format(time.DateOnly)))
	}
	return lines
}

func tokenJSON(t *timestamp.Verified) map[string]any {
	signer, root := t.SignerSPKI(), timestamp.SPKI(t.Root)
	j := map[string]any{
		"time": t.Time.Format(time.RFC3339Nano), "serial": fmt.Sprintf("%x", t.Serial), "policy": t.Policy.String(),
		"hash": t.Hash.String(), "digest": hex.EncodeToString(t.Digest),
		"signer": t.Signer.Subject.String(), "signer_spki": hex.EncodeToString(signer[:]), "signer_until": t.Signer.NotAfter.UTC().Format(time.RFC3339),
		"root": t.Root.Subject.String(), "root_spki": hex.EncodeToString(root[:]),
	}
	if t.Accuracy > 0 {
		j["accuracy"] = t.Accuracy.String()
	}
	return j
}

// stamps judges time stamps by the authorities that the commit pins, as
// rfc3161-verify does, and demands as many as release.timestamps says.
func (c *covenants) stamps() (covenant.Stamps, error) {
	pinned, err := release.Authorities(c.head.tree, tsaFolder(c.p.layout))
	if err != nil {
		return nil, err
	}
	asked, err := release.Select(pinned, c.p.cfg.Release.Authorities)
	if err != nil {
		return nil, err
	}
	quorum, err := release.ParseQuorum(c.p.cfg.Release.Timestamps)
	if err != nil {
		return nil, err
	}
	return func(file string, data []byte, there []string, read func(string) ([]byte, error)) (evidence []string, wrong string, err error) {
		tokens := map[string][]byte{}
		for _, name := range release.TokenFiles(file, there) {
			if tokens[name], err = read(name); err != nil {
				return nil, "", err
			}
		}
		if len(tokens) == 0 {
			return nil, file + ".tsr is missing", nil
		}
		if len(pinned) == 0 {
			return nil, "", release.ErrNoAuthority
		}
		d := stampVerdict{file: file, stamps: release.VerifyTokens(pinned, file, tokens, bytes.NewReader(data), c.w.now())}
		var verified []*timestamp.Verified
		for _, s := range d.stamps {
			if s.Verified == nil {
				continue
			}
			line := fmt.Sprintf("%s: %s by %s, root %x", s.File, s.Verified.Time.Format(time.RFC3339), s.Authority, timestamp.SPKI(s.Verified.Root))
			if slices.ContainsFunc(pinned, func(a release.Authority) bool { return a.Name == s.Authority && a.Development }) {
				line += ", an authority for development: it proves nothing to others"
			}
			evidence = append(evidence, line)
			if slices.ContainsFunc(asked, func(a release.Authority) bool { return a.Name == s.Authority }) {
				verified = append(verified, s.Verified)
			}
		}
		err = d.err()
		if exitCode(err) == exitFail {
			return evidence, strings.ReplaceAll(err.Error(), "\n", "; "), nil
		}
		if err != nil {
			return evidence, "", err
		}
		if lack := quorum.Check(asked, verified...); lack != nil {
			wrong = lack.Error()
		}
		return evidence, wrong, nil
	}, nil
}
