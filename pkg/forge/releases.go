package forge

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-github/v62/github"

	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
)

const (
	maxAssets    = 1000 // of a release, as the forge has it
	maxReleases  = 10_000
	transferTime = 30 * time.Minute // for the bytes of one asset
	octets       = "application/octet-stream"
)

// Release is a release of a repository. Only [Repository.Release] makes one.
type Release struct {
	ID    int64
	Tag   string
	Draft bool

	upload *url.URL // where assets are sent to
}

// Asset is a file of a release as the forge states it.
type Asset struct {
	ID   int64
	Name string
	Size int64 // bytes
	// SHA256 is nil where the forge states none, as it does of older assets.
	SHA256 *[sha256.Size]byte
	// Whole is false for an upload that did not end.
	Whole bool
}

// File is what a release is to hold. Open is called for each attempt to send it.
type File struct {
	Name   string
	Size   int64 // bytes
	SHA256 [sha256.Size]byte
	Open   func() (io.ReadCloser, error)
}

// NewFile is a file whose bytes are at hand.
func NewFile(name string, data []byte) File {
	return File{Name: name, Size: int64(len(data)), SHA256: sha256.Sum256(data), Open: func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(data)), nil
	}}
}

// DiffersError says that a release has another file of the same name. What was
// released is never replaced.
type DiffersError struct {
	Name        string
	Here, There [sha256.Size]byte // There is zero where only the sizes were compared
	Sizes       [2]int64          // here and there
}

func (e *DiffersError) Error() string {
	if e.Sizes[0] != e.Sizes[1] {
		return fmt.Sprintf("the release has another %s: of %d bytes, here are %d", e.Name, e.Sizes[1], e.Sizes[0])
	}
	return fmt.Sprintf("the release has another %s: of SHA-256 %x, here it is %x", e.Name, e.There, e.Here)
}

type wireRelease struct {
	ID        int64  `json:"id"`
	TagName   string `json:"tag_name"`
	Draft     bool   `json:"draft"`
	UploadURL string `json:"upload_url"`
}

// Release returns the release of a tag, a draft too. Without one, or where the
// token may not see it, the error is one that [IsNotFound] knows.
func (r *Repository) Release(ctx context.Context, tag string) (Release, error) {
	var w wireRelease
	a, err := r.rest.Get(ctx, r.path("releases", "tags", tag))
	switch {
	case err == nil:
		err = json.Unmarshal(a.Body, &w)
	case IsNotFound(err):
		// Drafts have no address of their own.
		w, err = r.draft(ctx, tag, err)
	}
	if err != nil {
		return Release{}, fmt.Errorf("release %s: %w", tag, err)
	}
	rel := Release{ID: w.ID, Tag: w.TagName, Draft: w.Draft}
	if rel.ID < 1 || rel.Tag != tag {
		return Release{}, fmt.Errorf("release %s: the answer is of release %d with tag %q", tag, rel.ID, rel.Tag)
	}
	if rel.upload, err = r.rest.uploads(w.UploadURL); err != nil {
		return Release{}, fmt.Errorf("release %s: %w", tag, err)
	}
	return rel, nil
}

func (r *Repository) draft(ctx context.Context, tag string, none error) (wireRelease, error) {
	list, err := r.rest.GetPages(ctx, r.path("releases"), "", maxReleases)
	if err != nil {
		return wireRelease{}, err
	}
	var found []wireRelease
	for _, raw := range list {
		var w wireRelease
		if err := json.Unmarshal(raw, &w); err != nil {
			return wireRelease{}, err
		}
		if w.Draft && w.TagName == tag {
			found = append(found, w)
		}
	}
	switch len(found) {
	case 0:
		return wireRelease{}, none
	case 1:
		return found[0], nil
	}
	return wireRelease{}, fmt.Errorf("%d drafts have this tag, want one", len(found))
}

