#!/usr/bin/env bash
# test: yes
# The form of the C, as .clang-format says.  `tests/lint/format.sh --fix` brings it about.
#   format.sh [--fix] [FILE...]     default: every .c and .h
set -u
cd "$(dirname "$0")/../.." || exit 2
mode=(--dry-run -Werror)
if [ "${1-}" = --fix ]; then mode=(-i); shift; fi
if [ $# = 0 ]; then
    mapfile -t files < <(find src oci netns runtime tests -name '*.[ch]' | sort)
    set -- "${files[@]}"
fi
[ $# -gt 0 ] || { echo "format.sh: no files found"; exit 2; }
exec clang-format --style=file "${mode[@]}" "$@"
