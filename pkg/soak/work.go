package soak

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/federate"
	"github.com/vaultmesh/remembrancer/pkg/node"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

const (
	batchSize  = 5
	remembered = 4096     // receipts that ReadBack chooses from
	oversized  = 25 << 10 // bytes of a decision: more than a node takes
	operation  = "op-"    // how the third tag of an operation's receipt begins
)

// made is a receipt that a client has verified.
type made struct {
	id    receipt.ID
	index int64
	line  string
}

// work carries out operations against a node. Each says how it ended; what it
// returns beside that is for people.
type work struct {
	r    *remote
	run  string
	seed uint64
	now  func() time.Time

	mu       sync.Mutex // guards what follows
	verified int64      // receipts that were asked for and proven
	unknown  int64      // receipts that were asked for, and nobody knows
	receipts []made
	last     checkpoint.Verified // of the last Consistency
}

// appended is how many receipts were asked for.
type appended struct {
	Verified int64 `json:"verified"` // and proven to the client
	Unknown  int64 `json:"unknown"`  // and the answer was lost, or did not verify
}

func (w *work) appended() appended {
	w.mu.Lock()
	defer w.mu.Unlock()
	return appended{w.verified, w.unknown}
}

// perform carries out one operation. Its deadline is the context's.
func (w *work) perform(ctx context.Context, a arrival) (Outcome, error) {
	random := rand.New(rand.NewPCG(w.seed, uint64(a.seq)+1)) // reproducible, not secret
	var err error
	expected := Verified
	switch a.work {
	case Append:
		err = w.append(ctx, random, a.seq, 1)
	case Batch:
		err = w.append(ctx, random, a.seq, batchSize)
	case ReadBack:
		err = w.readBack(ctx, random)
	case Denied:
		expected, err = DeniedExpected, w.denied(ctx, random, a.seq)
	case Tampered:
		expected, err = DeniedExpected, w.tampered(ctx, random)
	case Replay:
		expected, err = w.replay(ctx, random)
	case Tools:
		err = w.tools(ctx)
	case Disconnect:
		err = w.disconnect(ctx, random, a.seq)
	case Consistency:
		err = w.consistency(ctx)
	default:
		panic("unknown workload " + a.work)
	}
	return outcomeOf(ctx, expected, err), err
}

// outcomeOf says how an operation ended that ended in an error.
func outcomeOf(ctx context.Context, expected Outcome, err error) Outcome {
	var lie *untrue
	var refused *node.ToolError
	var status *statusError
	switch {
	case err == nil:
		return expected
	case errors.As(err, &lie):
		return Unverified
	case ctx.Err() != nil, errors.Is(err, context.DeadlineExceeded):
		return Timeout
	case errors.As(err, &refused), errors.As(err, &status):
		return Rejected
	}
	return Errored
}

// decision is what record_decision is asked.
type decision struct {
	Title string   `json:"title"`
	Body  string   `json:"body"`
	Tags  []string `json:"tags"`
}

// decide makes a decision of its own for each operation and each part of it.
func (w *work) decide(random *rand.Rand, name string) decision {
	text := make([]byte, 24+random.IntN(200))
	for i := range text {
		text[i] = byte(random.Uint32())
	}
	return decision{
		Title: fmt.Sprintf("Soak %s %s", w.run, name),
		Body:  "Recorded under load. " + base64.StdEncoding.EncodeToString(text),
		Tags:  []string{"soak", w.run, name},
	}
}

// append records decisions and believes nothing: it is done when the receipts have
// been read again, with the node's signature, and were proven to be in the log.
func (w *work) append(ctx context.Context, random *rand.Rand, seq int64, n int) error {
	list := make([]made, 0, n)
	for i := range n {
		name := fmt.Sprintf("%s%d", operation, seq)
		if n > 1 {
			name = fmt.Sprintf("%s%d-%d", operation, seq, i)
		}
		m, err := w.record(ctx, w.decide(random, name))
		if err != nil {
			w.count(0, int64(len(list))+maybe(err))
			return err
		}
		list = append(list, m)
	}
	if err := w.prove(ctx, list); err != nil {
		w.count(0, int64(n))
		return err
	}
	w.count(int64(n), 0)
	w.remember(list...)
	return nil
}

