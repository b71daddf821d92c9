package repro_test

import (
	"os"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/repro"
)

const (
	digest = "@sha256:a688600ca24f8a4d3ca77f95b0dd40704a9fc787c826660eb7ba0b641b8b175d"
	claim  = "every image that a Dockerfile takes is pinned by digest"
)

func TestPinnedImagesPass(t *testing.T) {
	for name, data := range map[string]string{
		"from":          "FROM golang" + digest,
		"tag":           "FROM docker.io:5000/library/golang:1.26" + digest + "\n",
		"scratch":       "FROM scratch\nCOPY . /",
		"lower case":    "from golang" + digest + " as b\nfrom scratch\ncopy --from=b /x /x",
		"platform":      "FROM --platform=$BUILDPLATFORM golang" + digest,
		"quotes":        "FROM \"golang" + digest + "\"",
		"stages":        "FROM golang" + digest + " AS One\nFROM one AS two\nCOPY --from=ONE /a /a\nRUN --mount=from=one,target=/x true\nFROM scratch\nCOPY --from=0 /a /a\nCOPY --from=two /b /b",
		"copy":          "FROM scratch\nCOPY --from=golang" + digest + " /a /a",
		"from scratch":  "FROM scratch\nCOPY --from=scratch /a /a\nRUN --mount=from=scratch,target=/x true",
		"mount":         "FROM scratch\nRUN --mount=type=bind,from=golang" + digest + ",target=/x true",
		"own mounts":    "FROM scratch\nRUN --mount=type=cache,target=/x --mount=type=secret,id=x true",
		"syntax":        "# syntax=docker/dockerfile:1" + digest + "\nFROM scratch",
		"not a syntax":  "\n# syntax=docker/dockerfile:1\nFROM scratch",
		"argument":      "ARG GO=golang" + digest + "\nFROM ${GO}",
		"two arguments": "ARG NAME=golang DIGEST=" + digest[1:] + "\nFROM $NAME@$DIGEST",
		"of another":    "ARG V=1.26\nARG GO=golang:$V" + digest + "\nFROM $GO",
		"default":       "ARG GO\nFROM ${GO:-golang" + digest + "}",
		"kept":          "ARG GO=golang" + digest + "\nARG GO\nFROM $GO",
		"stage by name": "ARG KIND=fast\nFROM golang" + digest + " AS run-fast\nFROM run-$KIND",
		"redeclared":    "ARG TARGETARCH=amd64\nFROM golang" + digest + " AS run-amd64\nFROM run-$TARGETARCH",
		"continuation":  "FROM \\\n  # which\n  golang" + digest + " \\\n  AS b",
		"escape":        "# escape=`\nFROM `\n  golang" + digest + "\nRUN dir c:\\",
		"here-doc":      "FROM scratch\nRUN <<EOF\nFROM golang\nCOPY --from=golang a b\nEOF\nCOPY <<x <<y /\nFROM golang\nx\nFROM golang\ny\n",
		"onbuild":       "FROM scratch AS a\nFROM scratch\nONBUILD COPY --from=golang" + digest + " /a /a\nONBUILD COPY --from=a /a /a",
		"carriage":      "ARG GO=golang" + digest + "\r\nFROM ${GO} AS b\r\nFROM scratch\r\nCOPY --from=b /a /a\r\n",
		"mark":          "\ufeffFROM golang" + digest,
	} {
		t.Run(name, func(t *testing.T) {
			c := repro.Images(tree{"Dockerfile": data})
			assert.Equal(t, c.Status, judge.Pass, "%+v", c)
		})
	}
}

