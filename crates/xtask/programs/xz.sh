# Words in an order that compresses neither well nor badly.
awk 'BEGIN {
    x = 1
    for (i = 0; i < 260000; i++) {
        x = (x * 16807) % 2147483647
        printf "%s%d%s", "word", x % 4000, x % 9 ? " " : "\n"
    }
}' >data
for level in 0 3; do
    xz --threads=4 --block-size=256KiB -$level --stdout data >data.$level.xz
    cksum <data.$level.xz
    xz --threads=4 --decompress --stdout data.$level.xz | cmp - data && echo "level $level: the same"
done
xz --test data.3.xz
xz --robot --list data.3.xz | grep totals | cut -f 2-6
xz --format=lzma -1 --stdout data | xz --format=lzma --decompress | cmp - data && echo "lzma: the same"
