#!/usr/bin/env bash
# test: yes
# Each header compiles alone, so that no file depends on the order of its includes.
set -u
cd "$(dirname "$0")/../.." || exit 2
read -r -a libs <<<"$(pkg-config --cflags libnl-3.0 libcjson libarchive 2>/dev/null)"
mapfile -t headers < <(find src oci netns runtime -name '*.h' ! -name banned.h | sort)
[ ${#headers[@]} -gt 0 ] || { echo "headers.sh: no headers found"; exit 2; }
printf '%s\n' "${headers[@]}" | xargs -P "$(nproc)" -I {} "${CC:-gcc}" -std=gnu17 -D_GNU_SOURCE -I. \
    -Isrc "${libs[@]+"${libs[@]}"}" -Wall -Wextra -Werror -Wstrict-prototypes -Wno-unused-function \
    -fsyntax-only -include {} -x c /dev/null