// uploads reads the template of the address that assets are sent to. The token
// goes there: it must be the API's own host, or the one beside it, as
// uploads.github.com is beside api.github.com.
func (r *REST) uploads(template string) (*url.URL, error) {
	plain, _, _ := strings.Cut(template, "{")
	u, err := url.Parse(plain)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("found the upload_url %q, want a URL", clip([]byte(template)))
	}
	beside, ok := strings.CutPrefix(r.base.Host, "api.")
	if u.Scheme != r.base.Scheme || u.Host != r.base.Host && (!ok || u.Host != "uploads."+beside) {
		return nil, fmt.Errorf("the forge wants uploads sent to %s://%s, which is not beside %s://%s: the token is not sent there", u.Scheme, u.Host, r.base.Scheme, r.base.Host)
	}
	return u, nil
}

// TagObject returns what a tag names on the forge: a tag object, or a commit.
// Without such a tag the error is one that [IsNotFound] knows.
func (r *Repository) TagObject(ctx context.Context, tag string) (gitrepo.Hash, error) {
	a, err := r.rest.Get(ctx, r.path(append([]string{"git", "ref", "tags"}, strings.Split(tag, "/")...)...))
	if err != nil {
		return gitrepo.Hash{}, fmt.Errorf("tag %s: %w", tag, err)
	}
	var w struct {
		Ref    string `json:"ref"`
		Object struct {
			SHA gitrepo.Hash `json:"sha"`
		} `json:"object"`
	}
	if err := json.Unmarshal(a.Body, &w); err != nil {
		return gitrepo.Hash{}, fmt.Errorf("tag %s: %w", tag, err)
	}
	if w.Ref != "refs/tags/"+tag || w.Object.SHA.IsZero() {
		return gitrepo.Hash{}, fmt.Errorf("tag %s: the answer is about %q", tag, w.Ref)
	}
	return w.Object.SHA, nil
}

type wireAsset struct {
	ID     int64   `json:"id"`
	Name   string  `json:"name"`
	Size   *int64  `json:"size"`
	State  string  `json:"state"`
	Digest *string `json:"digest"`
}

func (w wireAsset) asset() (Asset, error) {
	if w.ID < 1 || w.Name == "" || w.State == "" || w.Size == nil || *w.Size < 0 {
		return Asset{}, errors.New("the answer is no asset: it lacks id, name, size or state")
	}
	a := Asset{ID: w.ID, Name: w.Name, Size: *w.Size, Whole: w.State == "uploaded"}
	if w.Digest == nil {
		return a, nil
	}
	// A digest of another kind is none that can be compared.
	if digits, ok := strings.CutPrefix(*w.Digest, "sha256:"); ok {
		b, err := hex.DecodeString(digits)
		if err != nil || len(b) != sha256.Size {
			return Asset{}, fmt.Errorf("asset %s: found the digest %q", w.Name, *w.Digest)
		}
		sum := [sha256.Size]byte(b)
		a.SHA256 = &sum
	}
	return a, nil
}

// Assets lists the files of a release.
func (r *Repository) Assets(ctx context.Context, rel Release) ([]Asset, error) {
	list, err := r.rest.GetPages(ctx, r.path("releases", strconv.FormatInt(rel.ID, 10), "assets"), "", maxAssets)
	if err != nil {
		return nil, fmt.Errorf("release %s: %w", rel.Tag, err)
	}
	all := make([]Asset, 0, len(list))
	for _, raw := range list {
		var w wireAsset
		if err := json.Unmarshal(raw, &w); err != nil {
			return nil, fmt.Errorf("release %s: %w", rel.Tag, err)
		}
		a, err := w.asset()
		if err != nil {
			return nil, fmt.Errorf("release %s: %w", rel.Tag, err)
		}
		all = append(all, a)
	}
	return all, nil
}

