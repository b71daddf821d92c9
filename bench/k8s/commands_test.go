package k8s_test

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"gotest.tools/v3/assert"
	"sigs.k8s.io/yaml"

	"github.com/vaultmesh/remembrancer/pkg/slo"
)

const operations = root + "/docs/OPERATIONS.md"

// program is remembrancer as it is in this tree, and what its help says.
type program struct {
	bin   string
	verbs []string
	flags map[string]string // help by verb, read once
}

// built builds it once, for the tests that want it.
var built = sync.OnceValues(func() (string, error) {
	bin := filepath.Join(temporary, "remembrancer")
	if runtime.GOOS == "windows" {
		bin += ".exe"
	}
	cmd := exec.Command("go", "build", "-o", bin, "./cmd/remembrancer")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return bin, nil
})

var temporary string // for what all tests share

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		panic(err)
	}
	temporary = dir
	status := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(status)
}

func makeProgram(t *testing.T) *program {
	t.Helper()
	bin, err := built()
	assert.NilError(t, err)
	p := &program{bin: bin, flags: map[string]string{}}
	for _, m := range regexp.MustCompile(`(?m)^  ([a-z]+(?:-[a-z]+)*(?: [a-z]+(?:-[a-z]+)*)?) {1,}[^ ]`).FindAllStringSubmatch(p.help(t), -1) {
		p.verbs = append(p.verbs, m[1])
	}
	assert.Assert(t, slices.Contains(p.verbs, "slo report"), "%q", p.verbs)
	return p
}

func (p *program) help(t *testing.T, verb ...string) string {
	t.Helper()
	key := strings.Join(verb, " ")
	if text, ok := p.flags[key]; ok {
		return text
	}
	cmd := exec.Command(p.bin, append(slices.Clone(verb), "--help")...)
	cmd.Env = append(os.Environ(), "REMEMBRANCER_STATE="+t.TempDir())
	out, err := cmd.CombinedOutput()
	assert.NilError(t, err, "%s", out)
	p.flags[key] = string(out)
	return string(out)
}

var flagName = regexp.MustCompile(`^--([a-z][a-z0-9-]*)`)

// wrong says what is wrong with a command line, without the program's name.
func (p *program) wrong(t *testing.T, words []string) []string {
	t.Helper()
	n := 0
	for i := min(2, len(words)); i > 0; i-- {
		if slices.Contains(p.verbs, strings.Join(words[:i], " ")) {
			n = i
			break
		}
	}
	if n == 0 {
		return []string{fmt.Sprintf("remembrancer %s: no such command", strings.Join(words[:min(2, len(words))], " "))}
	}
	var found []string
	for _, w := range words[n:] {
		if m := flagName.FindStringSubmatch(w); m != nil && !regexp.MustCompile(`(?m)^ +--`+m[1]+`( |$)`).MatchString(p.help(t, words[:n]...)) {
			found = append(found, fmt.Sprintf("remembrancer %s has no flag --%s", strings.Join(words[:n], " "), m[1]))
		}
	}
	return found
}

var (
	fenced = regexp.MustCompile("(?ms)^```[a-z]*\n(.*?)^```")
	inline = regexp.MustCompile("`(remembrancer [^`]+)`")
	piped  = regexp.MustCompile(` (?:\||>|<|&&|;|#) .*$`)
)

// commandsIn are the command lines of a page that call the program, a line continued by
// a backslash being one.
func commandsIn(page string) [][]string {
	var lines []string
	for _, block := range fenced.FindAllStringSubmatch(page, -1) {
		lines = append(lines, strings.Split(strings.ReplaceAll(block[1], "\\\n", " "), "\n")...)
	}
	for _, m := range inline.FindAllStringSubmatch(fenced.ReplaceAllString(page, ""), -1) {
		lines = append(lines, m[1])
	}
	var all [][]string
	for _, line := range lines {
		_, rest, ok := strings.Cut(" "+piped.ReplaceAllString(line, ""), "remembrancer ")
		if before, _, _ := strings.Cut(" "+line, "remembrancer "); ok && (strings.TrimSpace(before) == "" || strings.HasSuffix(before, "-- /")) {
			all = append(all, strings.Fields(rest))
		}
	}
	return all
}

