package covenant_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/covenant"
	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

// outcomes writes checks as "id status" a line.
func outcomes(checks []judge.Check) string {
	var b strings.Builder
	for _, c := range checks {
		fmt.Fprintf(&b, "%s %s\n", c.ID, c.Status)
	}
	return b.String()
}

func messages(c judge.Check) (all []string) {
	for _, f := range c.Findings {
		all = append(all, f.Place()+": "+f.Message)
	}
	return all
}

func TestChecksAreNamed(t *testing.T) {
	r := sound(t)
	assert.Equal(t, outcomes(covenant.Audit(r, options()).Checks()), `integrity/paths pass
integrity/checkpoint pass
integrity/entries pass
integrity/lines pass
integrity/signatures pass
integrity/receipt-files pass
integrity/root-line pass
integrity/badge pass
integrity/append-only pass
`)
	base, merge := pull(t)
	assert.Equal(t, outcomes(covenant.CheckChange(base, merge, change()).Checks()), `integrity/ledger-unchanged pass
integrity/receipts-only-added pass
integrity/names-and-attributes pass
integrity/gate-owned pass
integrity/reserved-kinds pass
`)
}

// What is red in a report is red among its checks, and nothing else is.
func TestChecksSayWhatTheReportSays(t *testing.T) {
	agree := func(t *testing.T, r *covenant.Report) {
		t.Helper()
		want := map[string]int{}
		for _, f := range r.Findings {
			want[f.Status]++
		}
		got := map[string]int{}
		for _, c := range r.Checks() {
			if c.ID != "integrity/badge" {
				got[c.Status.String()]++
			}
			if c.ID == "integrity/root-line" && c.Status == judge.Pass && finding(t, r, 7).Status != "pass" {
				got["pass"]--
				got[finding(t, r, 7).Status]++
			}
		}
		for _, s := range []string{"pass", "fail", "error"} {
			assert.Equal(t, got[s], want[s], "%s\n%s", s, outcomes(r.Checks()))
		}
		assert.Equal(t, judge.Sum(r.Checks(), nil).Status.String(), r.Status().String())
	}
	for _, e := range evils() {
		r, o := sound(t), options()
		e.do(t, r, &o)
		agree(t, covenant.Audit(r, o))
	}
	for _, w := range wrongs() {
		base, merge := pull(t)
		w.do(t, merge)
		agree(t, covenant.CheckChange(base, merge, change()))
	}
}

func TestABadgeThatLiesIsNotTheRootLines(t *testing.T) {
	r := sound(t)
	r.put("ops/status/badge.json", "27/27")
	got := covenant.Audit(r, options()).Checks()
	assert.Equal(t, got[6].Status, judge.Pass)
	assert.Equal(t, got[7].Status, judge.Fail)
	assert.Assert(t, strings.HasPrefix(got[7].Detail, "ops/status/badge.json says 27/27, the last admitted verdict makes it "), got[7].Detail)
}

func TestWhereApprovalCannotBeKnownItIsShownAndNotDemanded(t *testing.T) {
	base, merge := pull(t)
	merge.put("SMOKE_TEST.sh", "exit 0\n")
	c := change()
	assert.Equal(t, letters(covenant.CheckChange(base, merge, c)), "PPPFP")
	c.ApprovalUnknown = true
	r := covenant.CheckChange(base, merge, c)
	assert.Equal(t, letters(r), "PPPPP")
	assert.Equal(t, finding(t, r, 12).Detail, "gate-owned path changed: the guard demands a code owner's approval of SMOKE_TEST.sh")
	assert.DeepEqual(t, r.Checks()[3], judge.Check{
		ID: "integrity/gate-owned", Claim: "what decides the gates is unchanged, or approved by a code owner", Status: judge.Pass,
		Detail:   "1 changed; approval cannot be known here",
		Findings: []judge.Finding{{Path: "SMOKE_TEST.sh", Message: "gate-owned path changed: the guard demands a code owner's approval", Warning: true}},
	})
	c.Owned = []string{"["}
	assert.Equal(t, letters(covenant.CheckChange(base, merge, c)), "PPPEP", "nobody knows what is owned")
}

