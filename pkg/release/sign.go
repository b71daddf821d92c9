package release

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/durable"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
	"github.com/vaultmesh/remembrancer/pkg/timestamp"
)

// Signing makes what a release has beside its artifacts, in their folder:
//
//	SHA256SUMS                     the digests of all artifacts
//	FILE.asc                       a signature of each artifact and of SHA256SUMS
//	FILE.<authority>.tsr           a token of each authority, of each artifact
//	SHA256SUMS.asc.<authority>.tsr and of the signature of the list: it says when
//	                               that signature existed, which an artifact's token does not
//
// Whoever downloads them into one folder checks them with sha256sum, gpg and
// openssl.
//
// What is there already and holds is kept, by whichever trust anchor it was
// signed; what is there and does not hold is a [*TakenError], and is never
// replaced. The list comes first, because it follows from the artifacts alone;
// each later file can be made again if a run was cut off before it. So a run goes
// on where an earlier one stopped, and a finished release stays as it is.
type Signing struct {
	Dir         *durable.Dir // holds the artifacts
	Keys        *openpgp.Keyring
	Signer      openpgp.Signer
	Authorities []Authority
	Quorum      Quorum
	// Stamp asks an authority for a token of data. What it answers is verified
	// before it is written.
	Stamp func(ctx context.Context, a Authority, data []byte) ([]byte, error)
	Now   func() time.Time
	// Made hears of each file that was made (optional).
	Made func(name string)

	silent map[string]error // authorities that failed: they are not asked again
}

// Signed is a release that is complete.
type Signed struct {
	Sums      Sums
	Signature []byte    // SHA256SUMS.asc
	Tokens    []Stamped // of that signature, all verified
	// Files are all files of the release in the order in which they are handed
	// out: artifacts first, what vouches for all of them last.
	Files []string
}

// TakenError says that a file is in the place of what was to be made, and is not
// that.
type TakenError struct {
	Name string
	Err  error
}

func (e *TakenError) Error() string {
	return fmt.Sprintf("%s is there already and is not of this release: %v: nothing is replaced, remove it if it is of another build", e.Name, e.Err)
}

func (e *TakenError) Unwrap() error { return e.Err }

// Names returns the names of all that a release of these artifacts has beside
// them, in the order in which they are handed out.
func (s *Signing) Names(artifacts []string) []string {
	var names []string
	of := func(file string) {
		for _, a := range s.Authorities {
			names = append(names, a.TokenFile(file))
		}
	}
	for _, f := range artifacts {
		names = append(names, f+".asc")
		of(f)
	}
	names = append(names, SumsFile, SumsFile+".asc")
	of(SumsFile + ".asc")
	return names
}

// Run signs these artifacts: names of files of the folder itself.
func (s *Signing) Run(ctx context.Context, artifacts []string) (Signed, error) {
	if len(s.Authorities) == 0 {
		return Signed{}, ErrNoAuthority
	}
	if _, known := s.Keys.Lookup(s.Signer.Fingerprint()); !known {
		return Signed{}, fmt.Errorf("%w: key %s is no trust anchor", openpgp.ErrUnknownIssuer, s.Signer.Fingerprint())
	}
	s.silent = map[string]error{}
	done := Signed{Files: slices.Concat(artifacts, s.Names(artifacts))}
	for _, name := range slices.Compact(slices.Sorted(slices.Values(artifacts))) {
		if strings.Contains(name, "/") {
			return Signed{}, fmt.Errorf("artifact %s: want all artifacts of a release in one folder, as they will be downloaded", name)
		}
		if err := checkSumName(SumsFile, name); err != nil {
			return Signed{}, err
		}
		data, err := s.Dir.Get(name)
		if err != nil {
			return Signed{}, err
		}
		done.Sums = append(done.Sums, Sum{name, sha256.Sum256(data)})
	}
	if len(done.Sums) == 0 {
		return Signed{}, errors.New("no artifacts to sign")
	}
	list := done.Sums.Bytes()
	if _, err := s.keep(SumsFile, func(was []byte) error {
		if !bytes.Equal(was, list) {
			return errors.New("it lists other files or digests")
		}
		return nil
	}, func() ([]byte, error) { return list, nil }); err != nil {
		return Signed{}, err
	}
	// All signatures first: they need no network.
	for _, sum := range done.Sums {
		if _, err := s.sign(ctx, sum); err != nil {
			return Signed{}, err
		}
	}
	var err error
	if done.Signature, err = s.sign(ctx, Sum{SumsFile, sha256.Sum256(list)}); err != nil {
		return Signed{}, err
	}
	for _, sum := range done.Sums {
		data, err := s.read(sum)
		if err != nil {
			return Signed{}, err
		}
		if _, err := s.stamp(ctx, sum.Name, data); err != nil {
			return Signed{}, err
		}
	}
	done.Tokens, err = s.stamp(ctx, SumsFile+".asc", done.Signature)
	done.Files = slices.DeleteFunc(done.Files, func(name string) bool {
		_, err := s.Dir.Get(name)
		return errors.Is(err, fs.ErrNotExist) // a token that the quorum does without
	})
	return done, err
}

// read returns a file that must still be what was listed: what is signed is what
// is listed.
func (s *Signing) read(sum Sum) ([]byte, error) {
	data, err := s.Dir.Get(sum.Name)
	if err == nil && sha256.Sum256(data) != sum.SHA256 {
		err = fmt.Errorf("%s has changed while it was signed: run this again when nothing else writes it", sum.Name)
	}
	return data, err
}