func TestUnpinnedImagesFailWhereTheyStand(t *testing.T) {
	write := func(image string) string {
		name, _, _ := strings.Cut(image, "@")
		return "write " + name + "@sha256:DIGEST, with the digest that this prints: docker buildx imagetools inspect " + name
	}
	takes := func(line int, what, image string) []judge.Finding {
		return []judge.Finding{{Path: "Dockerfile", Line: line, Message: what + ` takes "` + image + `": wanted NAME@sha256:DIGEST`, Fix: write(image)}}
	}
	bare := func(line int, message string) []judge.Finding {
		return []judge.Finding{{Path: "Dockerfile", Line: line, Message: message}}
	}
	for name, c := range map[string]struct {
		data string
		want []judge.Finding
	}{
		"tag":                        {"# a\nFROM golang:1.26", takes(2, "FROM", "golang:1.26")},
		"lower case":                 {"from golang as b\nfrom b", takes(1, "FROM", "golang")},
		"short digest":               {"FROM golang@sha256:a688600c", takes(1, "FROM", "golang@sha256:a688600c")},
		"long digest":                {"FROM golang" + digest + "0", takes(1, "FROM", "golang"+digest+"0")},
		"upper case digest":          {"FROM golang" + strings.ToUpper(digest), takes(1, "FROM", "golang"+strings.ToUpper(digest))},
		"another digest":             {"FROM golang@md5:00", takes(1, "FROM", "golang@md5:00")},
		"tag after":                  {"FROM golang" + digest + ":1", takes(1, "FROM", "golang"+digest+":1")},
		"platform":                   {"FROM --platform=linux/amd64 golang", takes(1, "FROM", "golang")},
		"quotes":                     {"FROM 'golang'", takes(1, "FROM", "golang")},
		"scratch in caps":            {"FROM Scratch", bare(1, `FROM takes "Scratch": wanted NAME@sha256:DIGEST`)},
		"stage in caps":              {"FROM scratch AS b\nFROM B", bare(2, `FROM takes "B": wanted NAME@sha256:DIGEST`)},
		"stage below":                {"FROM scratch\nCOPY --from=b /a /a\nFROM scratch AS b", takes(2, "COPY --from", "b")},
		"itself":                     {"FROM scratch AS b\nCOPY --from=b /a /a", takes(2, "COPY --from", "b")},
		"number too high":            {"FROM scratch\nCOPY --from=0 /a /a", takes(2, "COPY --from", "0")},
		"number in mount":            {"FROM scratch\nFROM scratch\nRUN --mount=from=0,target=/x true", takes(3, "RUN --mount", "0")},
		"copy":                       {"FROM scratch\n\nCOPY \\\n --from=golang:1 /a /a", takes(3, "COPY --from", "golang:1")},
		"quoted copy":                {"FROM scratch\nCOPY --from=\"golang\" [\"/a\", \"/a\"]", takes(2, "COPY --from", "golang")},
		"copy by variable":           {"ARG X=a\nFROM scratch AS a\nFROM scratch\nCOPY --from=$X /a /a", bare(4, `COPY --from takes "$X": wanted NAME@sha256:DIGEST`)},
		"mount":                      {"FROM scratch\nRUN --mount=type=cache,target=/c --mount=target=/x,FROM=golang true", takes(2, "RUN --mount", "golang")},
		"quoted mount":               {"FROM scratch\nRUN --mount='\"from=golang\",target=/x' true", takes(2, "RUN --mount", "golang")},
		"mount escaped":              {"FROM scratch\nRUN --mount=from=evil\\\\" + digest + ",target=/x true", bare(2, `RUN --mount takes "evil\\`+digest+`": wanted NAME@sha256:DIGEST`)},
		"onbuild":                    {"FROM scratch\nONBUILD COPY --from=golang /a /a", takes(2, "ONBUILD COPY --from", "golang")},
		"onbuild mount":              {"FROM scratch\nonbuild run --mount=from=golang,target=/x true", takes(2, "ONBUILD RUN --mount", "golang")},
		"syntax":                     {"#syntax=docker/dockerfile:1\nFROM scratch", takes(1, "the syntax directive", "docker/dockerfile:1")},
		"second directive":           {"# escape=`\n# SYNTAX = docker/dockerfile:1 --x\nFROM scratch", takes(2, "the syntax directive", "docker/dockerfile:1")},
		"syntax and mark":            {"\ufeff#!/usr/bin/env x\n# syntax=docker/dockerfile:1\nFROM scratch", takes(2, "the syntax directive", "docker/dockerfile:1")},
		"escape":                     {"# escape=`\nFROM `\n  golang", takes(2, "FROM", "golang")},
		"below a here-doc":           {"FROM scratch\nRUN <<EOF\nFROM golang\nEOF\nFROM alpine", takes(5, "FROM", "alpine")},
		"argument":                   {"ARG GO=golang:1\nFROM $GO", takes(2, "FROM", "golang:1")},
		"no default":                 {"ARG GO\nFROM ${GO}", bare(2, `FROM ${GO} takes "", as GO has no default: wanted NAME@sha256:DIGEST`)},
		"no default for one":         {"ARG REG\nFROM $REG/golang" + digest, bare(2, `FROM $REG/golang`+digest+` takes "/golang`+digest+`", as REG has no default: wanted NAME@sha256:DIGEST`)},
		"not declared":               {"FROM scratch\nARG GO=golang" + digest + "\nFROM $GO", bare(3, `FROM $GO takes "", as GO has no default: wanted NAME@sha256:DIGEST`)},
		"of the platform":            {"FROM run-$TARGETARCH", bare(1, `FROM run-$TARGETARCH: TARGETARCH has another value on each platform, so no one image is pinned: wanted NAME@sha256:DIGEST`)},
		"hidden behind the platform": {"FROM ${TARGETARCH:-golang" + digest + "}", bare(1, `FROM ${TARGETARCH:-golang`+digest+`}: TARGETARCH has another value on each platform, so no one image is pinned: wanted NAME@sha256:DIGEST`)},
		"platform in an argument":    {"ARG TARGETOS\nARG GO=${TARGETOS:+evil}\nARG IMAGE=${GO:-golang" + digest + "}\nFROM $IMAGE", bare(4, `FROM $IMAGE: TARGETOS has another value on each platform, so no one image is pinned: wanted NAME@sha256:DIGEST`)},
		"bad substitution":           {"FROM ${}", bare(1, `FROM ${}: failed to process "${}": syntax error: bad substitution`)},
		"empty":                      {"", bare(0, "does not parse, so its images are not known: file with no instructions")},
		"no stage":                   {"ARG X=1", bare(0, "does not parse, so its images are not known: there is no FROM")},
		"unknown word":               {"FROM scratch\nRUNN x", bare(2, "does not parse, so its images are not known: dockerfile parse error on line 2: unknown instruction: RUNN (did you mean RUN?)")},
		"open here-doc":              {"FROM scratch\nRUN <<EOF\nx", bare(2, "does not parse, so its images are not known: unterminated heredoc")},
		"mount by variable":          {"FROM scratch\nRUN --mount=from=$X,target=/x true", bare(2, "does not parse, so its images are not known: dockerfile parse error on line 2: 'from' doesn't support variable expansion, define alias stage instead")},
		"odd from":                   {"FROM golang" + digest + " AS", bare(1, "does not parse, so its images are not known: dockerfile parse error on line 1: FROM requires either one or three arguments")},
		"all of them":                {"FROM scratch\nCOPY --from=a /a /\nRUN --mount=from=b,target=/x --mount=from=c,target=/y true", append(append(takes(2, "COPY --from", "a"), takes(3, "RUN --mount", "b")...), takes(3, "RUN --mount", "c")...)},
	} {
		t.Run(name, func(t *testing.T) {
			got := repro.Images(tree{"Dockerfile": c.data})
			assert.Equal(t, got.Status, judge.Fail)
			for i := range got.Findings {
				got.Findings[i].Message, _, _ = strings.Cut(got.Findings[i].Message, "\n")
			}
			assert.DeepEqual(t, got.Findings, c.want)
		})
	}
}

