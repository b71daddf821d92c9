// Package k8s_test holds examples/k8s and examples/staging to what they say, on every
// run and without a cluster: each overlay is built by kustomize's own library, decoded
// by the API's own types without a field too many, judged by the API server's own Pod
// Security code, and then by the rules of this package, which follow references, and
// traffic, from object to object.
//
// Every rule has a copy of the manifests that breaks it, and the finding that the copy
// must give: see [TestEveryRuleGoesRed].
//
// What this cannot show is that a pod runs. make k8s-conformance applies the same
// objects to a real API server; no kubelet is there either.
package k8s_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

const (
	root     = "../.."
	examples = root + "/examples/k8s"
)

var overlays = []string{"staging", "canary", "prod"}

// edit is a change of one file of examples/k8s: the text old, which is there, becomes
// text. An empty old appends.
type edit struct{ file, old, text string }

// tree is examples/k8s in memory, with edits.
func tree(t *testing.T, edits ...edit) filesys.FileSystem {
	t.Helper()
	mem := filesys.MakeFsInMemory()
	assert.NilError(t, filepath.WalkDir(examples, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(examples, path)
		if err != nil {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, e := range edits {
			switch rel = filepath.ToSlash(rel); {
			case e.file != rel:
			case e.old == "":
				data = append(data, e.text...)
			case !bytes.Contains(data, []byte(e.old)):
				return fmt.Errorf("%s has no %q", rel, e.old)
			default:
				data = bytes.Replace(data, []byte(e.old), []byte(e.text), 1)
			}
		}
		return mem.WriteFile("/k8s/"+rel, data)
	}))
	return mem
}

// build is what kubectl kustomize prints.
func build(files filesys.FileSystem, folder string) ([]byte, error) {
	all, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(files, "/k8s/"+folder)
	if err != nil {
		return nil, err
	}
	return all.AsYaml()
}

// known are the kinds that the examples may have. Others, an Ingress controller's or an
// operator's own, would be applied by nobody who has not got them.
func known() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	return s, errors.Join(corev1.AddToScheme(s), appsv1.AddToScheme(s), batchv1.AddToScheme(s), networkingv1.AddToScheme(s), policyv1.AddToScheme(s))
}

// decode reads objects as the API server does with field validation: a field that it
// does not know, or knows twice, is an error.
func decode(data []byte) ([]runtime.Object, error) {
	scheme, err := known()
	if err != nil {
		return nil, err
	}
	strict := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{Yaml: true, Strict: true})
	var all []runtime.Object
	for docs := utilyaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(data))); ; {
		one := make([]byte, len(data))
		n, err := docs.Read(one)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		object, _, err := strict.Decode(one[:n], nil, nil)
		if err != nil {
			head, _, _ := strings.Cut(string(one[:n]), "\nspec:")
			return nil, fmt.Errorf("%w in\n%s", err, head)
		}
		all = append(all, object)
	}
}

// workload is what runs pods: a Deployment, or the CronJob.
type workload struct {
	name     string // as Deployment/prometheus
	replicas int32
	labels   map[string]string // of its pods
	pod      corev1.PodTemplateSpec
	deploy   *appsv1.Deployment // nil for the CronJob
}

// cluster is one overlay, sorted.
type cluster struct {
	namespace  corev1.Namespace
	workloads  []workload
	services   []corev1.Service
	configs    map[string]corev1.ConfigMap
	claims     map[string]corev1.PersistentVolumeClaim
	accounts   map[string]corev1.ServiceAccount
	budgets    []policyv1.PodDisruptionBudget
	policies   []networkingv1.NetworkPolicy
	findings   []string // what is odd about the objects by themselves
	kindsNames []string // every object, as Kind/name
}

// load builds an overlay, decodes and sorts it.
func load(files filesys.FileSystem, overlay string) (*cluster, error) {
	data, err := build(files, "overlays/"+overlay)
	if err != nil {
		return nil, err
	}
	objects, err := decode(data)
	if err != nil {
		return nil, err
	}
	c := &cluster{configs: map[string]corev1.ConfigMap{}, claims: map[string]corev1.PersistentVolumeClaim{}, accounts: map[string]corev1.ServiceAccount{}}
	spaces := map[string]bool{}
	note := func(kind, name, namespace string) {
		c.kindsNames = append(c.kindsNames, kind+"/"+name)
		spaces[namespace] = true
	}
	for _, object := range objects {
		switch o := object.(type) {
		case *corev1.Namespace:
			if c.namespace.Name != "" {
				c.findings = append(c.findings, "two namespaces: "+c.namespace.Name+" and "+o.Name)
			}
			c.namespace = *o
		case *appsv1.Deployment:
			note("Deployment", o.Name, o.Namespace)
			replicas := int32(1)
			if o.Spec.Replicas != nil {
				replicas = *o.Spec.Replicas
			}
			c.workloads = append(c.workloads, workload{"Deployment/" + o.Name, replicas, o.Spec.Template.Labels, o.Spec.Template, o})
		case *batchv1.CronJob:
			note("CronJob", o.Name, o.Namespace)
			pod := o.Spec.JobTemplate.Spec.Template
			c.workloads = append(c.workloads, workload{"CronJob/" + o.Name, 1, pod.Labels, pod, nil})
		case *corev1.Service:
			note("Service", o.Name, o.Namespace)
			c.services = append(c.services, *o)
		case *corev1.ConfigMap:
			note("ConfigMap", o.Name, o.Namespace)
			c.configs[o.Name] = *o
		case *corev1.PersistentVolumeClaim:
			note("PersistentVolumeClaim", o.Name, o.Namespace)
			c.claims[o.Name] = *o
		case *corev1.ServiceAccount:
			note("ServiceAccount", o.Name, o.Namespace)
			c.accounts[o.Name] = *o
		case *policyv1.PodDisruptionBudget:
			note("PodDisruptionBudget", o.Name, o.Namespace)
			c.budgets = append(c.budgets, *o)
		case *networkingv1.NetworkPolicy:
			note("NetworkPolicy", o.Name, o.Namespace)
			c.policies = append(c.policies, *o)
		default:
			// A Secret would be one that everybody knows, an Ingress a door.
			c.findings = append(c.findings, fmt.Sprintf("%s is not for a file that everybody has, or not for the outside", object.GetObjectKind().GroupVersionKind().Kind))
		}
	}
	for space := range spaces {
		if space != c.namespace.Name {
			c.findings = append(c.findings, fmt.Sprintf("an object is in namespace %q, not %q", space, c.namespace.Name))
		}
	}
	return c, nil
}
