#!/bin/sh
# Starts the Redis of this region: as a replica of whom the Sentinels say; where none of them knows anybody yet, of the primary
# region, or in that region as the first primary.
set -eu
secrets=${SECRETS:-/etc/redis/secrets}
data=${DATA:-/data}
REDISCLI_AUTH=$(cat "$secrets/password")
export REDISCLI_AUTH

primary=
for sentinel in $SENTINELS; do
    answer=$(timeout 3 redis-cli -h "${sentinel%:*}" -p "${sentinel#*:}" --no-auth-warning sentinel get-master-addr-by-name runs 2>/dev/null | tr '\n' ' ' || true)
    case $answer in
        *' '[0-9]*) primary=$answer && break ;;
    esac
done
primary=${primary:-${FIRST_PRIMARY%:*} ${FIRST_PRIMARY#*:}}
# One word for each: a name, and a port.
# shellcheck disable=SC2086
set -- $primary
follow=
if [ "$1:$2" != "$SELF" ]; then
    follow="--replicaof $1 $2"
fi
# A primary that hears none of the others for as long as they take to miss it takes no writes: another one is chosen there, and what
# it took would be lost. Until one of the others has joined for the first time there is nobody who could be chosen: so long the first
# region works alone.
replicas=1
if [ -z "$follow" ] && [ "$SELF" = "$FIRST_PRIMARY" ] && [ ! -e "$data/joined" ]; then
    replicas=0
    at_home() { timeout 3 redis-cli -h "${SELF%:*}" -p "${SELF#*:}" --no-auth-warning "$@"; }
    # For as long as this process lives, which becomes Redis.
    while kill -0 $$ 2> /dev/null; do
        if at_home info replication 2> /dev/null | grep -q '^slave[0-9].*state=online' \
            && [ "$(at_home config set min-replicas-to-write 1)" = OK ]; then
            touch "$data/joined" && break
        fi
        sleep 0.5
    done &
fi
# shellcheck disable=SC2086
exec redis-server --include "$secrets/auth.conf" --port "${SELF#*:}" --dir "$data" --protected-mode no \
    --min-replicas-to-write "$replicas" --min-replicas-max-lag 5 --appendonly yes --appendfsync always --maxmemory 768mb --maxmemory-policy noeviction \
    --replica-announce-ip "${SELF%:*}" --replica-announce-port "${SELF#*:}" $follow
