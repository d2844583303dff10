#!/usr/bin/busybox sh
set -eu
memory=/run/adamant/state
mkdir -p "$memory"
mount -t tmpfs -o mode=0755,nosuid,nodev adamant "$memory"
for name in etc var root home srv; do
    lower=/sysroot/$name
    [ -d "$lower" ] || continue
    mkdir -p "$memory/$name/upper" "$memory/$name/work"
    chmod "$(stat -c %a "$lower")" "$memory/$name/upper"
    mount -t overlay -o "lowerdir=$lower,upperdir=$memory/$name/upper,workdir=$memory/$name/work" overlay "$lower"
done