// What manifests, compose file and playbook type is what the program takes.
func TestEveryCommandIsOne(t *testing.T) {
	p := makeProgram(t)
	var found []string
	for _, overlay := range overlays {
		c, err := load(tree(t), overlay)
		assert.NilError(t, err)
		n := 0
		for _, w := range c.workloads {
			if w.name == "Deployment/prometheus" {
				continue
			}
			n++
			found = append(found, p.wrong(t, w.pod.Spec.Containers[0].Args)...)
		}
		assert.Equal(t, n, 3)
	}
	for _, name := range []string{"remembrancer-node", "remembrancer-soak"} {
		found = append(found, p.wrong(t, stack(t).Services[name].Command)...)
	}
	for _, page := range []string{operations, examples + "/up", root + "/examples/staging/up"} {
		data, err := os.ReadFile(page)
		assert.NilError(t, err)
		text := string(data)
		if page != operations {
			text = "```\n" + text + "\n```"
		}
		commands := commandsIn(text)
		assert.Assert(t, len(commands) > 0, page)
		for _, c := range commands {
			for _, f := range p.wrong(t, c) {
				found = append(found, filepath.Base(page)+": "+f)
			}
		}
	}
	assert.DeepEqual(t, found, []string(nil))

	// And what it does not take is seen.
	assert.DeepEqual(t, p.wrong(t, []string{"slo", "report", "--prometheus=x", "--until", "now"}), []string{"remembrancer slo report has no flag --until"})
	assert.DeepEqual(t, p.wrong(t, []string{"slo", "fake"}), []string{"remembrancer slo fake: no such command"})
	assert.DeepEqual(t, commandsIn("a `remembrancer slo gate FILE`\n```sh\nremembrancer node \\\n  --data D # why\ngit push\n```\n"), [][]string{{"node", "--data", "D"}, {"slo", "gate", "FILE"}})
}

// An alert names the heading to read; a page that lacks it leads nowhere at three in the
// morning.
func TestEveryAlertHasItsRunbook(t *testing.T) {
	data, err := os.ReadFile(operations)
	assert.NilError(t, err)
	assert.DeepEqual(t, withoutRunbook(string(data)), []string(nil))
	assert.DeepEqual(t, withoutRunbook(strings.Replace(string(data), "### SLOTargetDown\n", "### SLO target down\n", 1)), []string{"SLOTargetDown"})
}

func withoutRunbook(page string) []string {
	var missing []string
	for _, alert := range slo.Alerts() {
		if strings.Count(page, "\n### "+alert+"\n") != 1 {
			missing = append(missing, alert)
		}
	}
	return missing
}

// Links of the playbook lead to what is there.
func TestLinksOfThePlaybookResolve(t *testing.T) {
	data, err := os.ReadFile(operations)
	assert.NilError(t, err)
	anchors := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(string(data), -1) {
		anchors["#"+regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(strings.ToLower(m[1]), "")] = true
	}
	links := regexp.MustCompile(`\]\(([^)]+)\)`).FindAllStringSubmatch(string(data), -1)
	assert.Assert(t, len(links) > 5)
	for _, m := range links {
		if strings.HasPrefix(m[1], "#") {
			assert.Assert(t, anchors[strings.ReplaceAll(m[1], "-", " ")] || anchors[m[1]], m[1])
			continue
		}
		path, _, _ := strings.Cut(m[1], "#")
		_, err := os.Stat(filepath.Join(root, "docs", path))
		assert.NilError(t, err)
	}
	for _, m := range regexp.MustCompile("`((?:examples|docs|ops|pkg|bench|\\.ci)/[A-Za-z0-9./_-]*[A-Za-z0-9])`").FindAllStringSubmatch(string(data), -1) {
		if strings.HasPrefix(m[1], "ops/") {
			continue // of the operator's repository
		}
		_, err := os.Stat(filepath.Join(root, m[1]))
		assert.NilError(t, err)
	}
}

