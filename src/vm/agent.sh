#!/bin/sh
# Runs, in the machine, what the host asks for, and says how it ended. Started only when the host's credentials say
# so; it is no part of any image. One line each way on a virtio-serial port:
#   host:   run ID SECONDS BASE64-OF-SCRIPT
#   guest:  ready | done ID STATUS BASE64-OF-OUTPUT
set -u
port=
while [ -z "$port" ]; do
    for name in /sys/class/virtio-ports/*/name; do
        if [ "$(cat "$name" 2> /dev/null)" = adamant.agent ]; then
            port=${name%/name}
            port=/dev/${port##*/}
        fi
    done
    [ -n "$port" ] || sleep 0.2
done
exec 3<> "$port"
directory=$(mktemp -d /run/adamant-agent.XXXXXX)
echo ready >&3
while read -r word id seconds script <&3; do
    [ "$word" = run ] || continue
    printf %s "$script" | base64 -d > "$directory/script"
    status=0
    timeout "$seconds" /bin/sh "$directory/script" > "$directory/output" 2>&1 < /dev/null || status=$?
    echo "done $id $status $(tail -c 65536 "$directory/output" | base64 -w 0)" >&3
done
