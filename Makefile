# Everyday commands. What a change must pass is .ci/run, which these share.
.PHONY: build test gate covenant bench lint image

build:
	CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o remembrancer ./cmd/remembrancer

test:
	go test ./...

gate:
	go run ./cmd/remembrancer gate

covenant:
	go run ./cmd/remembrancer covenant

bench:
	cd bench && go test -bench . -run '^$$'

lint:
	.ci/run tools lint

image:
	.ci/run packages image