// counted is a badge rule with counts, as the publisher's is.
func counted(e receipt.Entry) (map[string][]byte, bool) {
	if e.Receipt.Kind() != receipt.Smoke {
		return nil, false
	}
	return map[string][]byte{covenant.BadgeFile: []byte(`{"tests":{"pass":26,"total":27,"pct":96.29}}`), covenant.ShieldsFile: []byte("{}")}, true
}

func TestDocumentsStateTheTruth(t *testing.T) {
	const lie = "0000000000000000000000000000000000000000000000000000000000000000"
	body := head(t, sound(t))
	root := fmt.Sprintf("%x", body.Root[:])
	for _, tc := range []struct {
		name, path, text string
		status           judge.Status
		says             string
	}{
		{"the true root", "README.md", "# A\n\nMerkle Root: " + root + "\n", judge.Pass, ""},
		{"another root", "README.md", "# A\n\nMerkle Root: " + lie + "\n", judge.Fail, "README.md:3: states the root " + lie + ", the ledger's is " + root},
		{"emphasised in a list", "docs/a/b.md", "- **Merkle Root**: `" + lie + "`\r\n", judge.Fail, "docs/a/b.md:1: states the root " + lie + ", the ledger's is " + root},
		{"in a table of letters", "README.MD", "> merkle root: " + lie, judge.Fail, "README.MD:1: states the root " + lie + ", the ledger's is " + root},
		{"the true count", "README.md", "**Tests: 26/27**\n", judge.Pass, ""},
		{"another count", "README.md", "✅ 27/27 tests passed!\n", judge.Fail, "README.md:1: states 27/27 tests, the last admitted verdict is 26/27"},
		{"a heading", "README.md", "## Smoke tests: 26/26 passing\n", judge.Fail, "README.md:1: states 26/26 tests, the last admitted verdict is 26/27"},
		{"a shield", "README.md", "see ![](https://img.shields.io/badge/tests-26%2F26-green.svg) there", judge.Fail, "README.md:1: states 26/26 tests, the last admitted verdict is 26/27"},
		{"a true shield", "README.md", "[![t](https://img.shields.io/badge/tests-26%2F27%20passed-green)](x)", judge.Pass, ""},
		{"a smoke shield", "README.md", "https://img.shields.io/badge/smoke_tests-1/1-green", judge.Fail, "README.md:1: states 1/1 tests, the last admitted verdict is 26/27"},
		{"leading zeros", "README.md", "Tests: 026/0027\n", judge.Pass, ""},

		{"nothing", "README.md", "# A\n", judge.Unclaimed, ""},
		{"prose", "README.md", "When 20/26 tests pass the gate says no, and Tests: 1/2 is no claim.\nRATING: 8.0/10\n", judge.Unclaimed, ""},
		{"a root in prose", "README.md", "The Merkle Root: " + lie + " was an old one.\n", judge.Unclaimed, ""},
		{"fenced code", "README.md", "```text\nMerkle Root: " + lie + "\n27/27 tests\n```\n", judge.Unclaimed, ""},
		{"a longer fence", "README.md", "~~~~\n~~~\n27/27 tests\n~~~~\n", judge.Unclaimed, ""},
		{"after the fence", "README.md", "```\ncode\n```\n27/27 tests\n", judge.Fail, "README.md:4: states 27/27 tests, the last admitted verdict is 26/27"},
		{"a change log", "CHANGELOG.md", "27/27 tests\n", judge.Unclaimed, ""},
		{"a release", "docs/releases/v1.md", "27/27 tests\n", judge.Unclaimed, ""},
		{"an archive", "docs/archive/a.md", "27/27 tests\n", judge.Unclaimed, ""},
		{"elsewhere", "vendor/x/README.md", "27/27 tests\n", judge.Unclaimed, ""},
		{"no Markdown", "docs/a.txt", "27/27 tests\n", judge.Unclaimed, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, o := sound(t), options()
			o.Badge = counted
			r.remove(layout.Docs)
			doc, err := covenant.WithRoot([]byte("# Index\n"), body.Root)
			assert.NilError(t, err)
			r.put("index.txt", string(doc))
			o.Layout.Docs = "index.txt"
			r.put(tc.path, tc.text)
			c := covenant.Documents(r, covenant.Audit(r, o), o)
			assert.Equal(t, c.Status, tc.status, c.Detail)
			assert.Equal(t, strings.Join(messages(c), "\n"), tc.says)
		})
	}
}