// maybe is 1 if an error leaves open whether something was recorded.
func maybe(err error) int64 {
	var refused *node.ToolError
	var no *unsent
	var dial *net.OpError
	if errors.As(err, &refused) {
		// A call that ran into its deadline, or into a fault, may have got so far.
		if slices.Contains([]federate.Code{federate.CodeForbidden, federate.CodeBadRequest, federate.CodeTooLarge}, federate.Code(refused.Code)) {
			return 0
		}
		return 1
	}
	if errors.As(err, &no) || errors.As(err, &dial) && dial.Op == "dial" {
		return 0
	}
	return 1
}

func (w *work) count(verified, unknown int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.verified += verified
	w.unknown += unknown
}

func (w *work) remember(list ...made) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.receipts = append(w.receipts, list...)
	w.receipts = w.receipts[max(0, len(w.receipts)-remembered):]
}

// record records one decision and reads its receipt.
func (w *work) record(ctx context.Context, d decision) (made, error) {
	// A map takes keys that later versions add.
	var recorded struct {
		ID    string
		Index *int64
	}
	var answer map[string]json.RawMessage
	if err := w.r.call(ctx, "record_decision", d, &answer); err != nil {
		return made{}, err
	}
	if err := json.Unmarshal(answer["recorded"], &recorded); err != nil {
		return made{}, untruef("record_decision: %w", err)
	}
	id, err := receipt.ParseID(recorded.ID)
	if err != nil || recorded.Index == nil {
		return made{}, untruef("record_decision: found %.200s, want an id and an index", answer["recorded"])
	}
	line, err := w.fetch(ctx, id)
	if err != nil {
		// It said that it recorded this very receipt, so it must show it.
		var refused *node.ToolError
		if errors.As(err, &refused) && refused.Code == string(federate.CodeBadRequest) {
			err = untruef("receipt %s was recorded and is not shown: %w", id, err)
		}
		return made{}, &lost{err}
	}
	e, err := w.entry(id, line)
	if err != nil {
		return made{}, err
	}
	var title, body string
	var tags []string
	err = errors.Join(e.Receipt.Decode("title", &title), e.Receipt.Decode("decision", &body), e.Receipt.Decode("tags", &tags))
	if err != nil || title != d.Title || body != d.Body || !slices.Equal(tags, d.Tags) || e.Receipt.Kind() != receipt.ADR {
		return made{}, untruef("receipt %s does not say what was asked for", id)
	}
	return made{id, *recorded.Index, line}, nil
}

// lost is an error after something was recorded.
type lost struct{ err error }

func (l *lost) Error() string { return l.err.Error() }

// Unwrap does not show a refusal of the reading as one of the recording.
func (l *lost) Unwrap() error {
	var refused *node.ToolError
	if errors.As(l.err, &refused) {
		return &statusError{refused.Tool, 0, refused.Error()}
	}
	return l.err
}

// fetch reads the log line of a receipt.
func (w *work) fetch(ctx context.Context, id receipt.ID) (string, error) {
	var answer map[string]json.RawMessage
	if err := w.r.call(ctx, "get_memory", map[string]string{"memory_id": id.String()}, &answer); err != nil {
		return "", err
	}
	var memory struct{ Line string }
	if err := json.Unmarshal(answer["memory"], &memory); err != nil {
		return "", untruef("get_memory: %w", err)
	}
	return memory.Line, nil
}

// entry verifies a log line: it is of this receipt, and the pinned key signed it.
func (w *work) entry(id receipt.ID, line string) (receipt.Entry, error) {
	e, err := receipt.ParseLine([]byte(line))
	if err != nil {
		return e, untruef("receipt %s: %w", id, err)
	}
	if e.Receipt.ID() != id {
		return e, untruef("receipt %s: the node shows another one, %s", id, e.Receipt.ID())
	}
	issued, err := e.Verify(w.r.ring, w.now())
	switch {
	case err != nil:
		return e, untruef("receipt %s: %w", id, err)
	case !issued || string(e.Receipt.Issuer()) != w.r.pinned.Fingerprint:
		return e, untruef("receipt %s: it is not signed by %s", id, w.r.pinned.Fingerprint)
	}
	return e, nil
}

