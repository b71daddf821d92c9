package action

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	githubactions "github.com/sethvargo/go-githubactions"
)

// Limits of a runner, and how far below them this package stays.
const (
	summaryCap     = 900 << 10 // a runner drops a whole summary above 1 MiB
	annotationCap  = 10        // per level and step; a runner drops the rest
	annotationSize = 4096      // bytes of a message; a runner cuts the rest
	titleSize      = 255       // characters a check's annotation may have as title
	payloadCap     = 32 << 20  // GitHub's webhook payloads end at 25 MiB
)

// Level is the severity of an annotation.
type Level string

// The levels that a runner knows.
const (
	Notice  Level = "notice"
	Warning Level = "warning"
	Error   Level = "error"
)

// Runner is the way from a verb to the runner that called it. Without a runner
// (GITHUB_ACTIONS is not "true") everything works and nothing is a command.
// It is not safe for concurrent use.
type Runner struct {
	getenv  func(string) string
	out     *stickyWriter
	rand    io.Reader
	spec    Spec
	gh      *githubactions.Action
	notes   []annotation
	stopped bool              // an untrusted stream is open: the runner reads no commands
	full    bool              // the summary has had its truncation line
	part    map[string]string // of a Part: its outputs, which the whole decides about
}

type annotation struct {
	level            Level
	file, title, msg string
	line             int
}

// stickyWriter keeps the first error. The library beneath panics when a write
// fails, and a closed pipe is not a programmer's mistake.
type stickyWriter struct {
	w   io.Writer
	err error
}

func (s *stickyWriter) Write(p []byte) (int, error) {
	if s.err == nil {
		_, s.err = s.w.Write(p)
	}
	return len(p), nil
}

// NewRunner returns the Runner of one call of a verb. Commands go to stdout;
// rand must be a cryptographic source.
func NewRunner(getenv func(string) string, stdout io.Writer, rand io.Reader, spec Spec) *Runner {
	spec.check()
	out := &stickyWriter{w: stdout}
	return &Runner{
		getenv: getenv, out: out, rand: rand, spec: spec,
		gh: githubactions.New(githubactions.WithWriter(out), githubactions.WithGetenv(getenv)),
	}
}

// Part returns the Runner of one verb that another carries out as a part of
// itself. The outputs of the part are not written, but returned by the function:
// an output that is set twice would be read as whoever reads it likes.
func (r *Runner) Part(spec Spec) (*Runner, func() map[string]string) {
	one := NewRunner(r.getenv, r.out, r.rand, spec)
	one.part = map[string]string{}
	return one, func() map[string]string { return one.part }
}

// InActions tells whether a runner of workflows called.
func (r *Runner) InActions() bool { return r.getenv("GITHUB_ACTIONS") == "true" }

// token returns 32 random bytes in hex.
func (r *Runner) token() (string, error) {
	var b [32]byte
	if _, err := io.ReadFull(r.rand, b[:]); err != nil {
		return "", fmt.Errorf("random delimiter: %w", err)
	}
	return hex.EncodeToString(b[:]), nil
}

// SetOutput gives an output to the workflow. The value must be one line of
// valid UTF-8 without control characters other than tab. Without a runner and
// GITHUB_OUTPUT the value is checked and goes nowhere.
//
// The record is
//
//	NAME<<DELIMITER
//	VALUE
//	DELIMITER
//
// with 32 random bytes in hex as DELIMITER, new for each record. The library's
// own writer has a fixed one, which a value can contain.
func (r *Runner) SetOutput(name, value string) error {
	declared := false
	for _, o := range r.spec.Outputs {
		declared = declared || o.Name == name
	}
	if !declared {
		return fmt.Errorf("output %q is not declared by %s", name, r.spec.Verb)
	}
	if !utf8.ValidString(value) {
		return fmt.Errorf("output %s: value is not UTF-8; outputs are single-line text by type", name)
	}
	for _, c := range value {
		if c == '\u2028' || c == '\u2029' || c != '\t' && unicode.IsControl(c) {
			return fmt.Errorf("output %s: value contains %q; outputs are single-line by type", name, c)
		}
	}
	if r.part != nil {
		r.part[name] = value
		return nil
	}
	path := r.getenv("GITHUB_OUTPUT")
	if path == "" {
		if r.InActions() {
			return fmt.Errorf("output %s: the runner set no GITHUB_OUTPUT, so it would be lost", name)
		}
		return nil
	}
	delim, err := r.token()
	if err != nil {
		return fmt.Errorf("output %s: %w", name, err)
	}
	if strings.Contains(value, delim) {
		return fmt.Errorf("output %s: value contains its random delimiter", name)
	}
	if err := appendLines(path, name+"<<"+delim+"\n"+value+"\n"+delim+"\n"); err != nil {
		return fmt.Errorf("output %s: %w", name, err)
	}
	return nil
}

