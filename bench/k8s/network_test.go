package k8s_test

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// party is an end of a connection: a pod of ours, one of another namespace, or an
// address outside.
type party struct {
	name      string
	pod       labels.Set // nil: outside the cluster
	namespace labels.Set
	ports     []corev1.ContainerPort
	ours      bool // policies of the namespace hold for it
}

// flows says who must reach whom at which port. All else must be refused.
func (c *cluster) flows() []string {
	want := []string{
		"Deployment/prometheus -> Deployment/remembrancer-node http",
		"Deployment/prometheus -> Deployment/remembrancer-soak metrics",
		"Deployment/remembrancer-soak -> Deployment/remembrancer-node http",
		"CronJob/slo-report -> Deployment/prometheus http",
	}
	for _, w := range c.workloads {
		if w.name == "Deployment/grafana" {
			want = append(want, "Deployment/grafana -> Deployment/prometheus http")
		}
		want = append(want, w.name+" -> names dns")
	}
	slices.Sort(want)
	return want
}

// network tries every connection that there could be.
func (c *cluster) network(say sayer) {
	home := labels.Set{"kubernetes.io/metadata.name": c.namespace.Name}
	var parties []party
	for _, w := range c.workloads {
		p := party{name: w.name, pod: w.labels, namespace: home, ours: true}
		for _, k := range w.pod.Spec.Containers {
			p.ports = append(p.ports, k.Ports...)
		}
		parties = append(parties, p)
	}
	system := labels.Set{"kubernetes.io/metadata.name": "kube-system"}
	parties = append(
		parties,
		party{name: "names", pod: labels.Set{"k8s-app": "kube-dns"}, namespace: system, ports: []corev1.ContainerPort{{Name: "dns", ContainerPort: 53, Protocol: corev1.ProtocolUDP}}},
		party{name: "another pod of kube-system", pod: labels.Set{}, namespace: system, ports: []corev1.ContainerPort{{Name: "dns", ContainerPort: 53, Protocol: corev1.ProtocolUDP}}},
		// Who has the labels of ours, elsewhere, is not ours.
		party{name: "a stranger's prometheus", pod: labels.Set{"app.kubernetes.io/name": "prometheus"}, namespace: labels.Set{"kubernetes.io/metadata.name": "stranger"}},
		party{name: "a pod without labels", pod: labels.Set{}, namespace: home, ours: true, ports: []corev1.ContainerPort{{Name: "any", ContainerPort: 8080}}},
		party{name: "the internet", ports: []corev1.ContainerPort{{Name: "https", ContainerPort: 443}}},
	)
	var got []string
	for _, from := range parties {
		for _, to := range parties {
			if from.name == to.name || !from.ours && !to.ours {
				continue
			}
			for _, port := range to.ports {
				if c.lets(from, to, port, networkingv1.PolicyTypeEgress) && c.lets(from, to, port, networkingv1.PolicyTypeIngress) {
					got = append(got, fmt.Sprintf("%s -> %s %s", from.name, to.name, port.Name))
				}
			}
		}
	}
	want := c.flows()
	for _, f := range want {
		if !slices.Contains(got, f) {
			say("refused: %s", f)
		}
	}
	for _, f := range got {
		// A pod without labels finds names as all do, and nothing else.
		if !slices.Contains(want, f) && f != "a pod without labels -> names dns" {
			say("let through: %s", f)
		}
	}
}

// lets is one half of the API's rule: an end that some policy selects for a direction is
// let do only what some policy lets it.
func (c *cluster) lets(from, to party, port corev1.ContainerPort, direction networkingv1.PolicyType) bool {
	self, other := from, to
	if direction == networkingv1.PolicyTypeIngress {
		self, other = to, from
	}
	if !self.ours {
		return true // its own namespace's affair
	}
	chosen := false
	for _, p := range c.policies {
		if !slices.Contains(p.Spec.PolicyTypes, direction) || !matches(&p.Spec.PodSelector, self.pod) {
			continue
		}
		chosen = true
		if direction == networkingv1.PolicyTypeEgress {
			for _, r := range p.Spec.Egress {
				if reaches(r.To, self, other) && atPort(r.Ports, port) {
					return true
				}
			}
			continue
		}
		for _, r := range p.Spec.Ingress {
			if reaches(r.From, self, other) && atPort(r.Ports, port) {
				return true
			}
		}
	}
	return !chosen
}

func matches(s *metav1.LabelSelector, l labels.Set) bool {
	sel, err := metav1.LabelSelectorAsSelector(s)
	return err == nil && l != nil && sel.Matches(l)
}

// reaches says whether a rule's peers hold the other end; no peers are everybody.
func reaches(peers []networkingv1.NetworkPolicyPeer, self, other party) bool {
	return len(peers) == 0 || slices.ContainsFunc(peers, func(p networkingv1.NetworkPolicyPeer) bool {
		if p.IPBlock != nil {
			return other.pod == nil // who is named by address is outside
		}
		if p.NamespaceSelector == nil {
			return labels.Equals(self.namespace, other.namespace) && matches(p.PodSelector, other.pod)
		}
		return matches(p.NamespaceSelector, other.namespace) && (p.PodSelector == nil || matches(p.PodSelector, other.pod))
	})
}

func atPort(ports []networkingv1.NetworkPolicyPort, port corev1.ContainerPort) bool {
	return len(ports) == 0 || slices.ContainsFunc(ports, func(p networkingv1.NetworkPolicyPort) bool {
		protocol := corev1.ProtocolTCP
		if p.Protocol != nil {
			protocol = *p.Protocol
		}
		is := port.Protocol
		if is == "" {
			is = corev1.ProtocolTCP
		}
		if !strings.EqualFold(string(protocol), string(is)) {
			return false
		}
		switch {
		case p.Port == nil:
			return true
		case p.Port.Type == intstr.String:
			return p.Port.StrVal == port.Name
		}
		return p.Port.IntVal == port.ContainerPort || p.EndPort != nil && port.ContainerPort >= p.Port.IntVal && port.ContainerPort <= *p.EndPort
	})
}
