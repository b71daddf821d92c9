// Command remembrancer makes a repository prove what it claims: it runs gates,
// records their verdicts as signed receipts in an append-only log that lives in
// the repository, and verifies such evidence offline.
//
// Exit status, everywhere: 0 pass, 1 judged and found wanting, 2 bad flags or
// configuration, 3 could not judge. See remembrancer help.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/action"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.Getwd()
	if err != nil {
		fmt.Fprintln(os.Stderr, "remembrancer:", err)
		os.Exit(exitUnjudged)
	}
	w := &world{
		ctx: ctx, dir: dir, getenv: os.Getenv, environ: os.Environ(), now: time.Now, rand: rand.Reader,
		stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr,
	}
	os.Exit(w.run(os.Args[1:]))
}

// The exit status of every verb.
const (
	exitPass     = 0
	exitFail     = 1
	exitUsage    = 2
	exitUnjudged = 3
)

// world is all that a verb can reach.
type world struct {
	ctx            context.Context
	dir            string // working directory
	getenv         func(string) string
	environ        []string
	now            func() time.Time
	rand           io.Reader
	stdin          io.Reader
	stdout, stderr io.Writer
	fd             descriptors // secrets that came through file descriptors
	held           *holding    // the node that this process serves, where a verb is carried out inside of it
}

func (w *world) say(format string, args ...any)  { fmt.Fprintf(w.stdout, format+"\n", args...) }
func (w *world) note(format string, args ...any) { fmt.Fprintf(w.stderr, format+"\n", args...) }

// inCI reports whether a machine, not a person, called.
func (w *world) inCI() bool {
	return w.getenv("GITHUB_ACTIONS") == "true" || w.getenv("CI") == "true" || w.getenv("CI") == "1"
}

// verb is one thing the program does.
type verb struct {
	spec action.Spec
	run  func(w *world, v *action.Values, r *action.Runner) error
}

// status is an error with an exit status of its own. Any other error means that
// something could not be judged.
type status struct {
	code int
	err  error
}

func (s *status) Error() string { return s.err.Error() }
func (s *status) Unwrap() error { return s.err }

// failed says that something was judged and found wanting.
func failed(format string, args ...any) error {
	return &status{exitFail, fmt.Errorf(format, args...)}
}

// misused says that flags or configuration are wrong.
func misused(format string, args ...any) error {
	return &status{exitUsage, fmt.Errorf(format, args...)}
}

// errSaid ends a verb whose output has said everything.
var errSaid = errors.New("said")

func quietly(code int) error {
	if code == exitPass {
		return nil
	}
	return &status{code, errSaid}
}

func exitCode(err error) int {
	var s *status
	switch {
	case err == nil:
		return exitPass
	case errors.As(err, &s):
		return s.code
	}
	return exitUnjudged
}

func (w *world) run(args []string) int {
	if len(args) == 0 {
		fmt.Fprint(w.stderr, overview())
		return exitUsage
	}
	switch args[0] {
	case "help", "-h", "--help":
		if len(args) > 1 {
			v, _ := find(args[1:])
			switch group := verbsOf(args[1]); {
			case v != nil:
				fmt.Fprint(w.stdout, action.Help(v.spec))
			case len(args) == 2 && len(group) > 0:
				fmt.Fprintf(w.stdout, "Commands:\n%s", summaries(group))
			default:
				return w.unknown(args[1:])
			}
			return exitPass
		}
		fmt.Fprint(w.stdout, overview())
		return exitPass
	case "version", "--version":
		w.say("remembrancer %s", version())
		return exitPass
	case "action":
		return w.runAction(args[1:])
	}
	v, rest := find(args)
	if v == nil {
		return w.unknown(args)
	}
	values, err := action.Parse(v.spec, rest, w.getenv, w.stdout)
	return w.carryOut(v, values, err)
}

