package k8s_test

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

func TestOverlaysAreSound(t *testing.T) {
	for _, overlay := range overlays {
		t.Run(overlay, func(t *testing.T) {
			c, err := load(tree(t), overlay)
			assert.NilError(t, err)
			assert.DeepEqual(t, c.judge(), []string(nil))
		})
	}
}

// The component is nobody's by default; an overlay that takes it stays sound.
func TestAnOverlayWithGrafanaIsSound(t *testing.T) {
	c, err := load(tree(t, edit{"overlays/staging/kustomization.yaml", "components:\n", "components:\n  - ../../components/grafana\n"}), "staging")
	assert.NilError(t, err)
	assert.DeepEqual(t, c.judge(), []string(nil))
	assert.Assert(t, slices.Contains(c.kindsNames, "Deployment/grafana"))
}

// hashed is a name with the digest of what the map holds.
var hashed = regexp.MustCompile(`"settings-[a-z0-9]+"`)

func TestEveryRuleGoesRed(t *testing.T) {
	const node, soak, prometheus, gate, network = "base/node.yaml", "base/soak.yaml", "base/prometheus.yaml", "base/gate.yaml", "base/network.yaml"
	for _, c := range []struct {
		name string
		edit edit
		want []string // findings, in full
	}{
		{"namespace is only baseline", edit{"base/namespace.yaml", "enforce: restricted", "enforce: baseline"}, []string{`the namespace has enforce: "baseline", want restricted`}},
		{"container may gain privileges", edit{node, "allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true"}, []string{`Deployment/remembrancer-node is refused as restricted: allowPrivilegeEscalation != false (container "node" must set securityContext.allowPrivilegeEscalation=false)`}},
		{"container keeps its capabilities", edit{node, "drop: [ALL]", "drop: [KILL]"}, []string{`Deployment/remembrancer-node is refused as restricted: unrestricted capabilities (container "node" must set securityContext.capabilities.drop=["ALL"])`}},
		{"pod is root", edit{prometheus, "runAsUser: 65534", "runAsUser: 0"}, []string{"Deployment/prometheus is refused as restricted: runAsUser=0 (pod must not set runAsUser=0)", "Deployment/prometheus names no user id that is not root's"}},
		{"pod leaves its user to the image", edit{gate, "            runAsUser: 65532\n", ""}, []string{"CronJob/slo-report names no user id that is not root's"}},
		{"pod mounts the machine's disk", edit{node, "emptyDir:\n            sizeLimit: 64Mi", "hostPath:\n            path: /tmp"}, []string{`Deployment/remembrancer-node is refused as restricted: restricted volume types (volume "tmp" uses restricted volume type "hostPath")`}},
		{"pod gets a token of the API server", edit{soak, "      automountServiceAccountToken: false\n", ""}, []string{"Deployment/remembrancer-soak is given a token of the API server"}},
		{"selector misses its own pods", edit{prometheus, "    matchLabels:\n      app.kubernetes.io/name: prometheus\n  template", "    matchLabels:\n      app.kubernetes.io/name: prom\n  template"}, []string{"Deployment/prometheus selects app.kubernetes.io/name=prom, which its own pods are not"}},
		{"service account is not there", edit{gate, "serviceAccountName: slo-report", "serviceAccountName: slo"}, []string{`CronJob/slo-report: there is no service account "slo"`}},
		{"config map is not there", edit{node, "name: settings\n                  key: track", "name: setting\n                  key: track"}, []string{`Deployment/remembrancer-node: there is no config map "setting"`}},
		{"config map lacks the key", edit{"overlays/staging/kustomization.yaml", "track=", "trak="}, []string{`Deployment/remembrancer-node: config map "settings-HASH" has no key "track"`, `Deployment/remembrancer-soak: config map "settings-HASH" has no key "track"`}},
		{"secret is not there", edit{prometheus, "secretName: remembrancer-secrets", "secretName: prometheus-token"}, []string{`Deployment/prometheus: examples/k8s/secrets makes no secret "prometheus-token" with a key "prometheus"`}},
		{"pod sees the secrets of others", edit{node, "            items:\n              - key: tokens\n                path: tokens\n", ""}, []string{`Deployment/remembrancer-node: volume "tokens" holds secrets of others, too: want one key of it`}},
		{"claim is not there", edit{gate, "claimName: slo-reports", "claimName: reports"}, []string{`CronJob/slo-report: there is no claim "reports"`}},
		{"volume is not there", edit{node, "- name: tmp\n              mountPath: /tmp", "- name: temp\n              mountPath: /tmp"}, []string{`Deployment/remembrancer-node: nobody mounts volume "tmp"`, `Deployment/remembrancer-node: there is no volume "temp"`}},
		{"scratch space without end", edit{node, "emptyDir:\n            sizeLimit: 64Mi", "emptyDir: {}"}, []string{`Deployment/remembrancer-node: volume "tmp" may fill the machine's disk`}},
		{"password in the manifest", edit{"components/grafana/grafana.yaml", "- name: GF_SECURITY_ADMIN_PASSWORD__FILE\n              value: /etc/grafana/secrets/password", "- name: GF_SECURITY_ADMIN_PASSWORD\n              value: admin"}, []string{"Deployment/grafana: GF_SECURITY_ADMIN_PASSWORD is written down here: everybody has this file"}},
		{"image by tag", edit{prometheus, "image: prometheus", "image: docker.io/prom/prometheus:latest"}, []string{`Deployment/prometheus: image "docker.io/prom/prometheus:latest" is not named by digest`}},
		{"container can write to its image", edit{node, "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false"}, []string{"Deployment/remembrancer-node: container node can write to its own image"}},
		{"container without a limit", edit{node, "            limits:\n              memory: 2Gi\n", ""}, []string{"Deployment/remembrancer-node: container node does not say what it needs: requests of cpu and memory, a limit of memory"}},
		{"digest of another image", edit{"overlays/staging/release/kustomization.yaml", "artifact=sha256:0", "artifact=sha256:1"}, []string{
			"CronJob/slo-report runs sha256:" + strings.Repeat("0", 64) + ", and release says sha256:1" + strings.Repeat("0", 63),
			"Deployment/remembrancer-node runs sha256:" + strings.Repeat("0", 64) + ", and release says sha256:1" + strings.Repeat("0", 63),
			"Deployment/remembrancer-soak runs sha256:" + strings.Repeat("0", 64) + ", and release says sha256:1" + strings.Repeat("0", 63),
		}},
		{"variable is not there", edit{node, "- name: REVISION", "- name: COMMIT"}, []string{"Deployment/remembrancer-node: $(REVISION) stays as it is: there is no variable REVISION"}},
		{"probe is the metrics page", edit{node, "path: /readyz", "path: /metrics"}, []string{"Deployment/remembrancer-node: the readiness probe asks for /metrics, which answers when nothing else works"}},
		{"probe asks at no port", edit{node, "path: /readyz\n              port: http", "path: /readyz\n              port: web"}, []string{"Deployment/remembrancer-node: the readiness probe asks at port web, which the container does not name"}},
		{"no liveness probe", edit{prometheus, "          livenessProbe:\n            httpGet:\n              path: /-/healthy\n              port: http\n            periodSeconds: 10\n            failureThreshold: 6\n", ""}, []string{"Deployment/prometheus: container prometheus has no liveness probe"}},
		{"two nodes on one log", edit{node, "replicas: 1", "replicas: 2"}, []string{"Deployment/remembrancer-node: 2 pods write to claim remembrancer-node"}},
		{"old and new node at once", edit{node, "type: Recreate", "type: RollingUpdate"}, []string{"Deployment/remembrancer-node: at an update the new pod and the old one write to claim remembrancer-node at once"}},
		{"two workloads on one claim", edit{soak, "claimName: remembrancer-soak", "claimName: remembrancer-node"}, []string{"Deployment/remembrancer-node: Deployment/remembrancer-soak has claim remembrancer-node, too", "Deployment/remembrancer-soak: Deployment/remembrancer-node has claim remembrancer-node, too"}},
		{"public load balancer", edit{prometheus, "type: ClusterIP", "type: LoadBalancer"}, []string{"Service/prometheus is of type LoadBalancer: it opens a port to the outside"}},
		{"service leads nowhere", edit{node, "  selector:\n    app.kubernetes.io/name: remembrancer-node\n  ports", "  selector:\n    app.kubernetes.io/name: node\n  ports"}, []string{"Service/remembrancer-node leads to 0 workloads, want one"}},
		{"service asks at no port", edit{node, "targetPort: http", "targetPort: 9109"}, []string{"Service/remembrancer-node: Deployment/remembrancer-node has no port 9109"}},
		{"budget that blocks every drain", edit{node, "maxUnavailable: 1", "minAvailable: 1"}, []string{"PodDisruptionBudget/remembrancer-node lets none of 1 pods go: no machine that has one can ever be drained"}},
		{"budget for nobody", edit{prometheus, "unhealthyPodEvictionPolicy: AlwaysAllow\n  selector:\n    matchLabels:\n      app.kubernetes.io/name: prometheus", "selector:\n    matchLabels:\n      app.kubernetes.io/name: prom"}, []string{"Deployment/prometheus has no disruption budget", "PodDisruptionBudget/prometheus is for no pod"}},
		{"Prometheus cannot scrape the node", edit{network, "        - podSelector:\n            matchLabels:\n              app.kubernetes.io/name: prometheus\n      ports:\n        - protocol: TCP\n          port: http\n---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: remembrancer-soak", "      ports:\n        - protocol: TCP\n          port: http\n---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: remembrancer-soak"}, []string{"refused: Deployment/prometheus -> Deployment/remembrancer-node http"}},
		{"Prometheus asks the soak at another port", edit{network, "port: 9102", "port: 9109"}, []string{"refused: Deployment/prometheus -> Deployment/remembrancer-soak metrics"}},
		{"nobody finds names", edit{network, "k8s-app: kube-dns", "k8s-app: dns"}, []string{
			"refused: CronJob/slo-report -> names dns", "refused: Deployment/prometheus -> names dns",
			"refused: Deployment/remembrancer-node -> names dns", "refused: Deployment/remembrancer-soak -> names dns",
		}},
		{"the node may call anybody", edit{network, "policyTypes: [Ingress]\n  ingress:\n    - from:\n        - podSelector:\n            matchLabels:\n              app.kubernetes.io/name: remembrancer-soak", "policyTypes: [Ingress, Egress]\n  egress: [{}]\n  ingress:\n    - from:\n        - podSelector:\n            matchLabels:\n              app.kubernetes.io/name: remembrancer-soak"}, []string{
			"let through: Deployment/remembrancer-node -> another pod of kube-system dns", "let through: Deployment/remembrancer-node -> the internet https",
		}},
		{"no policy denies", edit{network, "policyTypes: [Ingress, Egress]\n---", "policyTypes: [Egress]\n---"}, []string{"let through: a stranger's prometheus -> a pod without labels any", "let through: another pod of kube-system -> a pod without labels any", "let through: names -> a pod without labels any", "let through: the internet -> a pod without labels any"}},
		{"strangers may read the node", edit{network, "    - from:\n        - podSelector:\n            matchLabels:\n              app.kubernetes.io/name: remembrancer-soak\n        - podSelector", "    - from:\n        - namespaceSelector: {}\n        - podSelector"}, []string{
			"let through: a stranger's prometheus -> Deployment/remembrancer-node http",
			"let through: another pod of kube-system -> Deployment/remembrancer-node http", "let through: names -> Deployment/remembrancer-node http",
		}},
		{"Prometheus forgets within the window", edit{prometheus, "retention.time=8d", "retention.time=2d"}, []string{"Deployment/prometheus keeps 48h0m0s, want 192h0m0s"}},
		{"anybody may end Prometheus", edit{prometheus, "            - --web.listen", "            - --web.enable-lifecycle\n            - --web.listen"}, []string{"Deployment/prometheus: --web.enable-lifecycle lets whoever reaches it end it"}},
		{"Prometheus scrapes too seldom", edit{"base/files/prometheus.yml", "scrape_interval: 15s", "scrape_interval: 1m"}, []string{"prometheus.yml scrapes every 1m, the SLO file promises 15s"}},
		{"no rules", edit{"base/files/prometheus.yml", "- aurora-akash-001.rules.yaml", "- aurora.rules.yaml"}, []string{"prometheus.yml: there is no aurora.rules.yaml"}},
		{"Prometheus has no token", edit{"base/files/prometheus.yml", "token/token", "token/secret"}, []string{"prometheus.yml: there is no /etc/prometheus/token/secret"}},
		{"Prometheus asks where nobody is", edit{"base/files/prometheus.yml", "remembrancer-node:8001", "remembrancer-node:9109"}, []string{"prometheus.yml: no service answers at remembrancer-node:9109"}},
		{"job of another name", edit{"base/files/prometheus.yml", "job_name: remembrancer-soak", "job_name: soak"}, []string{`prometheus.yml scrapes nothing that is up{job="remembrancer-soak"}`}},
		{"a secret for everybody", edit{"base/namespace.yaml", "", "---\napiVersion: v1\nkind: Secret\nmetadata:\n  name: grafana\nstringData:\n  password: admin\n"}, []string{"Secret is not for a file that everybody has, or not for the outside"}},
		{"a way in from outside", edit{"base/namespace.yaml", "", "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: node\n"}, []string{"Ingress is not for a file that everybody has, or not for the outside"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			edits := []edit{c.edit}
			if strings.HasPrefix(c.edit.file, "components/grafana") {
				edits = append(edits, edit{"overlays/staging/kustomization.yaml", "components:\n", "components:\n  - ../../components/grafana\n"})
			}
			got, err := load(tree(t, edits...), "staging")
			assert.NilError(t, err)
			found := got.judge()
			for i, f := range found {
				found[i] = hashed.ReplaceAllString(f, `"settings-HASH"`)
			}
			assert.DeepEqual(t, found, c.want)
		})
	}
}

