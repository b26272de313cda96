#!/bin/sh
# Makes the Redis of this region the primary of the runs, for failing back: kubectl exec redis-runs-0 -- sh /etc/redis/lead.sh
# Nothing is lost: it leads only once it has all that the present primary has, which takes no writes meanwhile. Run it again when it
# fails; it changes nothing but who leads.
set -eu
secrets=${SECRETS:-/etc/redis/secrets}
# The longest time without writes, in milliseconds; the present primary takes them again by itself then.
pause=10000
REDISCLI_AUTH=$(cat "$secrets/password")
export REDISCLI_AUTH

at() { # address, command
    address=$1
    shift
    timeout 5 redis-cli -h "${address%:*}" -p "${address#*:}" --no-auth-warning "$@" | tr -d '\r'
}
replication() { # address, field
    at "$1" info replication | sed -n "s/^$2://p"
}
primary() {
    at "$sentinel" sentinel get-master-addr-by-name runs | paste -s -d : -
}
wait_until() { # what, command
    what=$1
    shift
    for _ in $(seq 150); do
        if "$@"; then return; fi
        sleep 0.2
    done
    echo "lead.sh: waited in vain for $what" >&2
    exit 1
}

# Any Sentinel that is heard.
sentinel=
for one in $SENTINELS; do
    if [ "$(at "$one" ping 2>/dev/null || true)" = PONG ]; then sentinel=$one && break; fi
done
[ -n "$sentinel" ] || { echo "lead.sh: no Sentinel answers at $SENTINELS" >&2; exit 1; }
present=$(primary)
if [ "$present" = "$SELF" ]; then
    echo "lead.sh: $SELF is the primary already"
    exit 0
fi

follows() { [ "$(replication "$SELF" master_link_status)" = up ]; }
# Sentinels choose the replica with the lowest priority above 0; they look every 10 s.
is_preferred() { at "$sentinel" sentinel replicas runs | grep -A 1 -x slave-priority | grep -q -x 1; }
has_everything() { [ "$(replication "$SELF" slave_repl_offset)" = "$(replication "$present" master_repl_offset)" ]; }
is_promoted() {
    # For as long as it takes: what the former primary took now would be lost.
    at "$present" client pause "$pause" write > /dev/null
    [ "$(replication "$SELF" role)" = master ]
}
leads() { [ "$(primary)" = "$SELF" ]; }

wait_until "the link to $present" follows
trap 'at "$SELF" config set replica-priority 100 > /dev/null; at "$present" client unpause > /dev/null' EXIT
at "$SELF" config set replica-priority 1 > /dev/null
wait_until "the Sentinels to prefer $SELF" is_preferred
at "$present" client pause "$pause" write > /dev/null
wait_until "all that $present has" has_everything
answer=$(at "$sentinel" sentinel failover runs)
[ "$answer" = OK ] || { echo "lead.sh: the Sentinel at $sentinel: $answer" >&2; exit 1; }
wait_until "the Sentinels to promote $SELF" is_promoted
# Sentinels would do so too, after some seconds in which it takes writes.
at "$present" replicaof "${SELF%:*}" "${SELF#*:}" > /dev/null
at "$present" client kill type normal > /dev/null
wait_until "the Sentinels to let $SELF lead" leads
echo "lead.sh: $SELF is the primary"
