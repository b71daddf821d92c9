package bench

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/covenant"
	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/publish"
	"github.com/vaultmesh/remembrancer/pkg/smoke"
)

// maxGrowth is what one machine verdict may add to a packed repository, in
// bytes: its line, the commit that publishes it and the claim before that.
const maxGrowth = 1024

// TestAPublishedVerdictGrowsThePackByLessThanAKilobyte publishes smoke reports
// one by one, as a busy main branch does, and packs the repository anew before
// and after.
func TestAPublishedVerdictGrowsThePackByLessThanAKilobyte(t *testing.T) {
	sizes := []int{1_000, 10_000}
	if os.Getenv("REMEMBRANCER_LONG") != "" {
		sizes = append(sizes, 1_000_000)
	}
	for _, size := range sizes {
		t.Run(fmt.Sprint(size, " entries"), func(t *testing.T) { growth(t, size, 20) })
	}
}