// Attach makes a release hold these files. First it compares all that are there
// already: one that differs is a [*DiffersError], and nothing is sent. Then it
// removes what was sent in part, and sends what is missing, one after the other,
// so that after a failure another call goes on where this one stopped. It
// returns the names of what it sent.
func (r *Repository) Attach(ctx context.Context, rel Release, files []File) (sent []string, err error) {
	assets, err := r.Assets(ctx, rel)
	if err != nil {
		return nil, err
	}
	there := make([]bool, len(files))
	for i, f := range files {
		if slices.ContainsFunc(files[:i], func(o File) bool { return o.Name == f.Name }) {
			return nil, fmt.Errorf("two files are called %s: a release has one folder", f.Name)
		}
		if there[i], err = r.compare(ctx, assets, f); err != nil {
			return nil, err
		}
	}
	for i, f := range files {
		if there[i] {
			continue
		}
		if err := r.sweep(ctx, assets, f.Name); err != nil {
			return sent, err
		}
		if err := r.send(ctx, rel, f); err != nil {
			return sent, fmt.Errorf("upload %s: %w", f.Name, err)
		}
		sent = append(sent, f.Name)
	}
	return sent, nil
}

// compare reports whether a release has the whole of a file.
func (r *Repository) compare(ctx context.Context, assets []Asset, f File) (bool, error) {
	for _, a := range assets {
		if a.Name != f.Name || !a.Whole {
			continue
		}
		differs := &DiffersError{Name: f.Name, Here: f.SHA256, Sizes: [2]int64{f.Size, a.Size}}
		if a.Size != f.Size {
			return false, differs
		}
		if a.SHA256 == nil {
			h := sha256.New()
			if err := r.download(ctx, a, h); err != nil {
				return false, err
			}
			sum := [sha256.Size]byte(h.Sum(nil))
			a.SHA256 = &sum
		}
		if differs.There = *a.SHA256; differs.There != f.SHA256 {
			return false, differs
		}
		return true, nil
	}
	return false, nil
}

// sweep removes what is left of an upload that did not end.
func (r *Repository) sweep(ctx context.Context, assets []Asset, name string) error {
	for _, a := range assets {
		if a.Name == name && !a.Whole {
			_, err := r.rest.Send(ctx, http.MethodDelete, r.path("releases", "assets", strconv.FormatInt(a.ID, 10)), nil)
			if err != nil && !IsNotFound(err) {
				return fmt.Errorf("remove what was uploaded of %s: %w", name, err)
			}
		}
	}
	return nil
}

// send uploads one file. After each attempt whose outcome is not known it looks
// at what the release holds, before it tries again.
func (r *Repository) send(ctx context.Context, rel Release, f File) error {
	for attempt := 1; ; attempt++ {
		err := r.upload(ctx, rel, f)
		if err == nil || ctx.Err() != nil {
			return err
		}
		var lost *unansweredError
		var limit *LimitError
		var delay time.Duration
		taken := hasStatus(err, http.StatusUnprocessableEntity) // as when the name is
		switch {
		case errors.As(err, &limit):
			if delay = max(limit.Until.Sub(r.rest.opts.Now()), time.Second); delay > maxWait {
				return err
			}
		case errors.As(err, &lost):
			delay = time.Duration(float64(firstBackoff<<(attempt-1)) * (0.5 + r.rest.opts.Rand()))
		case !taken:
			return err
		}
		if attempt == attempts {
			return err
		}
		if err := r.rest.opts.Sleep(ctx, delay); err != nil {
			return err
		}
		assets, listErr := r.Assets(ctx, rel)
		if listErr != nil {
			return errors.Join(err, listErr)
		}
		there, compareErr := r.compare(ctx, assets, f)
		half := slices.ContainsFunc(assets, func(a Asset) bool { return a.Name == f.Name && !a.Whole })
		switch {
		case compareErr != nil || there:
			return compareErr
		case taken && !half:
			return err
		}
		if err := r.sweep(ctx, assets, f.Name); err != nil {
			return err
		}
	}
}

