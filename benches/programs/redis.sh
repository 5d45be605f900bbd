# redis-server under redis-benchmark, over a socket in the working directory; both are measured.
# `redis.sh run SCALE` is measured; there is nothing to prepare.
set -euo pipefail

[ "$1" = run ] || exit 0
requests=$(awk -v scale="$2" 'BEGIN { printf "%d", 30000 * scale + 1000 }')
server=
stop() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    wait 2>/dev/null || true
}
trap stop EXIT

rm -f socket
redis-server --port 0 --unixsocket "$PWD/socket" --daemonize no --save '' --appendonly no \
    --maxmemory 512mb >server.log 2>&1 &
server=$!
for _ in $(seq 1 500); do
    [ ! -S socket ] || break
    kill -0 "$server" || exit 1
    sleep 0.01
done

# Values of many sizes in structures of many kinds; keys are random, so nothing of it is printed.
for size in 16 200 3000; do
    redis-benchmark -s socket -q -n "$requests" -c 20 -r 20000 -P 16 -d "$size" \
        -t set,get,lpush,lpop,sadd,hset,zadd >>benchmark.log 2>&1
done
redis-cli -s socket ping
# Its own account of time would be another each time; the status is what counts.
redis-cli -s socket shutdown nosave >/dev/null 2>&1 || true
wait "$server"
server=
echo ended
