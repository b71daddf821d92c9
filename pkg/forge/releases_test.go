package forge_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/forge"
	"github.com/vaultmesh/remembrancer/pkg/forge/forgetest"
	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
)

// released is a repository with a release v1.
type released struct {
	fake *forgetest.Fake
	all  *forgetest.Releases
	v1   *forgetest.Release
	repo *forge.Repository
	rel  forge.Release
	w    *waits
}

func newReleased(t *testing.T) *released {
	t.Helper()
	f, repo := acme(t)
	r := &released{fake: f, all: f.AddReleases(repo)}
	r.v1 = r.all.AddRelease("v1")
	rest, w := newREST(t, f.URL)
	r.w = w
	var err error
	r.repo, err = rest.Repository("acme/app")
	assert.NilError(t, err)
	r.rel, err = r.repo.Release(t.Context(), "v1")
	assert.NilError(t, err)
	f.Calls()
	return r
}

func three() []forge.File {
	return []forge.File{forge.NewFile("a.tar.gz", []byte("aaaa")), forge.NewFile("empty", nil), forge.NewFile("SHA256SUMS", []byte("sums\n"))}
}

func (r *released) holds(t *testing.T, files []forge.File) {
	t.Helper()
	assert.Equal(t, len(r.v1.Assets), len(files))
	for _, f := range files {
		i := slices.Index(r.v1.Names(), f.Name)
		assert.Assert(t, i >= 0, f.Name)
		body, err := f.Open()
		assert.NilError(t, err)
		data, err := io.ReadAll(body)
		assert.NilError(t, err)
		assert.Assert(t, bytes.Equal(r.v1.Assets[i].Data, data), f.Name)
		assert.Assert(t, !r.v1.Assets[i].Open)
	}
}

func TestAReleaseIsFoundByItsTagDraftsToo(t *testing.T) {
	r := newReleased(t)
	assert.Equal(t, r.rel.ID, r.v1.ID)
	for i := range 120 {
		r.all.AddRelease(fmt.Sprintf("old-%d", i))
	}
	draft := r.all.AddRelease("v2")
	draft.Draft = true
	found, err := r.repo.Release(t.Context(), "v2")
	assert.NilError(t, err)
	assert.Assert(t, found.Draft && found.ID == draft.ID)
	r.all.AddRelease("v2").Draft = true
	_, err = r.repo.Release(t.Context(), "v2")
	assert.Error(t, err, "release v2: 2 drafts have this tag, want one")
	_, err = r.repo.Release(t.Context(), "v3")
	assert.Assert(t, forge.IsNotFound(err), err)
	_, err = r.repo.Release(t.Context(), "app/v1")
	assert.Assert(t, forge.IsNotFound(err), err)
}

func TestWhatATagNamesIsAsked(t *testing.T) {
	r := newReleased(t)
	object := gitrepo.Hash{7}
	r.all.Tags["app/v1"] = object.String()
	got, err := r.repo.TagObject(t.Context(), "app/v1")
	assert.NilError(t, err)
	assert.Equal(t, got, object)
	_, err = r.repo.TagObject(t.Context(), "v1")
	assert.Assert(t, forge.IsNotFound(err), err)
	r.all.Tags["v1"] = strings.Repeat("0", 40)
	_, err = r.repo.TagObject(t.Context(), "v1")
	assert.Error(t, err, `tag v1: the answer is about "refs/tags/v1"`)
}

func TestAttachingTwiceSendsOnce(t *testing.T) {
	r := newReleased(t)
	sent, err := r.repo.Attach(t.Context(), r.rel, three())
	assert.NilError(t, err)
	assert.DeepEqual(t, sent, []string{"a.tar.gz", "empty", "SHA256SUMS"})
	r.holds(t, three())
	assert.Equal(t, len(forgetest.Writes(r.fake.Calls())), 3)

	sent, err = r.repo.Attach(t.Context(), r.rel, three())
	assert.NilError(t, err)
	assert.Equal(t, len(sent), 0)
	assert.Equal(t, len(forgetest.Writes(r.fake.Calls())), 0)

	// Where the forge states no digests, the bytes are compared.
	r.all.NoDigests = true
	sent, err = r.repo.Attach(t.Context(), r.rel, three())
	assert.NilError(t, err)
	assert.Equal(t, len(sent), 0)
}

func TestOtherBytesOfTheSameNameAreAnErrorAndNothingIsSent(t *testing.T) {
	for _, noDigests := range []bool{false, true} {
		for _, other := range []string{"bbbb", "longer"} {
			r := newReleased(t)
			r.all.NoDigests = noDigests
			r.all.Put(r.v1, "SHA256SUMS", "other")
			r.v1.Assets[0].Data = []byte(other)
			files := three()
			files[2] = forge.NewFile("SHA256SUMS", []byte("cccc"))
			_, err := r.repo.Attach(t.Context(), r.rel, files)
			var differs *forge.DiffersError
			assert.Assert(t, errors.As(err, &differs), err)
			assert.Equal(t, differs.Name, "SHA256SUMS")
			assert.ErrorContains(t, err, "the release has another SHA256SUMS: of ")
			assert.Equal(t, len(forgetest.Writes(r.fake.Calls())), 0)
			assert.DeepEqual(t, r.v1.Names(), []string{"SHA256SUMS"})
		}
	}
}

func TestAnUploadThatDidNotEndIsDoneAgain(t *testing.T) {
	r := newReleased(t)
	r.all.Put(r.v1, "a.tar.gz", "aa").Open = true
	sent, err := r.repo.Attach(t.Context(), r.rel, three())
	assert.NilError(t, err)
	assert.Equal(t, len(sent), 3)
	r.holds(t, three())
}

