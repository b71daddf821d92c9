#!/bin/sh
# Tests without a runner: TAP is a line a test, and a plan.
echo 1..1
if [ "$(./greet.sh)" = 'hello' ]; then
	echo 'ok 1 - greets'
else
	echo 'not ok 1 - greets'
	exit 1
fi
