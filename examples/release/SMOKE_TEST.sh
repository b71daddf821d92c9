#!/bin/sh
# One test: what is released does what it should.
if [ "$(./hello.sh world)" = 'hello, world' ]; then
	echo 'SMOKE_JSON={"pass":1,"total":1}'
else
	echo 'SMOKE_JSON={"pass":0,"total":1}'
	exit 1
fi
