package slo

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// provisionedSource is the uid of the datasource that [Spec.Provisioning] names.
const provisionedSource = "remembrancer-prometheus"

// Provisioning returns the files that give a Grafana the dashboard and its
// datasource at its start, by their paths below the folder that it mounts at
// /etc/grafana/provisioning. address is where that Grafana finds Prometheus;
// credentials are no part of it.
//
//	datasources/remembrancer.yaml   the datasource, with a fixed uid
//	dashboards/remembrancer.yaml    the provider of what lies beside it
//	dashboards/UID.json             the dashboard of [Spec.Dashboard]
func (s *Spec) Provisioning(address string) (map[string][]byte, error) {
	u, err := url.Parse(address)
	// A dollar sign begins a variable or a file of Grafana's.
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.ContainsAny(address, "$\"\\") {
		shown := "that address"
		if err == nil {
			shown = fmt.Sprintf("address %q", u.Redacted())
		}
		return nil, errors.New(shown + ": want one such as http://prometheus:9090, without a name, password or query")
	}
	dashboard, err := s.Dashboard()
	if err != nil {
		return nil, err
	}
	head := "# Generated from " + s.name + " (SHA-256 " + s.sum + ").\napiVersion: 1\n"
	return map[string][]byte{
		"datasources/remembrancer.yaml": []byte(head + `datasources:
  - name: Prometheus
    uid: ` + provisionedSource + `
    type: prometheus
    access: proxy
    url: "` + u.String() + `"
    isDefault: true
    editable: false
    jsonData:
      httpMethod: POST
      timeInterval: ` + promDuration(s.interval) + `
`),
		"dashboards/remembrancer.yaml": []byte(head + `providers:
  - name: remembrancer
    type: file
    folder: Remembrancer
    disableDeletion: true
    allowUiUpdates: false
    options:
      path: /etc/grafana/provisioning/dashboards
`),
		"dashboards/" + s.uid() + ".json": dashboard,
	}, nil
}
