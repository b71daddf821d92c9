package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

const passes = `true  checkpoint: log github.com/vaultmesh/example, size 3, root 17be743381409132ebe1fa84d0e0dfd380b8166850733f16ab60ae402a72bc67
true  inclusion: entry 1 of 3 leads to the root
true  issuer: signed by BF9F634CDA6337B9998D6DD63D4C6C7CE1394AE7
`

func verify(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(args, &out, &errs)
	return code, out.String(), errs.String()
}

func TestTheExampleVerifies(t *testing.T) {
	code, out, errs := verify("example.tlog-proof", "policy")
	assert.Equal(t, code, 0)
	assert.Equal(t, errs, "")
	assert.Assert(t, strings.HasPrefix(out, passes+`{"_type":"https://in-toto.io/Statement/v1",`), "%s", out)
}

func TestAChangedFileDoesNotVerify(t *testing.T) {
	good, err := os.ReadFile("example.tlog-proof")
	assert.NilError(t, err)
	write := func(data string) string {
		path := filepath.Join(t.TempDir(), "f")
		assert.NilError(t, os.WriteFile(path, []byte(data), 0o600))
		return path
	}
	code, out, errs := verify(write(strings.Replace(string(good), "\nindex 1\n", "\nindex 2\n", 1)), "policy")
	assert.Equal(t, code, 1)
	assert.Equal(t, errs, "")
	assert.Equal(t, out, strings.Replace(passes, "true  inclusion: entry 1 of 3 leads to the root",
		"false inclusion: proof: entry 2 does not lead to root 17be743381409132ebe1fa84d0e0dfd380b8166850733f16ab60ae402a72bc67 of size 3", 1))

	code, out, _ = verify(write(strings.Replace(string(good), "\n3\n", "\n4\n", 1)), "policy")
	assert.Equal(t, code, 1)
	assert.Assert(t, strings.HasPrefix(out, "false checkpoint: checkpoint: invalid signature"), "%s", out)

	policy, err := os.ReadFile("policy")
	assert.NilError(t, err)
	for name, args := range map[string][]string{
		"half a bundle":  {write(string(good[:300])), "policy"},
		"no bundle":      {"absent.tlog-proof", "policy"},
		"no policy":      {"example.tlog-proof", "absent"},
		"another policy": {"example.tlog-proof", write(string(policy) + "trust all\n")},
	} {
		code, out, errs = verify(args...)
		assert.Equal(t, code, 3, name)
		assert.Equal(t, out, "")
		assert.Assert(t, errs != "")
	}
	code, _, errs = verify("example.tlog-proof")
	assert.Equal(t, code, 2)
	assert.Equal(t, errs, "usage: verify BUNDLE POLICY\n")
}
