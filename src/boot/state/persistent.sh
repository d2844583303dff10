var=/run/adamant/var

# The disk of the root file system: the parent of a partition that the device of dm-verity stands on.
device=$(readlink -f /dev/mapper/root)
partition=$(ls "/sys/class/block/${device##*/}/slaves" | sed -n 1p)
disk=$(readlink -f "/sys/class/block/$partition/..")
disk=${disk##*/}
if [ ! -e "/sys/class/block/$disk/$partition" ]; then
    say "the root file system is not on a partition of a disk: there is no place for /var"
    exit 1
fi

if ! systemd-repart --dry-run=no --definitions=/usr/lib/adamant/repart.d --seed=random "/dev/$disk"; then
    say "cannot make or grow the partition of /var on /dev/$disk: the disk must be larger than the image, by 256 MiB or more"
    exit 1
fi
find_var() {
    for event in /sys/class/block/"$disk"/*/uevent; do
        if grep -qx PARTNAME=var "$event"; then
            partition=${event%/uevent}
            echo "/dev/${partition##*/}"
            return
        fi
    done
}
device=$(find_var)
if [ -z "$device" ]; then
    say "the partition of /var on /dev/$disk is not there"
    exit 1
fi
status=0
e2fsck -p "$device" > /dev/kmsg 2>&1 || status=$?
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

if [ -d "$root/var/lib/dpkg" ]; then
    busybox mount --bind "$root/var/lib/dpkg" /run/adamant/dpkg
    busybox mount --move "$var" "$root/var"
    mkdir -p "$root/var/lib/dpkg"
    busybox mount --move /run/adamant/dpkg "$root/var/lib/dpkg"
else
    busybox mount --move "$var" "$root/var"
fi
for name in root home srv; do
    case $name in root) home=roothome ;; *) home=$name ;; esac
    [ -d "$root/$name" ] && busybox mount --bind "$root/var/$home" "$root/$name"
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
