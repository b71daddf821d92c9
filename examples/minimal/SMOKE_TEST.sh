#!/bin/sh
# Two tests and the line that the gate reads. What counts is that line and the
# exit status, not the words before them.
pass=0 total=0
check() {
	total=$((total + 1))
	if [ "$2" = "$3" ]; then
		pass=$((pass + 1))
	else
		echo "$1: found $2, wanted $3" >&2
	fi
}
check 'it greets' "$(./hello.sh world)" 'hello, world'
check 'it greets anybody' "$(./hello.sh)" 'hello, you'
echo "SMOKE_JSON={\"v\":1,\"pass\":$pass,\"fail\":$((total - pass)),\"skip\":0,\"warn\":0,\"total\":$total}"
[ "$pass" = "$total" ]
