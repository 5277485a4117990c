#!/usr/bin/env bash
# cppcheck over all rooms; what is suppressed stands in cppcheck.txt with the reason.
set -u
cd "$(dirname "$0")/../.." || exit 2
mkdir -p build/cppcheck || exit 2
exec cppcheck --quiet --std=c11 --language=c --platform=unix64 --enable=warning,performance,portability \
    --inline-suppr --error-exitcode=1 --template=gcc -j "$(nproc)" --cppcheck-build-dir=build/cppcheck \
    --suppressions-list=tests/lint/cppcheck.txt -I . -I src -D_GNU_SOURCE src oci netns runtime
