package k8s_test

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/yaml"
	psapi "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vaultmesh/remembrancer/pkg/slo"
)

// judge applies every rule, and returns what it found, sorted.
func (c *cluster) judge() []string {
	found := slices.Clone(c.findings)
	say := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	if err := c.security(say); err != nil {
		say("pod security: %v", err)
	}
	for _, w := range c.workloads {
		c.selector(w, say)
		c.references(w, say)
		c.containers(w, say)
		c.oneWriter(w, say)
	}
	c.doors(say)
	c.disruption(say)
	c.network(say)
	c.prometheus(say)
	slices.Sort(found)
	return found
}

type sayer = func(format string, args ...any)

// security asks the API server's own code, and then for more than it demands.
func (c *cluster) security(say sayer) error {
	for _, mode := range []string{"enforce", "audit", "warn"} {
		if level := c.namespace.Labels["pod-security.kubernetes.io/"+mode]; level != string(psapi.LevelRestricted) {
			say("the namespace has %s: %q, want restricted", mode, level)
		}
	}
	latest := psapi.LatestVersion()
	judge, err := policy.NewEvaluator(policy.DefaultChecks(), &latest)
	if err != nil {
		return err
	}
	level := psapi.LevelVersion{Level: psapi.LevelRestricted, Version: psapi.LatestVersion()}
	for _, w := range c.workloads {
		result := policy.AggregateCheckResults(judge.EvaluatePod(level, &w.pod.ObjectMeta, &w.pod.Spec))
		if !result.Allowed {
			say("%s is refused as restricted: %s", w.name, result.ForbiddenDetail())
		}
		s := w.pod.Spec
		// An image that says nothing runs as root, which runAsNonRoot then refuses, on
		// the machine, at the start: a number makes it true.
		if s.SecurityContext == nil || s.SecurityContext.RunAsUser == nil || *s.SecurityContext.RunAsUser == 0 {
			say("%s names no user id that is not root's", w.name)
		}
		if s.AutomountServiceAccountToken == nil || *s.AutomountServiceAccountToken {
			say("%s is given a token of the API server", w.name)
		}
	}
	return nil
}

func (c *cluster) selector(w workload, say sayer) {
	if w.deploy == nil {
		return
	}
	sel, err := metav1.LabelSelectorAsSelector(w.deploy.Spec.Selector)
	switch {
	case err != nil:
		say("%s: %v", w.name, err)
	case sel.Empty():
		say("%s selects every pod", w.name)
	case !sel.Matches(labels.Set(w.labels)):
		say("%s selects %s, which its own pods are not", w.name, sel)
	}
	for _, o := range c.workloads {
		if o.name != w.name && sel != nil && sel.Matches(labels.Set(o.labels)) {
			say("%s selects the pods of %s", w.name, o.name)
		}
	}
}

// secrets is what examples/k8s/secrets makes: a name, and its keys.
func secrets() (name string, keys []string, err error) {
	script, err := os.ReadFile(examples + "/secrets")
	if err != nil {
		return "", nil, err
	}
	_, object, _ := strings.Cut(string(script), "<<END\n")
	object, _, _ = strings.Cut(object, "\nEND\n")
	var s corev1.Secret
	if err := yaml.UnmarshalStrict([]byte(object), &s); err != nil {
		return "", nil, fmt.Errorf("examples/k8s/secrets: %w", err)
	}
	return s.Name, slices.Sorted(maps.Keys(s.StringData)), nil
}

// nodeKey is the config map with the node's public key.
const nodeKey = "node-key"

