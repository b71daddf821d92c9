package forgetest

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
)

// Releases are the releases of a repository. What is exported may be changed
// between requests.
type Releases struct {
	List []*Release
	// Tags are what tags name, by their names.
	Tags map[string]string
	// Store is where the bytes of assets are fetched from: another host, which
	// must never see a token.
	Store string
	// Uploads is the address that releases tell uploads to be sent to; "" is the
	// API's own.
	Uploads string
	// NoDigests leaves digests out, as the forge does of older assets.
	NoDigests bool
	// Rename is what the forge makes of a name it does not like.
	Rename func(name string) string

	fake *Fake
	repo *Repo
}

// Release is one release.
type Release struct {
	ID     int64
	Tag    string
	Draft  bool
	Assets []*Asset
}

// Asset is a file of a release. An Open one was never uploaded to its end.
type Asset struct {
	ID   int64
	Name string
	Data []byte
	Open bool
}

// Put attaches a file, as somebody else would.
func (r *Releases) Put(rel *Release, name, data string) *Asset {
	a := &Asset{ID: r.fake.NextID(), Name: name, Data: []byte(data)}
	rel.Assets = append(rel.Assets, a)
	return a
}

// Names returns the names of a release's assets, in the order of their uploads.
func (rel *Release) Names() []string {
	var names []string
	for _, a := range rel.Assets {
		names = append(names, a.Name)
	}
	return names
}

// AddReleases serves the releases of a repository.
func (f *Fake) AddReleases(repo *Repo) *Releases {
	r := &Releases{Tags: map[string]string{}, fake: f, repo: repo}
	store := httptest.NewServer(http.HandlerFunc(r.fetch))
	f.t.Cleanup(store.Close)
	r.Store = store.URL
	of := func(serve func(*Call) Reply) func(*Call) Reply {
		return func(c *Call) Reply {
			if c.Repo != repo {
				return NotFound()
			}
			return serve(c)
		}
	}
	f.Handle("GET", "/repos/{owner}/{repo}/releases/tags/{tag}", "contents:read", of(r.byTag))
	f.Handle("GET", "/repos/{owner}/{repo}/git/ref/{ref}", "contents:read", of(func(c *Call) Reply {
		object, ok := r.Tags[strings.TrimPrefix(c.Vars["ref"], "tags/")]
		if !ok || !strings.HasPrefix(c.Vars["ref"], "tags/") {
			return NotFound()
		}
		return OK(Object("git-ref", map[string]any{"ref": "refs/" + c.Vars["ref"], "object": map[string]any{"type": "tag", "sha": object}}))
	}))
	f.Handle("GET", "/repos/{owner}/{repo}/releases", "contents:read", of(func(c *Call) Reply {
		list := []any{}
		for _, rel := range r.List {
			if !rel.Draft || c.Token.may("contents:write") { // as the forge shows drafts
				list = append(list, r.release(rel))
			}
		}
		return c.Page(list, nil)
	}))
	f.Handle("GET", "/repos/{owner}/{repo}/releases/{release_id}/assets", "contents:read", of(r.assets))
	f.Handle("POST", "/repos/{owner}/{repo}/releases/{release_id}/assets", "contents:write", of(r.upload))
	f.Handle("GET", "/repos/{owner}/{repo}/releases/assets/{asset_id}", "contents:read", of(func(c *Call) Reply {
		if _, a := r.find(c.Vars["asset_id"]); a == nil {
			return NotFound()
		}
		return Reply{Status: http.StatusFound, Header: map[string]string{"Location": r.Store + "/" + c.Vars["asset_id"]}}
	}))
	f.Handle("DELETE", "/repos/{owner}/{repo}/releases/assets/{asset_id}", "contents:write", of(func(c *Call) Reply {
		rel, a := r.find(c.Vars["asset_id"])
		if a == nil {
			return NotFound()
		}
		rel.Assets = slices.DeleteFunc(rel.Assets, func(b *Asset) bool { return b == a })
		return Reply{Status: http.StatusNoContent}
	}))
	return r
}

// AddRelease makes a published release of a tag.
func (r *Releases) AddRelease(tag string) *Release {
	rel := &Release{ID: r.fake.NextID(), Tag: tag}
	r.List = append(r.List, rel)
	return rel
}

func (r *Releases) byTag(c *Call) Reply {
	for _, rel := range r.List {
		if rel.Tag == c.Vars["tag"] && !rel.Draft {
			return OK(r.release(rel))
		}
	}
	return NotFound()
}

func (r *Releases) byID(id string) *Release {
	for _, rel := range r.List {
		if strconv.FormatInt(rel.ID, 10) == id {
			return rel
		}
	}
	return nil
}

func (r *Releases) find(id string) (*Release, *Asset) {
	for _, rel := range r.List {
		for _, a := range rel.Assets {
			if strconv.FormatInt(a.ID, 10) == id {
				return rel, a
			}
		}
	}
	return nil, nil
}

func (r *Releases) release(rel *Release) map[string]any {
	at := fmt.Sprintf("%s/repos/%s/%s/releases/%d", r.fake.URL, r.repo.Owner, r.repo.Name, rel.ID)
	return Object("release", map[string]any{
		"id": rel.ID, "tag_name": rel.Tag, "draft": rel.Draft, "url": at, "assets_url": at + "/assets",
		"upload_url": cmp.Or(r.Uploads, at+"/assets") + "{?name,label}",
	})
}

func (r *Releases) asset(a *Asset) map[string]any {
	state := "uploaded"
	if a.Open {
		state = "open"
	}
	shown := map[string]any{
		"id": a.ID, "name": a.Name, "size": len(a.Data), "state": state, "content_type": "application/octet-stream",
		"digest": fmt.Sprintf("sha256:%x", sha256.Sum256(a.Data)),
	}
	if r.NoDigests || a.Open {
		shown["digest"] = nil
	}
	return Object("release-asset", shown)
}

func (r *Releases) assets(c *Call) Reply {
	rel := r.byID(c.Vars["release_id"])
	if rel == nil {
		return NotFound()
	}
	list := []any{}
	for _, a := range rel.Assets {
		list = append(list, r.asset(a))
	}
	return c.Page(list, nil)
}

func (r *Releases) upload(c *Call) Reply {
	rel := r.byID(c.Vars["release_id"])
	name := c.Query.Get("name")
	if r.Rename != nil {
		name = r.Rename(name)
	}
	switch {
	case rel == nil:
		return NotFound()
	case slices.Contains(rel.Names(), name):
		refusal := Refuse(http.StatusUnprocessableEntity, "Validation Failed")
		refusal.Body.(map[string]any)["errors"] = []any{map[string]any{"resource": "ReleaseAsset", "code": "already_exists", "field": "name"}}
		return refusal
	}
	a := &Asset{ID: c.Fake.nextID(), Name: name, Data: slices.Clone(c.Body)}
	rel.Assets = append(rel.Assets, a)
	return Reply{Status: http.StatusCreated, Body: r.asset(a)}
}

// fetch is the store.
func (r *Releases) fetch(w http.ResponseWriter, req *http.Request) {
	if req.Header.Get("Authorization") != "" {
		r.fake.t.Errorf("forge: the store of assets was shown a token")
	}
	r.fake.mu.Lock()
	_, a := r.find(strings.TrimPrefix(req.URL.Path, "/"))
	r.fake.mu.Unlock()
	if a == nil {
		http.NotFound(w, req)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = w.Write(a.Data)
}
