#!/bin/sh
# Runs the tests of every project, also after one of them failed.
status=0
run() {
	mkdir -p "$1/.smoke"
	(cd "$1" && shift && sh -c "$*") || status=1
}
run api 'go test -json ./... > .smoke/go-test.json'
# shellcheck disable=SC2016 # it is expanded there
run web 'NODE_OPTIONS="$NODE_OPTIONS --test-reporter=junit --test-reporter-destination=.smoke/node.xml" npm test'
run tools './test.sh > .smoke/tools.tap'
exit "$status"
