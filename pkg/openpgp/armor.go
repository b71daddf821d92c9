package openpgp

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
)

// The kinds of armored block this package reads or writes.
const (
	signatureBlock = "PGP SIGNATURE"
	publicBlock    = "PGP PUBLIC KEY BLOCK"
	privateBlock   = "PGP PRIVATE KEY BLOCK"
)

// maxArmored bounds what the decoders look at, in bytes. The largest thing that
// is ever armored here is a key with many certifications.
const maxArmored = 4 << 20

// Armor wraps a signature packet as text, the way gpg --armor does, with the
// CRC-24 line.
func Armor(sig []byte) []byte { return enarmor(signatureBlock, sig) }

func enarmor(kind string, data []byte) []byte {
	var b bytes.Buffer
	w, err := armor.Encode(&b, kind, nil)
	if err == nil {
		_, err = w.Write(data)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		panic("armor into memory: " + err.Error())
	}
	b.WriteByte('\n') // the library leaves the last line open
	return b.Bytes()
}

// Dearmor is the inverse of Armor. It wants exactly one PGP SIGNATURE block and
// nothing else but white space after it. Armor headers (Comment, Version) and
// CRLF line ends are accepted, a missing CRC-24 line too (RFC 9580 leaves it
// out), a wrong one is not.
func Dearmor(text []byte) ([]byte, error) {
	kind, data, err := dearmor(text)
	if err != nil {
		return nil, err
	}
	if kind != signatureBlock {
		return nil, fmt.Errorf("armor: found a %s, wanted a %s", kind, signatureBlock)
	}
	return data, nil
}

// dearmor reads one armored block and says of which kind it is.
func dearmor(text []byte) (kind string, data []byte, err error) {
	if len(text) > maxArmored {
		return "", nil, fmt.Errorf("armor: %d bytes, wanted at most %d", len(text), maxArmored)
	}
	lines := strings.Split(string(text), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " \t\r")
	}
	for len(lines) > 0 && lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	if len(lines) == 0 {
		return "", nil, errors.New("armor: empty")
	}

	kind, ok := cutBoth(lines[0], "-----BEGIN ", "-----")
	if !ok {
		return "", nil, errors.New("armor: does not start with a -----BEGIN ...----- line")
	}
	last := len(lines) - 1
	if lines[last] != "-----END "+kind+"-----" {
		return "", nil, fmt.Errorf("armor: does not stop with -----END %s-----", kind)
	}
	body := lines[1:last]
	for len(body) > 0 && body[0] != "" {
		if name, _, ok := strings.Cut(body[0], ": "); !ok || name == "" {
			return "", nil, errors.New("armor: no empty line between headers and data")
		}
		body = body[1:]
	}
	if len(body) == 0 {
		return "", nil, errors.New("armor: no data")
	}
	body = body[1:]

	sum, hasSum := "", false
	if n := len(body); n > 0 && strings.HasPrefix(body[n-1], "=") {
		sum, hasSum = body[n-1][1:], true
		body = body[:n-1]
	}
	for _, line := range body {
		if line == "" || len(line) > 96 || strings.HasPrefix(line, "-") {
			return "", nil, errors.New("armor: a data line is empty, too long or the edge of another block; wanted one block")
		}
	}
	data, err = base64.StdEncoding.Strict().DecodeString(strings.Join(body, ""))
	if err != nil {
		return "", nil, fmt.Errorf("armor: %w", err)
	}
	if len(data) == 0 {
		return "", nil, errors.New("armor: no data")
	}
	if hasSum {
		want := crc24(data)
		found, err := base64.StdEncoding.Strict().DecodeString(sum)
		if err != nil || !bytes.Equal(found, []byte{byte(want >> 16), byte(want >> 8), byte(want)}) {
			return "", nil, errors.New("armor: checksum does not match the data: the text is damaged")
		}
	}
	return kind, data, nil
}

func cutBoth(s, prefix, suffix string) (string, bool) {
	s, ok := strings.CutPrefix(s, prefix)
	if !ok {
		return "", false
	}
	return strings.CutSuffix(s, suffix)
}

// crc24 is the checksum of RFC 9580 section 6.1.1.
func crc24(data []byte) uint32 {
	crc := uint32(0xb704ce)
	for _, b := range data {
		crc ^= uint32(b) << 16
		for range 8 {
			crc <<= 1
			if crc&0x1000000 != 0 {
				crc ^= 0x1864cfb
			}
		}
	}
	return crc & 0xffffff
}
