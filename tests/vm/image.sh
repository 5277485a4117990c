# shellcheck shell=bash disable=SC2154
# What a machine boots: kernel, modules, first-stage initramfs.  Sourced by vm-run, which sets
# $here (this directory) and $cache, and has die().  Everything is made once and kept in $cache:
#
#   vmlinuz version mods/ modules.img   Debian's cloud kernel, unpacked, never installed
#   initrd initrd.sum                   busybox, init1, init2 and the modules init1 inserts

# Debian's own kernel package is only unpacked here: nothing touches /boot.
image_kernel() {
    [ ! -e "$cache/kernel.ok" ] || return 0
    local t=$cache/kernel.tmp pkg lib v
    rm -rf "$t" && mkdir -p "$t/root" "$t/mods/lib/modules" || die "cannot write $cache"
    apt-cache show linux-image-cloud-amd64 >/dev/null 2>&1 || apt-get -q update >&2
    pkg=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null |
        sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n1)
    [ -n "$pkg" ] || die "apt knows no linux-image-cloud-amd64"
    echo "vm-run: fetching $pkg (once)" >&2
    image_download "$t" "$pkg" && dpkg -x "$t"/*.deb "$t/root" || die "cannot fetch $pkg"
    # Debian 12 has /lib -> /usr/lib: accept either place in the package
    lib=$t/root/lib; [ -d "$lib/modules" ] || lib=$t/root/usr/lib
    v=${pkg#linux-image-}
    mv "$lib/modules/$v" "$t/mods/lib/modules/" && depmod -b "$t/mods" "$v" &&
        mv -f "$t/root/boot/vmlinuz-$v" "$cache/vmlinuz" || die "$pkg does not look as expected"
    rm -rf "$cache/mods" && mv "$t/mods" "$cache/mods" || die "cannot write $cache"
    # a small read-only disk, so that the guest can load the other modules on demand
    rm -f "$cache/modules.img"
    mke2fs -q -t ext4 -O ^has_journal -m 0 -L modules -d "$cache/mods/lib/modules/$v" \
        "$cache/modules.img" 256M || die "cannot make the disk of modules"
    echo "$v" >"$cache/version" && rm -rf "$t" && : >"$cache/kernel.ok"
}

image_download() { # DIR PACKAGE; once more with fresh package lists if the file is gone
    local get=(apt-get -q -o APT::Sandbox::User=root -o Acquire::Retries=3 download "$2")
    (cd "$1" && { "${get[@]}" >&2 || { apt-get -q update >&2 && "${get[@]}" >&2; }; })
}

image_initrd() {
    local v sum f t=$cache/initrd.dir
    read -r v <"$cache/version" || die "no kernel in $cache: remove it and try again"
    sum=$(cat "$here/init1" "$here/init2" "$here/image.sh" "$cache/version" /bin/busybox |
        sha256sum | cut -c1-16)
    [ "$(cat "$cache/initrd.sum" 2>/dev/null)" != "$sum" ] || return 0
    rm -rf "$t" && mkdir -p "$t"/{bin,dev,proc,sys,lower,up,new,job,m} || die "cannot write $cache"
    install -m 755 /bin/busybox "$t/bin/busybox" && install -m 755 "$here/init1" "$t/init" &&
        install -m 755 "$here/init2" "$t/init2" || die "cannot write $cache"
    # what the first stage needs, in the order in which it must be inserted
    modprobe -d "$cache/mods" -S "$v" -a --show-depends \
        virtio_pci virtio_console virtio_blk virtiofs overlay >"$t/list" || die "modprobe failed"
    sed -n 's/^insmod \([^ ]*\).*/\1/p' "$t/list" | awk '!seen[$0]++' | while read -r f; do
        cp "$f" "$t/m/" && echo "${f##*/}" >>"$t/ko" || exit 1
    done || die "cannot copy modules"
    rm -f "$t/list"
    (cd "$t" && find . | cpio -o -H newc --quiet) >"$cache/initrd.tmp" &&
        mv "$cache/initrd.tmp" "$cache/initrd" && echo "$sum" >"$cache/initrd.sum" ||
        die "cannot make the initramfs"
    rm -rf "$t"
}
