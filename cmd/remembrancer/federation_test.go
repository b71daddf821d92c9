package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/tidwall/gjson"
	"go.yaml.in/yaml/v3"
	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/action"
	"github.com/vaultmesh/remembrancer/pkg/config"
)

// nodesOf is the key of a script's nodes by name.
type nodesOf struct{}

// nodeProcess is a node that a script started.
type nodeProcess struct {
	cmd   *exec.Cmd
	port  string
	ended chan error
}

const nodeUsage = "node start NAME args... | stop NAME | kill NAME | record NAME DATA TITLE | call NAME DATA TOOL ARGUMENTS FILE"

// cmdNode runs nodes beside the script, each a process of its own on a free port of
// loopback. A node that is started again by its name has the port that it had.
//
//	node start NAME args...    remembrancer node args..., until it answers; its URL is $NAME
//	node stop NAME             end it as a service manager does; it must end well
//	node kill NAME             kill it as a power cut does
//	node record NAME DATA TEXT record a decision over MCP, with the token in its data directory
//	node call NAME DATA TOOL ARGUMENTS FILE  call a tool so, and write its answer
//
// What a node said is in NAME.out and NAME.err.
func cmdNode(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 2, nodeUsage)
	all := ts.Value(nodesOf{}).(map[string]*nodeProcess)
	name := args[1]
	n := all[name]
	switch {
	case args[0] == "start":
		if n == nil {
			// The port is free again when the node asks for it.
			l, err := net.Listen("tcp", "127.0.0.1:0")
			ts.Check(err)
			_, port, err := net.SplitHostPort(l.Addr().String())
			ts.Check(err)
			ts.Check(l.Close())
			n = &nodeProcess{port: port}
			all[name] = n
		}
		n.start(ts, name, args[2:])
	case n == nil || n.cmd == nil:
		ts.Fatalf("no node is called %s", name)
	case args[0] == "stop":
		ts.Check(n.cmd.Process.Signal(syscall.SIGTERM))
		ts.Check(<-n.ended)
		n.cmd = nil
	case args[0] == "kill":
		ts.Check(n.cmd.Process.Kill())
		<-n.ended
		n.cmd = nil
	case args[0] == "record" && len(args) == 4:
		title, err := json.Marshal(map[string]any{"title": args[3], "body": "Because."})
		ts.Check(err)
		if answer := n.call(ts, ts.MkAbs(args[2]), "record_decision", string(title)); !gjson.Get(answer, "result.structuredContent.ok").Bool() {
			ts.Fatalf("record: %s", answer)
		}
	case args[0] == "call" && len(args) == 6:
		ts.Check(os.WriteFile(ts.MkAbs(args[5]), []byte(n.call(ts, ts.MkAbs(args[2]), args[3], args[4])), 0o600))
	default:
		ts.Fatalf("usage: %s", nodeUsage)
	}
}

func (n *nodeProcess) start(ts *testscript.TestScript, name string, args []string) {
	program := ""
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		p := filepath.Join(dir, "remembrancer")
		if _, err := os.Stat(p); err == nil {
			program = p
			break
		}
	}
	n.cmd = exec.Command(program, append([]string{"node", "--listen", "127.0.0.1:" + n.port}, args...)...)
	n.cmd.Dir = ts.MkAbs(".")
	for _, v := range []string{"HOME", "PATH", "REMEMBRANCER_STATE", "REMEMBRANCER_KEY_ID", "GNUPGHOME", "GIT_CONFIG_NOSYSTEM", "LC_ALL", "TMPDIR"} {
		if value := ts.Getenv(v); value != "" {
			n.cmd.Env = append(n.cmd.Env, v+"="+value)
		}
	}
	out, err := os.Create(filepath.Join(ts.Getenv("WORK"), name+".out"))
	ts.Check(err)
	defer out.Close()
	log, err := os.Create(filepath.Join(ts.Getenv("WORK"), name+".err"))
	ts.Check(err)
	defer log.Close()
	n.cmd.Stdout, n.cmd.Stderr = out, log
	ts.Check(n.cmd.Start())
	n.ended = make(chan error, 1)
	go func(cmd *exec.Cmd) { n.ended <- cmd.Wait() }(n.cmd)
	process := n.cmd.Process
	ts.Defer(func() { _ = process.Kill() })
	url := "http://localhost:" + n.port + "/mcp"
	if slices.Contains(args, "--tls-cert") {
		url = strings.Replace(url, "http", "https", 1)
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		said, err := os.ReadFile(out.Name())
		ts.Check(err)
		if strings.HasPrefix(string(said), "Listening on "+url+"\n") {
			break
		}
		select {
		case err := <-n.ended:
			text, _ := os.ReadFile(log.Name())
			ts.Fatalf("node %s ended: %v\n%s%s", name, err, said, text)
		default:
		}
		if time.Now().After(deadline) {
			ts.Fatalf("node %s does not listen:\n%s", name, said)
		}
		time.Sleep(10 * time.Millisecond)
	}
	ts.Setenv(name, url)
}