func TestALostAnswerOfAnUploadMakesNoSecondFile(t *testing.T) {
	pass := forgetest.Fault{Pass: true}
	for name, tc := range map[string]struct {
		faults []forgetest.Fault
		waits  int
	}{
		"lost before it was done": {[]forgetest.Fault{pass, {Drop: true}}, 1},
		"lost after it was done":  {[]forgetest.Fault{pass, {Drop: true, Done: true}}, 1},
		"502 after it was done":   {[]forgetest.Fault{pass, {Status: 502, Done: true}}, 1},
		"502 twice":               {[]forgetest.Fault{pass, {Status: 502}, pass, {Status: 502}}, 2},
		"a limit":                 {[]forgetest.Fault{pass, {Status: 429, Header: map[string]string{"Retry-After": "3"}}}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := newReleased(t)
			r.fake.Fail(tc.faults...)
			_, err := r.repo.Attach(t.Context(), r.rel, three())
			assert.NilError(t, err)
			r.holds(t, three())
			assert.Equal(t, len(r.w.slept), tc.waits)
		})
	}
}

func TestAfterAFailureTheNextCallGoesOn(t *testing.T) {
	r := newReleased(t)
	// Before each attempt but the first, it looks at what is there.
	r.fake.Fail(forgetest.Fault{Pass: true}, forgetest.Fault{Pass: true})
	for range 5 {
		r.fake.Fail(forgetest.Fault{Status: 503}, forgetest.Fault{Pass: true})
	}
	sent, err := r.repo.Attach(t.Context(), r.rel, three())
	assert.ErrorContains(t, err, "upload empty: ")
	assert.DeepEqual(t, sent, []string{"a.tar.gz"})
	assert.DeepEqual(t, r.v1.Names(), []string{"a.tar.gz"})
	r.fake.ClearFaults()
	sent, err = r.repo.Attach(t.Context(), r.rel, three())
	assert.NilError(t, err)
	assert.DeepEqual(t, sent, []string{"empty", "SHA256SUMS"})
	r.holds(t, three())
}

func TestSomebodyElsesUploadOfTheSameBytesIsFine(t *testing.T) {
	r := newReleased(t)
	file := three()[0]
	open := file.Open
	file.Open = func() (io.ReadCloser, error) { // between the look and the upload
		if len(r.v1.Assets) == 0 {
			r.all.Put(r.v1, "a.tar.gz", "aaaa")
		}
		return open()
	}
	_, err := r.repo.Attach(t.Context(), r.rel, []forge.File{file})
	assert.NilError(t, err)
	assert.Equal(t, len(r.v1.Assets), 1)
}

func TestANameThatTheForgeChangesIsAnError(t *testing.T) {
	r := newReleased(t)
	r.all.Rename = func(name string) string { return strings.ReplaceAll(name, " ", ".") }
	_, err := r.repo.Attach(t.Context(), r.rel, []forge.File{forge.NewFile("a b", []byte("x"))})
	assert.Error(t, err, `upload a b: the forge calls it "a.b": give it a name of letters, digits, dots, hyphens and underscores`)
	_, err = r.repo.Attach(t.Context(), r.rel, []forge.File{forge.NewFile("a", nil), forge.NewFile("a", nil)})
	assert.Error(t, err, "two files are called a: a release has one folder")
}

func TestTheTokenGoesOnlyWhereTheAPIIs(t *testing.T) {
	r := newReleased(t)
	r.all.Uploads = "http://127.0.0.1:9/uploads"
	_, err := r.repo.Release(t.Context(), "v1")
	assert.ErrorContains(t, err, "release v1: the forge wants uploads sent to http://127.0.0.1:9, which is not beside "+r.fake.Root)
	r.all.Uploads = "assets"
	_, err = r.repo.Release(t.Context(), "v1")
	assert.ErrorContains(t, err, `found the upload_url "assets{?name,label}", want a URL`)
}

func TestADownloadIsTheWholeAssetAndNoMore(t *testing.T) {
	r := newReleased(t)
	there := r.all.Put(r.v1, "a", "abcd")
	assets, err := r.repo.Assets(t.Context(), r.rel)
	assert.NilError(t, err)
	data, err := r.repo.Download(t.Context(), assets[0], 4)
	assert.NilError(t, err)
	assert.Equal(t, string(data), "abcd")
	_, err = r.repo.Download(t.Context(), assets[0], 3)
	assert.Error(t, err, "asset a: 4 bytes, want at most 3")
	for content, want := range map[string]string{"abcde": "found 5 bytes, want 4", "abc": "found 3 bytes, want 4", "abcx": "found SHA-256 "} {
		there.Data = []byte(content)
		_, err = r.repo.Download(t.Context(), assets[0], 4)
		assert.ErrorContains(t, err, "download a: "+want)
	}
	r.v1.Assets = nil
	_, err = r.repo.Download(t.Context(), assets[0], 4)
	assert.Assert(t, forge.IsNotFound(err), err)
}

func TestATokenThatMayNotWriteIsTold(t *testing.T) {
	r := newReleased(t)
	r.fake.AddToken(token, forgetest.App, "contents:read")
	_, err := r.repo.Attach(t.Context(), r.rel, three())
	assert.ErrorContains(t, err, "the token needs contents=write")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = r.repo.Attach(ctx, r.rel, three())
	assert.ErrorIs(t, err, context.Canceled)
	assert.Assert(t, !errors.Is(err, gitrepo.ErrUnconfirmed))
}
