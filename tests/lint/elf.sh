#!/usr/bin/env bash
# test: yes
# Hardening of the programs given, or of build/bin/*: PIE, full RELRO, no executable stack, stack
# protector, no rpath, no text relocations (S66).  A static-pie program has no NEEDED and no BIND_NOW
# to resolve, but must have the rest.  cwshim is one: it stays for as long as its run, so it asks for no loader and no
# library, and holds nothing of the C library that looks names up by what is installed (S48).
# rows: S48 S66
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
    # each brings a dozen others, for what a program does seldom: they are loaded when it does (src/base/late.h)
    ! grep -Eq 'NEEDED.*lib(curl|archive|crypto|ssl)' <<<"$dynamic" || complain "$f" "is linked with a library that is to be loaded late"
    [ "${f##*/}" = cwshim ] || continue
    ! grep -q __asan_init <<<"$symbols" || continue # sanitizers cannot be linked statically
    ! grep -q INTERP <<<"$headers" || complain "$f" "asks for a loader: it is not static"
    ! grep -q NEEDED <<<"$dynamic" || complain "$f" "needs shared libraries"
    bad_names=$(grep -Eo ' (cJSON_[A-Za-z]+|getaddrinfo|gethostbyname[_r]*|getpw(nam|uid|ent)[_r]*|getgr(nam|gid|ent)[_r]*|__nss_[a-z_]+)$' \
        <<<"$symbols" | sort -u | tr '\n' ' ')
    [ -z "$bad_names" ] || complain "$f" "holds $bad_names"
done
[ "$seen" -gt 0 ] || { echo "elf.sh: no programs to look at; build first"; exit 1; }
exit "$bad"
