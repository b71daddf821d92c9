package k8s_test

import (
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"gotest.tools/v3/assert"
)

// Compose itself reads the files, strictly, as docker compose does.
func TestComposeReadsTheFiles(t *testing.T) {
	details := types.ConfigDetails{
		WorkingDir: root + "/examples/staging",
		Environment: types.Mapping{
			"STAGING_DIR": "/staging", "STAGING_USER": "65532:65532", "STAGING_REVISION": "9f3c1b2a7d5e4f60819a2b3c4d5e6f7081920a1b", "GO_IMAGE": "",
			"GRAFANA_IMAGE": "docker.io/grafana/grafana@sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
		},
	}
	for _, name := range []string{"compose.yaml", "compose.grafana.yaml"} {
		details.ConfigFiles = append(details.ConfigFiles, types.ConfigFile{Filename: root + "/examples/staging/" + name})
	}
	project, err := loader.LoadWithContext(t.Context(), details, func(o *loader.Options) { o.SetProjectName("staging", true) })
	assert.NilError(t, err)
	assert.DeepEqual(t, project.ServiceNames(), []string{"grafana", "prometheus", "remembrancer-node", "remembrancer-soak"})
	for name, s := range project.Services {
		for _, p := range s.Ports {
			assert.Equal(t, p.HostIP, "127.0.0.1", name)
		}
		assert.Assert(t, s.ReadOnly, name)
		assert.Equal(t, s.User, "65532:65532", name)
	}
}