// prove proves that receipts are in the log, under one verified checkpoint.
func (w *work) prove(ctx context.Context, list []made) error {
	cp, err := w.r.head(ctx)
	if err != nil {
		return err
	}
	for _, m := range list {
		if err := w.r.inclusion(ctx, cp.Body(), m.index, []byte(m.line)); err != nil {
			return fmt.Errorf("receipt %s: %w", m.id, err)
		}
	}
	return nil
}

// readBack reads an earlier receipt: it must be the same bytes as then, and still in
// the log.
func (w *work) readBack(ctx context.Context, random *rand.Rand) error {
	w.mu.Lock()
	m := w.receipts[random.IntN(len(w.receipts))] // that of the first contact is always there
	w.mu.Unlock()
	line, err := w.get(ctx, m.id)
	if err != nil {
		return err
	}
	if line != m.line {
		return untruef("receipt %s is not what it was", m.id)
	}
	return w.prove(ctx, []made{m})
}

// get reads a log line in the way peers do.
func (w *work) get(ctx context.Context, id receipt.ID) (string, error) {
	var out federate.GetOut
	if err := w.r.call(ctx, federate.ToolGet, federate.GetIn{IDs: []string{id.String()}}, &out); err != nil {
		return "", err
	}
	if len(out.Items) != 1 {
		return "", untruef("receipt %s: found %d items, want one", id, len(out.Items))
	}
	return out.Items[0].Line, nil
}

// rpc is a request of JSON-RPC.
func rpc(method string, params any) []byte {
	b, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
	if err != nil {
		panic(err) // it is made of strings
	}
	return b
}

func callOf(tool string, args any) []byte {
	return rpc("tools/call", map[string]any{"name": tool, "arguments": args})
}

// answered is what came of a request that was sent by hand: the code of a refusal, ""
// where it was done.
func answered(status int, body []byte) (code, text string, err error) {
	switch status {
	case http.StatusOK:
	case http.StatusUnauthorized, http.StatusForbidden:
		return string(federate.CodeForbidden), clip(body), nil
	case http.StatusBadRequest, http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity:
		return string(federate.CodeBadRequest), clip(body), nil
	case http.StatusRequestEntityTooLarge:
		return string(federate.CodeTooLarge), clip(body), nil
	default:
		return "", "", &statusError{"/mcp", status, clip(body)}
	}
	var answer struct {
		Result *struct {
			IsError bool
			Content []struct{ Text string }
		}
		Error *struct{ Message string }
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return "", "", fmt.Errorf("answer: %w", err)
	}
	switch {
	case answer.Error != nil:
		return string(federate.CodeBadRequest), answer.Error.Message, nil
	case answer.Result == nil:
		return "", "", errors.New("answer: neither a result nor an error")
	case answer.Result.IsError:
		if len(answer.Result.Content) > 0 {
			text = answer.Result.Content[0].Text
		}
		code, _, _ = strings.Cut(text, ": ")
		return code, text, nil
	}
	return "", "", nil
}

// must holds what came of a request to what had to: one of these refusals.
func must(what string, status int, body []byte, codes ...federate.Code) error {
	code, text, err := answered(status, body)
	switch {
	case err != nil:
		return err
	case code == "":
		return untruef("%s: the node took it, and must refuse it", what)
	case slices.Contains(codes, federate.Code(code)):
		return nil
	}
	return &statusError{what, status, "refused as " + text}
}

// denied asks for what must not be done, in one of many ways.
func (w *work) denied(ctx context.Context, random *rand.Rand, seq int64) error {
	d := w.decide(random, fmt.Sprintf("denied-%d", seq))
	var what string
	var body []byte
	secret := w.r.known()
	code := federate.CodeBadRequest
	switch random.IntN(7) {
	case 0:
		what, secret, code, body = "a decision without a token", "", federate.CodeForbidden, callOf("record_decision", d)
	case 1:
		what, secret, code, body = "a decision with a wrong token", fmt.Sprintf("%016x%016x", random.Uint64(), random.Uint64()), federate.CodeForbidden, callOf("record_decision", d)
	case 2:
		d.Body = strings.Repeat("x", oversized)
		what, body = "an oversized decision", callOf("record_decision", d)
	case 3:
		d.Title = ""
		what, body = "a decision without a title", callOf("record_decision", d)
	case 4:
		what, body = "a decision with an unknown argument", callOf("record_decision", map[string]any{"title": d.Title, "body": d.Body, "issuer": "me"})
	case 5:
		full := callOf("record_decision", d)
		what, body = "half a request", full[:len(full)/2]
	default:
		what, body = "a tool that is not there", callOf("forget_decision", map[string]any{"id": "1"})
	}
	status, answer, err := w.r.post(ctx, w.r.web, secret, body)
	if err != nil {
		return err
	}
	return must(what, status, answer, code)
}

