#!/usr/bin/env bash
# test: yes
# Hardening of the programs given, or of build/bin/*: PIE, full RELRO, no executable stack, stack
# protector, no rpath, no text relocations (S66).  A static-pie program has no NEEDED and no BIND_NOW
# to resolve, but must have the rest.
# rows: S66
set -u
cd "$(dirname "$0")/../.." || exit 2
[ $# -gt 0 ] || set -- "${CW_BUILD:-build}"/bin/*
bad=0 seen=0
complain() { echo "$1: $2"; bad=1; }
for f in "$@"; do
    [ -f "$f" ] && [ ! -L "$f" ] || continue
    seen=$((seen + 1))
    headers=$(readelf -hlW "$f") && dynamic=$(readelf -dW "$f") && symbols=$(readelf -sW "$f") ||
        { complain "$f" "not readable as ELF"; continue; }
    grep -q 'Type: *DYN' <<<"$headers" || complain "$f" "not position independent"
    grep -q GNU_RELRO <<<"$headers" || complain "$f" "no RELRO"
    grep -Eq 'BIND_NOW|FLAGS.*NOW' <<<"$dynamic" || complain "$f" "lazy binding: RELRO is not full"
    grep -Eq 'GNU_STACK.* RW  ?0x' <<<"$headers" || complain "$f" "executable stack"
    grep -q __stack_chk_fail <<<"$symbols" || complain "$f" "no stack protector"
    ! grep -Eq 'RPATH|RUNPATH' <<<"$dynamic" || complain "$f" "has a library search path"
    ! grep -q TEXTREL <<<"$dynamic" || complain "$f" "text relocations"
done
[ "$seen" -gt 0 ] || { echo "elf.sh: no programs to look at; build first"; exit 1; }
exit "$bad"
