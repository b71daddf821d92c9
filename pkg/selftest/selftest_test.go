package selftest_test

import (
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/selftest"
)

func TestEveryCaseHolds(t *testing.T) {
	told := map[string]judge.Check{}
	checks, err := selftest.Run(t.Context(), selftest.Options{Nodes: 3, Random: rand.Reader, Now: time.Now, Done: func(c judge.Check) { told[c.ID] = c }})
	assert.NilError(t, err)
	assert.Equal(t, len(checks), 20)
	for _, c := range checks {
		assert.Check(t, c.Status == judge.Pass, "%s: %s: %s %v", c.ID, c.Status, c.Detail, c.Findings)
		assert.DeepEqual(t, told[c.ID], c)
		assert.Check(t, strings.HasPrefix(c.ID, "federation/"), c.ID)
	}
}

func TestHowManyNodesMayBeAskedFor(t *testing.T) {
	for _, n := range []int{-1, 1, 17} {
		_, err := selftest.Run(t.Context(), selftest.Options{Nodes: n, Random: rand.Reader, Now: time.Now})
		assert.ErrorContains(t, err, "want 2 to 16")
	}
}
