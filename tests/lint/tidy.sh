#!/usr/bin/env bash
# clang-tidy with .clang-tidy's checks: every .c, or the files given (`tidy.sh $(git diff --name-only)`).
set -u
cd "$(dirname "$0")/../.." || exit 2
files=()
if [ $# = 0 ]; then
    mapfile -t files < <(find src oci netns runtime tests/unit tests/fuzz -name '*.c' | sort)
    [ ${#files[@]} -gt 0 ] || { echo "tidy.sh: no files found"; exit 2; }
fi
for f in "$@"; do case $f in *.c) files+=("$f") ;; esac; done
[ ${#files[@]} -gt 0 ] || exit 0
read -r -a libs <<<"$(pkg-config --cflags libnl-3.0 libcjson libarchive 2>/dev/null)"
printf '%s\n' "${files[@]}" | xargs -P "$(nproc)" -I {} clang-tidy --quiet --warnings-as-errors='*' {} -- \
    -std=gnu17 -D_GNU_SOURCE -I. -Isrc '-DCW_VERSION="0"' '-DCW_PREFIX="/usr"' \
    "${libs[@]+"${libs[@]}"}" -include src/base/banned.h