// keep returns a file that holds, making it where it is not there.
func (s *Signing) keep(name string, holds func([]byte) error, make func() ([]byte, error)) ([]byte, error) {
	was, err := s.Dir.Get(name)
	switch {
	case err == nil:
		if err := holds(was); err != nil {
			return nil, &TakenError{name, err}
		}
		return was, nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	data, err := make()
	if err != nil {
		return nil, err
	}
	if err := holds(data); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err := s.Dir.Put(name, data); err != nil {
		return nil, err
	}
	if s.Made != nil {
		s.Made(name)
	}
	return data, nil
}

func (s *Signing) sign(ctx context.Context, sum Sum) ([]byte, error) {
	data, err := s.read(sum)
	if err != nil {
		return nil, err
	}
	return s.keep(sum.Name+".asc", func(text []byte) error {
		_, err := SignedBy(s.Keys, data, text, s.Now())
		return err
	}, func() ([]byte, error) {
		packet, err := s.Signer.Sign(ctx, data)
		return openpgp.Armor(packet), err
	})
}

// SignedBy verifies an armored signature of a message by whichever of these keys
// made it. The error says for each of them why it did not.
func SignedBy(keys *openpgp.Keyring, message, armored []byte, now time.Time) (openpgp.Verified, error) {
	packet, err := openpgp.Dearmor(armored)
	if err != nil {
		return openpgp.Verified{}, err
	}
	var why []error
	for _, f := range keys.Fingerprints() {
		v, err := openpgp.Verify(keys, f, message, packet, openpgp.VerifyOptions{Now: now})
		if err == nil {
			return v, nil
		}
		why = append(why, err)
	}
	if why == nil {
		return openpgp.Verified{}, fmt.Errorf("%w: there are no trust anchors", openpgp.ErrUnknownIssuer)
	}
	return openpgp.Verified{}, fmt.Errorf("no trust anchor's signature: %w", errors.Join(why...))
}

// stamp gets the tokens of a file.
func (s *Signing) stamp(ctx context.Context, file string, data []byte) (tokens []Stamped, err error) {
	var verified []*timestamp.Verified
	for _, a := range s.Authorities {
		var v *timestamp.Verified
		var asked error
		_, err := s.keep(a.TokenFile(file), func(tsr []byte) (err error) {
			v, err = a.Verify(tsr, bytes.NewReader(data), s.Now())
			return err
		}, func() ([]byte, error) {
			if asked = s.silent[a.Name]; asked != nil {
				return nil, asked
			}
			response, err := s.Stamp(ctx, a, data)
			if err != nil && ctx.Err() == nil {
				asked, s.silent[a.Name] = err, err
			}
			return response, err
		})
		switch {
		case asked != nil: // another authority may be enough
			continue
		case err != nil:
			return nil, err
		}
		verified = append(verified, v)
		tokens = append(tokens, Stamped{File: a.TokenFile(file), Authority: a.Name, Verified: v})
	}
	if err := s.Quorum.Check(s.Authorities, verified...); err != nil {
		for _, a := range s.Authorities {
			err = errors.Join(err, s.silent[a.Name])
		}
		return nil, fmt.Errorf("timestamps of %s: %w", file, err)
	}
	return tokens, nil
}

// Subject is what a release is of.
type Subject struct {
	Repository string // the name of its log, such as github.com/acme/app
	Tag        string
	TagObject  string // id of what the tag names: a tag object, or the commit
	Commit     string
	// SignedBy is the trust anchor whose signature the tag bears, "" where it was
	// pushed without one.
	SignedBy openpgp.Fingerprint
}

// Receipt states that these files are the release: an in-toto release statement
// about every artifact, the list, the list's signature and the commit. It is
// named after the tag, with hyphens for slashes.
func (d Signed) Receipt(of Subject, issuer openpgp.Fingerprint, now time.Time) (*receipt.Receipt, error) {
	var subjects []receipt.Subject
	for _, s := range d.Sums {
		subjects = append(subjects, receipt.Subject{Name: s.Name, SHA256: s.Hex()})
	}
	list, sig := sha256.Sum256(d.Sums.Bytes()), sha256.Sum256(d.Signature)
	subjects = append(subjects,
		receipt.Subject{Name: SumsFile, SHA256: hex.EncodeToString(list[:])},
		receipt.Subject{Name: SumsFile + ".asc", SHA256: hex.EncodeToString(sig[:])},
		receipt.Subject{Name: "commit", Commit: of.Commit})
	stamps := []any{}
	for _, t := range d.Tokens {
		stamps = append(stamps, map[string]any{"authority": t.Authority, "file": t.File, "time": t.Verified.Time.UTC().Format(time.RFC3339)})
	}
	return receipt.New(receipt.Statement{
		Kind: receipt.Release, Issuer: issuer, Issued: now, Name: strings.ReplaceAll(of.Tag, "/", "-"), Subjects: subjects,
		Predicate: map[string]any{
			"purl":                 of.purl(),
			"vaultmesh_tag":        map[string]any{"name": of.Tag, "object": of.TagObject, "signed_by": string(of.SignedBy)},
			"vaultmesh_timestamps": stamps,
		},
	})
}

// purl is the release's package URL, https://github.com/package-url/purl-spec.
func (s Subject) purl() string {
	version := "@" + url.PathEscape(s.Tag)
	if name, ok := strings.CutPrefix(s.Repository, "github.com/"); ok {
		return "pkg:github/" + strings.ToLower(name) + version
	}
	return "pkg:generic/" + s.Repository + version
}
