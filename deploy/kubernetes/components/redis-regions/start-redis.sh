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
# it took would be lost.
# shellcheck disable=SC2086
exec redis-server --include "$secrets/auth.conf" --port "${SELF#*:}" --dir "$data" --protected-mode no \
    --min-replicas-to-write 1 --min-replicas-max-lag 5 --appendonly yes --appendfsync always --maxmemory 768mb --maxmemory-policy noeviction \
    --replica-announce-ip "${SELF%:*}" --replica-announce-port "${SELF#*:}" $follow