// appendLines appends text, which ends with a newline, in one write, and
// begins a fresh line if whoever wrote before did not end theirs: else our
// first line would be the tail of a value of theirs.
func appendLines(path, text string) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Mode().IsRegular() && info.Size() > 0 {
		var last [1]byte
		if _, err := f.ReadAt(last[:], info.Size()-1); err != nil {
			return err
		}
		if last[0] != '\n' {
			text = "\n" + text
		}
	}
	_, err = io.WriteString(f, text)
	return err
}

// Summary appends Markdown to the summary of the step; text from elsewhere
// must have gone through [EscapeMarkdown]. All summaries of a step together
// stay within 900 KiB: the one that would exceed it is cut after a whole line,
// a line says so, and later ones are dropped. Without GITHUB_STEP_SUMMARY it
// does nothing.
func (r *Runner) Summary(markdown string) error {
	path := r.getenv("GITHUB_STEP_SUMMARY")
	if path == "" || markdown == "" || r.full {
		return nil
	}
	if !strings.HasSuffix(markdown, "\n") {
		markdown += "\n"
	}
	var size int
	switch info, err := os.Stat(path); {
	case err == nil:
		size = int(info.Size())
	case !errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("summary: %w", err)
	}
	// One byte is kept for the newline that appendLines may add.
	if room := summaryCap - 1 - size; len(markdown) > room {
		const notice = "\n_Summary truncated at 900 KiB: %d bytes are not shown._\n"
		cut := min(max(0, room-len(notice)-20), len(markdown))
		cut = strings.LastIndexByte(markdown[:cut], '\n') + 1
		markdown = markdown[:cut] + fmt.Sprintf(notice, len(markdown)-cut)
		r.full = true
	}
	if err := appendLines(path, markdown); err != nil {
		return fmt.Errorf("summary: %w", err)
	}
	return nil
}

// EscapeMarkdown makes text from elsewhere (a test name, a commit message) mean
// nothing in Markdown: one line, no table cell, code, emphasis, link, image,
// HTML, mention or reference to an issue.
func EscapeMarkdown(text string) string {
	var b strings.Builder
	for i, c := range text {
		switch {
		case c == '@' || c == '#':
			// An entity for these would be decoded before mentions are looked
			// for; a zero-width space behind them is not.
			fmt.Fprintf(&b, "%c&#8203;", c)
		case strings.ContainsRune("&<>`|*_[]~\\!", c):
			fmt.Fprintf(&b, "&#%d;", c)
		case c == ':' && strings.HasPrefix(text[i:], "://"):
			b.WriteString("&#58;")
		case unicode.IsControl(c) || c == '\u2028' || c == '\u2029':
			b.WriteByte(' ')
		case unicode.Is(unicode.Bidi_Control, c):
			b.WriteRune(utf8.RuneError)
		default:
			b.WriteRune(c)
		}
	}
	return b.String()
}

// Annotate notes a message for a line of a file; file may be "" and line 0.
// Nothing is written before Flush, which knows how many there are.
func (r *Runner) Annotate(level Level, file string, line int, title, msg string) {
	switch level {
	case Notice, Warning, Error:
	default:
		panic(fmt.Sprintf("action: no annotation level %q", level))
	}
	r.notes = append(r.notes, annotation{level: level, file: file, line: line, title: title, msg: msg})
}