func TestDocumentsCannotClaimWhatNobodyAdmitted(t *testing.T) {
	r, o := repo(t, nil), options()
	o.Badge = counted
	r.put("README.md", "27/27 tests\n")
	c := covenant.Documents(r, covenant.Audit(r, o), o)
	assert.DeepEqual(t, messages(c), []string{"README.md:1: states 27/27 tests, but the ledger has admitted no verdict on them"})
	assert.Equal(t, c.Status, judge.Fail)
}

func TestWithoutALedgerDocumentsAreNotJudged(t *testing.T) {
	r, o := sound(t), options()
	r.put("README.md", "27/27 tests\n")
	assert.Equal(t, covenant.Documents(r, &covenant.Report{}, o).Status, judge.Error)
	lost := r.clone()
	lost.edit("ops/ledger/checkpoint", "— ", "— x")
	assert.Equal(t, covenant.Documents(lost, covenant.Audit(lost, o), o).Status, judge.Error)
	audit := covenant.Audit(r, o)
	assert.Equal(t, covenant.Documents(r, audit, o).Status, judge.Error, "the verdict is no badge that can be read")
	o.Badge = counted
	r.broken["README.md"] = errGone
	assert.Equal(t, covenant.Documents(r, audit, o).Status, judge.Error)
}

func TestFederationJudgesWhatExists(t *testing.T) {
	r := sound(t)
	audit := covenant.Audit(r, options())
	got := covenant.Federation(r, layout, audit)
	assert.Equal(t, outcomes(got), "federation/deterministic-merge pass\nfederation/receipts unclaimed\n")
	assert.Assert(t, strings.HasPrefix(got[0].Detail, "4 receipts of the log, merged in 7 ways: set root "), got[0].Detail)
	assert.Assert(t, strings.HasPrefix(covenant.Federation(r, layout, covenant.Audit(repo(t, nil), options()))[0].Detail, "the log has none to merge; a fixed vector, merged in 7 ways"))

	// A log that cannot be read is not an empty one.
	lost := sound(t)
	lost.edit(segment, "payload", "pajload")
	for _, r := range []*covenant.Report{covenant.Audit(lost, options()), {}} {
		assert.Equal(t, outcomes(covenant.Federation(lost, layout, r)), "federation/deterministic-merge error\nfederation/receipts error\n")
	}
}

// detached is an armored signature of data by a test key.
func detached(t testing.TB, name, data string) string {
	t.Helper()
	sig, err := signer(t, name).Sign(t.Context(), []byte(data))
	assert.NilError(t, err)
	return string(openpgp.Armor(sig))
}

func chain(t testing.TB, r *tree) covenant.Chain {
	t.Helper()
	trust, err := covenant.LoadTrust(r, layout)
	assert.NilError(t, err)
	return covenant.Chain{Tree: r, Trust: trust, Now: now, Stamps: stamps}
}

// stamps believes a token that says "stamp of" its file.
func stamps(file string, data []byte, there []string, read func(string) ([]byte, error)) ([]string, string, error) {
	for _, name := range []string{file + ".tsr", file + ".one.tsr"} {
		if !slices.Contains(there, name) {
			continue
		}
		token, err := read(name)
		switch {
		case err != nil:
			return nil, "", err
		case string(token) == "stamp of "+string(data):
			return []string{name + " is good"}, "", nil
		case string(token) == "stranger's":
			return nil, "", errors.New(name + " is of nobody known")
		}
		return nil, name + " is bad", nil
	}
	return nil, file + ".tsr is missing", nil
}