// runAction runs a verb as its action's manifest calls it.
func (w *world) runAction(args []string) int {
	if len(args) == 0 {
		fmt.Fprintln(w.stderr, "remembrancer: action: want the name of an action")
		return exitUsage
	}
	for _, v := range verbs() {
		if v.spec.Name == args[0] {
			values, err := action.ParseAction(v.spec, args[1:], w.getenv, w.stdout)
			return w.carryOut(&v, values, err)
		}
	}
	fmt.Fprintf(w.stderr, "remembrancer: unknown action %q\n", args[0])
	return exitUsage
}

func (w *world) carryOut(v *verb, values *action.Values, err error) (code int) {
	switch {
	case errors.Is(err, action.ErrHelp):
		return exitPass
	case err != nil:
		fmt.Fprintf(w.stderr, "remembrancer %s: %v\n", v.spec.Verb, err)
		return exitUsage
	}
	// A panic is our mistake, but its reader is a person: no verdict was reached,
	// and that is what the exit status must say.
	defer func() {
		if p := recover(); p != nil {
			fmt.Fprintf(w.stderr, "remembrancer %s: internal error: %v\n%s\nPlease report this.\n", v.spec.Verb, p, debug.Stack())
			code = exitUnjudged
		}
	}()
	r := action.NewRunner(w.getenv, w.stdout, w.rand, v.spec)
	for _, s := range values.Secrets() {
		if err := r.Mask(s); err != nil {
			fmt.Fprintf(w.stderr, "remembrancer %s: %v\n", v.spec.Verb, err)
			return exitUnjudged
		}
	}
	if err = w.takeSecrets(v.spec, values, r); err == nil {
		err = v.run(w, values, r)
	}
	if flushErr := r.Flush(); err == nil {
		err = flushErr
	}
	if err != nil && !errors.Is(err, errSaid) {
		// An error quotes paths and servers: what others wrote is no command.
		fmt.Fprintf(w.stderr, "remembrancer %s: %s\n", v.spec.Verb, action.Defang(err.Error()))
	}
	return exitCode(err)
}

// find returns the verb that args begin with, and what follows it. Verbs of two
// words go first.
func find(args []string) (*verb, []string) {
	for n := min(2, len(args)); n > 0; n-- {
		name := strings.Join(args[:n], " ")
		for _, v := range verbs() {
			if v.spec.Verb == name {
				return &v, args[n:]
			}
		}
	}
	return nil, nil
}

// unknown says what there is instead of a command that there is not.
func (w *world) unknown(args []string) int {
	hint := "; remembrancer help lists them all"
	if group := verbsOf(args[0]); len(group) > 0 {
		hint = "; there are " + strings.Join(group, ", ")
	} else if near := nearestVerb(args); near != "" {
		hint = fmt.Sprintf("; did you mean %q?", near)
	}
	fmt.Fprintf(w.stderr, "remembrancer: unknown command %q%s\n", strings.Join(args[:min(2, len(args))], " "), hint)
	return exitUsage
}

// verbsOf returns the verbs of two words that begin with this one.
func verbsOf(first string) []string {
	var names []string
	for _, v := range verbs() {
		if strings.HasPrefix(v.spec.Verb, first+" ") {
			names = append(names, v.spec.Verb)
		}
	}
	return names
}

func nearestVerb(args []string) string {
	var names []string
	for _, v := range verbs() {
		if strings.HasPrefix(v.spec.Verb, args[0]) {
			return v.spec.Verb
		}
		names = append(names, v.spec.Verb)
	}
	if near := action.Nearest(args[0], names); near != "" {
		return near
	}
	return action.Nearest(strings.Join(args[:min(2, len(args))], " "), names)
}

