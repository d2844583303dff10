var=/run/adamant/var

# The disk of the root file system: the parent of a partition that the device of dm-verity stands on.
for partition in "$verity"/slaves/*; do
    partition=${partition##*/}
    break
done
disk=$(readlink -f "/sys/class/block/$partition/..")
disk=${disk##*/}
if [ ! -e "/sys/class/block/$disk/$partition" ]; then
    say "the root file system is not on a partition of a disk: there is no place for /var"
    exit 1
fi

# mke2fs would draw its progress into the log.
export SYSTEMD_REPART_MKFS_OPTIONS_EXT4=-q
if ! systemd-repart --dry-run=no --definitions=/usr/lib/adamant/repart.d --seed=random "/dev/$disk"; then
    say "cannot make or grow the partition of /var on /dev/$disk: the disk must be larger than the image, by 256 MiB or more"
    exit 1
fi
# Its type, as udev read it from the table: names are free for anyone to use.
type=4d21b016-b534-45c2-a9fb-5c16e091fd2d
find_var() {
    for partition in /sys/class/block/"$disk"/*/partition; do
        partition=${partition%/partition}
        if grep -qx "E:ID_PART_ENTRY_TYPE=$type" "/run/udev/data/b$(cat "$partition/dev")" 2> /dev/null; then
            echo "/dev/${partition##*/}"
            return
        fi
    done
}
device=
tries=100
while [ -z "$device" ] && [ "$tries" -gt 0 ]; do
    device=$(find_var)
    [ -n "$device" ] || sleep 0.1
    tries=$((tries - 1))
done
if [ -z "$device" ]; then
    say "the partition of /var on /dev/$disk is not there"
    exit 1
fi
status=0
e2fsck -p "$device" || status=$?
# 1: errors corrected; 2: corrected, reboot advised if mounted, which it is not.
if [ "$status" -ge 4 ]; then
    say "the file system of /var on $device is damaged beyond automatic repair"
    exit 1
fi
mkdir -p "$var" /run/adamant/dpkg
busybox mount -t ext4 -o nodev "$device" "$var"
/usr/lib/systemd/systemd-growfs "$var"

mkdir -p "$var/lib/adamant"
hash=$(tr ' ' '\n' < /proc/cmdline | sed -n 's/^roothash=//p' | sed -n '$p')
if [ "$(cat "$var/lib/adamant/image" 2> /dev/null || true)" != "$hash" ]; then
    # -k: what the machine has is never overwritten.
    tar -C "$root/var" -cf - . | tar -C "$var" -xkf -
    for name in root home srv; do
        case $name in root) home=roothome ;; *) home=$name ;; esac
        [ -d "$root/$name" ] || continue
        mkdir -p "$var/$home"
        chmod "$(stat -c %a "$root/$name")" "$var/$home"
        tar -C "$root/$name" -cf - . | tar -C "$var/$home" -xkf -
    done
    sync
    echo "$hash" > "$var/lib/adamant/image"
fi

# Bound and released, not moved: systemd makes all mounts shared, and shared ones cannot be moved.
rebind() {
    busybox mount --bind "$1" "$2"
    busybox umount "$1"
}
if [ -d "$root/var/lib/dpkg" ]; then
    busybox mount --bind "$root/var/lib/dpkg" /run/adamant/dpkg
    mkdir -p "$var/lib/dpkg"
    rebind "$var" "$root/var"
    rebind /run/adamant/dpkg "$root/var/lib/dpkg"
else
    rebind "$var" "$root/var"
fi
rmdir "$var" /run/adamant/dpkg
for name in root home srv; do
    case $name in root) home=roothome ;; *) home=$name ;; esac
    [ ! -d "$root/$name" ] || busybox mount --bind "$root/var/$home" "$root/$name"
done

overlay etc
# systemd found or made an id for the initrd, by the rules of machine-id(5): the first one is kept.
kept=$root/var/lib/adamant/machine-id
if [ ! -s "$kept" ]; then
    cat /etc/machine-id > "$kept.new"
    sync
    mv "$kept.new" "$kept"
fi
cat "$kept" > "$root/etc/machine-id"
accounts
protect
