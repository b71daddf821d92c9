#!/bin/sh
# What is released.
echo "hello, ${1:-you}"
