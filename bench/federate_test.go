package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/durable"
	"github.com/vaultmesh/remembrancer/pkg/federate"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
	"github.com/vaultmesh/remembrancer/pkg/merge"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

// BenchmarkIngest takes signed receipts into a node, 256 at a time as a peer pushes
// them: each is judged, and is on disk under a signed checkpoint when it counts. It
// is compared with the same lines in the directory store, which verifies nothing
// (ratio-unverified, how many times longer ours takes), and with a gpgv process for
// each receipt, which keeps nothing (ratio-gpgv, how many times longer that takes;
// it fails under two, which a disk that others keep busy does not reach).
//
// Whatever else the machine does, the processor time of one receipt is that of its
// signature's arithmetic, and the rest is less than that: cpu-ratio is how many times
// as much ours takes, and it fails over 2.5. reopen is what an entry costs when the
// node starts again, when nothing is written; cpu-ratio-reopen fails over 2.
func BenchmarkIngest(b *testing.B) {
	const (
		total = 2048
		page  = 256
		forks = 10
	)
	ctx := context.Background()
	now := time.Now().Add(-time.Hour)
	clock := func() time.Time { return now }
	secret, key, err := openpgp.Generate("local/bench", "", now, rand.Reader)
	assert.NilError(b, err)
	issuer, err := openpgp.FromArmored(secret, nil, clock)
	assert.NilError(b, err)
	keys := federate.Keys{Issuer: issuer}
	for name, to := range map[string]*string{"": &keys.Log, "/witness": &keys.Witness, "/set": &keys.Set} {
		*to, _, err = checkpoint.GenerateKey(rand.Reader, "local/bench"+name)
		assert.NilError(b, err)
	}
	trust, err := merge.NewTrust(merge.Member{Node: "local/bench", Key: key})
	assert.NilError(b, err)
	signer, err := checkpoint.NewSigner(keys.Log)
	assert.NilError(b, err)
	policy, err := checkpoint.ParsePolicy(checkpoint.NewPolicy(signer.VerifierKey()))
	assert.NilError(b, err)
	var (
		items   []merge.Item
		lines   [][]byte
		entries []receipt.Entry
	)
	for i := range total {
		r, err := receipt.New(receipt.Statement{
			Kind: receipt.Deploy, Issuer: issuer.Fingerprint(), Issued: now, Predicate: map[string]any{"n": i},
			Subjects: []receipt.Subject{{Name: "app", SHA256: strings.Repeat("ab", 32)}},
		})
		assert.NilError(b, err)
		sig, err := receipt.Sign(ctx, r, issuer)
		assert.NilError(b, err)
		e, err := receipt.NewEntry(r, sig)
		assert.NilError(b, err)
		entries = append(entries, e)
		lines = append(lines, e.Line())
		items = append(items, merge.Item{Line: string(e.Line())})
	}
	gpg := b.TempDir()
	file := func(name string, data []byte) string {
		path := filepath.Join(gpg, name)
		assert.NilError(b, os.WriteFile(path, data, 0o600))
		return path
	}
	keyring := file("k.gpg", key.Binary())
	for i, e := range entries[:forks] {
		file(fmt.Sprint(i), receipt.PAE(e.Receipt.Bytes()))
		file(fmt.Sprint(i, ".sig"), e.Signatures[0].Packet)
	}

	ring, err := openpgp.NewKeyring(key)
	assert.NilError(b, err)

	var ours, unverified, gpgv, reopen, cpuOurs, cpuReopen, cpuSignature times
	for b.Loop() {
		files, err := durable.CreateDir(b.TempDir())
		assert.NilError(b, err)
		s, err := federate.OpenStore(ctx, files, keys, trust, federate.StoreOptions{Now: clock})
		assert.NilError(b, err)
		ours.addWith(&cpuOurs, func() {
			for group := range slices.Chunk(items, page) {
				in, err := s.Add(ctx, "bench", group)
				assert.NilError(b, err)
				assert.Equal(b, in.Added, len(group))
			}
		})
		assert.NilError(b, s.Close())
		reopen.addWith(&cpuReopen, func() {
			s, err = federate.OpenStore(ctx, files, keys, trust, federate.StoreOptions{Now: clock})
			assert.NilError(b, err)
		})
		snap, err := s.Snapshot()
		assert.NilError(b, err)
		assert.Equal(b, snap.Count, total)
		assert.NilError(b, s.Close())
		assert.NilError(b, files.Close())

		plain, err := durable.CreateDir(b.TempDir())
		assert.NilError(b, err)
		d, err := ledger.OpenDir(ctx, plain, policy, signer, ledger.DirOptions{})
		assert.NilError(b, err)
		unverified.add(func() {
			for group := range slices.Chunk(lines, page) {
				_, err := d.AddAll(ctx, group)
				assert.NilError(b, err)
			}
		})
		d.Close()
		assert.NilError(b, plain.Close())
		new(times).addWith(&cpuSignature, func() {
			for _, e := range entries {
				assert.NilError(b, receipt.VerifySignature(e.Receipt, e.Signatures[0], ring, now))
			}
		})

		gpgv.add(func() {
			for i := range forks {
				cmd := exec.CommandContext(ctx, "gpgv", "--keyring", keyring, filepath.Join(gpg, fmt.Sprint(i, ".sig")), filepath.Join(gpg, fmt.Sprint(i)))
				out, err := cmd.CombinedOutput()
				assert.NilError(b, err, "%s", out)
			}
		})
	}
	each := ours.median() / total
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(1/each, "receipts/s")
	for name, t := range map[string]times{
		"µs-ours": ours, "µs-unverified": unverified, "µs-reopen": reopen,
		"cpu-µs-ours": cpuOurs, "cpu-µs-reopen": cpuReopen, "cpu-µs-signature": cpuSignature,
	} {
		b.ReportMetric(1e6*t.median()/total, name)
	}
	b.ReportMetric(1e6*gpgv.median()/forks, "µs-gpgv")
	b.ReportMetric(ours.median()/unverified.median(), "ratio-unverified")
	ratio := gpgv.median() / forks / each
	cpuRatio, cpuRatioReopen := cpuOurs.median()/cpuSignature.median(), cpuReopen.median()/cpuSignature.median()
	b.ReportMetric(ratio, "ratio-gpgv")
	b.ReportMetric(cpuRatio, "cpu-ratio")
	b.ReportMetric(cpuRatioReopen, "cpu-ratio-reopen")
	if len(ours) >= 3 && ratio < 2 {
		b.Errorf("%.1f times as fast as gpgv, want at least 2", ratio)
	}
	if len(ours) >= 3 && (cpuRatio > 2.5 || cpuRatioReopen > 2) {
		b.Errorf("%.2f times the processor time of the signature, and %.2f to open again, want at most 2.5 and 2", cpuRatio, cpuRatioReopen)
	}
}

// addWith is add that takes down the processor time of the whole process as well,
// which other processes do not add to.
func (t *times) addWith(cpu *times, run func()) {
	var before, after syscall.Rusage
	t.add(func() {
		err := syscall.Getrusage(syscall.RUSAGE_SELF, &before)
		run()
		if err := errors.Join(err, syscall.Getrusage(syscall.RUSAGE_SELF, &after)); err != nil {
			panic(err)
		}
	})
	*cpu = append(*cpu, time.Duration(after.Utime.Nano()+after.Stime.Nano()-before.Utime.Nano()-before.Stime.Nano()))
}