// hello asks for a challenge.
func (w *work) hello(ctx context.Context) (string, error) {
	var out federate.HelloOut
	if err := w.r.call(ctx, federate.ToolHello, federate.HelloIn{Protocol: federate.Protocol}, &out); err != nil {
		return "", err
	}
	return out.Challenge, nil
}

// forged asks for a session as the node itself, with its own identity, of which one
// bit of the signature is another.
func (w *work) forged(ctx context.Context, random *rand.Rand, challenge string) (federate.SessionIn, error) {
	var id federate.IdentityOut
	if err := w.r.call(ctx, federate.ToolIdentity, federate.IdentityIn{}, &id); err != nil {
		return federate.SessionIn{}, err
	}
	sig, err := base64.StdEncoding.DecodeString(id.Signature)
	if err != nil || len(sig) == 0 {
		return federate.SessionIn{}, untruef("identity: the signature is not base64")
	}
	bit := random.IntN(8 * len(sig))
	sig[bit/8] ^= 1 << (bit % 8)
	id.Signature = base64.StdEncoding.EncodeToString(sig)
	nonce := make([]byte, 32)
	for i := range nonce {
		nonce[i] = byte(random.Uint32())
	}
	return federate.SessionIn{
		Challenge: challenge, Nonce: hex.EncodeToString(nonce), Node: w.r.pinned.Node, Fingerprint: w.r.pinned.Fingerprint,
		Identity: id, Time: w.now().UTC().Format(time.RFC3339), Operator: w.r.pinned.Fingerprint, Signature: id.Signature,
	}, nil
}

// refused wants a call to end in a code.
func (w *work) refused(ctx context.Context, what, tool string, in any, code federate.Code) error {
	var out map[string]json.RawMessage
	err := w.r.call(ctx, tool, in, &out)
	var refused *node.ToolError
	switch {
	case err == nil:
		return untruef("%s: the node took it, and must refuse it", what)
	case errors.As(err, &refused) && refused.Code == string(code):
		return nil
	}
	return err
}

// tampered shows what is signed, and was changed since.
func (w *work) tampered(ctx context.Context, random *rand.Rand) error {
	if random.IntN(3) == 0 {
		return w.tamperedCheckpoint(ctx, random)
	}
	challenge, err := w.hello(ctx)
	if err != nil {
		return err
	}
	in, err := w.forged(ctx, random, challenge)
	if err != nil {
		return err
	}
	return w.refused(ctx, "an identity with a broken signature", federate.ToolSession, in, federate.CodeForbidden)
}

// tamperedCheckpoint asks the witness to cosign a checkpoint that nobody signed.
func (w *work) tamperedCheckpoint(ctx context.Context, random *rand.Rand) error {
	cp, err := w.r.head(ctx)
	if err != nil {
		return err
	}
	body := cp.Body()
	body.Size += 1 + random.Int64N(1000)
	_, signatures, _ := strings.Cut(string(cp.Note()), "\n\n")
	note := fmt.Sprintf("old 0\n\n%s\n%s", body.Text(), signatures)
	status, answer, err := request(ctx, w.r.web, http.MethodPost, w.r.base+"/add-checkpoint", "text/plain", w.r.known(), []byte(note))
	switch {
	case err != nil:
		return err
	case status == http.StatusOK:
		return untruef("a checkpoint with a broken signature: the node cosigned it")
	case status == http.StatusForbidden || status == http.StatusNotFound: // the second: of no peer's log
		return nil
	}
	return &statusError{"/add-checkpoint", status, clip(answer)}
}

