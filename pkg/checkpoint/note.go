package checkpoint

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// SignNote signs a text that is not a checkpoint as a note of its own kind, with
// a key as [GenerateKey] makes it. A text that could be read as a checkpoint is
// refused, also one with extension lines: whoever reads the note as one would
// see a fork. The text is lines that each end in a newline.
func SignNote(skey string, text []byte) ([]byte, error) {
	s, err := NewSigner(skey)
	if err != nil {
		return nil, err
	}
	if err := checkNoCheckpoint(text); err != nil {
		return nil, err
	}
	signed, err := note.Sign(&note.Note{Text: string(text)}, s.signer)
	if err != nil {
		return nil, fmt.Errorf("note: %w", err)
	}
	// Signing is more lenient than opening: control characters pass it.
	if _, err := OpenNote(s.vkey, signed); err != nil {
		return nil, err
	}
	return signed, nil
}

// OpenNote returns the text of a note that the key of this vkey signed, and
// refuses one that could be read as a checkpoint. Signatures of others are not
// looked at.
func OpenNote(vkey string, signed []byte) (text []byte, err error) {
	if len(signed) > maxNote {
		return nil, fmt.Errorf("note is %d bytes, want at most %d", len(signed), maxNote)
	}
	if err := CheckNoteKey(vkey); err != nil {
		return nil, err
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, err
	}
	n, err := note.Open(signed, note.VerifierList(v))
	if err != nil {
		return nil, fmt.Errorf("note: want a signature of %s: %w", v.Name(), err)
	}
	// note.Open decodes leniently, which would give one signature several notes.
	for _, s := range slices.Concat(n.Sigs, n.UnverifiedSigs) {
		if _, err := base64.StdEncoding.Strict().DecodeString(s.Base64); err != nil {
			return nil, fmt.Errorf("note: signature of %s is not in canonical base64", s.Name)
		}
	}
	if err := checkNoCheckpoint([]byte(n.Text)); err != nil {
		return nil, err
	}
	return []byte(n.Text), nil
}

func checkNoCheckpoint(text []byte) error {
	lines := bytes.SplitAfter(text, []byte("\n"))
	if _, err := ParseBody(bytes.Join(lines[:min(3, len(lines))], nil)); err == nil {
		return errors.New("note: its text reads as a checkpoint, and would be taken for one")
	}
	return nil
}

// CheckNoteKey says whether a vkey can verify notes and checkpoints.
func CheckNoteKey(vkey string) error {
	v, err := note.NewVerifier(vkey)
	if err != nil || strings.IndexFunc(vkey, func(r rune) bool { return r <= ' ' || r > '~' }) >= 0 {
		return fmt.Errorf("note key %.200q: want a signed-note verifier key <name>+<hash>+<base64>", vkey)
	}
	return CheckOrigin(v.Name())
}

// CheckInclusion verifies that an entry is at an index of the log that had a size
// and a root (RFC 6962, section 2.1.1). Hashes are from the leaf's sibling up.
func CheckInclusion(size int64, root Hash, index int64, hashes []Hash, entry []byte) error {
	if index < 0 || index >= size {
		return fmt.Errorf("proof: index %d is not below the size %d", index, size)
	}
	if tlog.CheckRecord(tlog.RecordProof(hashes), size, root, index, tlog.RecordHash(entry)) != nil {
		return fmt.Errorf("proof: entry %d does not lead to root %x of size %d", index, root[:], size)
	}
	return nil
}
