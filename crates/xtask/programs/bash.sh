# Pipes between many short programs, and the shell's own memory: arrays, growing strings, subshells.

# A long pipe, several times over.
for round in 1 2 3; do
    seq 1 60000 | awk '{ print ($1 * 7919) % 10007, $1 }' | sort -k1,1n -k2,2n \
        | sed 's/^\([0-9]*\) /\1:/' | cut -d: -f1 | uniq -c | sort -rn | awk 'NR <= 50' | cksum
done

# Associative arrays and string growth inside the shell.
declare -A count
for word in $(seq 1 4000 | awk '{ print "w" ($1 * $1) % 613 }'); do
    count[$word]=$(( ${count[$word]:-0} + 1 ))
done
for word in "${!count[@]}"; do echo "$word ${count[$word]}"; done | sort | cksum
text=
for ((i = 0; i < 4000; i++)); do text+="line $i of a text that grows; "; done
echo "${#text} ${text//line/LINE}" | cksum

# Subshells, process substitution, here-documents, functions that return by printing.
fold_lines() { local IFS=,; echo "$*"; }
{ diff <(seq 1 2000 | grep -v 7) <(seq 1 2000) || true; } | wc -l
for ((i = 0; i < 60; i++)); do
    fold_lines $(cat <<TEXT | tr ' ' '\n' | sort | uniq
the quick brown fox $i jumps over the lazy dog $i
TEXT
    )
done | cksum

# Jobs in the background, each a tree of processes.
for ((i = 0; i < 24; i++)); do
    (seq 1 "$((i * 300))" | sort -r | cksum >"job.$i") &
done
wait
cat $(ls job.* | sort -t. -k2n)

# A signal handler that runs in the middle of string work.
hits=0
trap 'hits=$((hits + 1))' USR1
for ((i = 0; i < 50; i++)); do
    kill -USR1 $$
    big=$(printf '%0500d' "$i")
done
echo "$hits ${#big}"
