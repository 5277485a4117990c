#!/usr/bin/env bash
# test: yes
# The man pages render without a warning and name every flag and verb that the programs' --help names.
set -u
cd "$(dirname "$0")/../.." || exit 2
bin=${CW_BUILD:-build}/bin
tmp=$(mktemp -d) || exit 2
trap 'rm -rf "$tmp"' EXIT
bad=0
configs/man/make-pages "$bin" "$tmp" 0 || exit 1
for page in "$tmp"/*.8; do
    said=$(groff -mandoc -Tutf8 -ww -z "$page" 2>&1)
    [ -z "$said" ] || { printf '%s:\n%s\n' "$(basename "$page")" "$said"; bad=1; }
done
named() { # PAGE: every word of standard input stands in it
    while read -r word; do
        sed 's/\\-/-/g' "$tmp/$1" | grep -qF -- "$word" || { echo "$1 does not name $word"; bad=1; }
    done
}
named cworkerd.8 < <("$bin/cworkerd" --help | grep -oE '^  (-., )?--[a-z0-9-]+' | grep -oE -- '--.*' | grep -v -- --help)
for program in cwrun cwrt; do
    verbs=$("$bin/$program" --help | awk '/^commands:|^usage: .* VERB/ { on = 1; next } on && /^  [a-z]+ / { print $1 }')
    [ -n "$verbs" ] || { echo "$program --help names no verb"; bad=1; }
    for verb in $verbs; do
        named "$program.8" < <(echo "$program $verb"; "$bin/$program" "$verb" --help |
            grep -oE '^  (-., )?--[a-z0-9-]+' | grep -oE -- '--.*' | grep -v -- --help)
    done
done
exit $bad
