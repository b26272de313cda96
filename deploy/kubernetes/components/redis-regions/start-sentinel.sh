#!/bin/sh
# Starts the Sentinel of this region. What it has learned is in its own file and wins over what is said here.
set -eu
secrets=${SECRETS:-/etc/redis/secrets}
data=${DATA:-/data}
if [ ! -s "$data/sentinel.conf" ]; then
    umask 077
    cat > "$data/sentinel.conf" << CONFIGURATION
port ${SELF#*:}
dir $data
protected-mode no
sentinel resolve-hostnames yes
sentinel announce-hostnames yes
sentinel announce-ip ${SELF%:*}
sentinel announce-port ${SELF#*:}
sentinel monitor runs ${FIRST_PRIMARY%:*} ${FIRST_PRIMARY#*:} 2
sentinel auth-pass runs $(cat "$secrets/password")
sentinel down-after-milliseconds runs 5000
sentinel failover-timeout runs 30000
sentinel parallel-syncs runs 1
CONFIGURATION
fi
exec redis-sentinel "$data/sentinel.conf"
