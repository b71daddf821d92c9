package config

import (
	"errors"
	"net/url"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
)

// FederationFile is what the file of a node's peers is called.
const FederationFile = "federation.yaml"

// placeholder is the node_id of the ancestor's example.
const placeholder = "replace-with-your-node-uuid"

const maxBackoff = 16 // entries

// Federation says with whom a node syncs, and how often. It is the ancestor's
// file, with keys for peers that ask for more, and read as strictly as the configuration of a repository.
// Only node_id is required; where a default exists it is the value shown:
//
//	node_id: local/node-1a2b3c4d     # names the node and its log
//	peers:                           # none
//	  - node_id: peer-uuid-1
//	    mcp_url: http://peer1.example.com:8001/mcp
//	    trust_anchor: ops/certs/peer1-pubkey.asc # its OpenPGP public key
//	    token_file: ""               # holds the bearer token that the peer wants
//	    ca: ""                       # who vouches for it over HTTPS; "": whom the system trusts
//	    client_cert: ""              # what to show to it over HTTPS, with client_key
//	    client_key: ""
//	sync:
//	  interval_seconds: 60           # 1 to 86400
//	  retry_backoff: [5, 10, 30]     # seconds before each new try; the last holds on
//	trust:
//	  require_signatures: true       # nothing else is possible
//	  min_quorum: 2                  # nodes, this one included, that must vouch for a state
type Federation struct {
	NodeID    string
	Peers     []Peer // node_id and mcp_url are unique
	Interval  time.Duration
	Backoff   []time.Duration // at least one
	MinQuorum int             // at least 1, at most the number of nodes if there are peers
}

// Peer is another node.
type Peer struct {
	NodeID      string
	URL         string // of its MCP endpoint, http or https
	TrustAnchor string // path of a file, as it was written
	// Paths of files that say how it is reached, as they were written; "" for none.
	TokenFile, CA, ClientCert, ClientKey string
}

// DefaultFederation returns the federation of a file that says only its node_id.
func DefaultFederation(nodeID string) Federation {
	return Federation{
		NodeID:    nodeID,
		Interval:  time.Minute,
		Backoff:   []time.Duration{5 * time.Second, 10 * time.Second, 30 * time.Second},
		MinQuorum: 2,
	}
}

// ParseFederation reads a federation.yaml. name is what errors call the file. An
// error may be of several lines, each beginning with name:line.
func ParseFederation(name string, data []byte) (Federation, error) {
	p := &parser{name: name, least: "node_id: local/node-1a2b3c4d"}
	f := DefaultFederation("")
	if root := p.document(data); root != nil {
		p.federation(root, &f)
	}
	if len(p.errs) > 0 {
		return Federation{}, errors.Join(p.errs...)
	}
	return f, nil
}

func (p *parser) federation(n *yaml.Node, f *Federation) {
	quorum := 0 // its line
	p.mapping("the file", n, []field{
		{"node_id", p.text(&f.NodeID, wantNodeID)},
		{"peers", p.peers(&f.Peers)},
		{"sync", p.section([]field{
			{"interval_seconds", p.seconds(&f.Interval)},
			{"retry_backoff", func(key string, n *yaml.Node) {
				elements, ok := p.sequence(key, n, 1)
				if !ok {
					return
				}
				if len(elements) > maxBackoff {
					p.fail(n.Line, "%s: found %d entries, wanted at most %d", key, len(elements), maxBackoff)
					return
				}
				f.Backoff = make([]time.Duration, len(elements))
				for i, e := range elements {
					p.seconds(&f.Backoff[i])(key, e)
				}
			}},
		})},
		{"trust", p.section([]field{
			{"require_signatures", func(key string, n *yaml.Node) {
				required := true
				if p.boolean(&required)(key, n); !required {
					p.fail(n.Line, "%s: found false, wanted true: receipts without a valid signature are never taken", key)
				}
			}},
			{"min_quorum", func(key string, n *yaml.Node) {
				quorum = n.Line
				if v, ok := p.number(key, n); ok && (v < 1 || v > maxCount) {
					p.fail(n.Line, "%s: found %d, wanted 1 to %d", key, v, maxCount)
				} else if ok {
					f.MinQuorum = v
				}
			}},
		})},
	})
	if len(p.errs) > 0 {
		return
	}
	if f.NodeID == "" {
		p.fail(0, `node_id is missing, wanted this node's name: type "node_id: local/node-1a2b3c4d", with a name of your own`)
	}
	for _, peer := range f.Peers {
		if peer.NodeID == f.NodeID {
			p.fail(0, "the node %q is its own peer, wanted another node_id for one of them", f.NodeID)
		}
	}
	// A quorum that the nodes together cannot reach would let nothing pass, ever.
	if most := len(f.Peers) + 1; len(f.Peers) > 0 && f.MinQuorum > most {
		p.fail(quorum, "min_quorum: found %d, wanted at most %d: there are %d nodes, this one included", f.MinQuorum, most, most)
	}
}

