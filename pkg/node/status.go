package node

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	_ "embed" // the page
	"encoding/base64"
	"fmt"
	"html/template"
	"math"
	"net/http"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/chart"
	"github.com/vaultmesh/remembrancer/pkg/federate"
)

//go:embed status.html
var statusText string

//go:embed status.css
var statusStyle string

var statusPage = template.Must(template.New("status").Parse(statusText))

// status is what the page shows: nothing that a reader could not ask the tools health
// and list_peers and /metrics for.
type status struct {
	Style                        template.CSS
	Ready                        bool
	Node, Fingerprint, Endpoint  string
	Version, Revision, Track, Go string
	Log, Entries, Root, Trust    string
	Conflicts, Quarantined       string
	At                           time.Time
	Every                        string
	Tiles                        []tileOf
	Wide, Narrow                 template.HTML
	NoPicture                    string
	Peers                        []peerOf
	Calls                        []callsOf
	Decisions                    []decisionsOf
}

type tileOf struct{ Name, Value, Note string }

type callsOf struct{ Name, Calls, Refused, Failed string }

type decisionsOf struct{ Name, Allow, Deny, Error string }

type peerOf struct{ Node, Fingerprint, URL, Synced, Outcome, Taken, Merge, Stopped string }

// serveStatus shows how the node is to people: HTML without scripts, and with nothing
// from elsewhere.
func (s *Server) serveStatus(w http.ResponseWriter, r *http.Request) {
	page, err := s.statusNow()
	var b bytes.Buffer
	if err == nil {
		err = statusPage.Execute(&b, page)
	}
	if err != nil {
		s.log.Error("status", "error", err)
		plain(w, http.StatusInternalServerError, "internal error")
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src "+strings.Join(stylesOf(b.Bytes()), " ")+"; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write(b.Bytes())
}

// stylesOf names the styles that the page itself has, by their hashes: no other is
// applied. What is quoted from elsewhere is escaped, and begins none.
func stylesOf(page []byte) []string {
	var all []string
	for {
		_, rest, ok := bytes.Cut(page, []byte("<style>"))
		text, rest, ends := bytes.Cut(rest, []byte("</style>"))
		if !ok || !ends {
			return all
		}
		sum := sha256.Sum256(text)
		name := "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
		if !slices.Contains(all, name) {
			all = append(all, name)
		}
		page = rest
	}
}

func (s *Server) statusNow() (*status, error) {
	now := s.o.Now()
	who := s.o.Store.Identity()
	p := &status{
		Style: template.CSS(statusStyle), Ready: s.ready() == nil, //nolint:gosec // it is ours
		Node: who.Node, Fingerprint: inFours(who.Fingerprint), Log: who.Log, Endpoint: who.Endpoint, Trust: s.o.Store.Trust().Hash(),
		Version: s.o.Version, Revision: s.o.Revision, Track: s.o.Track, Go: runtime.Version(),
		At: now.UTC(), Every: sampleEvery.String(),
	}
	p.Entries = "not known"
	if head, err := s.logHead(); err == nil {
		p.Entries, p.Root = grouped(head.Size), cmp.Or(head.Root, "none: the log has no entries yet")
	}
	quarantined := 0
	for _, n := range s.o.Store.Quarantine().Counts {
		quarantined += n
	}
	p.Conflicts, p.Quarantined = grouped(int64(len(s.o.Store.Conflicts()))), grouped(int64(quarantined))
	drawn, err := s.history.pictures()
	switch {
	case err != nil:
		s.log.Error("status", "error", err)
		p.NoPicture = "The history could not be drawn: see the node's log."
	case drawn.wide == nil:
		p.NoPicture = fmt.Sprintf("No history yet: the node looks at itself every %s while it listens, and there is something to draw after the second look.", sampleEvery)
	}
	p.Wide, p.Narrow = template.HTML(drawn.wide), template.HTML(drawn.narrow) //nolint:gosec // package chart escapes what it is given

	requests, err := s.countsOf(p)
	if err != nil {
		return nil, err
	}
	recentCalls, recentDecisions, span := s.history.recent()
	of := "no history yet"
	if span > 0 {
		of = "of the last " + lasting(span)
	}
	peers := s.o.Store.Peers()
	stopped := 0
	for _, peer := range peers {
		if peer.Stopped != "" {
			stopped++
		}
	}
	p.Tiles = []tileOf{
		{"Ledger", p.Entries, "entries"},
		{"Requests", grouped(requests), "since it began"},
		{"Requests, p95", inTime(recentCalls.quantile(.95)), of},
		{"Policy, p99", inTime(recentDecisions.quantile(.99)), of},
		{"Peers", grouped(int64(len(peers))), fmt.Sprintf("%d stopped", stopped)},
		{"Uptime", lasting(now.Sub(s.started)), "since " + s.started.UTC().Format("2006-01-02 15:04 UTC")},
	}
	for _, peer := range peers {
		v := peerOf{
			Node: peer.Node, Fingerprint: inFours(peer.Fingerprint), URL: peer.URL, Taken: grouped(peer.TailSize),
			Synced: "none begun here", Stopped: peer.Stopped,
		}
		if peer.LastMergeFile != "" {
			v.Merge = path.Base(peer.LastMergeFile)
		}
		if last, ok := s.metrics.lastOf(peer.Node); ok {
			v.Synced, v.Outcome = lasting(now.Sub(last.at))+" ago", string(last.outcome)
		}
		p.Peers = append(p.Peers, v)
	}
	slices.SortFunc(p.Peers, func(a, b peerOf) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Fingerprint, b.Fingerprint))
	})
	return p, nil
}

