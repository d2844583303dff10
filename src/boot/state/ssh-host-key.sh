#!/bin/sh
# Makes the machine's SSH host key, or takes the one that was given at boot. The last step makes it visible whole.
set -eu
umask 077
mkdir -p /var/lib/adamant/ssh
cd /var/lib/adamant/ssh
rm -f new new.pub
if [ -f "${CREDENTIALS_DIRECTORY:-}/adamant.ssh-host-key" ]; then
    cat "$CREDENTIALS_DIRECTORY/adamant.ssh-host-key" > new
    ssh-keygen -y -f new > new.pub
else
    ssh-keygen -q -t ed25519 -N '' -C '' -f new
fi
mv new.pub ssh_host_ed25519_key.pub
mv new ssh_host_ed25519_key
