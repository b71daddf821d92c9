// Package forge speaks to GitHub where git itself is not enough.
//
// [REST] reads and writes what the forge knows and git does not, as raw JSON:
// rules, pull requests, checks.
//
// [Client] makes a commit that the forge signs, for branches
// whose rules demand signed commits (GraphQL createCommitOnBranch,
// https://docs.github.com/en/graphql/reference/mutations#createcommitonbranch).
// The mutation names the commit that the branch must be at and fails otherwise,
// so it is the same compare and swap as a push that never forces. It cannot set
// modes: every file it adds is a regular one.
package forge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/go-github/v62/github"

	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
)

const (
	maxAnswer = 8 << 20
	timeout   = 60 * time.Second
)

// Client speaks to one GraphQL endpoint with one token.
type Client struct {
	endpoint string
	http     *http.Client
}

// New names an endpoint, as https://api.github.com/graphql, and a token.
func New(endpoint, token string) *Client {
	c := github.NewClient(&http.Client{Timeout: timeout}).WithAuthToken(token)
	return &Client{endpoint: endpoint, http: c.Client()}
}

const mutation = `mutation($input: CreateCommitOnBranchInput!) { createCommitOnBranch(input: $input) { commit { oid } } }`

type graphError struct {
	Type    string `json:"type"`
	Message string `json:"message"`
}

// Commit returns a function that commits to a branch of a repository
// ("owner/name") through the API: files by path, nil for a deletion. The function
// returns the commit. It fails with [gitrepo.ErrLostRace] when the branch is not at parent,
// [*gitrepo.RefusedError] when the forge's rules refuse, [gitrepo.ErrAuth] for
// a token that is not accepted, and [gitrepo.ErrUnconfirmed] when no usable answer
// came: the commit may have been made.
func (c *Client) Commit(repository string) func(ctx context.Context, branch string, parent gitrepo.Hash, files map[string][]byte, message string) (gitrepo.Hash, error) {
	return func(ctx context.Context, branch string, parent gitrepo.Hash, files map[string][]byte, message string) (gitrepo.Hash, error) {
		if parent.IsZero() {
			return gitrepo.Hash{}, fmt.Errorf("branch %s does not exist: the API commits only to a branch that does", branch)
		}
		additions, deletions := []map[string]any{}, []map[string]any{}
		for _, path := range slices.Sorted(maps.Keys(files)) {
			if content := files[path]; content != nil {
				additions = append(additions, map[string]any{"path": path, "contents": content}) // []byte is base64 in JSON
			} else {
				deletions = append(deletions, map[string]any{"path": path})
			}
		}
		headline, body, _ := strings.Cut(message, "\n")
		return c.mutate(ctx, branch, map[string]any{
			"branch":          map[string]any{"repositoryNameWithOwner": repository, "branchName": branch},
			"expectedHeadOid": parent.String(),
			"message":         map[string]any{"headline": headline, "body": strings.TrimLeft(body, "\n")},
			"fileChanges":     map[string]any{"additions": additions, "deletions": deletions},
		})
	}
}

func (c *Client) mutate(ctx context.Context, branch string, input map[string]any) (made gitrepo.Hash, err error) {
	payload, err := json.Marshal(map[string]any{"query": mutation, "variables": map[string]any{"input": input}})
	if err != nil {
		return made, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.endpoint, bytes.NewReader(payload))
	if err != nil {
		return made, fmt.Errorf("commit through %s: %w", c.endpoint, err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return made, fmt.Errorf("commit through %s: %w: %w", c.endpoint, gitrepo.ErrUnconfirmed, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return made, fmt.Errorf("commit through %s: %w: %w", c.endpoint, gitrepo.ErrUnconfirmed, err)
	}
	switch {
	case resp.StatusCode == http.StatusUnauthorized, resp.StatusCode == http.StatusForbidden:
		return made, fmt.Errorf("commit through %s: %w: %s: %s", c.endpoint, gitrepo.ErrAuth, resp.Status, clip(answer))
	case resp.StatusCode >= 500:
		return made, fmt.Errorf("commit through %s: %w: %s", c.endpoint, gitrepo.ErrUnconfirmed, resp.Status)
	case resp.StatusCode != http.StatusOK:
		return made, fmt.Errorf("commit through %s: %s: %s", c.endpoint, resp.Status, clip(answer))
	}
	var out struct {
		Data struct {
			CreateCommitOnBranch *struct {
				Commit struct {
					OID string `json:"oid"`
				} `json:"commit"`
			} `json:"createCommitOnBranch"`
		} `json:"data"`
		Errors []graphError `json:"errors"`
	}
	if err := json.Unmarshal(answer, &out); err != nil {
		return made, fmt.Errorf("commit through %s: %w: not JSON: %s", c.endpoint, gitrepo.ErrUnconfirmed, clip(answer))
	}
	switch {
	case out.Data.CreateCommitOnBranch != nil: // made, whatever else went wrong
	case len(out.Errors) > 0:
		return made, classify(branch, out.Errors)
	default:
		return made, fmt.Errorf("commit through %s: %w: no commit in the answer", c.endpoint, gitrepo.ErrUnconfirmed)
	}
	if made, err = gitrepo.ParseHash(out.Data.CreateCommitOnBranch.Commit.OID); err != nil {
		return made, fmt.Errorf("commit through %s: %w: %w", c.endpoint, gitrepo.ErrUnconfirmed, err)
	}
	return made, nil
}

func classify(branch string, errs []graphError) error {
	var texts []string
	for _, e := range errs {
		if e.Type == "STALE_DATA" || strings.Contains(e.Message, "to point to") {
			return fmt.Errorf("commit to %s: %w: %s", branch, gitrepo.ErrLostRace, e.Message)
		}
		texts = append(texts, strings.TrimSpace(e.Type+" "+e.Message))
	}
	text := strings.Join(texts, "\n")
	// The forge's own words for a query that it gave up on half-way.
	if strings.Contains(text, "Something went wrong") {
		return fmt.Errorf("commit to %s: %w: %s", branch, gitrepo.ErrUnconfirmed, text)
	}
	if errs[0].Type == "NOT_FOUND" {
		return errors.Join(gitrepo.ErrNoRepository, errors.New(text))
	}
	return &gitrepo.RefusedError{Ref: branch, Reason: "the API refused the commit", Text: text}
}

func clip(b []byte) string {
	const limit = 500
	if len(b) > limit {
		b = b[:limit]
	}
	return strings.ToValidUTF8(string(b), "?")
}