// verbs lists everything the program does, in the order of the overview.
func verbs() []verb {
	return []verb{
		gateVerb, checkVerb, initVerb, uninstallVerb, completionVerb(), hookInstallVerb, hookUninstallVerb, hookRunVerb,
		smokeVerb, covenantVerb, auditVerb, publishVerb, doctorVerb, guardVerb,
		enforcePlanVerb, enforceApplyVerb, enforceRemoveVerb,
		recordVerb("deploy"), recordVerb("adr"), recordVerb("incident"), recordVerb("discovery"), waiverVerb,
		adrCreateVerb, signVerb,
		listVerb, queryVerb, receiptVerb, timelineVerb,
		logShowVerb, logProveVerb, logVerifyVerb, verifyVerb,
		exportProofVerb, verifyBundleVerb, verifyFullVerb,
		importVerb,
		keyGenerateVerb, keyInspectVerb, keyRotateVerb, keyRevokeVerb,
		timestampVerb, tsaBootstrapVerb, rfc3161VerifyVerb,
		genesisSealVerb, genesisVerifyVerb,
		releaseTagVerb, releaseSignVerb,
		nodeVerb(), federationInitVerb, federationJoinVerb, federationSyncVerb, federationStatusVerb, federationHistoryVerb,
		federationTrustVerb, federationRevokeVerb, verifyMergeVerb, selfTestVerb,
		snapshotCreateVerb, snapshotVerifyVerb,
		sloReportVerb, sloGateVerb, sloVerifyVerb, sloPictureVerb, sloRulesVerb, sloDashboardVerb, sloPromoteVerb,
		scorecardVerb(),
		soakVerb,
	}
}

// summaries is a line for each of these verbs.
func summaries(names []string) string {
	width := len("help [COMMAND]")
	for _, name := range names {
		width = max(width, len(name))
	}
	var b strings.Builder
	for _, name := range names {
		for _, v := range verbs() {
			if v.spec.Verb == name {
				fmt.Fprintf(&b, "  %-*s  %s\n", width, name, v.spec.Summary)
			}
		}
	}
	return b.String()
}

// chapters is how the overview parts the commands, by their first words. What is
// in none comes last.
var chapters = []chapter{
	{"Begin", []string{"init", "gate", "hook", "doctor", "uninstall"}},
	{"Judge", []string{"check", "smoke", "covenant", "verify-audit", "guard", "scorecard"}},
	{"Record and publish", []string{"record", "adr", "sign", "publish", "snapshot", "import"}},
	{"Read", []string{"list", "query", "receipt", "timeline", "log"}},
	{"Verify, offline", []string{"verify", "verify-full", "export-proof", "verify-bundle"}},
	{"Release", []string{"release", "timestamp", "tsa", "rfc3161-verify", "genesis"}},
	{"Keys and the forge", []string{"key", "enforce"}},
	{"Federate", []string{"node", "federation"}},
	{"Measure", []string{"slo", "soak"}},
	{"And", nil},
}

type chapter struct {
	title string
	first []string
}

// place returns where in its chapter a verb comes.
func (c chapter) place(name string) int {
	first, _, _ := strings.Cut(name, " ")
	return slices.Index(c.first, first)
}

func overview() string {
	var b strings.Builder
	b.WriteString(`remembrancer makes a repository prove what it claims.

Usage: remembrancer COMMAND [flags]

In a repository of yours, in this order:
  remembrancer init           put it under the covenant; uninstall takes that back
  git add -A && git commit
  remembrancer gate           judge it, as the workflows that init wrote do
`)
	said := map[string]bool{}
	for _, c := range chapters {
		var names []string
		for _, v := range verbs() {
			if first, _, _ := strings.Cut(v.spec.Verb, " "); !said[v.spec.Verb] && (c.first == nil || slices.Contains(c.first, first)) {
				names, said[v.spec.Verb] = append(names, v.spec.Verb), true
			}
		}
		slices.SortStableFunc(names, func(a, b string) int { return c.place(a) - c.place(b) })
		if names != nil {
			b.WriteString("\n" + c.title + ":\n" + summaries(names))
		}
	}
	b.WriteString("  help [COMMAND]  what a command takes and gives, with examples\n  version         which build this is\n")
	b.WriteString("\nExit status:\n  0  pass\n  1  judged and found wanting\n  2  bad flags or configuration\n  3  could not judge: evidence missing, unreadable or refused\n")
	return b.String()
}

// version names the build: the module's version, or the commit it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	if rev := revision(); rev != "" {
		v += " " + rev
	}
	return v
}

// revision returns the commit that the program was built from, if the build
// recorded one and had no changes beside it.
func revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	rev := ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			rev = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			return ""
		}
	}
	return rev
}
