package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/action"
)

var render = flag.Bool("render", false, "write manifests and tables from their declarations")

const moduleRoot = "../.."

// manifests are the files that workflows name with uses:.
func manifests() map[string][]byte {
	brand := action.Brand{Icon: "shield", Color: "gray-dark"}
	files := map[string][]byte{
		"action.yml": action.CompositeManifest(checkSpec, action.ManifestComposite{Source: ".", Brand: brand}),
	}
	for _, v := range verbs() {
		if v.spec.Name == "" || v.spec.Name == checkSpec.Name {
			continue
		}
		dir := "actions/" + v.spec.Name + "/"
		files[dir+"action.yml"] = action.Manifest(v.spec, action.ManifestDocker{Image: "../../Dockerfile", Brand: brand})
		files[dir+"composite/action.yml"] = action.CompositeManifest(v.spec, action.ManifestComposite{Source: "../../..", Brand: brand})
	}
	return files
}

func TestManifestsAreThoseOfTheDeclarations(t *testing.T) {
	for name, want := range manifests() {
		path := filepath.Join(moduleRoot, name)
		if *render {
			assert.NilError(t, os.MkdirAll(filepath.Dir(path), 0o755))
			assert.NilError(t, os.WriteFile(path, want, 0o644))
		}
		got, err := os.ReadFile(path)
		assert.NilError(t, err)
		assert.Equal(t, string(got), string(want), "%s is not what its declaration says: go test ./cmd/remembrancer -run Manifests -args -render", name)
	}
}

func TestNoManifestIsLeftWithoutADeclaration(t *testing.T) {
	want := manifests()
	assert.NilError(t, filepath.WalkDir(filepath.Join(moduleRoot, "actions"), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(moduleRoot, path)
		assert.NilError(t, err)
		_, ok := want[filepath.ToSlash(rel)]
		assert.Check(t, ok, "%s is rendered by no declaration", rel)
		return nil
	}))
}

func TestActionTablesOfTheDocsAreThoseOfTheDeclarations(t *testing.T) {
	path := filepath.Join(moduleRoot, "docs", "ACTIONS.md")
	doc, err := os.ReadFile(path)
	assert.NilError(t, err)
	want := bytes.Clone(doc)
	for _, v := range verbs() {
		if v.spec.Name == "" {
			continue
		}
		want, err = action.RewriteMarked(want, v.spec.Name, action.Table(v.spec))
		assert.NilError(t, err)
	}
	if *render {
		assert.NilError(t, os.WriteFile(path, want, 0o644))
		return
	}
	assert.Equal(t, string(doc), string(want), "go test ./cmd/remembrancer -run Tables -args -render")
}
