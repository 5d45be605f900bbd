# A server of our own on a port of its own, bounded in memory, stopped at the end whatever happens.
port=
server=
stop() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    wait 2>/dev/null || true
}
trap stop EXIT

cli() { redis-cli -h 127.0.0.1 -p "$port" "$@"; }
start() {
    # Another program may have the port: try a few.
    for _ in 1 2 3 4 5; do
        port=$((20000 + RANDOM % 20000))
        redis-server --bind 127.0.0.1 --port "$port" --dir "$PWD" --daemonize no --save '' \
            --appendonly yes --appendfsync no --aof-use-rdb-preamble yes \
            --maxmemory 512mb --io-threads 2 >>server.log 2>&1 &
        server=$!
        for _ in $(seq 1 100); do
            if [ "$(cli ping 2>/dev/null || true)" = PONG ]; then return; fi
            kill -0 "$server" 2>/dev/null || break
            sleep 0.1
        done
        kill "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    done
    tail -n 20 server.log >&2
    exit 1
}
# Waits until a background job, which is a fork, has ended, and prints how: `saved JOB STATUS` with
# the names of the fields in `info persistence`.
saved() {
    for _ in $(seq 1 300); do
        cli info persistence | tr -d '\r' >info
        if grep -q "^$1:0" info; then
            grep "^$2:" info
            return
        fi
        sleep 0.1
    done
    echo "$1 does not end" >&2
    exit 1
}

start
# Data that is the same every time.
awk 'BEGIN {
    for (i = 0; i < 60000; i++) print "SET string:" i, "value-" i * i % 99991
    for (i = 0; i < 30000; i++) print "HSET hash:" i % 500, "field" i, i * 3
    for (i = 0; i < 30000; i++) print "RPUSH list:" i % 300, "element" i
    for (i = 0; i < 30000; i++) print "ZADD set:" i % 200, i % 997, "member" i
}' | cli --pipe >/dev/null
cli dbsize

# Load from 50 clients while the server saves, again and again, and rewrites its log.
redis-benchmark -h 127.0.0.1 -p "$port" -q -n 60000 -c 50 -r 20000 -P 8 -d 100 \
    -t set,get,incr,lpush,rpop,hset,zadd,lrange_100 >benchmark.log 2>&1 &
load=$!
for _ in 1 2 3; do
    cli bgsave >/dev/null
    saved rdb_bgsave_in_progress rdb_last_bgsave_status
done
cli bgrewriteaof >/dev/null
wait "$load"
saved aof_rewrite_in_progress aof_last_bgrewrite_status

# What the benchmark left is random; what was loaded is not.
for key in $(cli --scan --pattern 'key:*' | head -n 3000) mylist myhash myset; do echo "UNLINK $key"; done \
    | cli >/dev/null
cli get string:777
cli hgetall hash:77 | cksum
cli lrange list:7 0 -1 | cksum
cli zrange set:7 0 -1 withscores | cksum
digest() { cli --scan --pattern '*:*' | grep -E '^(string|hash|list|set):' | sort | cksum; }
digest
cli memory purge

# The saved data in a new server.
cli shutdown save >/dev/null 2>&1 || true
wait "$server" || true
start
digest
cli zrange set:7 0 -1 withscores | cksum
cli shutdown nosave >/dev/null 2>&1 || true
wait "$server" || true
server=
