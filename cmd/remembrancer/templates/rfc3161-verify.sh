#!/usr/bin/env bash
# The ancestor's name for: remembrancer rfc3161-verify.
exec "${REMEMBRANCER:-remembrancer}" rfc3161-verify "$@"
