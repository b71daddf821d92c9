#!/bin/sh
# What is tested.
echo hello