// What the API server would refuse by itself is refused here first.
func TestDecodingIsStrict(t *testing.T) {
	for _, c := range []struct {
		name string
		edit edit
		want string
	}{
		{"unknown field", edit{"base/node.yaml", "replicas: 1", "replica: 1"}, `unknown field "spec.replica"`},
		{"wrong type", edit{"base/soak.yaml", "port: 9102", `port: "9102"`}, "cannot unmarshal string into Go struct field ServicePort.spec.ports.port of type int32"},
		{"kind of somebody's operator", edit{"base/namespace.yaml", "", "---\napiVersion: monitoring.coreos.com/v1\nkind: ServiceMonitor\nmetadata:\n  name: node\n"}, `no kind "ServiceMonitor" is registered for version "monitoring.coreos.com/v1"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := load(tree(t, c.edit), "staging")
			assert.ErrorContains(t, err, c.want)
		})
	}
}

// Overlays differ in what they are for, and in nothing else.
func TestOverlaysDifferAsTheyShould(t *testing.T) {
	type settings struct {
		Namespace, Environment string
		Settings               map[string]string
	}
	got := map[string]settings{}
	var rest []string
	for _, overlay := range overlays {
		files := tree(t)
		c, err := load(files, overlay)
		assert.NilError(t, err)
		s := settings{Namespace: c.namespace.Name, Environment: c.namespace.Labels["remembrancer.dev/environment"]}
		for name, m := range c.configs {
			if strings.HasPrefix(name, "settings-") {
				s.Settings = m.Data
			}
		}
		got[overlay] = s
		rest = append(rest, common(t, files, overlay, s.Settings))
	}
	assert.DeepEqual(t, got, map[string]settings{
		"staging": {"remembrancer-staging", "staging", map[string]string{"environment": "staging", "node-id": "example.org/staging", "track": "stable", "rate": "5"}},
		"canary":  {"remembrancer-canary", "canary", map[string]string{"environment": "canary", "node-id": "example.org/canary", "track": "canary", "rate": "5"}},
		"prod":    {"remembrancer-prod", "prod", map[string]string{"environment": "prod", "node-id": "example.org/prod", "track": "stable", "rate": "0.2"}},
	})
	assert.Equal(t, rest[1], rest[0])
	assert.Equal(t, rest[2], rest[0])
}

// common is what an overlay builds to, without that in which it may differ.
func common(t *testing.T, files filesys.FileSystem, overlay string, settings map[string]string) string {
	t.Helper()
	data, err := build(files, "overlays/"+overlay)
	assert.NilError(t, err)
	var lines []string
	for line := range strings.Lines(string(data)) {
		key, _, _ := strings.Cut(strings.TrimSpace(line), ":")
		_, differs := settings[key]
		if !differs && !strings.Contains(line, "name: settings-") {
			lines = append(lines, strings.ReplaceAll(line, overlay, "OVERLAY"))
		}
	}
	return strings.Join(lines, "")
}

// The digests that the tree holds are zeros, which no image has, under a name that no
// resolver answers: what runs is what an operator put there, or nothing.
func TestNoImageIsPulledByMistake(t *testing.T) {
	zeros := "@sha256:" + strings.Repeat("0", 64)
	want := map[string]bool{"registry.invalid/remembrancer" + zeros: true, "quay.io/prometheus/prometheus" + zeros: true}
	for _, overlay := range overlays {
		c, err := load(tree(t), overlay)
		assert.NilError(t, err)
		got := map[string]bool{}
		for _, w := range c.workloads {
			for _, k := range w.pod.Spec.Containers {
				got[k.Image] = true
			}
		}
		assert.DeepEqual(t, got, want)
		for name, m := range c.configs {
			if strings.HasPrefix(name, "release-") {
				assert.DeepEqual(t, m.Data, map[string]string{"artifact": zeros[1:], "revision": strings.Repeat("0", 40)})
			}
		}
	}
}

// To promote is to copy one file: image and commit of staging are then canary's, and all
// pods that have either are made anew.
func TestPromotionIsOneFile(t *testing.T) {
	const digest, revision = "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae", "9f3c1b2a7d5e4f60819a2b3c4d5e6f7081920a1b"
	zeros := strings.Repeat("0", 64)
	release := func(overlay string) []edit {
		return []edit{
			{"overlays/" + overlay + "/release/kustomization.yaml", "newName: registry.invalid", "newName: registry.example.org"},
			{"overlays/" + overlay + "/release/kustomization.yaml", "digest: sha256:" + zeros, "digest: " + digest},
			{"overlays/" + overlay + "/release/kustomization.yaml", "artifact=sha256:" + zeros, "artifact=" + digest},
			{"overlays/" + overlay + "/release/kustomization.yaml", "revision=" + zeros[:40], "revision=" + revision},
		}
	}
	files := tree(t, release("staging")...)
	staged, err := files.ReadFile("/k8s/overlays/staging/release/kustomization.yaml")
	assert.NilError(t, err)
	assert.NilError(t, files.WriteFile("/k8s/overlays/canary/release/kustomization.yaml", staged))
	names := map[string]bool{}
	for _, overlay := range []string{"staging", "canary"} {
		c, err := load(files, overlay)
		assert.NilError(t, err)
		assert.DeepEqual(t, c.judge(), []string(nil))
		for name, m := range c.configs {
			if strings.HasPrefix(name, "release-") {
				assert.DeepEqual(t, m.Data, map[string]string{"artifact": digest, "revision": revision})
				names[name] = true
			}
		}
		for _, w := range c.workloads {
			if w.name != "Deployment/prometheus" {
				assert.Equal(t, w.pod.Spec.Containers[0].Image, "registry.example.org/remembrancer@"+digest, w.name)
			}
		}
	}
	assert.Equal(t, len(names), 1)
	prod, err := load(files, "prod")
	assert.NilError(t, err)
	for name := range prod.configs {
		assert.Assert(t, !names[name])
	}
}

// kustomize reads nothing outside of its folder, so rules, dashboard and spec are copied
// into it; the copies are those of examples/slo, which a test there makes of the spec.
func TestCopiedFilesAreTheGeneratedOnes(t *testing.T) {
	for _, name := range []string{"aurora-akash-001.yaml", "aurora-akash-001.rules.yaml", "aurora-akash-001.dashboard.json"} {
		made, err := os.ReadFile(root + "/examples/slo/" + name)
		assert.NilError(t, err)
		copied, err := os.ReadFile(examples + "/base/files/" + name)
		assert.NilError(t, err)
		assert.Assert(t, bytes.Equal(made, copied), "hint: cp examples/slo/%s examples/k8s/base/files/", name)
	}
}

// Every object is in the overlay once, and an object that came or went is on purpose.
func TestWhatAnOverlayHolds(t *testing.T) {
	c, err := load(tree(t), "staging")
	assert.NilError(t, err)
	count := map[string]int{}
	for _, k := range c.kindsNames {
		kind, _, _ := strings.Cut(k, "/")
		count[kind]++
	}
	var lines []string
	for _, kind := range slices.Sorted(maps.Keys(count)) {
		lines = append(lines, fmt.Sprintf("%d %s", count[kind], kind))
	}
	assert.DeepEqual(t, lines, []string{
		"5 ConfigMap", "1 CronJob", "3 Deployment", "6 NetworkPolicy", "4 PersistentVolumeClaim", "3 PodDisruptionBudget", "3 Service", "4 ServiceAccount",
	})
}
