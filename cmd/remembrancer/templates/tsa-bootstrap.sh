#!/usr/bin/env bash
# The ancestor's name for: remembrancer tsa bootstrap. Without arguments it pins the
# authorities that the ancestor's variables name, as public and enterprise; without
# these, freetsa.org as public.
set -euo pipefail
program="${REMEMBRANCER:-remembrancer}"
if [ $# -gt 0 ]; then
  exec "$program" tsa bootstrap "$@"
fi

# pin NAME URL CA-URL PIN: the last two may be empty.
pin() {
  local flags=(--url "$2")
  [ -z "$3" ] || flags+=(--ca-url "$3")
  [ -z "$4" ] || flags+=(--confirm "$4")
  "$program" tsa bootstrap "$1" "${flags[@]}"
}

if [ -n "${REMEMBRANCER_TSA1_TSA_PIN_B64:-}${REMEMBRANCER_TSA2_TSA_PIN_B64:-}" ]; then
  echo "note: the signing key is pinned under the root that is confirmed; REMEMBRANCER_TSA*_TSA_PIN_B64 is not read" >&2
fi
pin public "${REMEMBRANCER_TSA_URL_1:-https://freetsa.org/tsr}" "${REMEMBRANCER_TSA_CA_CERT_1:-}" "${REMEMBRANCER_TSA1_CA_PIN_B64:-}"
if [ -n "${REMEMBRANCER_TSA_URL_2:-}" ]; then
  pin enterprise "$REMEMBRANCER_TSA_URL_2" "${REMEMBRANCER_TSA_CA_CERT_2:-}" "${REMEMBRANCER_TSA2_CA_PIN_B64:-}"
fi
