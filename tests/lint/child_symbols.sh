#!/usr/bin/env bash
# test: yes
# What the child between clone3 and exec may call: nothing but what stands, with its reason, in
# child_symbols.txt.  After clone3 only async-signal-safe code may run; malloc or stdio would hang.
set -u
cd "$(dirname "$0")/../.." || exit 2
objects=("${CW_BUILD:-build}"/obj/runtime/child*.o)
[ -e "${objects[0]}" ] || { echo "${objects[0]}: not there; build first"; exit 1; }
# what one file of the child calls in another is judged there
own=$(nm --defined-only --extern-only "${objects[@]}" | awk 'NF == 3 { print $3 }' | sort -u)
undefined=$(nm -u "${objects[@]}" | awk 'NF == 2 { print $2 }' | sort -u | comm -23 - <(printf '%s\n' "$own")) || exit 1
# the sanitizers' own calls are not ours
undefined=$(grep -v -E '^(__(asan|ubsan|tsan)_|_GLOBAL_OFFSET_TABLE_$)' <<<"$undefined")
extra=$(comm -23 <(printf '%s\n' "$undefined" | grep .) \
    <(sed 's/[[:space:]]*#.*//; /^$/d' tests/lint/child_symbols.txt | sort -u))
[ -z "$extra" ] && exit 0
for s in $extra; do echo "runtime/child.c:1: calls $s, which is not in tests/lint/child_symbols.txt"; done
exit 1