// Flush writes what Annotate collected, and returns the first error of writing
// to stdout since the beginning. A step may have ten annotations of a level:
// of more, nine are written and the tenth counts the rest. Call it once, at the
// end; a second call has a budget of its own but the runner has not.
func (r *Runner) Flush() error {
	if err := r.commands(); err != nil {
		return err
	}
	total, seen := map[Level]int{}, map[Level]int{}
	for _, n := range r.notes {
		total[n.level]++
	}
	for _, n := range r.notes {
		seen[n.level]++
		if total[n.level] > annotationCap && seen[n.level] >= annotationCap {
			if seen[n.level] == annotationCap {
				r.annotate(annotation{level: n.level, msg: fmt.Sprintf("…and %d more", total[n.level]-annotationCap+1)})
			}
			continue
		}
		r.annotate(n)
	}
	r.notes = nil
	return r.out.err
}

func (r *Runner) annotate(n annotation) {
	n.msg = cutText(strings.ToValidUTF8(n.msg, "\uFFFD"), annotationSize)
	n.title = cutText(strings.ToValidUTF8(n.title, "\uFFFD"), titleSize)
	if n.msg == "" {
		n.msg = n.title // a runner shows no annotation without a message
	}
	if !r.InActions() {
		place := ""
		if n.file != "" {
			place = n.file + ": "
			if n.line > 0 {
				place = n.file + ":" + strconv.Itoa(n.line) + ": "
			}
		}
		if n.title != "" && n.title != n.msg {
			place += n.title + ": "
		}
		fmt.Fprintf(r.out, "%s: %s%s\n", n.level, place, n.msg)
		return
	}
	fields := map[string]string{}
	if n.file != "" {
		fields["file"] = n.file
		if n.line > 0 {
			fields["line"] = strconv.Itoa(n.line)
		}
	}
	if n.title != "" {
		fields["title"] = n.title
	}
	// These three are printf: text goes in as an argument, or every percent
	// sign of a test name becomes %!d(MISSING).
	gh := r.gh.WithFieldsMap(fields)
	switch n.level {
	case Notice:
		gh.Noticef("%s", n.msg)
	case Warning:
		gh.Warningf("%s", n.msg)
	case Error:
		gh.Errorf("%s", n.msg)
	}
}

// cutText shortens text to at most n bytes, between characters.
func cutText(text string, n int) string {
	const more = "…"
	if len(text) <= n {
		return text
	}
	cut := n - len(more)
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + more
}

// commands fails while an untrusted stream is open: the runner would print a
// command instead of obeying it, and for add-mask that is the secret.
func (r *Runner) commands() error {
	if r.stopped {
		return errors.New("an untrusted stream is still open; close it before giving commands to the runner")
	}
	return nil
}

// Info writes text, and a newline, as text: no part of it is a command or a
// format.
func (r *Runner) Info(text string) error {
	if r.InActions() {
		text = Defang(text)
	}
	fmt.Fprintf(r.out, "%s\n", text)
	return r.out.err
}

// Defang returns text such that a runner that reads it line by line finds no
// command in it: a space parts "::" at the beginning of a line, and "##["
// anywhere. It is for short texts of our own that quote others', such as
// errors; a whole stream goes through [Runner.Untrusted].
func Defang(text string) string {
	text = strings.ReplaceAll(text, "##[", "## [")
	var b strings.Builder
	start := true // nothing visible yet on this line
	for i := 0; i < len(text); {
		if start && strings.HasPrefix(text[i:], "::") {
			b.WriteString(": :")
			i += 2
			start = false
			continue
		}
		c, n := utf8.DecodeRuneInString(text[i:])
		b.WriteString(text[i : i+n])
		i += n
		switch {
		case c == '\n' || c == '\r': // a runner takes a lone \r for the end of a line
			start = true
		case !unicode.IsSpace(c) && !unicode.IsControl(c) && !unicode.Is(unicode.Cf, c):
			start = false
		}
	}
	return b.String()
}

// Mask tells the runner to hide a secret in all logs of the job. Each line is
// masked by itself, since logs are compared line by line. Without a runner it
// writes nothing.
func (r *Runner) Mask(secret string) error {
	if !r.InActions() {
		return nil
	}
	if err := r.commands(); err != nil {
		return err
	}
	for line := range strings.FieldsFuncSeq(secret, func(c rune) bool { return c == '\n' || c == '\r' }) {
		if line = strings.TrimSpace(line); line != "" {
			r.gh.AddMask(line)
		}
	}
	return r.out.err
}