func TestArtifactsWithoutEvidenceFail(t *testing.T) {
	artifact := func() (*tree, covenant.Chain) {
		r := sound(t)
		r.put("dist/app.tar.gz", "app")
		r.put("dist/app.tar.gz.asc", detached(t, "endorser", "app"))
		r.put("dist/SHA256SUMS", digest([]byte("x"))+"  other\n"+digest([]byte("app"))+" *app.tar.gz\n")
		return r, chain(t, r)
	}
	patterns := []string{"dist/*"}
	for _, tc := range []struct {
		name string
		do   func(r *tree, c *covenant.Chain)
		want string // of digest, signature and timestamp
		says string
	}{
		{"no token", func(*tree, *covenant.Chain) {}, "PPF", "dist/app.tar.gz: app.tar.gz.tsr is missing"},
		{"a good token", func(r *tree, _ *covenant.Chain) { r.put("dist/app.tar.gz.tsr", "stamp of app") }, "PPP", ""},
		{"a good token of a named authority", func(r *tree, _ *covenant.Chain) { r.put("dist/app.tar.gz.one.tsr", "stamp of app") }, "PPP", ""},
		{"a token of something else", func(r *tree, _ *covenant.Chain) { r.put("dist/app.tar.gz.tsr", "stamp of old") }, "PPF", "dist/app.tar.gz: app.tar.gz.tsr is bad"},
		{"a token of a stranger", func(r *tree, _ *covenant.Chain) { r.put("dist/app.tar.gz.tsr", "stranger's") }, "PPE", ""},
		{"a token of another file", func(r *tree, _ *covenant.Chain) { r.put("dist/app.tar.gz.x.tsr", "stamp of app") }, "PPF", "dist/app.tar.gz: app.tar.gz.tsr is missing"},
		{"a token in another folder", func(r *tree, _ *covenant.Chain) {
			r.put("dist/deep/app.tar.gz.tsr", "stamp of app")
			r.put("app.tar.gz.tsr", "stamp of app")
		}, "PPF", "dist/app.tar.gz: app.tar.gz.tsr is missing"},
		{"a token that nobody can judge", func(r *tree, c *covenant.Chain) {
			r.put("dist/app.tar.gz.tsr", "stamp of app")
			c.Stamps = nil
		}, "PPE", ""},
		{"no digest", func(r *tree, _ *covenant.Chain) { r.remove("dist/SHA256SUMS") }, "FPF", "dist/app.tar.gz: has SHA-256 " + digest([]byte("app")) + ", which no SHA256SUMS, no app.tar.gz.sha256 and no admitted receipt states"},
		{"another digest", func(r *tree, _ *covenant.Chain) {
			r.put("dist/app.tar.gz.sha256", digest([]byte("old"))+"  app.tar.gz")
		}, "FPF", "dist/app.tar.gz: has SHA-256 " + digest([]byte("app")) + ", dist/app.tar.gz.sha256 states " + digest([]byte("old"))},
		{"no SHA-256", func(r *tree, _ *covenant.Chain) { r.put("dist/SHA256SUMS", "abc  app.tar.gz\n") }, "FPF", "dist/app.tar.gz: dist/SHA256SUMS:1 is not a SHA-256 and a name"},
		{"a receipt states it", func(r *tree, c *covenant.Chain) {
			r.remove("dist/SHA256SUMS")
			c.Entries = []receipt.Entry{entry(t, statement(t, receipt.Deploy, "app-v9", nil, receipt.Subject{Name: "app.tar.gz", SHA256: digest([]byte("app"))}), "issuer")}
		}, "PPF", ""},
		{"a receipt states another", func(r *tree, c *covenant.Chain) {
			r.remove("dist/SHA256SUMS")
			c.Entries = []receipt.Entry{entry(t, statement(t, receipt.Deploy, "app-v9", nil, receipt.Subject{Name: "app.tar.gz", SHA256: digest([]byte("old"))}), "issuer")}
		}, "FPF", ""},
		{"no signature", func(r *tree, _ *covenant.Chain) { r.remove("dist/app.tar.gz.asc") }, "PFF", "dist/app.tar.gz: app.tar.gz.asc is missing"},
		{"a signature of something else", func(r *tree, _ *covenant.Chain) { r.put("dist/app.tar.gz.asc", detached(t, "issuer", "old")) }, "PFF", ""},
		{"a signature of a stranger", func(r *tree, c *covenant.Chain) {
			r.remove("ops/certs/endorser.asc")
			*c = chain(t, r)
		}, "PFF", ""},
		{"no armor", func(r *tree, _ *covenant.Chain) { r.put("dist/app.tar.gz.asc", "hello") }, "PFF", "dist/app.tar.gz: app.tar.gz.asc: armor: does not start with a -----BEGIN ...----- line"},
		{"no anchors", func(_ *tree, c *covenant.Chain) { c.Trust = nil }, "PEF", ""},
		{"a link", func(r *tree, _ *covenant.Chain) { r.link("dist/app.tar.gz", "x") }, "FFF", "dist/app.tar.gz: is not a regular file"},
		{"nothing", func(r *tree, _ *covenant.Chain) { r.remove("dist/app.tar.gz") }, "FFF", ": no artifact is named by dist/*"},
		{"gone", func(r *tree, _ *covenant.Chain) { r.broken["dist/app.tar.gz"] = errGone }, "EEF", ""},
		{"gone evidence", func(r *tree, _ *covenant.Chain) {
			r.put("dist/app.tar.gz.tsr", "stamp of app")
			r.broken["dist/SHA256SUMS"], r.broken["dist/app.tar.gz.asc"], r.broken["dist/app.tar.gz.tsr"] = errGone, errGone, errGone
		}, "EEE", ""},
		{"no listing of the folder", func(r *tree, _ *covenant.Chain) { r.broken["walk dist"] = errGone }, "PPE", ""},
		{"no listing", func(r *tree, _ *covenant.Chain) { r.broken["walk "] = errGone }, "EEE", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, c := artifact()
			tc.do(r, &c)
			got, all := "", ""
			for _, k := range covenant.Artifacts(c, patterns) {
				got += strings.ToUpper(k.Status.String())[:1]
				all += strings.Join(messages(k), "\n") + "\n"
			}
			assert.Equal(t, got, tc.want, all)
			assert.Assert(t, strings.Contains(all, tc.says), all)
		})
	}
	_, c := artifact()
	assert.Equal(t, outcomes(covenant.Artifacts(c, nil)), "proof-chain/digest unclaimed\nproof-chain/signature unclaimed\nproof-chain/timestamp unclaimed\n")
}

