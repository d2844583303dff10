#!/bin/sh
# The self-signed certificate of the package ssl-cert, for this machine alone. It is kept below /var, for nothing below
# /etc outlives a boot.
set -eu
umask 077
kept=/var/lib/adamant/certificate
if [ ! -f "$kept/key" ]; then
    mkdir -p "$kept"
    name=$(hostname)
    # A common name has 64 characters at most.
    openssl req -x509 -newkey rsa:2048 -sha256 -noenc -days 3650 -subj "/CN=$(echo "$name" | cut -c 1-64)" \
        -addext "subjectAltName=DNS:$name" -addext basicConstraints=CA:FALSE -keyout "$kept/new" -out "$kept/certificate"
    sync
    mv "$kept/new" "$kept/key"
fi
cd /etc/ssl/certs
install -m 0644 "$kept/certificate" ssl-cert-snakeoil.pem
hash=$(openssl x509 -noout -hash -in ssl-cert-snakeoil.pem)
[ -e "$hash.0" ] || ln -s ssl-cert-snakeoil.pem "$hash.0"
install -m 0640 -g ssl-cert "$kept/key" /etc/ssl/private/ssl-cert-snakeoil.key