func TestDockerfilesAreFoundByName(t *testing.T) {
	src := tree{
		"Dockerfile": "FROM scratch", "a/dockerfile": "FROM scratch", "a/Dockerfile.dev": "FROM golang", "b/web.Dockerfile": "FROM golang", "Containerfile": "FROM golang",
		"Dockerfile.dockerignore": "*", "Dockerfiles/x": "FROM golang", "mydockerfile": "FROM golang", "docs/Dockerfile/readme": "x",
		"x/testdata/Dockerfile": "FROM golang", "vendor/x/Dockerfile": "FROM golang", "archive/2020/Dockerfile": "FROM golang", "b/archive/Dockerfile": "FROM golang", "lib": "submodule",
	}
	c := repro.Images(src)
	var at []string
	for _, f := range c.Findings {
		at = append(at, f.Path)
	}
	assert.DeepEqual(t, at, []string{"Containerfile", "a/Dockerfile.dev", "b/archive/Dockerfile", "b/web.Dockerfile"})
	assert.Equal(t, c.Detail, "4 images in 6 Dockerfiles: Containerfile, Dockerfile, a/Dockerfile.dev, a/dockerfile, b/archive/Dockerfile, and 1 more; 4 left aside: archive/2020/Dockerfile, lib (submodule), vendor/x/Dockerfile, x/testdata/Dockerfile")
}