// Group begins a part of the log that can be folded.
func (r *Runner) Group(title string) error {
	if err := r.commands(); err != nil {
		return err
	}
	if r.InActions() {
		r.gh.Group(title)
	} else {
		fmt.Fprintf(r.out, "%s\n", title)
	}
	return r.out.err
}

// EndGroup ends the part that Group began.
func (r *Runner) EndGroup() error {
	if err := r.commands(); err != nil {
		return err
	}
	if r.InActions() {
		r.gh.EndGroup()
	}
	return r.out.err
}

// Untrusted returns a writer to w for text in which the runner must not see
// commands, such as what a test prints. Until Close, which ends with the line
// that resumes them, commands are stopped under a random name that the text
// cannot guess. One stream can be open at a time, and both stdout and stderr
// of a command must go to it: the runner sees one log. The writer is safe for
// concurrent use. Without a runner the text passes unchanged.
func (r *Runner) Untrusted(w io.Writer) (io.WriteCloser, error) {
	if !r.InActions() {
		return &untrusted{w: w}, nil
	}
	if err := r.commands(); err != nil {
		return nil, err
	}
	token, err := r.token()
	if err != nil {
		return nil, err
	}
	// The empty line in front is on purpose: w may stand in the middle of a
	// line, where the runner would take this for text and go on obeying.
	if _, err := io.WriteString(w, "\n::stop-commands::"+token+"\n"); err != nil {
		return nil, err
	}
	r.stopped = true
	return &untrusted{w: w, token: token, last: '\n', done: func() { r.stopped = false }}, nil
}

type untrusted struct {
	w     io.Writer
	token string // empty without a runner
	done  func()

	mu     sync.Mutex // guards what follows, and the order of writes to w
	last   byte
	closed bool
}

func (u *untrusted) Write(p []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return 0, errors.New("write to a closed untrusted stream")
	}
	n, err := u.w.Write(p)
	if n > 0 {
		u.last = p[n-1]
	}
	return n, err
}

func (u *untrusted) Close() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return nil
	}
	u.closed = true
	if u.token == "" {
		return nil
	}
	end := "::" + u.token + "::\n"
	if u.last != '\n' {
		end = "\n" + end
	}
	if _, err := io.WriteString(u.w, end); err != nil {
		return err // still stopped: no command may be trusted to be obeyed
	}
	u.done()
	return nil
}

// ChildEnv returns environ ("NAME=value" each) without what a command that is
// being judged must not have: the files in which a runner takes outputs and the
// summary, or the command could write the verdict on itself; every input, and
// the variables of secret ones; and the runner's own credentials.
//
// It hides them, no more: a command of the same user can find the runner's
// files by searching for them.
func (s Spec) ChildEnv(environ []string) []string {
	hidden := map[string]bool{
		"GITHUB_OUTPUT": true, "GITHUB_STATE": true, "GITHUB_ENV": true, "GITHUB_PATH": true, "GITHUB_STEP_SUMMARY": true,
		"ACTIONS_ID_TOKEN_REQUEST_TOKEN": true, "ACTIONS_ID_TOKEN_REQUEST_URL": true,
		"ACTIONS_RUNTIME_TOKEN": true, "ACTIONS_RUNTIME_URL": true, "ACTIONS_CACHE_URL": true, "ACTIONS_RESULTS_URL": true,
	}
	for _, in := range s.Inputs {
		if in.Kind == Secret && in.Env != "" {
			hidden[in.Env] = true
		}
	}
	var kept []string
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		name = strings.ToUpper(name) // on Windows names have no case
		if !hidden[name] && !strings.HasPrefix(name, "INPUT_") && !strings.HasPrefix(name, "REMEMBRANCER_INPUT_") {
			kept = append(kept, kv)
		}
	}
	return kept
}

// Event is what a runner says about the run it belongs to.
type Event struct {
	Name        string // such as push or pull_request
	PayloadPath string // of the webhook's JSON; see Payload
	Repository  string // owner/name
	SHA, Ref    string
	BaseRef     string // only for pull requests, as is HeadRef
	HeadRef     string
	Actor       string
	Workflow    string // its name, or path if it has none
	WorkflowRef string // owner/name/path@ref of the workflow; may be empty
	WorkflowSHA string // commit of that file; may be empty
	RunID       int64
	RunAttempt  int64 // from 1
	ServerURL   string
	APIURL      string
	GraphQLURL  string
	Workspace   string
}