func TestArtifactsMayLieInTheWorkTree(t *testing.T) {
	r := sound(t)
	c := chain(t, r)
	c.Files = fstest.MapFS{
		".git/x": {Data: []byte("no")}, "dist/app": {Data: []byte("app")}, "dist/app.asc": {Data: []byte(detached(t, "issuer", "app"))},
		"dist/app.sha256": {Data: []byte(digest([]byte("app")) + "  app\n")},
	}
	assert.Equal(t, outcomes(covenant.Artifacts(c, []string{"**/app", "dist/**"})), "proof-chain/digest pass\nproof-chain/signature pass\nproof-chain/timestamp fail\n")
	c.Files.(fstest.MapFS)["dist/app.tsr"] = &fstest.MapFile{Data: []byte("stamp of app")}
	got := covenant.Artifacts(c, []string{"dist/app"})
	assert.Equal(t, outcomes(got), "proof-chain/digest pass\nproof-chain/signature pass\nproof-chain/timestamp pass\n")
	assert.DeepEqual(t, got[2].Evidence, []string{"app.tsr is good"})
	r.put("dist/app", "committed")
	assert.Equal(t, outcomes(covenant.Artifacts(c, []string{"dist/app"})), "proof-chain/digest fail\nproof-chain/signature fail\nproof-chain/timestamp fail\n", "what is committed is what is judged")
}

