# python3 with every object from malloc: classes, dictionaries, strings, sorting, json.
# `python.sh prepare SCALE` once, `python.sh run SCALE` is measured.
set -euo pipefail

if [ "$1" = prepare ]; then
    cat >program.py <<'PYTHON'
import json
import sys

scale = float(sys.argv[1])


class Node:
    def __init__(self, key, value):
        self.key, self.value, self.left, self.right = key, value, None, None


def insert(root, key, value):
    while True:
        side = "left" if key < root.key else "right"
        child = getattr(root, side)
        if child is None:
            setattr(root, side, Node(key, value))
            return
        root = child


def depth(root):
    level, count = [root], 0
    while level:
        count += 1
        level = [c for n in level for c in (n.left, n.right) if c is not None]
    return count


state = 12345


def rand():
    global state
    state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
    return state >> 33


root = Node(2**30, "root")
for _ in range(int(60_000 * scale)):
    key = rand()
    insert(root, key, str(key))
print("depth", depth(root))

words = {}
for i in range(int(400_000 * scale)):
    word = "w%d" % (rand() % 20_000)
    words.setdefault(word, []).append(i)
longest = sorted(words.items(), key=lambda item: (-len(item[1]), item[0]))[:3]
print("longest", [(word, len(places)) for word, places in longest])

text = json.dumps([{"id": i, "tags": ["a", str(i)], "at": {"x": i / 7}} for i in range(int(40_000 * scale))])
print("json", len(text), sum(item["at"]["x"] for item in json.loads(text)))
PYTHON
    exit
fi
# The distribution's own, and not a wrapper that starts another shell.
python=/usr/bin/python3
[ -x "$python" ] || python=python3
exec "$python" program.py "$2"