// references follows what a pod names.
func (c *cluster) references(w workload, say sayer) {
	made, keys, err := secrets()
	if err != nil {
		say("%v", err)
	}
	spec := w.pod.Spec
	if _, ok := c.accounts[spec.ServiceAccountName]; !ok {
		say("%s: there is no service account %q", w.name, spec.ServiceAccountName)
	}
	config := func(name, key string) {
		m, ok := c.configs[name]
		switch {
		case name == nodeKey: // examples/k8s/up makes it, of what the node says
		case !ok:
			say("%s: there is no config map %q", w.name, name)
		case key != "":
			if _, ok := m.Data[key]; !ok {
				say("%s: config map %q has no key %q", w.name, name, key)
			}
		}
	}
	secret := func(name, key string) {
		if name != made || !slices.Contains(keys, key) {
			say("%s: examples/k8s/secrets makes no secret %q with a key %q", w.name, name, key)
		}
	}
	volumes := map[string]bool{}
	for _, v := range spec.Volumes {
		volumes[v.Name] = false
		switch {
		case v.ConfigMap != nil:
			config(v.ConfigMap.Name, "")
			for _, item := range v.ConfigMap.Items {
				config(v.ConfigMap.Name, item.Key)
			}
		case v.Secret != nil:
			if len(v.Secret.Items) != 1 {
				say("%s: volume %q holds secrets of others, too: want one key of it", w.name, v.Name)
			}
			for _, item := range v.Secret.Items {
				secret(v.Secret.SecretName, item.Key)
			}
		case v.PersistentVolumeClaim != nil:
			if _, ok := c.claims[v.PersistentVolumeClaim.ClaimName]; !ok {
				say("%s: there is no claim %q", w.name, v.PersistentVolumeClaim.ClaimName)
			}
		case v.EmptyDir != nil:
			if v.EmptyDir.SizeLimit == nil {
				say("%s: volume %q may fill the machine's disk", w.name, v.Name)
			}
		}
	}
	for _, k := range spec.Containers {
		for _, e := range k.Env {
			switch {
			case e.ValueFrom == nil:
				if secretName.MatchString(e.Name) && !strings.HasSuffix(e.Name, "__FILE") {
					say("%s: %s is written down here: everybody has this file", w.name, e.Name)
				}
			case e.ValueFrom.ConfigMapKeyRef != nil:
				config(e.ValueFrom.ConfigMapKeyRef.Name, e.ValueFrom.ConfigMapKeyRef.Key)
			case e.ValueFrom.SecretKeyRef != nil:
				secret(e.ValueFrom.SecretKeyRef.Name, e.ValueFrom.SecretKeyRef.Key)
			}
		}
		for _, m := range k.VolumeMounts {
			if _, ok := volumes[m.Name]; !ok {
				say("%s: there is no volume %q", w.name, m.Name)
			}
			volumes[m.Name] = true
			if m.SubPath != "" {
				for _, v := range spec.Volumes {
					if v.Name == m.Name && v.ConfigMap != nil {
						config(v.ConfigMap.Name, m.SubPath)
					}
				}
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(volumes)) {
		if !volumes[name] {
			say("%s: nobody mounts volume %q", w.name, name)
		}
	}
}

var (
	digested   = regexp.MustCompile(`^[a-z0-9./-]+@sha256:[0-9a-f]{64}$`)
	secretName = regexp.MustCompile(`(?i)password|token|secret|_key$`)
	expansion  = regexp.MustCompile(`\$\(([^)]*)\)`)
)

// containers asks each for what it must say of itself.
func (c *cluster) containers(w workload, say sayer) {
	for _, k := range append(slices.Clone(w.pod.Spec.InitContainers), w.pod.Spec.Containers...) {
		if !digested.MatchString(k.Image) {
			say("%s: image %q is not named by digest", w.name, k.Image)
		}
		if name, digest, ok := strings.Cut(k.Image, "@"); ok && strings.HasSuffix(name, "/remembrancer") && digest != c.artifact() {
			say("%s runs %s, and release says %s", w.name, digest, c.artifact())
		}
		if k.SecurityContext == nil || k.SecurityContext.ReadOnlyRootFilesystem == nil || !*k.SecurityContext.ReadOnlyRootFilesystem {
			say("%s: container %s can write to its own image", w.name, k.Name)
		}
		if k.Resources.Limits.Memory().IsZero() || k.Resources.Requests.Memory().IsZero() || k.Resources.Requests.Cpu().IsZero() {
			say("%s: container %s does not say what it needs: requests of cpu and memory, a limit of memory", w.name, k.Name)
		}
		env := map[string]bool{}
		for _, e := range k.Env {
			env[e.Name] = true
		}
		for _, arg := range append(slices.Clone(k.Command), k.Args...) {
			for _, m := range expansion.FindAllStringSubmatch(arg, -1) {
				if !env[m[1]] {
					say("%s: %s stays as it is: there is no variable %s", w.name, m[0], m[1])
				}
			}
		}
		if w.deploy == nil {
			continue // a job ends by itself
		}
		ports := map[string]int32{}
		for _, p := range k.Ports {
			ports[p.Name] = p.ContainerPort
		}
		for kind, p := range map[string]*corev1.Probe{"startup": k.StartupProbe, "readiness": k.ReadinessProbe, "liveness": k.LivenessProbe} {
			switch {
			case p == nil || p.HTTPGet == nil:
				say("%s: container %s has no %s probe", w.name, k.Name, kind)
			case p.HTTPGet.Path == "/metrics":
				say("%s: the %s probe asks for /metrics, which answers when nothing else works", w.name, kind)
			case p.HTTPGet.Port.Type != intstr.String || ports[p.HTTPGet.Port.StrVal] == 0:
				say("%s: the %s probe asks at port %s, which the container does not name", w.name, kind, p.HTTPGet.Port.String())
			}
		}
	}
}

// artifact is the digest that reports are about.
func (c *cluster) artifact() string {
	for name, m := range c.configs {
		if strings.HasPrefix(name, "release-") {
			return m.Data["artifact"]
		}
	}
	return ""
}

// oneWriter holds those that keep a log or a database to one pod at a time.
func (c *cluster) oneWriter(w workload, say sayer) {
	for _, v := range w.pod.Spec.Volumes {
		if v.PersistentVolumeClaim == nil || w.deploy == nil {
			continue
		}
		if w.replicas != 1 {
			say("%s: %d pods write to claim %s", w.name, w.replicas, v.PersistentVolumeClaim.ClaimName)
		}
		if w.deploy.Spec.Strategy.Type != "Recreate" {
			say("%s: at an update the new pod and the old one write to claim %s at once", w.name, v.PersistentVolumeClaim.ClaimName)
		}
		for _, o := range c.workloads {
			for _, ov := range o.pod.Spec.Volumes {
				if o.name != w.name && ov.PersistentVolumeClaim != nil && ov.PersistentVolumeClaim.ClaimName == v.PersistentVolumeClaim.ClaimName {
					say("%s: %s has claim %s, too", w.name, o.name, v.PersistentVolumeClaim.ClaimName)
				}
			}
		}
	}
}

// doors: services lead to pods, and to nobody outside.
func (c *cluster) doors(say sayer) {
	for _, s := range c.services {
		if s.Spec.Type != corev1.ServiceTypeClusterIP || len(s.Spec.ExternalIPs) > 0 {
			say("Service/%s is of type %s: it opens a port to the outside", s.Name, s.Spec.Type)
		}
		var behind []workload
		for _, w := range c.workloads {
			if len(s.Spec.Selector) > 0 && labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(w.labels)) {
				behind = append(behind, w)
			}
		}
		if len(behind) != 1 {
			say("Service/%s leads to %d workloads, want one", s.Name, len(behind))
			continue
		}
		for _, p := range s.Spec.Ports {
			if _, ok := portOf(behind[0], p.TargetPort); !ok {
				say("Service/%s: %s has no port %s", s.Name, behind[0].name, p.TargetPort.String())
			}
		}
	}
}

// portOf is the number of a port that a pod says it has.
func portOf(w workload, p intstr.IntOrString) (int32, bool) {
	for _, k := range w.pod.Spec.Containers {
		for _, cp := range k.Ports {
			if p.Type == intstr.String && cp.Name == p.StrVal || p.Type == intstr.Int && cp.ContainerPort == p.IntVal {
				return cp.ContainerPort, true
			}
		}
	}
	return 0, false
}

// disruption: a drain must be able to end.
func (c *cluster) disruption(say sayer) {
	covered := map[string]bool{}
	for _, b := range c.budgets {
		sel, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
		if err != nil {
			say("PodDisruptionBudget/%s: %v", b.Name, err)
			continue
		}
		var pods int
		for _, w := range c.workloads {
			if w.deploy != nil && sel.Matches(labels.Set(w.labels)) {
				pods += int(w.replicas)
				covered[w.name] = true
			}
		}
		if pods == 0 {
			say("PodDisruptionBudget/%s is for no pod", b.Name)
			continue
		}
		may := 0
		switch {
		case b.Spec.MaxUnavailable != nil:
			may, err = intstr.GetScaledValueFromIntOrPercent(b.Spec.MaxUnavailable, pods, true)
		case b.Spec.MinAvailable != nil:
			may, err = intstr.GetScaledValueFromIntOrPercent(b.Spec.MinAvailable, pods, true)
			may = pods - may
		}
		if err != nil || may < 1 {
			say("PodDisruptionBudget/%s lets none of %d pods go: no machine that has one can ever be drained", b.Name, pods)
		}
	}
	for _, w := range c.workloads {
		keeps := slices.ContainsFunc(w.pod.Spec.Volumes, func(v corev1.Volume) bool { return v.PersistentVolumeClaim != nil })
		if w.deploy != nil && keeps && !covered[w.name] {
			say("%s has no disruption budget", w.name)
		}
	}
}

// scrapes is what of prometheus.yml the rules look at.
type scrapes struct {
	Global struct {
		ScrapeInterval string `json:"scrape_interval"`
	} `json:"global"`
	RuleFiles []string `json:"rule_files"`
	Configs   []struct {
		Job           string `json:"job_name"`
		Authorization struct {
			File string `json:"credentials_file"`
		} `json:"authorization"`
		Static []struct {
			Targets []string `json:"targets"`
		} `json:"static_configs"`
	} `json:"scrape_configs"`
}

// prometheus: it measures what the spec promises by, for long enough.
func (c *cluster) prometheus(say sayer) {
	var pod *corev1.PodSpec
	for i := range c.workloads {
		if c.workloads[i].name == "Deployment/prometheus" {
			pod = &c.workloads[i].pod.Spec
		}
	}
	if pod == nil {
		say("there is no Deployment/prometheus")
		return
	}
	inPod := func(path string) (string, bool) { return c.file(*pod, path) }
	var text string
	var retention time.Duration
	for _, arg := range pod.Containers[0].Args {
		if path, ok := strings.CutPrefix(arg, "--config.file="); ok {
			if text, ok = inPod(path); !ok {
				say("Deployment/prometheus: there is no %s", path)
			}
		}
		if keep, ok := strings.CutPrefix(arg, "--storage.tsdb.retention.time="); ok {
			var err error
			if retention, err = slo.ParseDuration(keep); err != nil {
				say("Deployment/prometheus: %v", err)
			}
		}
		if strings.HasPrefix(arg, "--web.enable-") {
			say("Deployment/prometheus: %s lets whoever reaches it end it", arg)
		}
	}
	var conf scrapes
	if err := yaml.Unmarshal([]byte(text), &conf); err != nil {
		say("prometheus.yml: %v", err)
		return
	}
	specText, ok := "", false
	for _, m := range c.configs {
		if t, is := m.Data["aurora-akash-001.yaml"]; is {
			specText, ok = t, true
		}
	}
	spec, err := slo.ParseSpec("aurora-akash-001.yaml", []byte(specText))
	if !ok || err != nil {
		say("the SLO file: %v", err)
		return
	}
	if interval, err := slo.ParseDuration(conf.Global.ScrapeInterval); err != nil || interval != spec.ScrapeInterval() {
		say("prometheus.yml scrapes every %s, the SLO file promises %s", conf.Global.ScrapeInterval, spec.ScrapeInterval())
	}
	if want := 8 * 24 * time.Hour; retention < want || retention < 2*spec.Window() {
		say("Deployment/prometheus keeps %s, want %s", retention, want)
	}
	for _, f := range conf.RuleFiles {
		if _, ok := inPod("/etc/prometheus/config/" + f); !ok {
			say("prometheus.yml: there is no %s", f)
		}
	}
	jobs := map[string]bool{}
	for _, s := range conf.Configs {
		jobs[`up{job="`+s.Job+`"}`] = true
		if f := s.Authorization.File; f != "" {
			if _, ok := inPod(f); !ok {
				say("prometheus.yml: there is no %s", f)
			}
		}
		for _, static := range s.Static {
			for _, target := range static.Targets {
				if target != "localhost:9090" && !c.serves(target) {
					say("prometheus.yml: no service answers at %s", target)
				}
			}
		}
	}
	for _, want := range spec.Targets() {
		if !jobs[want] {
			say("prometheus.yml scrapes nothing that is %s", want)
		}
	}
}

// file is the text at a path in a pod; of a secret there is none, but it is there.
func (c *cluster) file(pod corev1.PodSpec, path string) (string, bool) {
	for _, m := range pod.Containers[0].VolumeMounts {
		key, ok := strings.CutPrefix(path, m.MountPath+"/")
		if !ok {
			continue
		}
		for _, v := range pod.Volumes {
			switch {
			case v.Name != m.Name:
			case v.ConfigMap != nil:
				text, ok := c.configs[v.ConfigMap.Name].Data[key]
				return text, ok
			case v.Secret != nil:
				return "", slices.ContainsFunc(v.Secret.Items, func(i corev1.KeyToPath) bool { return i.Path == key })
			}
		}
	}
	return "", false
}

func (c *cluster) serves(target string) bool {
	for _, s := range c.services {
		for _, p := range s.Spec.Ports {
			if fmt.Sprintf("%s:%d", s.Name, p.Port) == target {
				return true
			}
		}
	}
	return false
}
