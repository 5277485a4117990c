#!/usr/bin/env bash
# test: yes
# `make install` puts each file where the documents say, with the right mode, and leaves a configuration alone.
set -u
umask 077 # as on hosts that are careful
cd "$(dirname "$0")/../.." || exit 2
tmp=$(mktemp -d) || exit 2
trap 'rm -rf "$tmp"' EXIT
bad=0
complain() { echo "$1"; bad=1; }
put() { make -s install DESTDIR="$tmp" PREFIX=/usr BUILD="${CW_BUILD:-build}" || exit 1; }

put
while read -r mode path; do
    got=$(stat -c %a "$tmp$path" 2>/dev/null) || { complain "$path is missing"; continue; }
    [ "$got" = "$mode" ] || complain "$path has mode $got, not $mode"
done <<'LIST'
755 /usr/bin/cworkerd
755 /usr/bin/cwrun
755 /usr/bin/cwrt
755 /usr/libexec/cworker/cwshim
644 /usr/lib/systemd/system/cworkerd.service
644 /usr/lib/systemd/system/cworker-runs.service
644 /usr/share/man/man8/cworkerd.8
644 /usr/share/man/man8/cwrun.8
644 /usr/share/man/man8/cwrt.8
644 /usr/share/man/man8/cwshim.8
600 /etc/cworker/cworkerd.conf
LIST
[ "$(readlink "$tmp/usr/bin/cl-worker")" = cworkerd ] || complain "cl-worker is no link to cworkerd"
"$tmp/usr/bin/cl-worker" --help | grep -q -- --password-file || complain "cl-worker --help does not work"
grep -q '^ExecStart=/usr/bin/cworkerd ' "$tmp/usr/lib/systemd/system/cworkerd.service" || complain "the unit starts something else"
grep -q '@' "$tmp/usr/lib/systemd/system/cworkerd.service" && complain "the unit holds an unreplaced word"
"$tmp/usr/bin/cworkerd" --config "$tmp/etc/cworker/cworkerd.conf" --help >/dev/null || complain "the shipped configuration is refused"
echo 'tag = mine' >"$tmp/etc/cworker/cworkerd.conf"
put
grep -q '^tag = mine$' "$tmp/etc/cworker/cworkerd.conf" || complain "a second install overwrote the configuration"
exit $bad
