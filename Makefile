# Everyday commands. What a change must pass is .ci/run, which these share.
.PHONY: build test gate covenant bench lint image staging-up staging-down k8s-conformance soak

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

# Three minutes of real load, and all that is made of them.
soak:
	.ci/soak

# A node under load and the Prometheus that measures both: on this machine under Docker
# Compose, or with STAGING=k8s in the cluster that kubectl is set to.
STAGING ?= compose
staging-up: staging-up-$(STAGING)
staging-down: staging-down-$(STAGING)

.PHONY: staging-up-compose staging-down-compose staging-up-k8s staging-down-k8s
staging-up-compose:
	examples/staging/up

staging-down-compose:
	examples/staging/down

staging-up-k8s:
	examples/k8s/up staging

# Claims and secrets go with the namespace, so that is for you to type.
staging-down-k8s:
	kubectl --namespace remembrancer-staging scale deployment --all --replicas=0

# The manifests, applied to a real API server that is built for it.
k8s-conformance:
	.ci/k8s