// What Grafana is provisioned with is what the program writes for this Prometheus.
func TestGrafanaIsProvisionedByTheProgram(t *testing.T) {
	p, dir := makeProgram(t), t.TempDir()
	cmd := exec.Command(p.bin, "slo", "dashboard", "--slo", "examples/slo/aurora-akash-001.yaml", "--provisioning", dir, "--prometheus", "http://prometheus:9090")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "REMEMBRANCER_STATE="+t.TempDir())
	out, err := cmd.CombinedOutput()
	assert.NilError(t, err, "%s", out)
	for made, used := range map[string]string{
		"datasources/remembrancer.yaml": "components/grafana/grafana-datasource.yaml",
		"dashboards/remembrancer.yaml":  "components/grafana/grafana-provider.yaml",
	} {
		want, err := os.ReadFile(filepath.Join(dir, made))
		assert.NilError(t, err)
		got, err := os.ReadFile(filepath.Join(examples, used))
		assert.NilError(t, err)
		assert.Equal(t, string(got), string(want), "hint: remembrancer slo dashboard --provisioning")
	}
}

// Both images of the stack are built by the builder that the product's own is.
func TestTheBuilderIsPinnedOnce(t *testing.T) {
	pin := regexp.MustCompile(`(?m)^ARG GO_IMAGE=(.*)$`)
	var pins []string
	for _, name := range []string{"Dockerfile", "examples/staging/Dockerfile.prometheus"} {
		data, err := os.ReadFile(filepath.Join(root, name))
		assert.NilError(t, err)
		pins = append(pins, pin.FindStringSubmatch(string(data))[1])
	}
	assert.Equal(t, pins[1], pins[0])
	assert.Assert(t, strings.Contains(pins[0], "@sha256:"))
}

// services is what of a compose file the test looks at.
type services struct {
	Services map[string]struct {
		Image       string            `json:"image"`
		Command     []string          `json:"command"`
		User        string            `json:"user"`
		Environment map[string]string `json:"environment"`
		Volumes     []string          `json:"volumes"`
		Ports       []string          `json:"ports"`
		ReadOnly    bool              `json:"read_only"`
		CapDrop     []string          `json:"cap_drop"`
		Security    []string          `json:"security_opt"`
		Privileged  bool              `json:"privileged"`
		NetworkMode string            `json:"network_mode"`
	} `json:"services"`
}

func stack(t *testing.T, edits ...edit) services {
	t.Helper()
	var all services
	for _, name := range []string{"compose.yaml", "compose.grafana.yaml"} {
		data, err := os.ReadFile(root + "/examples/staging/" + name)
		assert.NilError(t, err)
		text := string(data)
		for _, e := range edits {
			if e.file == name {
				assert.Assert(t, strings.Contains(text, e.old), e.old)
				text = strings.Replace(text, e.old, e.text, 1)
			}
		}
		assert.NilError(t, yaml.Unmarshal([]byte(text), &all))
	}
	return all
}

