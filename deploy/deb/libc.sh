#!/bin/sh
# Prints the dependency on the C library: the newest version that a symbol of the program
# asks for.
set -eu
newest=$(objdump -T "$1" | grep -o 'GLIBC_[0-9.]*' | sed 's/GLIBC_//' | sort -V | tail -n 1)
echo "libc6 (>= $newest)"
