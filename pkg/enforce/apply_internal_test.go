package enforce

import (
	"encoding/json"
	"slices"
	"testing"
)

// Laws of merging a ruleset that somebody edited, whatever it holds: it is
// refused, or what comes out keeps every rule of another type and every required
// check of another name as it was, lets nobody pass, and merging it again
// changes nothing.
func FuzzMergingLosesNothingAndEnds(f *testing.F) {
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"rules":[{"type":"code_quality","parameters":{"n":1e400}},{"type":"pull_request","parameters":{"required_approving_review_count":2}}]}`))
	f.Add([]byte(`{"rules":[{"type":"required_status_checks","parameters":{"required_status_checks":[{"context":"a"},{"context":"a","integration_id":3},{"context":"z","x":[]}]}}]}`))
	f.Add([]byte(`{"conditions":{"ref_name":{"include":["~ALL"],"exclude":["refs/heads/main"]},"x":{}},"bypass_actors":[{"actor_id":77,"actor_type":"Integration"}],"more":"<&>"}`))
	f.Add([]byte(`{"rules":[{"type":"deletion","extra":1},{"type":"deletion"},{"type":null}],"conditions":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := &reader{defaultBranch: "main", want: Want{
			Owner: "o", Name: "n", Branch: "main", Keep: []string{"claim"}, Checks: []string{"a", "b"}, App: 15368, PublisherApp: 77, Reviews: 1,
		}}
		var there object
		if json.Unmarshal(data, &there) != nil || there == nil {
			return
		}
		for _, name := range []string{historyName, gateName} {
			body, _, err := r.ruleset(name, Active, there)
			if err != nil {
				continue
			}
			again, _, err := r.ruleset(name, Active, body)
			if err != nil {
				t.Fatal(err)
			}
			if canonical(raw(again)) != canonical(raw(body)) {
				t.Errorf("%s\nbecomes\n%s", raw(body), raw(again))
			}
			var before, after []object
			if json.Unmarshal(there["rules"], &before) != nil && there["rules"] != nil {
				continue
			}
			if err := json.Unmarshal(body["rules"], &after); err != nil {
				t.Fatal(err)
			}
			for _, rule := range before {
				kind := textOf(rule["type"])
				if slices.Contains([]string{"deletion", "non_fast_forward", "pull_request", "required_status_checks"}, kind) {
					continue
				}
				if !slices.ContainsFunc(after, func(o object) bool { return canonical(raw(o)) == canonical(raw(rule)) }) {
					t.Errorf("rule %s is lost in %s", raw(rule), body["rules"])
				}
			}
			for _, o := range checksOf(before) {
				if slices.Contains(r.want.Checks, textOf(o["context"])) {
					continue
				}
				if !slices.ContainsFunc(checksOf(after), func(x object) bool { return canonical(raw(x)) == canonical(raw(o)) }) {
					t.Errorf("check %s is lost in %s", raw(o), body["rules"])
				}
			}
			var actors []actor
			if err := json.Unmarshal(body["bypass_actors"], &actors); err != nil {
				t.Fatal(err)
			}
			if slices.ContainsFunc(actors, func(a actor) bool { return name == historyName || !a.isApp(77) }) {
				t.Errorf("%s may pass", body["bypass_actors"])
			}
		}
	})
}

func checksOf(rules []object) []object {
	var all []object
	for _, rule := range rules {
		if textOf(rule["type"]) != "required_status_checks" {
			continue
		}
		var p object
		var list []object
		if json.Unmarshal(rule["parameters"], &p) == nil && json.Unmarshal(p["required_status_checks"], &list) == nil {
			all = append(all, list...)
		}
	}
	return all
}
