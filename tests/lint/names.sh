#!/usr/bin/env bash
# test: yes
# Exported functions begin with the room's prefix and the file's name: oci_ref_parse in oci/ref.c,
# net_veth_create in netns/veth.c, ctr_cgroup_kill in runtime/cgroup.c; base and worker have no room
# prefix.  A door may drop its file's name (oci_pull, net_attach), and what is no door may drop the
# room's prefix (plan_build, child_run): nobody outside sees it.  Read off the object files, so build first.  A file that continues another (json_fields.c of json.c) may use that one's name.
# Exceptions stand with their reasons in names.txt.
set -u
cd "$(dirname "$0")/../.." || exit 2
build=${CW_BUILD:-build}
doors=" oci/ref oci/image oci/pull oci/store netns/network netns/inside runtime/container runtime/spec \
runtime/exit runtime/shim runtime/shim_loop runtime/spec_json runtime/gpu runtime/doctor "
declare -A prefix=([oci]=oci_ [netns]=net_ [runtime]=ctr_ [base]='' [worker]='')
mapfile -t allowed < <(sed 's/[[:space:]]*#.*//; /^$/d' tests/lint/names.txt)
is_allowed() {
    local a
    for a in "${allowed[@]+"${allowed[@]}"}"; do
        # shellcheck disable=SC2053 # a pattern
        [[ $1 == $a ]] && return 0
    done
    return 1
}
bad=0 seen=0
for dir in src/base oci netns runtime src/worker; do
    room=${dir#src/}
    for source in "$dir"/*.c; do
        object=$build/obj/${source%.c}.o
        [ -e "$object" ] || continue
        seen=$((seen + 1))
        file=$(basename "$source" .c)
        while read -r symbol; do
            case $symbol in
            "${prefix[$room]}$file" | "${prefix[$room]}${file}"_* | "$file" | "${file}"_*) continue ;;
            esac
            [ "${file%%_*}" = "$file" ] || case $symbol in
            "${prefix[$room]}${file%_*}_"* | "${file%_*}_"*) continue ;;
            esac
            if [ -n "${prefix[$room]}" ] && [[ $doors == *" $dir/$file "* ]] &&
                [[ $symbol == "${prefix[$room]}"* ]]; then continue; fi
            is_allowed "$room/$file:$symbol" && continue
            echo "$source:1: exports $symbol, which does not begin with ${prefix[$room]}$file"
            bad=1
        done < <(nm -g --defined-only "$object" | awk '$2 == "T" { print $3 }')
    done
done
[ "$seen" -gt 0 ] || { echo "names.sh: no object files under $build; build first"; exit 1; }
exit "$bad"
