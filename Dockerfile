# The image that every action runs: one static binary, the system's
# certificate authorities, and an empty /tmp.
#
# GO_IMAGE is pinned by the digest of the published multi-platform index; the
# tag beside it is for the reader. A machine that reaches no registry passes
# its own builder: docker build --build-arg GO_IMAGE=NAME .
ARG GO_IMAGE=golang:1.26.8-bookworm@sha256:a688600ca24f8a4d3ca77f95b0dd40704a9fc787c826660eb7ba0b641b8b175d
FROM ${GO_IMAGE} AS build
ENV CGO_ENABLED=0 GOTOOLCHAIN=local
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
# Only what the binary is made of: a runner's tool may ignore .dockerignore.
COPY pkg ./pkg
COPY cmd ./cmd
# Without inlining (-l) the program is a seventh smaller: every job of every user
# pulls it, and none waits for its processor.
RUN go build -trimpath -buildvcs=false -gcflags=all=-l -ldflags='-s -w' -o /root.fs/remembrancer ./cmd/remembrancer \
 && install -d -m 1777 /root.fs/tmp \
 && install -D -m 0644 /etc/ssl/certs/ca-certificates.crt /root.fs/etc/ssl/certs/ca-certificates.crt

# No USER: the files a runner shares with an action belong to root, and a
# process under another id can neither read the event nor write an output.
FROM scratch
COPY --from=build /root.fs/ /
ENTRYPOINT ["/remembrancer"]
