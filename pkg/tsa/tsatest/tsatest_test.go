package tsatest_test

import (
	"bytes"
	"net/http"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/timestamp"
	"github.com/vaultmesh/remembrancer/pkg/tsa/tsatest"
)

func TestWhatItAnswersVerifies(t *testing.T) {
	one := tsatest.New(t)
	data := []byte("data\n")
	v, err := one.Authority("one").Verify(one.Token(data), bytes.NewReader(data), time.Now())
	assert.NilError(t, err)
	assert.DeepEqual(t, v.Signer.Raw, one.Signer().Raw)

	two := one.Under()
	w, err := one.Authority("one").Verify(two.Token(data), bytes.NewReader(data), time.Now())
	assert.NilError(t, err)
	assert.Assert(t, v.SignerSPKI() != w.SignerSPKI())
	assert.Assert(t, !timestamp.Independent(2, v, w))

	two.Rotate()
	x, err := two.Authority("two").Verify(two.Token(data), bytes.NewReader(data), time.Now())
	assert.NilError(t, err)
	assert.Assert(t, x.SignerSPKI() != w.SignerSPKI())

	_, err = tsatest.New(t).Authority("other").Verify(two.Token(data), bytes.NewReader(data), time.Now())
	assert.ErrorContains(t, err, "it leads to no given root")

	resp, err := http.Get(one.URL)
	assert.NilError(t, err)
	assert.NilError(t, resp.Body.Close())
	assert.Equal(t, resp.StatusCode, http.StatusBadRequest)
	assert.Equal(t, one.Asked(), 1)
}
