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
    for partition in "$verity"/slaves/*; do
        busybox blockdev --setro "/dev/${partition##*/}"
    done
}

# Overlays in memory for the directories named. Starting programs is what takes the time here: so one of each.
overlay() {
    layers=
    directories=
    for name in "$@"; do
        [ -d "$root/$name" ] || continue
        directories="$directories $root/$name"
        layers="$layers $memory/$name/upper $memory/$name/work"
    done
    mkdir -p "$memory"
    busybox mount -t tmpfs -o mode=0755,nosuid,nodev adamant "$memory"
    # shellcheck disable=SC2086 # names of one word each
    mkdir -p $layers
    for lower in $directories; do
        name=${lower##*/}
        echo "overlay $lower overlay lowerdir=$lower,upperdir=$memory/$name/upper,workdir=$memory/$name/work 0 0"
    done > /run/adamant/fstab
    # The upper directory's mode is the one that is seen.
    # shellcheck disable=SC2086
    stat -c '%a %n' $directories | while read -r mode lower; do
        [ "$mode" = 755 ] || chmod "$mode" "$memory/${lower##*/}/upper"
    done
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
# The device of dm-verity, as the kernel numbers it.
for verity in /sys/class/block/dm-*; do
    read -r name < "$verity/dm/name"
    [ "$name" != root ] || break
done
mkdir -p /run/adamant
busybox mount -t erofs -o ro /dev/mapper/root "$root"