// replay uses a challenge twice, or asks the same twice.
func (w *work) replay(ctx context.Context, random *rand.Rand) (Outcome, error) {
	if random.IntN(2) == 0 {
		w.mu.Lock()
		m := w.receipts[random.IntN(len(w.receipts))]
		w.mu.Unlock()
		one, err := w.get(ctx, m.id)
		if err != nil {
			return Verified, err
		}
		two, err := w.get(ctx, m.id)
		if err == nil && (one != two || one != m.line) {
			err = untruef("receipt %s: the node shows it in two forms", m.id)
		}
		return Verified, err
	}
	challenge, err := w.hello(ctx)
	if err != nil {
		return DeniedExpected, err
	}
	in, err := w.forged(ctx, random, challenge)
	if err != nil {
		return DeniedExpected, err
	}
	if err := w.refused(ctx, "an identity with a broken signature", federate.ToolSession, in, federate.CodeForbidden); err != nil {
		return DeniedExpected, err
	}
	return DeniedExpected, w.refused(ctx, "a challenge that was used", federate.ToolSession, in, federate.CodeUnknownSession)
}

// offered are tools that a node must have, or nobody could work with it.
var offered = []string{"record_decision", "get_memory", "search_memories", "health", federate.ToolIdentity, federate.ToolGet}

// tools lists the tools.
func (w *work) tools(ctx context.Context) error {
	status, body, err := w.r.post(ctx, w.r.web, w.r.known(), rpc("tools/list", map[string]any{}))
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return &statusError{"tools/list", status, clip(body)}
	}
	var answer struct {
		Result struct{ Tools []struct{ Name string } }
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return untruef("tools/list: %w", err)
	}
	for _, name := range offered {
		if !slices.ContainsFunc(answer.Result.Tools, func(t struct{ Name string }) bool { return t.Name == name }) {
			return untruef("tools/list: %s is not there", name)
		}
	}
	return nil
}

// disconnect hangs up while a decision is being recorded. Whether it was is open; the
// log must go on either way.
func (w *work) disconnect(ctx context.Context, random *rand.Rand, seq int64) error {
	d := w.decide(random, fmt.Sprintf("%s%d", operation, seq))
	short, cancel := context.WithTimeout(ctx, time.Duration(random.IntN(5000))*time.Microsecond)
	// A connection of its own, so that nobody else's is cut.
	web := newWeb(w.r.web.Transport.(*http.Transport).TLSClientConfig) //nolint:forcetypeassert // newWeb made it
	_, _, err := w.r.post(short, web, w.r.known(), callOf("record_decision", d))
	cancel()
	web.CloseIdleConnections()
	w.count(0, maybe(err))
	if err != nil && short.Err() == nil {
		return err
	}
	was := w.lastSeen() // before the head is asked for, so that it is no later one
	cp, err := w.r.head(ctx)
	if err != nil {
		return err
	}
	return w.r.consistency(ctx, was, cp.Body())
}

func (w *work) lastSeen() checkpoint.Body {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last.Body()
}

// consistency proves that the log extends what it was the last time.
func (w *work) consistency(ctx context.Context) error {
	was := w.lastSeen()
	cp, err := w.r.head(ctx)
	if err != nil {
		return err
	}
	if err := w.r.consistency(ctx, was, cp.Body()); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if cp.Body().Size > w.last.Body().Size {
		w.last = cp
	}
	return nil
}

// begin records and verifies one receipt: that of the first contact, which is none of
// the schedule. Before that it makes sure that the token allows for everything: what is
// forbidden anyway could not be told from what is forbidden for a reason.
func (w *work) begin(ctx context.Context) error {
	nobody := federate.SessionIn{Challenge: strings.Repeat("0", 64)}
	if err := w.refused(ctx, "a challenge that nobody gave", federate.ToolSession, nobody, federate.CodeUnknownSession); err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(w.seed, 0)) // reproducible, not secret
	m, err := w.record(ctx, w.decide(random, "contact"))
	if err != nil {
		return err
	}
	if err := w.prove(ctx, []made{m}); err != nil {
		return err
	}
	w.remember(m)
	return w.consistency(ctx)
}