// countsOf takes from the counters what was asked for and decided so far, and
// returns the number of requests.
func (s *Server) countsOf(p *status) (requests int64, err error) {
	families, err := s.metrics.counted.Gather()
	if err != nil {
		return 0, err
	}
	calls, decisions := map[string]*[3]float64{}, map[string]*[3]float64{}
	into := func(all map[string]*[3]float64, name string, column int, n float64) {
		if n == 0 {
			return
		}
		if all[name] == nil {
			all[name] = &[3]float64{}
		}
		all[name][column] += n
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			label := map[string]string{}
			for _, l := range m.GetLabel() {
				label[l.GetName()] = l.GetValue()
			}
			if v, ok := label["decision"]; ok {
				into(decisions, label["policy"], slices.Index(allVerdicts, verdict(v)), float64(m.GetHistogram().GetSampleCount()))
				continue
			}
			n := m.GetCounter().GetValue()
			into(calls, label["tool"], 0, n)
			switch verdictOf(federate.Code(label["code"])) {
			case deny:
				into(calls, label["tool"], 1, n)
			case unclear:
				into(calls, label["tool"], 2, n)
			}
		}
	}
	for name, n := range calls {
		requests += int64(n[0])
		p.Calls = append(p.Calls, callsOf{name, grouped(int64(n[0])), grouped(int64(n[1])), grouped(int64(n[2]))})
	}
	slices.SortFunc(p.Calls, func(a, b callsOf) int { return cmp.Compare(a.Name, b.Name) })
	for name, n := range decisions {
		p.Decisions = append(p.Decisions, decisionsOf{name, grouped(int64(n[0])), grouped(int64(n[1])), grouped(int64(n[2]))})
	}
	slices.SortFunc(p.Decisions, func(a, b decisionsOf) int { return cmp.Compare(a.Name, b.Name) })
	return requests, nil
}

// grouped writes a number with commas between thousands, as the pictures do.
func grouped(n int64) string {
	text := strconv.FormatInt(n, 10)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// inFours writes a fingerprint as people compare it.
func inFours(hex string) string {
	var parts []string
	for four := range slices.Chunk([]byte(hex), 4) {
		parts = append(parts, string(four))
	}
	return strings.Join(parts, " ")
}

func inTime(seconds float64) string {
	if math.IsNaN(seconds) {
		return "no data"
	}
	return chart.Seconds.Format(seconds)
}

// lasting writes a duration in its two largest units.
func lasting(d time.Duration) string {
	d = max(d, 0)
	n := int64(d / time.Second)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", n)
	case d < time.Hour:
		return fmt.Sprintf("%d min", n/60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%d h %d min", n/3600, n/60%60)
	}
	return fmt.Sprintf("%d d %d h", n/86400, n/3600%24)
}
