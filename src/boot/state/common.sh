#!/usr/bin/busybox sh
# Prepares what may be written over the read-only root file system at /sysroot. `boot::state` says what and why.
set -eu
root=/sysroot
memory=/run/adamant/state
credentials=/run/credentials/@system

# No journal runs yet: the kernel's log is where this ends up, errors on the console too.
exec > /dev/kmsg 2>&1
say() {
    echo "<3>adamant: $*"
}

# The partitions under the root file system: the kernel refuses writes from now on. Without this they would succeed
# and be noticed only when read.
protect() {
    device=$(readlink -f /dev/mapper/root)
    for partition in "/sys/class/block/${device##*/}/slaves"/*; do
        busybox blockdev --setro "/dev/${partition##*/}"
    done
}

# Overlays in memory for the directories named. One mount(8) for all: starting programs is what takes the time here.
overlay() {
    mkdir -p "$memory"
    busybox mount -t tmpfs -o mode=0755,nosuid,nodev adamant "$memory"
    for name in "$@"; do
        [ -d "$root/$name" ] || continue
        mkdir -p "$memory/$name/upper" "$memory/$name/work"
        chmod "$(stat -c %a "$root/$name")" "$memory/$name/upper"
        echo "overlay $root/$name overlay lowerdir=$root/$name,upperdir=$memory/$name/upper,workdir=$memory/$name/work 0 0"
    done > /run/adamant/fstab
    busybox mount -a -T /run/adamant/fstab
}

# Passwords and keys that were given at this boot.
accounts() {
    for file in "$credentials"/passwd.hashed-password.*; do
        [ -f "$file" ] || continue
        name=${file##*/passwd.hashed-password.}
        hash=$(cat "$file")
        case $name in *[!a-z0-9_-]*) continue ;; esac
        case $hash in '' | *[!A-Za-z0-9./\$,=_-]*)
            say "the password given for $name is no crypt(3) hash: ignored"
            continue
            ;;
        esac
        sed "s|^$name:[^:]*:|$name:$hash:|" "$root/etc/shadow" > /run/adamant/shadow
        cat /run/adamant/shadow > "$root/etc/shadow"
        rm /run/adamant/shadow
    done
    for file in "$credentials"/ssh.authorized_keys.*; do
        [ -f "$file" ] || continue
        mkdir -p /run/adamant/authorized-keys
        cat "$file" > "/run/adamant/authorized-keys/${file##*/ssh.authorized_keys.}"
    done
}
umask 022
mkdir -p /run/adamant
