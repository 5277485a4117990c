#!/usr/bin/env bash
# test: yes
# rows: S68
# The table of known attacks in docs/security.md: every row names a test that is there, and the case in it.
set -u -o pipefail
cd "$(dirname "$0")/../.." || exit 1
bad=0 rows=0
while IFS='|' read -r _ hole what test _; do
    hole=${hole// /}
    [[ $hole =~ ^(CVE|GHSA)- ]] || continue
    rows=$((rows + 1))
    # shellcheck disable=SC2016
    file=$(sed -n 's/^ *`\([^`]*\)`.*/\1/p' <<<"$test")
    # shellcheck disable=SC2016
    name=$(sed -n 's/^ *`[^`]*` *\(.*[^ ]\) *$/\1/p' <<<"$test")
    if [ -z "$file" ] || [ ! -f "tests/$file" ]; then
        echo "docs/security.md: $hole: no test \"$file\""
        bad=1
    elif [ -n "$name" ] && ! grep -qF -- "$name" "tests/$file"; then
        echo "docs/security.md: $hole: tests/$file has no $name"
        bad=1
    fi
    [ -n "${what// /}" ] || { echo "docs/security.md: $hole: what was it?"; bad=1; }
done <docs/security.md
[ "$rows" -ge 60 ] || { echo "docs/security.md: only $rows known attacks"; bad=1; }
exit $bad
