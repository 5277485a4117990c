#!/usr/bin/env bash
# test: yes
# Who may include whom (the picture in docs: base <- oci, netns, runtime <- worker <- cmd).
#   base: base; oci, netns, runtime: base and themselves; worker: base, itself and the doors of the
#   three rooms; cmd, tests: anything.  Prints FILE:LINE of each include that goes the wrong way.
set -u
cd "$(dirname "$0")/../.." || exit 2
mapfile -t files < <(find src/base oci netns runtime src/worker -name '*.[ch]' | sort)
[ ${#files[@]} -gt 0 ] || { echo "layers.sh: no files found"; exit 2; }
awk '
    BEGIN {
        may["base"] = "base"; may["oci"] = "base oci"; may["netns"] = "base netns"
        may["runtime"] = "base runtime"; may["worker"] = "base worker"
        n = split("oci/ref oci/image oci/pull oci/store netns/network netns/inside runtime/container " \
            "runtime/spec runtime/exit runtime/shim runtime/gpu runtime/doctor runtime/spec_json runtime/cgroup", list, " ")
        for (i = 1; i <= n; i++) door[list[i] ".h"] = 1
    }
    FNR == 1 { room = FILENAME; sub(/^src\//, "", room); sub(/\/.*/, "", room) }
    /^[ \t]*#[ \t]*include[ \t]*"/ {
        name = $0; sub(/^[^"]*"/, "", name); sub(/".*/, "", name)
        to = name; sub(/\/.*/, "", to)
        if (index(name, "/") == 0 || index(name, ".."))
            why = "does not name its room"
        else if (index(" " may[room] " ", " " to " ") || (room == "worker" && door[name]))
            next
        else if (room == "worker" && (to == "oci" || to == "netns" || to == "runtime"))
            why = "is not a door of " to
        else
            why = "is out of reach of " room
        printf "%s:%d: \"%s\" %s\n", FILENAME, FNR, name, why
        bad = 1
    }
    END { exit bad }
' "${files[@]}"