// call calls a tool as any program of the node's own user does.
func (n *nodeProcess) call(ts *testscript.TestScript, data, tool, arguments string) string {
	control, err := os.ReadFile(filepath.Join(data, "control.json"))
	ts.Check(err)
	call := fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":%q,"arguments":%s}}`, tool, arguments)
	req, err := http.NewRequest(http.MethodPost, gjson.GetBytes(control, "url").String(), strings.NewReader(call))
	ts.Check(err)
	req.Header.Set("Authorization", "Bearer "+gjson.GetBytes(control, "token").String())
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, text/event-stream")
	resp, err := http.DefaultClient.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	ts.Check(err)
	return string(answer)
}

// cmdAncestor serves the records of a file, one JSON object a line, as a node of the
// ancestor does: its three tools, as plain JSON-RPC. Its URL is $ancestor.
func cmdAncestor(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 2, "ancestor serve FILE")
	records := map[string]json.RawMessage{}
	ids := []string{}
	lines := bufio.NewScanner(strings.NewReader(ts.ReadFile(args[1])))
	for lines.Scan() {
		id := gjson.Get(lines.Text(), "id").String()
		ids = append(ids, id)
		records[id] = json.RawMessage(lines.Text())
	}
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		call := gjson.ParseBytes(body)
		result := map[string]any{"ok": false, "error": "unknown tool"}
		switch call.Get("params.name").String() {
		case "list_memory_ids":
			result = map[string]any{"ok": true, "ids": ids}
		case "get_memory":
			result = map[string]any{"ok": true, "memory": records[call.Get("params.arguments.memory_id").String()]}
		}
		rw.Header().Set("Content-Type", "application/json")
		answer, _ := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": call.Get("id").Value(), "result": result})
		fmt.Fprintf(rw, "%s", answer)
	}))
	ts.Defer(srv.Close)
	ts.Setenv("ancestor", srv.URL+"/mcp")
}

// TestEveryCommandOfTheFederationGuideDoesWhatItSays types the guide from its
// beginning to its end, at the ports that it names. Nodes go on beside the rest, as
// in terminals of their own.
func TestEveryCommandOfTheFederationGuideDoesWhatItSays(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join(moduleRoot, "docs", "FEDERATION_GUIDE.md"))
	assert.NilError(t, err)
	root, err := filepath.Abs(moduleRoot)
	assert.NilError(t, err)
	env := readmeWorld(t, root)
	dir := guideRepositories(t, env)
	for _, port := range []string{"8001", "8002"} {
		l, err := net.Listen("tcp", "127.0.0.1:"+port)
		assert.NilError(t, err, "the guide needs this port")
		assert.NilError(t, l.Close())
	}
	commands := consoleCommands(string(doc))
	assert.Assert(t, len(commands) >= 25, "found %d commands", len(commands))
	for _, c := range commands {
		if to, ok := strings.CutPrefix(c.command, "cd "); ok {
			dir = filepath.Join(dir, to)
			continue
		}
		var out, stderr strings.Builder
		cmd := exec.Command("bash", "-c", c.command)
		cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, env, &out, &stderr
		if strings.Contains(c.command, "remembrancer node") {
			serveBeside(t, cmd, c)
			continue
		}
		assert.NilError(t, cmd.Run(), "FEDERATION_GUIDE.md:%d: %s\n%s%s", c.line, c.command, &out, &stderr)
		if c.output != "" {
			assert.Equal(t, steady(out.String()), steady(c.output), "FEDERATION_GUIDE.md:%d: %s", c.line, c.command)
		}
	}
}

// serveBeside starts a node and waits for what the guide shows of its output.
func serveBeside(t *testing.T, cmd *exec.Cmd, c typed) {
	t.Helper()
	cmd.Args[2] = "exec env " + c.command // the node itself is what is ended below
	cmd.Stdout = nil
	pipe, err := cmd.StdoutPipe()
	assert.NilError(t, err)
	assert.NilError(t, cmd.Start())
	t.Cleanup(func() {
		assert.Check(t, cmd.Process.Signal(syscall.SIGTERM))
		_, _ = io.Copy(io.Discard, pipe)
		assert.Check(t, cmd.Wait(), "%s", cmd.Stderr)
	})
	line, err := bufio.NewReader(pipe).ReadString('\n')
	assert.NilError(t, err, "%s", cmd.Stderr)
	assert.Equal(t, line, c.output, "FEDERATION_GUIDE.md:%d", c.line)
}

var (
	guideDates = regexp.MustCompile(`\d{4}-\d\d-\d\d`)
	guideKeys  = regexp.MustCompile(`\+[0-9a-f]{8}\+[A-Za-z0-9+/=]+`)
	guideBytes = regexp.MustCompile(`\d+ bytes sent, \d+ received`)
	guideData  = regexp.MustCompile(`(data +)/.*`)
)