func TestALinkedDockerfileIsTheFileItLeadsTo(t *testing.T) {
	src := tree{"Dockerfile": "-> build/base.txt", "build/base.txt": "FROM golang"}
	c := repro.Images(src)
	assert.Equal(t, c.Status, judge.Fail)
	assert.Equal(t, c.Findings[0].Message, `FROM takes "golang": wanted NAME@sha256:DIGEST`)
	for target, want := range map[string]string{
		"-> nowhere":    "is a link that leads to nowhere, which is no file of the tree",
		"-> ../x":       "is a link that leads to ../x, which is no file of the tree",
		"-> /x":         "is a link that leads to /x, out of the tree",
		"-> Dockerfile": "is a link that goes round",
		"-> sub":        "is a link that leads into a submodule",
	} {
		c := repro.Images(tree{"Dockerfile": target, "sub": "submodule"})
		assert.DeepEqual(t, c.Findings, []judge.Finding{{Path: "Dockerfile", Message: want, Fix: "put the file itself in place of the link"}})
		assert.Equal(t, c.Status, judge.Fail)
	}
	// A tree that does not hand out links has them as findings.
	c = repro.Images(struct{ judge.Tree }{src})
	assert.Equal(t, c.Findings[0].Message, "is a link: wanted a file")
}

func TestNoDockerfileClaimsNothing(t *testing.T) {
	assert.DeepEqual(t, repro.Images(tree{"main.go": "", "testdata/Dockerfile": "FROM golang"}), judge.Check{
		ID: "reproducibility/base-images", Claim: claim, Status: judge.Unclaimed, Detail: "no Dockerfile in the tree; 1 left aside: testdata/Dockerfile",
	})
}

func TestADockerfileThatIsNotAtHandIsAnError(t *testing.T) {
	c := repro.Images(tree{"Dockerfile": "missing"})
	assert.DeepEqual(t, c, judge.Check{ID: "reproducibility/base-images", Claim: claim, Status: judge.Error, Detail: "Dockerfile: object is missing from the repository"})
}

func TestOurOwnDockerfileIsPinned(t *testing.T) {
	data, err := os.ReadFile("../../Dockerfile")
	assert.NilError(t, err)
	assert.DeepEqual(t, repro.Images(tree{"Dockerfile": string(data)}), judge.Check{
		ID: "reproducibility/base-images", Claim: claim, Status: judge.Pass, Detail: "1 images in 1 Dockerfiles: Dockerfile",
	})
}

// A FROM line without digest is never overlooked, whatever stands above it.
func FuzzAnUnpinnedFromFails(f *testing.F) {
	for _, data := range []string{
		"FROM scratch", "# syntax=a/b" + digest + "\n# escape=`\nARG X=golang" + digest + "\nFROM $X AS b\nRUN <<E\nE\nCOPY --from=b a b",
		"FROM golang" + digest + " AS golang\nONBUILD RUN --mount=from=golang,target=/x true\nRUN x \\", "\ufeff#!x\nfrom scratch as golang", "FROM \"scratch\"\n\n",
	} {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data string) {
		before, err := parser.Parse(strings.NewReader(data))
		if repro.Images(tree{"Dockerfile": data}).Status != judge.Pass {
			return
		}
		assert.NilError(t, err)
		more := data + "\nFROM golang:1.26\n"
		after, err := parser.Parse(strings.NewReader(more))
		if err == nil && len(after.AST.Children) != len(before.AST.Children)+1 {
			return // it goes on with the last line: that one ends in a continuation
		}
		assert.Equal(t, repro.Images(tree{"Dockerfile": more}).Status, judge.Fail)
	})
}
