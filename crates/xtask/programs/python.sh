# Behind a version manager, `python3` is a script: ask for the interpreter itself.
python=$(python3 -c 'import sys; print(sys.executable)')
cat >workload.py <<'PY'
import collections, hashlib, json, queue, random, re, sqlite3, sys, threading, zlib

rng = random.Random(7)


def digest(thing):
    return hashlib.sha256(repr(thing).encode()).hexdigest()[:16]


def make(depth):
    if depth == 0:
        return rng.choice([rng.random(), rng.randrange(10**9), "x" * rng.randrange(40), None, True])
    if rng.random() < 0.5:
        return [make(depth - 1) for _ in range(rng.randrange(6))]
    return {f"key{rng.randrange(1000)}": make(depth - 1) for _ in range(rng.randrange(6))}


# json: trees there and back.
trees = [make(6) for _ in range(300)]
text = json.dumps(trees, sort_keys=True)
assert json.loads(text) == trees
print("json", len(text), digest(text))

# Regular expressions over a text made of them.
words = ["".join(rng.choice("abcdefgh") for _ in range(rng.randrange(2, 9))) for _ in range(30000)]
prose = " ".join(words)
print("re", len(re.findall(r"\b(a\w*)(h|g)\b", prose)), digest(re.sub(r"(\w)(\w+)", r"\2\1", prose)))
print("words", digest(collections.Counter(words).most_common(20)))

# sqlite3, in memory and in a file.
for where in (":memory:", "test.db"):
    db = sqlite3.connect(where)
    db.execute("create table t (id integer primary key, word text, n integer)")
    db.executemany("insert into t (word, n) values (?, ?)", ((w, len(w)) for w in words))
    db.execute("create index by_word on t (word, n)")
    db.commit()
    rows = db.execute(
        "select a.word, count(*), sum(b.n) from t a join t b on a.word = b.word"
        " group by a.word order by 2 desc, 1 limit 50"
    ).fetchall()
    print("sqlite3", digest(rows))
    db.close()

# Threads that hand objects to each other: what one makes, another drops.
pipe, results = queue.Queue(maxsize=64), []


def produce(seed):
    mine = random.Random(seed)
    for _ in range(3000):
        pipe.put([mine.randrange(100) for _ in range(mine.randrange(30))])
    pipe.put(None)


def consume():
    total = 0
    while (batch := pipe.get()) is not None:
        total += sum(batch)
    results.append(total)


threads = [threading.Thread(target=produce, args=(seed,)) for seed in range(4)]
threads += [threading.Thread(target=consume) for _ in range(4)]
for t in threads:
    t.start()
for t in threads:
    t.join()
print("threads", sum(results))

# Large objects that grow, and the collector over cycles.
data = bytearray()
for i in range(400):
    data += bytes([i % 256]) * 9973
print("bytes", len(data), zlib.crc32(data), zlib.crc32(zlib.decompress(zlib.compress(data))))


class Node:
    def __init__(self):
        self.me = self
        self.load = [0] * 20


for _ in range(30000):
    Node()
print("strings", digest(sorted({str(i) * (i % 50) for i in range(20000)})))
PY
"$python" workload.py

# Processes that fork while threads allocate.
cat >forks.py <<'PY'
import multiprocessing, threading


def work(n):
    return sum(len(str(i) * 3) for i in range(n))


if __name__ == "__main__":
    stop = threading.Event()

    def churn():
        while not stop.is_set():
            [str(i) for i in range(2000)]

    threads = [threading.Thread(target=churn) for _ in range(2)]
    for t in threads:
        t.start()
    context = multiprocessing.get_context("fork")
    for _ in range(5):
        with context.Pool(4) as pool:
            print(sum(pool.map(work, range(0, 4000, 100))))
    stop.set()
    for t in threads:
        t.join()
PY
"$python" forks.py
