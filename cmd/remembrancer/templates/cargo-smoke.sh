#!/bin/sh
# The smoke test: every test that cargo runs passes.
#
# cargo has no stable report, so this makes one (.smoke/cargo.tap) of the lines
# that it prints for people, and believes none alone: where cargo says "running N
# tests" N results must follow, and the totals behind them must agree. What does
# not add up gives no result, and then the gate cannot judge. An ignored test was
# not run: it counts as skipped, and the gate fails.
#
# cargo-nextest writes a report of its own: in remembrancer.yaml make run
# "cargo nextest run", and results the file that .config/nextest.toml names.
mkdir -p .smoke && rm -f .smoke/cargo.tap || exit 3
out=$(mktemp) || exit 3
trap 'rm -f "$out"' EXIT
CARGO_TERM_COLOR=never cargo test --no-fail-fast >"$out" 2>&1
status=$?
cat "$out" >&2
awk '
function broken(why) {
	print "SMOKE_TEST.sh: " why > "/dev/stderr"
	bad = 1
	exit 3
}
# Outside of a list of results, which test binary is next.
!open && /^ *Running .*\(.*\)$/ {
	crate = $0
	sub(/\)$/, "", crate)
	sub(/^.*[\/\\]/, "", crate)
	sub(/-[0-9a-f]+(\.exe)?$/, "", crate)
	next
}
!open && /^ *Doc-tests [^ ]+$/ { crate = $2 " doc"; next }
!open && !due && /^running [0-9]+ tests?$/ { open = 1; left = $2; p = f = s = 0; next }
open && /^test .* \.\.\. (ok|FAILED|ignored(, .*)?)$/ {
	test = $0
	sub(/^test /, "", test)
	result = test
	sub(/ \.\.\. (ok|FAILED|ignored(, .*)?)$/, "", test)
	result = substr(result, length(test) + 6)
	total++
	left--
	line = "ok " total " - " crate "::" test
	gsub(/#/, "\\#", line)
	if (result == "ok") { p++; passed++ } else if (result == "FAILED") { f++; failed++; line = "not " line } else { s++; skipped++; line = line " # SKIP ignored" }
	print line > ".smoke/cargo.tap"
	next
}
open && /^$/ {
	if (left != 0) broken("tests of " crate " without a result that can be read: " left)
	open = 0
	due = 1
	next
}
due && /^test result: / {
	if ($4 != p || $6 != f || $8 != s) broken("the totals of " crate " are not those of its tests: " $0)
	due = 0
}
END {
	if (bad) exit 3
	if (open || due) broken("the tests of " crate " did not come to their end")
	print "1.." total + 0 > ".smoke/cargo.tap"
	printf "SMOKE_JSON={\"v\":1,\"pass\":%d,\"fail\":%d,\"skip\":%d,\"warn\":0,\"total\":%d}\n", passed, failed, skipped, total
}' "$out" || exit 3
exit "$status"
