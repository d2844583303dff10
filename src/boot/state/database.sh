#!/bin/sh
# Makes the data of a database server when it first starts: `database mariadb`, `database postgresql 17/main`. Cut off in
# the middle it begins again; what somebody else has put there is left alone.
set -eu
unfinished=.adamant-unfinished

begin() {
    cd "$1"
    if [ ! -e "$unfinished" ] && [ -n "$(find . -mindepth 1 -maxdepth 1 ! -name lost+found -print -quit)" ]; then
        echo "$1 is not empty: it is left as it is"
        exit 0
    fi
    : > "$unfinished"
    find . -mindepth 1 -maxdepth 1 ! -name lost+found ! -name "$unfinished" -exec rm -r {} +
}

case $1 in
    mariadb)
        begin /var/lib/mysql
        # As the package's script does.
        TMPDIR='' mariadb-install-db --rpm --cross-bootstrap --user=mysql --disable-log-bin --skip-test-db
        ;;
    postgresql)
        begin "/var/lib/postgresql/$2"
        # As pg_createcluster does; the settings are in /etc/postgresql already.
        install -d -o postgres -g postgres -m 0700 new
        runuser -u postgres -- "/usr/lib/postgresql/${2%%/*}/bin/initdb" --pgdata=new --no-instructions \
            --auth-local=peer --auth-host=scram-sha-256 --locale="${LANG:-C.UTF-8}"
        rm new/postgresql.conf new/pg_hba.conf new/pg_ident.conf
        mv new/* .
        rmdir new
        ;;
esac
sync
rm "$unfinished"
