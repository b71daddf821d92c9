package slo_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/golden"

	"github.com/vaultmesh/remembrancer/pkg/slo"
)

const auroraFile = "examples/slo/aurora-akash-001.yaml"

// auroraWith is the example's spec after some replacements, in pairs.
func auroraWith(t testing.TB, pairs ...string) *slo.Spec {
	t.Helper()
	data, err := os.ReadFile("../../" + auroraFile)
	assert.NilError(t, err)
	text := string(data)
	for i := 0; i < len(pairs); i += 2 {
		assert.Assert(t, strings.Contains(text, pairs[i]), "the example has no %q", pairs[i])
		text = strings.ReplaceAll(text, pairs[i], pairs[i+1])
	}
	s, err := slo.ParseSpec(auroraFile, []byte(text))
	assert.NilError(t, err)
	return s
}

type ruleFile struct {
	Groups []struct {
		Name, Interval string
		Rules          []struct {
			Record, Alert, Expr, For string
			Labels, Annotations      map[string]string
		}
	}
}

func rulesOf(t testing.TB, s *slo.Spec) (text string, file ruleFile) {
	t.Helper()
	out, err := s.Rules()
	assert.NilError(t, err)
	dec := yaml.NewDecoder(strings.NewReader(string(out)))
	dec.KnownFields(true)
	assert.NilError(t, dec.Decode(&file))
	return string(out), file
}

func TestRulesOfTheExampleAreGolden(t *testing.T) {
	text, _ := rulesOf(t, auroraWith(t))
	golden.Assert(t, text, "../../../examples/slo/aurora-akash-001.rules.yaml")
}

func TestEachAlertHasItsRunbookAndItsSLO(t *testing.T) {
	_, file := rulesOf(t, auroraWith(t))
	var seen []string
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			if r.Alert == "" {
				assert.Assert(t, r.Record != "" && r.For == "" && r.Annotations == nil)
				continue
			}
			assert.Equal(t, r.Annotations["runbook"], "docs/OPERATIONS.md#"+strings.ToLower(r.Alert))
			assert.Assert(t, r.Annotations["summary"] != "" && r.Annotations["description"] != "")
			assert.Assert(t, slices.Contains([]string{"page", "ticket"}, r.Labels["severity"]))
			assert.Equal(t, r.Labels["treaty_id"], "AURORA-AKASH-001")
			if !slices.Contains(seen, r.Alert) {
				seen = append(seen, r.Alert)
			}
		}
	}
	want := slo.Alerts()
	slices.Sort(seen)
	slices.Sort(want)
	assert.DeepEqual(t, seen, want)
}

// factors lists the burn alerts of an SLO as "alert: expression".
func factors(t testing.TB, s *slo.Spec, name string) []string {
	t.Helper()
	_, file := rulesOf(t, s)
	var out []string
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			if strings.HasPrefix(r.Alert, "SLOBudgetBurn") && r.Labels["slo"] == name {
				out = append(out, r.Alert+": "+strings.NewReplacer(`{slo="`+name+`",treaty_id="AURORA-AKASH-001"}`, "", "slo:errors:ratio_rate", "", "\n", " ").Replace(r.Expr))
			}
		}
	}
	return out
}

func TestBurnRatesAreScaledToTheWindow(t *testing.T) {
	assert.DeepEqual(t, factors(t, auroraWith(t), "rtt"), []string{
		"SLOBudgetBurnFast: 1h > 7.2 * 0.05 and 5m > 7.2 * 0.05",
		"SLOBudgetBurn: 6h > 3 * 0.05 and 30m > 3 * 0.05",
		"SLOBudgetBurnSlow: 24h > 1.5 * 0.05 and 2h > 1.5 * 0.05",
	})
	// Thirty days: the same shares of the budget, in longer windows.
	assert.DeepEqual(t, factors(t, auroraWith(t, "duration: 72h", "duration: 30d"), "rtt"), []string{
		"SLOBudgetBurnFast: 10h > 7.2 * 0.05 and 50m > 7.2 * 0.05",
		"SLOBudgetBurn: 60h > 3 * 0.05 and 5h > 3 * 0.05",
		"SLOBudgetBurnSlow: 240h > 1.5 * 0.05 and 20h > 1.5 * 0.05",
	})
	// An hour of scrapes every 15 s: 50 s hold too few for a rate.
	hour := auroraWith(t, "duration: 72h", "duration: 1h", "timeSliceWindow: 5m", "timeSliceWindow: 1m")
	assert.DeepEqual(t, factors(t, hour, "rtt"), []string{
		"SLOBudgetBurn: 5m > 3 * 0.05 and 1m > 3 * 0.05",
		"SLOBudgetBurnSlow: 20m > 1.5 * 0.05 and 100s > 1.5 * 0.05",
	})
	// With a target of 0.8 all events can be bad, and the fastest alert cannot fire: it is not written.
	assert.DeepEqual(t, factors(t, auroraWith(t, "target: 0.95", "target: 0.8"), "rtt"), []string{
		"SLOBudgetBurn: 6h > 3 * 0.2 and 30m > 3 * 0.2",
		"SLOBudgetBurnSlow: 24h > 1.5 * 0.2 and 2h > 1.5 * 0.2",
	})
	// Slices are counted whole.
	assert.DeepEqual(t, factors(t, auroraWith(t, "timeSliceWindow: 5m", "timeSliceWindow: 15m"), "fill-rate"), []string{
		"SLOBudgetBurn: 6h > 3 * 0.05 and 30m > 3 * 0.05",
		"SLOBudgetBurnSlow: 24h > 1.5 * 0.05 and 2h > 1.5 * 0.05",
	})
}

func TestASpecWhoseAlertsCannotFireHasNoRules(t *testing.T) {
	_, err := auroraWith(t, "target: 0.95", "target: 0.2").Rules()
	assert.Error(t, err, auroraFile+": slo fill-rate: no burn rate over a window of 72h can be seen: want a higher target or a longer window")
	_, err = auroraWith(t, "duration: 72h", "duration: 5m").Rules()
	assert.Error(t, err, auroraFile+": slo fill-rate: no burn rate over a window of 5m can be seen: want a higher target or a longer window")
}

func TestDescriptionsAreNoTemplates(t *testing.T) {
	text, _ := rulesOf(t, auroraWith(t, "description: 95 % of all operations", `description: "{{ $labels.secret }} 95 % of all operations`, "to the verified receipt.", `to the verified receipt."`))
	assert.Assert(t, !strings.Contains(text, "{{ $labels.secret"))
	assert.Assert(t, strings.Contains(text, "{ { $labels.secret"))
}