var (
	repoRE = regexp.MustCompile(`^[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+$`)
	hashRE = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)
)

// Event reads the runner's variables. It fails if no runner called, and if one
// of name, repository, SHA, run id or attempt is missing or malformed.
func (r *Runner) Event() (Event, error) {
	if !r.InActions() {
		return Event{}, errors.New("no runner called: GITHUB_ACTIONS is not \"true\"")
	}
	need := func(name string, re *regexp.Regexp, want string) (string, error) {
		v := r.getenv(name)
		if !re.MatchString(v) {
			return "", fmt.Errorf("%s: found %q, wanted %s", name, v, want)
		}
		return v, nil
	}
	number := func(name string) (int64, error) {
		v := r.getenv(name)
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || n < 1 || !intRE.MatchString(v) {
			return 0, fmt.Errorf("%s: found %q, wanted a positive integer", name, v)
		}
		return n, nil
	}
	_, errName := need("GITHUB_EVENT_NAME", regexp.MustCompile(`^[a-z_]+$`), "the name of an event")
	_, errRepo := need("GITHUB_REPOSITORY", repoRE, "owner/name")
	_, errSHA := need("GITHUB_SHA", hashRE, "a commit in lower-case hex")
	runID, errRun := number("GITHUB_RUN_ID")
	attempt, errAttempt := number("GITHUB_RUN_ATTEMPT")
	if err := errors.Join(errName, errRepo, errSHA, errRun, errAttempt); err != nil {
		return Event{}, err
	}

	// The library reads the payload without a bound and takes a missing file
	// for an empty event, so it does not get to see where the file is.
	noPayload := func(name string) string {
		if name == "GITHUB_EVENT_PATH" {
			return ""
		}
		return r.getenv(name)
	}
	c, err := githubactions.New(githubactions.WithGetenv(noPayload)).Context()
	if err != nil {
		return Event{}, fmt.Errorf("variables of the runner: %w", err)
	}
	for _, u := range []struct{ name, url string }{
		{"GITHUB_SERVER_URL", c.ServerURL}, {"GITHUB_API_URL", c.APIURL}, {"GITHUB_GRAPHQL_URL", c.GraphqlURL},
	} {
		p, err := url.Parse(u.url)
		if err != nil || p.Scheme != "https" && p.Scheme != "http" || p.Host == "" || p.User != nil {
			return Event{}, fmt.Errorf("%s: found %q, wanted an http(s) URL", u.name, u.url)
		}
	}
	return Event{
		Name: c.EventName, PayloadPath: r.getenv("GITHUB_EVENT_PATH"), Repository: c.Repository,
		SHA: c.SHA, Ref: c.Ref, BaseRef: c.BaseRef, HeadRef: c.HeadRef, Actor: c.Actor,
		Workflow: c.Workflow, WorkflowRef: r.getenv("GITHUB_WORKFLOW_REF"), WorkflowSHA: r.getenv("GITHUB_WORKFLOW_SHA"),
		RunID: runID, RunAttempt: attempt,
		ServerURL: c.ServerURL, APIURL: c.APIURL, GraphQLURL: c.GraphqlURL, Workspace: c.Workspace,
	}, nil
}

// Payload reads the webhook's JSON, an object of at most 32 MiB. A missing
// file is an error: an event without payload is no evidence of anything.
func (e Event) Payload() ([]byte, error) {
	if e.PayloadPath == "" {
		return nil, errors.New("event payload: GITHUB_EVENT_PATH is not set")
	}
	f, err := os.Open(e.PayloadPath)
	if err != nil {
		return nil, fmt.Errorf("event payload: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(f, payloadCap+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("event payload: %w", err)
	}
	if len(data) > payloadCap {
		return nil, fmt.Errorf("event payload %s: more than %d bytes", e.PayloadPath, payloadCap)
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(data, &object); err != nil || object == nil {
		return nil, fmt.Errorf("event payload %s: not a JSON object", e.PayloadPath)
	}
	return data, nil
}
