#!/usr/bin/env bash
# The ancestor's name for: remembrancer publish.
exec "${REMEMBRANCER:-remembrancer}" publish "$@"
