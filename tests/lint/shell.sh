#!/usr/bin/env bash
# test: yes
# Every shell script through shellcheck; .shellcheckrc at the top has what is off, and why.
set -u
cd "$(dirname "$0")/../.." || exit 2
mapfile -t all < <(git ls-files --cached --others --exclude-standard)
bash=() dash=(tests/vm/init2)
for f in "${all[@]}"; do
    [ -f "$f" ] && [ ! -L "$f" ] || continue
    case $f in tests/vm/init2) continue ;; esac
    IFS= read -r first <"$f" 2>/dev/null || continue
    case $first in
    '#!'*[/\ ]bash* | '#!'*[/\ ]sh | '#!'*[/\ ]sh\ * | '# shellcheck shell='*) bash+=("$f") ;;
    esac
done 2>/dev/null
status=0
shellcheck -x -f gcc "${bash[@]}" || status=1
shellcheck -s dash -f gcc "${dash[@]}" || status=1
exit "$status"