// judge holds the laptop's stack to what the cluster's is held to.
func (s services) judge() []string {
	var found []string
	say := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	for name, o := range s.Services {
		for _, p := range o.Ports {
			if !strings.HasPrefix(p, "127.0.0.1:") {
				say("%s publishes %s beyond this machine", name, p)
			}
		}
		if o.User != "${STAGING_USER}" || !o.ReadOnly || o.Privileged || o.NetworkMode != "" || !slices.Equal(o.CapDrop, []string{"ALL"}) || !slices.Equal(o.Security, []string{"no-new-privileges:true"}) {
			say("%s may do more than it needs", name)
		}
		for key, value := range o.Environment {
			if secretName.MatchString(key) && !strings.HasSuffix(key, "__FILE") {
				say("%s: %s=%s is written down here: everybody has this file", name, key, value)
			}
		}
		// Built here, or named by who starts it.
		if !strings.HasSuffix(o.Image, ":staging}") && !regexp.MustCompile(`^\$\{[A-Z_]+\}$`).MatchString(o.Image) {
			say("%s: image %s is neither built here nor named by its digest", name, o.Image)
		}
	}
	slices.Sort(found)
	return found
}

func TestTheStackOnALaptopIsSound(t *testing.T) {
	assert.DeepEqual(t, stack(t).judge(), []string(nil))
	for _, c := range []struct {
		edit edit
		want string
	}{
		{edit{"compose.yaml", "127.0.0.1:${PROMETHEUS_PORT:-0}", "${PROMETHEUS_PORT:-0}"}, "prometheus publishes ${PROMETHEUS_PORT:-0}:9090 beyond this machine"},
		{edit{"compose.yaml", "    read_only: true\n", ""}, "remembrancer-node may do more than it needs"},
		{edit{"compose.yaml", "    cap_drop: [ALL]\n", ""}, "remembrancer-node may do more than it needs"},
		{edit{"compose.grafana.yaml", "GF_SECURITY_ADMIN_PASSWORD__FILE: /etc/grafana/secrets/password", "GF_SECURITY_ADMIN_PASSWORD: admin"}, "grafana: GF_SECURITY_ADMIN_PASSWORD=admin is written down here: everybody has this file"},
		{edit{"compose.yaml", "${PROMETHEUS_IMAGE:-remembrancer-prometheus:staging}", "prom/prometheus:latest"}, "prometheus: image prom/prometheus:latest is neither built here nor named by its digest"},
	} {
		assert.DeepEqual(t, stack(t, c.edit).judge(), []string{c.want})
	}
}

// Both stacks run the same commands, but for where files lie and what an overlay says.
func TestLaptopAndClusterRunTheSame(t *testing.T) {
	c, err := load(tree(t), "staging")
	assert.NilError(t, err)
	names := func(args []string) (all []string) {
		for _, a := range args {
			name, _, _ := strings.Cut(a, "=")
			all = append(all, name)
		}
		slices.Sort(all)
		return all
	}
	all := stack(t)
	for _, w := range c.workloads {
		if name, ok := strings.CutPrefix(w.name, "Deployment/"); ok {
			assert.DeepEqual(t, names(all.Services[name].Command), names(w.pod.Spec.Containers[0].Args))
		}
	}
	ours, err := os.ReadFile(root + "/examples/staging/prometheus.yml")
	assert.NilError(t, err)
	theirs, err := os.ReadFile(examples + "/base/files/prometheus.yml")
	assert.NilError(t, err)
	assert.Equal(t, string(ours), string(theirs))
	// The names that it scrapes are those of the services.
	for _, target := range []string{"remembrancer-node", "remembrancer-soak"} {
		assert.Assert(t, strings.Contains(string(ours), `["`+target+":"))
		_, ok := all.Services[target]
		assert.Assert(t, ok, target)
	}
}

// What a file mounts is in the tree, or made by the script.
func TestWhatTheStackMountsIsThere(t *testing.T) {
	for name, s := range stack(t).Services {
		for _, v := range s.Volumes {
			from, _, _ := strings.Cut(v, ":/")
			if strings.HasPrefix(from, "${STAGING_DIR}/") {
				continue
			}
			info, err := os.Stat(filepath.Join(root, "examples/staging", from))
			assert.NilError(t, err, name)
			assert.Equal(t, info.Mode().Type(), fs.FileMode(0), from)
		}
	}
}