func TestGenesis(t *testing.T) {
	r := sound(t)
	c := chain(t, r)
	assert.Equal(t, covenant.Genesis(c).Status, judge.Unclaimed)
	r.put(covenant.GenesisFile, "a: b\n")
	got := covenant.Genesis(c)
	assert.Equal(t, got.Status, judge.Fail)
	assert.DeepEqual(t, messages(got), []string{"dist/genesis.tar.gz: is missing", "dist/genesis.tar.gz.asc: is missing"})
	r.put(covenant.GenesisArchive, "tar")
	r.put("dist/SHA256SUMS", digest([]byte("tar"))+"  genesis.tar.gz\n")
	r.put(covenant.GenesisArchive+".asc", detached(t, "issuer", "tar"))
	assert.DeepEqual(t, messages(covenant.Genesis(c)), []string{"dist/genesis.tar.gz: genesis.tar.gz.tsr is missing"})
	r.put(covenant.GenesisArchive+".tsr", "stranger's")
	got = covenant.Genesis(c)
	assert.Equal(t, got.Status, judge.Error)
	assert.Equal(t, got.Detail, "dist/genesis.tar.gz: genesis.tar.gz.tsr is of nobody known")
	r.put(covenant.GenesisArchive+".tsr", "stamp of tar")
	got = covenant.Genesis(c)
	assert.Equal(t, got.Status, judge.Pass)
	assert.DeepEqual(t, got.Evidence, []string{"genesis.tar.gz.tsr is good"})
	r.put(covenant.GenesisArchive+".asc", detached(t, "issuer", "other"))
	assert.Equal(t, covenant.Genesis(c).Status, judge.Fail)
	r.broken[covenant.GenesisFile] = errGone
	assert.Equal(t, covenant.Genesis(c).Status, judge.Error)
}

// waive puts a waiver into a tree, signed by these keys.
func waive(t testing.TB, r *tree, name string, predicate map[string]any, issued time.Time, signers ...string) {
	t.Helper()
	w, err := receipt.New(receipt.Statement{
		Kind: receipt.Waiver, Issuer: signer(t, "issuer").Fingerprint(), Name: name, Issued: issued,
		Subjects: []receipt.Subject{{Name: "waiver/" + name, SHA256: digest([]byte(name))}}, Predicate: predicate,
	})
	assert.NilError(t, err)
	r.put(layout.Receipt(w.File()), string(w.Bytes()))
	for _, s := range signers {
		sig, err := receipt.Sign(t.Context(), w, signer(t, s))
		assert.NilError(t, err)
		r.put(layout.Receipt(w.SignatureFile(sig.Fingerprint)), string(openpgp.Armor(sig.Packet)))
	}
}

func links() judge.Check {
	return judge.Judged("hygiene/links", "links resolve", "", judge.Finding{Path: "a.md", Message: "m"}, judge.Finding{Path: "b.md", Message: "m"}, judge.Finding{Path: "c.md", Message: "m", Warning: true})
}

