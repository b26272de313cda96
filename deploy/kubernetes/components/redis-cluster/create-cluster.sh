#!/bin/sh
# Makes one cluster of the six nodes, once: does nothing where it exists already.
set -eu
REDISCLI_AUTH=$(cat /etc/redis/secrets/password)
export REDISCLI_AUTH
nodes=""
for number in 0 1 2 3 4 5; do
    host="redis-cluster-$number.redis-cluster-nodes"
    until redis-cli -h "$host" ping | grep -q PONG; do sleep 2; done
    nodes="$nodes $(getent hosts "$host" | cut -d ' ' -f 1):6379"
done
if redis-cli -h redis-cluster-0.redis-cluster-nodes cluster info | grep -q 'cluster_state:ok'; then
    echo "the cluster is there"
    exit 0
fi
# shellcheck disable=SC2086 # one argument for each node
redis-cli --cluster create $nodes --cluster-replicas 1 --cluster-yes
