package main

import (
	"os"
	"testing"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/openpgp"
)

// FuzzSignatureIssuer holds a reader of what anybody may have written to never
// reading past it, and to names of the one length that they have.
func FuzzSignatureIssuer(f *testing.F) {
	text, err := os.ReadFile("testdata/ancestor/test-app.tar.gz.asc")
	assert.NilError(f, err)
	packet, err := openpgp.Dearmor(text)
	assert.NilError(f, err)
	name, id := signatureIssuer(packet)
	assert.Equal(f, string(name), "297BE5B308041DEFF3EFE4BD6E4082C6A410F340")
	assert.Equal(f, id, "6E4082C6A410F340")
	f.Add(packet)
	f.Add(packet[:20])
	f.Fuzz(func(t *testing.T, packet []byte) {
		name, id := signatureIssuer(packet)
		assert.Assert(t, name == "" || len(name) == 40)
		assert.Assert(t, id == "" || len(id) == 16)
	})
}
