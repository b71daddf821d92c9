package forgetest

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
)

//go:embed testdata/openapi.json
var description []byte

// spec is read once: half a megabyte takes longer than most tests.
var spec = sync.OnceValue(func() *openapi3.T {
	doc, err := openapi3.NewLoader().LoadFromData(description)
	if err != nil {
		panic(err)
	}
	return doc
})

// match compares an escaped path of a request with a pattern of the
// description. The last variable of a pattern that ends in {path} or {ref} may
// have slashes, as the forge lets it.
func match(pattern, escaped string) (map[string]string, bool) {
	want, got := strings.Split(pattern, "/"), strings.Split(escaped, "/")
	if last := want[len(want)-1]; (last == "{path}" || last == "{ref}") && len(got) > len(want) {
		got = append(slices.Clone(got[:len(want)-1]), strings.Join(got[len(want)-1:], "/"))
	}
	if len(want) != len(got) {
		return nil, false
	}
	vars := map[string]string{}
	for i, w := range want {
		text, err := url.PathUnescape(got[i])
		if err != nil || !matchElement(w, text, vars) {
			return nil, false
		}
	}
	return vars, true
}

// matchElement compares one element: a literal, {name}, or {base}...{head}.
func matchElement(pattern, text string, vars map[string]string) bool {
	before, after, variable := strings.Cut(pattern, "{")
	rest, ok := strings.CutPrefix(text, before)
	if !ok || !variable {
		return ok && rest == ""
	}
	name, tail, _ := strings.Cut(after, "}")
	value := rest
	if tail != "" {
		literal, _, _ := strings.Cut(tail, "{")
		if value, _, ok = strings.Cut(rest, literal); !ok {
			return false
		}
	}
	vars[name] = value
	return value != "" && (tail == "" || matchElement(tail, rest[len(value):], vars))
}

// described returns the pattern of the description that a path is of, the one
// with the fewest variables.
func described(method, path string) (string, bool) {
	best := ""
	for _, pattern := range spec().Paths.Keys() {
		if _, ok := match(pattern, path); ok && operation(method, pattern) != nil && (best == "" || strings.Count(pattern, "{") < strings.Count(best, "{")) {
			best = pattern
		}
	}
	return best, best != ""
}

// operation returns what the description says of a route, or nil.
func operation(method, pattern string) *routers.Route {
	item := spec().Paths.Value(pattern)
	if item == nil || item.GetOperation(method) == nil {
		return nil
	}
	return &routers.Route{Spec: spec(), Path: pattern, PathItem: item, Method: method, Operation: item.GetOperation(method)}
}

var options = &openapi3filter.Options{
	AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true,
	RejectWhenRequestBodyNotSpecified: true, SkipSettingDefaults: true,
	SchemaValidationOptions: []openapi3.SchemaValidationOption{openapi3.DisableSchemaErrorDetails()},
}

// checkRequest demands of a request what the description says.
func (f *Fake) checkRequest(r *http.Request, route *routers.Route, vars map[string]string, body []byte) (*openapi3filter.RequestValidationInput, error) {
	in := &openapi3filter.RequestValidationInput{Request: r.Clone(context.Background()), PathParams: vars, Route: route, Options: options}
	in.Request.Body, in.Request.ContentLength = http.NoBody, 0
	if len(body) > 0 {
		body = f.standIns(body)
		in.Request.Body, in.Request.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	}
	for name := range r.URL.Query() {
		known := slices.ContainsFunc(slices.Concat(route.PathItem.Parameters, route.Operation.Parameters), func(p *openapi3.ParameterRef) bool {
			return p.Value.In == "query" && p.Value.Name == name
		})
		if !known {
			return nil, fmt.Errorf("query parameter %s is not described", name)
		}
	}
	return in, openapi3filter.ValidateRequest(context.Background(), in)
}

// checkResponse demands of an answer what the description says. Refusals that
// an operation does not list must be what the forge refuses with everywhere.
func (f *Fake) checkResponse(in *openapi3filter.RequestValidationInput, status int, header http.Header, body []byte) error {
	if status >= 400 && in.Route.Operation.Responses.Status(status) == nil {
		var value any
		if err := json.Unmarshal(body, &value); err != nil {
			return err
		}
		return spec().Components.Schemas["basic-error"].Value.VisitJSON(value)
	}
	out := &openapi3filter.ResponseValidationInput{RequestValidationInput: in, Status: status, Header: header, Options: options}
	return openapi3filter.ValidateResponse(context.Background(), out.SetBodyBytes(f.standIns(body)))
}

// standIns replaces the rules of types that a test declared to be newer than
// the description, so that all else is still held to it.
func (f *Fake) standIns(body []byte) []byte {
	if len(f.newer) == 0 {
		return body
	}
	var value any
	if json.Unmarshal(body, &value) != nil {
		return body
	}
	var walk func(v any) any
	walk = func(v any) any {
		switch v := v.(type) {
		case []any:
			for i := range v {
				v[i] = walk(v[i])
			}
		case map[string]any:
			if t, _ := v["type"].(string); slices.Contains(f.newer, t) {
				return map[string]any{"type": "deletion"}
			}
			for k := range v {
				v[k] = walk(v[k])
			}
		}
		return v
	}
	replaced, err := json.Marshal(walk(value))
	if err != nil {
		return body
	}
	return replaced
}

// Object is an instance of a schema of the description ("pull-request"): these
// fields, and whatever else it requires, as empty as it may be. A field that is a
// map is laid over the object there.
func Object(schema string, fields map[string]any) map[string]any {
	ref := spec().Components.Schemas[schema]
	if ref == nil {
		panic("no schema " + schema)
	}
	made, _ := instance(ref.Value, 0).(map[string]any)
	if made == nil {
		made = map[string]any{}
	}
	return lay(made, fields)
}

func lay(over, fields map[string]any) map[string]any {
	for name, value := range fields {
		below, ok1 := over[name].(map[string]any)
		above, ok2 := value.(map[string]any)
		if ok1 && ok2 {
			value = lay(below, above)
		}
		over[name] = value
	}
	return over
}

func instance(s *openapi3.Schema, depth int) any {
	switch {
	case s.Nullable && depth > 0 || depth > 12:
		return nil
	case len(s.Enum) > 0:
		return s.Enum[0]
	case len(s.AllOf) > 0:
		all := map[string]any{}
		for _, part := range s.AllOf {
			if m, ok := instance(part.Value, depth+1).(map[string]any); ok {
				all = lay(all, m)
			}
		}
		return all
	case len(s.OneOf) > 0:
		return instance(s.OneOf[0].Value, depth+1)
	case len(s.AnyOf) > 0:
		return instance(s.AnyOf[0].Value, depth+1)
	case s.Type.Is("array"):
		return []any{}
	case s.Type.Is("boolean"):
		return false
	case s.Type.Is("integer"), s.Type.Is("number"):
		if s.Min != nil {
			return *s.Min
		}
		return 0
	case s.Type.Is("string"):
		switch s.Format {
		case "date-time":
			return "2025-03-01T12:00:00Z"
		case "uri":
			return "https://example.org/"
		}
		return strings.Repeat("x", int(s.MinLength))
	}
	object := map[string]any{}
	for _, name := range s.Required {
		if p := s.Properties[name]; p != nil {
			object[name] = instance(p.Value, depth+1)
		} else {
			object[name] = ""
		}
	}
	return object
}
