package config

import (
	"errors"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// NodeFile is what the configuration file of a node is called.
const NodeFile = "node.yaml"

// Node is the configuration of a node: how it is reached and what it lets others
// do. It is read as strictly as that of a repository. Nothing is required; where a
// default exists it is the value shown:
//
//	node_id: local/node-1a2b3c4d     # no default: one is made with the node's keys
//	listen: 127.0.0.1:8001           # host and port; port 0 takes a free one
//	data: /var/lib/remembrancer      # no default: the directory of log and keys
//	endpoint: https://node.example.com/mcp # no default: how peers reach it
//	tls:                             # none: plain HTTP
//	  cert: node.pem                 # chain, PEM
//	  key: node.key                  # PEM
//	  client_ca: peers.pem           # none: clients need no certificate
//	tokens:                          # none
//	  - name: ci
//	    sha256: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae
//	    scopes: [read, record]       # of read, record, federate, sign, admin
//	workspace: /srv/artifacts        # no default: where artifacts may be verified and signed
//	allow_sign: false                # sign artifacts in the workspace for those who may
//	open_read: false                 # let anybody read who reaches a listener beyond loopback
//	log: text                        # text | json
//
// The file holds no secrets: of a token it has the SHA-256, as printed by
// "printf %s TOKEN | sha256sum".
type Node struct {
	NodeID    string // "" if the file does not say
	Listen    string
	Data      string // "" if the file does not say
	Endpoint  string // URL, or ""
	TLS       NodeTLS
	Tokens    []NodeToken // names and digests are unique
	Workspace string      // "" if there is none, which AllowSign excludes
	AllowSign bool
	OpenRead  bool
	Log       string // "text" or "json"
}

// NodeTLS names the files of a node's TLS; all are "" if it has none.
type NodeTLS struct {
	Cert, Key string // both or neither
	ClientCA  string // only beside them
}

// NodeToken is a bearer token that a node knows.
type NodeToken struct {
	Name   string   // small letters, digits and hyphens
	SHA256 string   // of the token, 64 lower-case hex digits
	Scopes []string // at least one, none twice
}

var nodeScopes = []string{"read", "record", "federate", "sign", "admin"}

// DefaultNode returns the configuration of a node without a file.
func DefaultNode() Node {
	return Node{Listen: "127.0.0.1:8001", Log: "text"}
}

// ParseNode reads the configuration of a node. name is what errors call the file.
// An error may be of several lines, each beginning with name:line.
func ParseNode(name string, data []byte) (Node, error) {
	p := &parser{name: name, least: "listen: 127.0.0.1:8001"}
	c := DefaultNode()
	if root := p.document(data); root != nil {
		p.node(root, &c)
	}
	if len(p.errs) > 0 {
		return Node{}, errors.Join(p.errs...)
	}
	return c, nil
}

func (p *parser) node(n *yaml.Node, c *Node) {
	signs := 0 // the line of allow_sign
	p.mapping("the file", n, []field{
		{"node_id", p.text(&c.NodeID, wantNodeID)},
		{"listen", p.text(&c.Listen, wantListen)},
		{"data", p.text(&c.Data, wantFile)},
		{"endpoint", p.text(&c.Endpoint, wantURL)},
		{"tls", func(key string, n *yaml.Node) {
			before := len(p.errs)
			p.mapping(key, n, []field{
				{"cert", p.text(&c.TLS.Cert, wantFile)},
				{"key", p.text(&c.TLS.Key, wantFile)},
				{"client_ca", p.text(&c.TLS.ClientCA, wantFile)},
			})
			if len(p.errs) == before && (c.TLS.Cert == "" || c.TLS.Key == "") {
				p.fail(n.Line, "%s: cert or key is missing, wanted both", key)
			}
		}},
		{"tokens", p.tokens(&c.Tokens)},
		{"workspace", p.text(&c.Workspace, wantFile)},
		{"allow_sign", func(key string, n *yaml.Node) {
			signs = n.Line
			p.boolean(&c.AllowSign)(key, n)
		}},
		{"open_read", p.boolean(&c.OpenRead)},
		{"log", p.text(&c.Log, wantOneOf("text", "json"))},
	})
	if len(p.errs) == 0 && c.AllowSign && c.Workspace == "" {
		p.fail(signs, "allow_sign: workspace is missing, wanted the directory whose files may be signed")
	}
}

// tokens reads mappings of name, sha256 and scopes.
func (p *parser) tokens(into *[]NodeToken) func(string, *yaml.Node) {
	return func(key string, n *yaml.Node) {
		elements, ok := p.sequence(key, n, 0)
		if !ok {
			return
		}
		var list []NodeToken
		first := map[string]int{}
		for _, e := range elements {
			var t NodeToken
			before := len(p.errs)
			p.mapping(key, e, []field{
				{"name", p.text(&t.Name, wantName)},
				{"sha256", p.tokenDigest(&t.SHA256)},
				{"scopes", p.texts(&t.Scopes, 1, wantOneOf(nodeScopes...))},
			})
			if len(p.errs) > before {
				continue
			}
			if t.Name == "" || t.SHA256 == "" || t.Scopes == nil {
				p.fail(e.Line, "%s: name, sha256 or scopes is missing, wanted all three", key)
				continue
			}
			for i, s := range t.Scopes {
				if slices.Contains(t.Scopes[:i], s) {
					p.fail(e.Line, "%s: the scope %q is given twice", key, s)
				}
			}
			// Two tokens of one digest are one token: which scopes would it have?
			for _, once := range []struct{ key, value string }{{"name", t.Name}, {"sha256", t.SHA256}} {
				id := once.key + " " + once.value
				if line := first[id]; line > 0 {
					p.fail(e.Line, "%s: the %s %q is given twice, first on line %d", key, once.key, short(once.value), line)
				} else {
					first[id] = e.Line
				}
			}
			list = append(list, t)
		}
		*into = list
	}
}

var hostName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$`)

func wantListen(s string) string {
	host, port, err := net.SplitHostPort(s)
	if n, bad := strconv.ParseUint(port, 10, 16); err == nil && bad == nil && strconv.FormatUint(n, 10) == port &&
		(host == "" || net.ParseIP(host) != nil || hostName.MatchString(host)) {
		return ""
	}
	return "a host and a port, such as 127.0.0.1:8001"
}

// emptyDigest is what sha256sum prints for nothing: for a variable that is not set.
const emptyDigest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// tokenDigest reads the digest of a token. It never shows what it found: who errs
// here may have written the token itself.
func (p *parser) tokenDigest(into *string) func(string, *yaml.Node) {
	return func(key string, n *yaml.Node) {
		switch {
		case !p.plain(n):
		case n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" || len(n.Value) != 64 || strings.Trim(n.Value, "0123456789abcdef") != "":
			p.fail(n.Line, "%s: found something else than 64 lower-case hex digits in quotes: type printf %%s TOKEN | sha256sum", key)
		case n.Value == emptyDigest:
			p.fail(n.Line, "%s: found the digest of nothing, wanted that of a token", key)
		default:
			*into = n.Value
		}
	}
}
