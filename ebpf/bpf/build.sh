#!/bin/sh
# Builds the embedded object from its source: build.sh OUT. The same clang gives the same bytes, wherever it runs:
# paths are relative, and of debugging information only the types (BTF) stay, which the lock in a map needs.
set -eu
out=$(realpath -m "$1")
cd "$(dirname "$0")"
clang-14 -O2 -g -Wall -Wextra -Wno-sign-compare -Werror -target bpf -mcpu=v2 -ffile-prefix-map="$PWD"=. -fdebug-compilation-dir=. \
	-I"/usr/include/$(gcc -print-multiarch)" -c probe.bpf.c -o "$out"
llvm-strip-14 --strip-debug "$out"
