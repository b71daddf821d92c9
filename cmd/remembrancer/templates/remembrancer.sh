#!/usr/bin/env bash
# The ancestor's path of the remembrancer program.
exec "${REMEMBRANCER:-remembrancer}" "$@"