func TestOnlyASignedUnexpiredWaiverOfTheBaseCounts(t *testing.T) {
	const day = 24 * time.Hour
	fields := func(change ...string) map[string]any {
		m := map[string]any{"check": "hygiene/links", "reason": "moving house", "expires": now.Add(30 * day).Format(time.RFC3339)}
		for i := 0; i < len(change); i += 2 {
			m[change[i]] = change[i+1]
			if change[i+1] == "" {
				delete(m, change[i])
			}
		}
		return m
	}
	yesterday := now.Add(-day)
	for _, tc := range []struct {
		name      string
		predicate map[string]any
		issued    time.Time
		signers   []string
		why       string // "" when it counts
	}{
		{"sound", fields(), yesterday, []string{"issuer"}, ""},
		{"at its longest", fields("expires", yesterday.Add(90*day).Format(time.RFC3339)), yesterday, []string{"issuer"}, ""},
		{"of a path", fields("path", "docs/a.md"), yesterday, []string{"issuer"}, ""},
		{"unsigned", fields(), yesterday, nil, "its issuer BF9F634CDA6337B9998D6DD63D4C6C7CE1394AE7 has not signed it: remembrancer sign ops/receipts/waiver/w.receipt"},
		{"signed by another", fields(), yesterday, []string{"endorser"}, "its issuer BF9F634CDA6337B9998D6DD63D4C6C7CE1394AE7 has not signed it: remembrancer sign ops/receipts/waiver/w.receipt"},
		{"expired", fields("expires", now.Format(time.RFC3339)), yesterday, []string{"issuer"}, "it expired at 2025-10-22T18:00:00Z"},
		{"too long", fields("expires", yesterday.Add(91*day).Format(time.RFC3339)), yesterday, []string{"issuer"}, "it lasts 91 days, want at most 90"},
		{"issued in the future", fields("expires", now.Add(400*day).Format(time.RFC3339)), now.Add(350 * day), []string{"issuer"}, "it was issued in the future, at 2026-10-07T18:00:00Z"},
		{"without an end", fields("expires", ""), yesterday, []string{"issuer"}, `expires is "", want an RFC 3339 time in UTC, as 2006-01-02T15:04:05Z`},
		{"with another end", fields("expires", "tomorrow"), yesterday, []string{"issuer"}, `expires is "tomorrow", want an RFC 3339 time in UTC, as 2006-01-02T15:04:05Z`},
		{"without a reason", fields("reason", " "), yesterday, []string{"issuer"}, "it gives no reason"},
		{"of nothing", fields("check", ""), yesterday, []string{"issuer"}, `"" is not the id of a check, such as hygiene/links`},
		{"of a covenant", fields("check", "hygiene"), yesterday, []string{"issuer"}, `"hygiene" is not the id of a check, such as hygiene/links`},
		{"of the ledger", fields("check", "integrity/entries"), yesterday, []string{"issuer"}, "integrity/entries cannot be waived: it keeps the ledger honest"},
		{"of a path outside", fields("path", "../x"), yesterday, []string{"issuer"}, `path "../x" is none of the repository`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := sound(t)
			waive(t, r, "w", tc.predicate, tc.issued, tc.signers...)
			valid, ignored, err := covenant.Waivers(r, layout, now)
			assert.NilError(t, err)
			if tc.why == "" {
				assert.Equal(t, len(valid), 1)
				assert.Equal(t, len(ignored), 0)
				return
			}
			assert.Equal(t, len(valid), 0)
			assert.DeepEqual(t, ignored, []judge.Finding{{Path: "ops/receipts/waiver/w.receipt", Message: "this waiver does not count: " + tc.why, Warning: true}})
		})
	}
	t.Run("a forged signature", func(t *testing.T) {
		r := sound(t)
		waive(t, r, "w", fields(), yesterday, "issuer")
		for p := range r.files {
			if strings.HasPrefix(p, "ops/receipts/waiver/w.receipt.") {
				r.put(p, detached(t, "issuer", "something else"))
			}
		}
		valid, ignored, err := covenant.Waivers(r, layout, now)
		assert.NilError(t, err)
		assert.Equal(t, len(valid), 0)
		assert.Equal(t, len(ignored), 1)
	})
	t.Run("an issuer who is no anchor", func(t *testing.T) {
		r := sound(t)
		waive(t, r, "w", fields(), yesterday, "issuer")
		r.remove("ops/certs/issuer.asc")
		valid, _, err := covenant.Waivers(r, layout, now)
		assert.NilError(t, err)
		assert.Equal(t, len(valid), 0)
	})
	t.Run("another kind in its folder", func(t *testing.T) {
		r := sound(t)
		r.put("ops/receipts/waiver/app-v1.receipt", text(t, receipt.Deploy, "app-v1"))
		valid, ignored, err := covenant.Waivers(r, layout, now)
		assert.NilError(t, err)
		assert.Equal(t, len(valid), 0)
		assert.Equal(t, len(ignored), 1)
	})
	t.Run("unreadable", func(t *testing.T) {
		r := sound(t)
		waive(t, r, "w", fields(), yesterday, "issuer")
		r.broken["ops/receipts/waiver/w.receipt"] = errGone
		_, _, err := covenant.Waivers(r, layout, now)
		assert.ErrorContains(t, err, "object is missing")
	})
	t.Run("no trust state", func(t *testing.T) {
		r := sound(t)
		waive(t, r, "w", fields(), yesterday, "issuer")
		r.remove("ops/ledger/policy")
		_, _, err := covenant.Waivers(r, layout, now)
		assert.ErrorContains(t, err, "policy is missing")
	})
	t.Run("none", func(t *testing.T) {
		valid, ignored, err := covenant.Waivers(newTree(), layout, now)
		assert.NilError(t, err)
		assert.Equal(t, len(valid)+len(ignored), 0)
	})
}

