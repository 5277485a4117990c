#!/usr/bin/env bash
# Install what a fresh Debian 12 lacks, by group; quick and silent about it when nothing is missing.
#
#   tests/deps.sh [--list] [GROUP...]     groups: build run test lint bench; none given: all of them
#
# Needs root only when something is missing.  No service of an installed package is started.
set -u -o pipefail
export LC_ALL=C DEBIAN_FRONTEND=noninteractive

declare -A group=(
    # compiler and the libraries we link with
    [build]="build-essential pkg-config libcurl4-openssl-dev libcjson-dev libarchive-dev libcgroup-dev
        libnl-3-dev libnl-route-3-dev libmnl-dev libnftnl-dev libssl-dev libisal-dev libzstd-dev
        libseccomp-dev libcap-dev libwslay-dev libuv1-dev libyaml-dev"
    # what the installed programs need beside their libraries
    [run]="ca-certificates"
    # real parts for the tests, and the virtual machine
    [test]="libcmocka-dev zlib1g-dev docker-registry skopeo umoci nftables iproute2 jq python3 openssl
        apache2-utils iptables qemu-system-x86 qemu-system-common busybox-static bash-static kmod cpio
        e2fsprogs xfsprogs zstd podman containerd iputils-ping netcat-openbsd procps util-linux curl git
        python3-h2"
    # libclang-rt: the sanitizers of clang
    [lint]="groff clang clang-tidy clang-format cppcheck shellcheck libclang-rt-14-dev binutils"
    # the peers that benchmarks compare with
    [bench]="crun runc containernetworking-plugins iptables docker.io podman containerd umoci python3-pip isal"
)

say() { printf 'deps: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

list=0
if [ "${1-}" = --list ]; then list=1; shift; fi
[ $# -gt 0 ] || set -- build run test lint bench
want=()
for g in "$@"; do
    [ -n "${group[$g]-}" ] || die "no group \"$g\"; there are: build run test lint bench"
    read -r -d '' -a names <<<"${group[$g]}" || true
    want+=("${names[@]}")
done
if [ "$list" = 1 ]; then printf '%s\n' "${want[@]}" | sort -u; exit 0; fi

# An unknown package makes dpkg-query fail, but it still lists the others.
missing() {
    dpkg-query -W -f '${db:Status-Status} ${Package}\n' "${want[@]}" 2>/dev/null |
        awk '$1 == "installed" { print $2 }' | sort -u |
        comm -13 - <(printf '%s\n' "${want[@]}" | sort -u)
}

mapfile -t lacking < <(missing)
[ ${#lacking[@]} -gt 0 ] || exit 0
command -v apt-get >/dev/null || die "no apt-get here; install by hand: ${lacking[*]}"
[ "$(id -u)" = 0 ] || die "must be root to install: ${lacking[*]}"

tmp=$(mktemp -d) || die "no temporary directory"
policy=/usr/sbin/policy-rc.d
made_policy=0
cleanup() {
    [ "$made_policy" = 0 ] || rm -f "$policy"
    rm -rf "$tmp"
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

# 101: "action forbidden"; packages such as docker-registry would start their service otherwise.
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy" && made_policy=1 && chmod 755 "$policy" ||
        die "cannot write $policy"
fi

quiet() { # COMMAND...: its output is shown only when it fails
    "$@" >"$tmp/log" 2>&1 && return 0
    tail -n 30 "$tmp/log" >&2
    return 1
}
apt() { quiet apt-get -q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@"; }

say "missing: ${lacking[*]}"
say "reading the package lists"
apt update || { say "once more"; sleep 3; apt update; } || die "apt-get update failed twice"
say "installing ${#lacking[@]} packages"
apt install -y --no-install-recommends "${lacking[@]}" || die "apt-get could not install them"
mapfile -t lacking < <(missing)
[ ${#lacking[@]} = 0 ] || die "still missing: ${lacking[*]}"
say "done"
