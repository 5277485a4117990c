#!/usr/bin/env bash
# test: yes
# The pages of docs/ that say which test proves which row are up to date (`make coverage` does it).
exec "$(dirname "$0")/coverage.py" --check