func TestAWaiverCoversItsCheckAndNothingElse(t *testing.T) {
	whole := covenant.Waiver{Check: "hygiene/links", Reason: "moving", Expires: now, Issuer: "AB", File: "w"}
	a, b, other := whole, whole, whole
	a.Path, b.Path, other.Check = "a.md", "b.md", "hygiene/size"
	const text = "by AB until 2025-10-22T18:00:00Z: moving (w)"
	for _, tc := range []struct {
		name    string
		check   judge.Check
		waivers []covenant.Waiver
		want    string
	}{
		{"the whole check", links(), []covenant.Waiver{other, whole}, text},
		{"all its paths", links(), []covenant.Waiver{a, b}, text + "; " + text},
		{"one of its paths", links(), []covenant.Waiver{a}, ""},
		{"another check", links(), []covenant.Waiver{other}, ""},
		{"nobody", links(), nil, ""},
		{"a path, of a fail without paths", judge.Judged("hygiene/links", "", "", judge.Finding{Message: "m"}), []covenant.Waiver{a}, ""},
		{"a path, of a fail without findings", judge.Check{ID: "hygiene/links", Status: judge.Fail}, []covenant.Waiver{a}, ""},
		{"an error", judge.Unjudged("hygiene/links", "", errGone), []covenant.Waiver{whole}, ""},
		{"a pass", judge.Judged("hygiene/links", "", ""), []covenant.Waiver{whole}, ""},
		{"what nobody may waive", judge.Check{ID: "integrity/entries", Status: judge.Fail}, []covenant.Waiver{{Check: "integrity/entries", Reason: "x"}}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := covenant.Waive([]judge.Check{tc.check}, tc.waivers)[0]
			assert.Equal(t, got.Waived, tc.want)
			assert.Equal(t, got.Status, tc.check.Status)
		})
	}
}

func TestWhatKeepsTheLedgerHonestCannotBeWaived(t *testing.T) {
	base, merge := pull(t)
	var ids []string
	for _, c := range append(covenant.Audit(base, options()).Checks(), covenant.CheckChange(base, merge, change()).Checks()...) {
		if covenant.Waivable(c.ID) == nil {
			ids = append(ids, c.ID)
		}
	}
	assert.DeepEqual(t, ids, []string{"integrity/gate-owned"})
	assert.NilError(t, covenant.Waivable("integrity/documents"))
	assert.NilError(t, covenant.Waivable("custom/licence-headers"))
	assert.Error(t, covenant.Waivable("integrity/required"), "integrity/required cannot be waived: it keeps the ledger honest")
	assert.Error(t, covenant.Waivable("doctor/x"), `"doctor/x" is not the id of a check, such as hygiene/links`)
}

// Code is an example of what somebody could claim, and no claim.
func FuzzFencedTextClaimsNothing(f *testing.F) {
	f.Add("27/27 tests")
	f.Add("~~~\nMerkle Root: " + strings.Repeat("0", 64) + "\n")
	f.Add("> ```\nhttps://img.shields.io/badge/tests-1%2F2-green")
	base, o := sound(f), options()
	o.Badge = counted
	audit := covenant.Audit(base, o)
	index := base.text(layout.Docs)
	f.Fuzz(func(t *testing.T, text string) {
		r := newTree()
		r.put(layout.Docs, index)
		want := covenant.Documents(r, audit, o)
		fence := strings.Repeat("`", strings.Count(text, "`")+3)
		r.put("README.md", fence+"\n"+text+"\n"+fence+"\n")
		got := covenant.Documents(r, audit, o)
		assert.Equal(t, got.Status, want.Status)
		assert.DeepEqual(t, got.Findings, want.Findings)
	})
}

// Whatever a waiver says, without its issuer's signature it counts for nothing.
func FuzzAnUnsignedWaiverNeverCounts(f *testing.F) {
	base := sound(f)
	waive(f, base, "w", map[string]any{"check": "hygiene/links", "reason": "r", "expires": now.Add(time.Hour).Format(time.RFC3339)}, now, "issuer")
	const p = "ops/receipts/waiver/w.receipt"
	signed := base.text(p)
	f.Add(signed)
	f.Add(strings.Replace(signed, "links", "names", 1))
	f.Add("{}")
	f.Fuzz(func(t *testing.T, statement string) {
		r := base.clone()
		r.put(p, statement)
		valid, _, err := covenant.Waivers(r, layout, now)
		assert.NilError(t, err)
		assert.Equal(t, len(valid) == 1, statement == signed, "only what was signed counts")
	})
}
