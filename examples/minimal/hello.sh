#!/bin/sh
# What is tested.
echo "hello, ${1:-you}"