// steady is an output without what differs from run to run. Keys come in the order
// of their fingerprints.
func steady(s string) string {
	s = guideKeys.ReplaceAllString(guideDates.ReplaceAllString(settled(s), "<date>"), "<key>")
	s = guideData.ReplaceAllString(guideBytes.ReplaceAllString(s, "<n>"), "$1<dir>")
	lines := strings.Split(s, "\n")
	if strings.HasPrefix(s, "trust state ") {
		slices.Sort(lines)
	}
	return strings.Join(lines, "\n")
}

// guideRepositories makes the two repositories that the guide begins with.
func guideRepositories(t *testing.T, env []string) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("bash", "-ec", `
for name in alice bob; do
  git init -q --bare -b main $name.git
  git init -q -b main $name && cd $name
  printf '#!/bin/sh\necho "SMOKE_JSON={\"pass\":2,\"total\":2}"\n' > SMOKE_TEST.sh && chmod +x SMOKE_TEST.sh
  git remote add origin ../$name.git
  remembrancer init --yes --origin example.org/$name
  git add -A && git commit -qm start && git push -q -u origin main
  cd ..
done`)
	cmd.Dir, cmd.Env = dir, env
	out, err := cmd.CombinedOutput()
	assert.NilError(t, err, "%s", out)
	return dir
}

// What the examples tell the program is what it takes, and their files are read.
func TestTheExamplesOfNodesAreWhatTheProgramTakes(t *testing.T) {
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(moduleRoot, "examples", filepath.FromSlash(name)))
		assert.NilError(t, err)
		return data
	}
	takes := func(words []string) {
		t.Helper()
		v, rest := find(words)
		assert.Assert(t, v != nil, "%q", words)
		_, err := action.Parse(v.spec, rest, func(string) string { return "" }, io.Discard)
		assert.NilError(t, err, "%q", words)
	}
	_, err := config.ParseNode("node.yaml", read("node.yaml"))
	assert.NilError(t, err)
	f, err := config.ParseFederation("federation.yaml", read("federation.yaml"))
	assert.NilError(t, err)
	assert.Equal(t, len(f.Peers), 2)
	template, err := templates.ReadFile("templates/federation.yaml")
	assert.NilError(t, err)
	_, err = config.ParseFederation("federation.yaml", []byte(strings.ReplaceAll(string(template), "[[.Node]]", "example.org/alice")))
	assert.NilError(t, err)

	unit := string(read("systemd/remembrancer-node.service"))
	_, rest, ok := strings.Cut(unit, "\nExecStart=/usr/local/bin/remembrancer ")
	assert.Assert(t, ok)
	line, _, _ := strings.Cut(rest, "\n")
	takes(strings.Fields(line))
	typed := 0
	for line := range strings.Lines(unit + string(read("compose.yaml"))) {
		if _, command, ok := strings.Cut(line, "remembrancer federation "); ok && strings.HasPrefix(line, "#") && !strings.Contains(line, "alias") {
			takes(append([]string{"federation"}, strings.Fields(command)...))
			typed++
		}
	}
	assert.Equal(t, typed, 1)

	var compose struct {
		Services map[string]struct{ Command []string }
	}
	assert.NilError(t, yaml.Unmarshal(read("compose.yaml"), &compose))
	assert.Equal(t, len(compose.Services), 2)
	for _, s := range compose.Services {
		takes(s.Command)
	}
}

// What a running node is told to do is what was typed, without what is settled by
// whose node it is.
func TestAVerbIsPassedOnAsItWasTyped(t *testing.T) {
	none := func(string) string { return "" }
	parsed := func(args []string) *action.Values {
		v, err := action.Parse(federationSyncSpec, args, none, io.Discard)
		assert.NilError(t, err)
		return v
	}
	v := parsed([]string{
		"--peer", "http://localhost:1/mcp", "--trust-anchor=a.asc", "--trust-anchor", "-", "--json", "--deadline", "90s", "--nodes=3",
		"--data", "x", "--repo", "y", "--key", "k", "--interval", "5s", "--passphrase-fd", "3",
	})
	words := spelled(federationSyncSpec, v)
	assert.DeepEqual(t, words, []string{
		"--peer=http://localhost:1/mcp", "--trust-anchor=a.asc", "--trust-anchor=-", "--deadline=1m30s", "--nodes=3", "--json=true", "--",
	})
	assert.DeepEqual(t, spelled(federationSyncSpec, parsed(words)), words)
	revoke, err := action.Parse(federationRevokeSpec, []string{"ABCD", "--cutoff-size", "0"}, none, io.Discard)
	assert.NilError(t, err)
	assert.DeepEqual(t, spelled(federationRevokeSpec, revoke), []string{"--cutoff-size=0", "--", "ABCD"})
	for _, v := range verbs() {
		needs := slices.ContainsFunc(v.spec.Inputs, func(in action.Input) bool { return in.Name == "data" }) && strings.HasPrefix(v.spec.Verb, "federation ") && v.spec.Verb != verifyMergeVerb.spec.Verb
		assert.Equal(t, passedOn(v.spec.Verb), needs, v.spec.Verb)
	}
}
