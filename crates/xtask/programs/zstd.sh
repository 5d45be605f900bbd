awk 'BEGIN {
    x = 1
    for (i = 0; i < 900000; i++) {
        x = (x * 16807) % 2147483647
        printf "%s%d%s", "word", x % 4000, x % 9 ? " " : "\n"
    }
}' >data
for level in 1 5 12; do
    zstd -q -T4 -B512KiB -$level data -o data.$level.zst
    cksum <data.$level.zst
    zstd -q -T4 -d -c data.$level.zst | cmp - data && echo "level $level: the same"
done
zstd -q --long=27 -T2 -3 data -o data.long.zst
zstd -q -d --long=27 -c data.long.zst | cmp - data && echo "long: the same"

# A dictionary from many small files.
mkdir small
split -l 60 -a 4 data small/
zstd -q --train small/* -o dictionary --maxdict=20000 2>/dev/null
cksum <dictionary
zstd -q -D dictionary -c small/aaab | zstd -q -D dictionary -d -c | cmp - small/aaab && echo "dictionary: the same"