// peers reads mappings of node_id, mcp_url, trust_anchor, and how a peer is reached.
func (p *parser) peers(into *[]Peer) func(string, *yaml.Node) {
	return func(key string, n *yaml.Node) {
		elements, ok := p.sequence(key, n, 0)
		if !ok {
			return
		}
		var list []Peer
		first := map[string]int{}
		for _, e := range elements {
			var peer Peer
			before := len(p.errs)
			p.mapping(key, e, []field{
				{"node_id", p.text(&peer.NodeID, wantNodeID)},
				{"mcp_url", p.text(&peer.URL, wantURL)},
				{"trust_anchor", p.text(&peer.TrustAnchor, wantFile)},
				{"token_file", p.text(&peer.TokenFile, wantFile)},
				{"ca", p.text(&peer.CA, wantFile)},
				{"client_cert", p.text(&peer.ClientCert, wantFile)},
				{"client_key", p.text(&peer.ClientKey, wantFile)},
			})
			if len(p.errs) > before {
				continue
			}
			if peer.NodeID == "" || peer.URL == "" || peer.TrustAnchor == "" {
				p.fail(e.Line, "%s: node_id, mcp_url or trust_anchor is missing, wanted all three", key)
				continue
			}
			if (peer.ClientCert == "") != (peer.ClientKey == "") {
				p.fail(e.Line, "%s: client_cert and client_key belong together, wanted both or neither", key)
			}
			for _, once := range []struct{ key, value string }{{"node_id", peer.NodeID}, {"mcp_url", peer.URL}} {
				id := once.key + " " + once.value
				if line := first[id]; line > 0 {
					p.fail(e.Line, "%s: the %s %q is given twice, first on line %d", key, once.key, short(once.value), line)
				} else {
					first[id] = e.Line
				}
			}
			list = append(list, peer)
		}
		*into = list
	}
}

// seconds reads a duration from one second to a day.
func (p *parser) seconds(into *time.Duration) func(string, *yaml.Node) {
	return func(key string, n *yaml.Node) {
		if v, ok := p.number(key, n); ok && (v < 1 || v > 86400) {
			p.fail(n.Line, "%s: found %d, wanted 1 to 86400 seconds", key, v)
		} else if ok {
			*into = time.Duration(v) * time.Second
		}
	}
}

// boolean reads true or false: yes, on and their kin are texts.
func (p *parser) boolean(into *bool) func(string, *yaml.Node) {
	return func(key string, n *yaml.Node) {
		if !p.plain(n) {
			return
		}
		if n.ShortTag() != "!!bool" || n.Value != "true" && n.Value != "false" {
			p.fail(n.Line, "%s: found %s, wanted true or false", key, describe(n))
			return
		}
		*into = n.Value == "true"
	}
}

func wantNodeID(s string) string {
	const wanted = "a name of printable ASCII without blanks, such as local/node-1a2b3c4d or a UUID"
	if s == placeholder {
		return `this node's own name in the place of the placeholder: type "node_id: local/node-1a2b3c4d", or a UUID from uuidgen`
	}
	if checkpoint.CheckOrigin(s) != nil || len(s) > 128 {
		return wanted
	}
	return ""
}

func wantURL(s string) string {
	u, err := url.Parse(s)
	if err == nil && len(s) <= 2048 && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" && u.User == nil && u.Fragment == "" && printable(s, "") {
		return ""
	}
	return "a URL such as http://localhost:8002/mcp, without a name or password"
}

// wantFile accepts a path outside the repository, too.
func wantFile(s string) string {
	if s != "" && len(s) <= 4096 && strings.TrimSpace(s) == s && printable(s, "") {
		return ""
	}
	return "the path of a file"
}