func (r *Repository) upload(ctx context.Context, rel Release, f File) error {
	body, err := f.Open()
	if err != nil {
		return err
	}
	defer body.Close()
	transfer := *r.rest.http
	transfer.Timeout = transferTime
	client := github.NewClient(&transfer)
	if r.rest.token != "" {
		client = client.WithAuthToken(r.rest.token)
	}
	u := *rel.upload
	u.RawQuery = url.Values{"name": {f.Name}}.Encode()
	req, err := client.NewUploadRequest(u.String(), body, f.Size, octets)
	if err != nil {
		return err
	}
	if f.Size == 0 {
		req.Body = http.NoBody // else the length would be sent as unknown
	}
	resp, err := client.BareDo(ctx, req)
	if resp == nil || resp.Response == nil {
		return &unansweredError{fmt.Errorf("%w: %w", gitrepo.ErrUnconfirmed, err)}
	}
	defer resp.Body.Close()
	answer := Answer{Status: resp.StatusCode, Header: resp.Header}
	var readErr error
	if answer.Body, readErr = io.ReadAll(io.LimitReader(resp.Body, maxBody)); readErr != nil {
		return &unansweredError{fmt.Errorf("%w: answer cut off: %w", gitrepo.ErrUnconfirmed, readErr)}
	}
	if err != nil {
		return r.rest.refusal(http.MethodPost, strings.TrimPrefix(u.Path, "/"), answer, err)
	}
	var w wireAsset
	if err := json.Unmarshal(answer.Body, &w); err != nil {
		return &unansweredError{fmt.Errorf("%w: found %s, want JSON", gitrepo.ErrUnconfirmed, answer.Header.Get("Content-Type"))}
	}
	a, err := w.asset()
	if err != nil {
		return err
	}
	switch {
	case a.Name != f.Name:
		return fmt.Errorf("the forge calls it %q: give it a name of letters, digits, dots, hyphens and underscores", a.Name)
	case !a.Whole || a.Size != f.Size || a.SHA256 != nil && *a.SHA256 != f.SHA256:
		return &unansweredError{fmt.Errorf("the forge has %d bytes in state %s, want %d", a.Size, w.State, f.Size)}
	}
	return nil
}

// Download returns the bytes of an asset of at most this size.
func (r *Repository) Download(ctx context.Context, a Asset, most int64) ([]byte, error) {
	if a.Size > most {
		return nil, fmt.Errorf("asset %s: %d bytes, want at most %d", a.Name, a.Size, most)
	}
	var b bytes.Buffer
	if err := r.download(ctx, a, &b); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func (r *Repository) download(ctx context.Context, a Asset, to io.Writer) error {
	if err := r.transfer(ctx, a, to); err != nil {
		return fmt.Errorf("download %s: %w", a.Name, err)
	}
	return nil
}

// transfer follows the forge to where it stores assets, which is another host
// and gets no token.
func (r *Repository) transfer(ctx context.Context, a Asset, to io.Writer) error {
	at, err := r.rest.locate(r.path("releases", "assets", strconv.FormatInt(a.ID, 10)))
	if err != nil {
		return err
	}
	client := http.Client{Timeout: transferTime, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for range 1 + maxRedirects {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
		if err != nil {
			return err
		}
		req.Header.Set("Accept", octets)
		if r.rest.token != "" && r.rest.ours(at) == nil {
			req.Header.Set("Authorization", "Bearer "+r.rest.token)
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		if resp.StatusCode >= 300 && resp.StatusCode < 400 {
			_ = resp.Body.Close() // nothing was read of it
			if at, err = resp.Location(); err != nil {
				return fmt.Errorf("status %d without an address", resp.StatusCode)
			}
			if at.Scheme != "https" && (at.Scheme != "http" || !loopback(at.Hostname())) {
				return fmt.Errorf("redirected to %s://%s, want https", at.Scheme, at.Host)
			}
			continue
		}
		return take(resp, a, to)
	}
	return fmt.Errorf("more than %d redirects", maxRedirects)
}

// take copies an answer, which must be the whole asset and no more.
func take(resp *http.Response, a Asset, to io.Writer) error {
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return &APIError{Status: resp.StatusCode, Method: http.MethodGet, Path: strings.TrimPrefix(resp.Request.URL.Path, "/")}
	}
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(h, to), io.LimitReader(resp.Body, a.Size+1))
	switch {
	case err != nil:
		return err
	case n != a.Size:
		return fmt.Errorf("found %d bytes, want %d", n, a.Size)
	case a.SHA256 != nil && [sha256.Size]byte(h.Sum(nil)) != *a.SHA256:
		return fmt.Errorf("found SHA-256 %x, the forge states %x", h.Sum(nil), *a.SHA256)
	}
	return nil
}
