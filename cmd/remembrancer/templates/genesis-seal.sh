#!/usr/bin/env bash
# The ancestor's name for: remembrancer genesis seal.
exec "${REMEMBRANCER:-remembrancer}" genesis seal "$@"
