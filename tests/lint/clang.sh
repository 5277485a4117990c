#!/usr/bin/env bash
# test: yes
# timeout: 300
# clang accepts everything with the Makefile's warnings as errors, as gcc does when it builds.
#   clang.sh [FILE...]     default: every .c
set -u
cd "$(dirname "$0")/../.." || exit 2
if [ $# = 0 ]; then
    mapfile -t files < <(find src oci netns runtime tests/unit tests/fuzz -name '*.c' | sort)
    [ ${#files[@]} -gt 0 ] || { echo "clang.sh: no files found"; exit 2; }
    set -- "${files[@]}"
fi
read -r -a warn <<<"$(make -s print-WARN)"
[ ${#warn[@]} -gt 0 ] || { echo "clang.sh: the Makefile has no WARN"; exit 2; }
read -r -a libs <<<"$(make -s print-PKG_CFLAGS)"
printf '%s\n' "$@" | xargs -P "$(nproc)" -n 8 clang -fsyntax-only -std=gnu17 -D_GNU_SOURCE -I. -Isrc -Itests/unit \
    '-DCW_VERSION="0"' '-DCW_PREFIX="/usr"' "${warn[@]}" "${libs[@]+"${libs[@]}"}" -include src/base/banned.h
