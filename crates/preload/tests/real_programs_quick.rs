//! Programs that nobody here wrote, each with a small load: under the library they print what they print without it, to the
//! byte, and end the same way. The bigger loads are in `cargo xtask real-programs`.
mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use support::{Outcome, bare, configured, preloaded, run, scratch, shared_object};

/// What a program has to do: a shell script, run in an empty directory that holds `files`.
struct Load<'a> {
    /// The programs it needs; without one of them the test says so and passes.
    needs: &'a [&'a str],
    files: &'a [(&'a str, &'a str)],
    script: &'a str,
    pools: &'a [&'a str],
}

fn is_installed(program: &str) -> bool {
    Command::new("sh")
        .args(["-c", "command -v \"$0\" >/dev/null", program])
        .status()
        .is_ok_and(|status| status.success())
}

fn once(load: &Load<'_>, directory: &Path, mut command: Command) -> Outcome {
    let _ = fs::remove_dir_all(directory);
    fs::create_dir_all(directory).expect("a directory for the load");
    for (name, text) in load.files {
        fs::write(directory.join(name), text).expect("a file for the load");
    }
    // The same world for both runs, and none of the user's own settings.
    run(command
        .args(["-c", load.script])
        .current_dir(directory)
        .env("HOME", directory)
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC")
        .env("PYTHONMALLOC", "malloc")
        .env("PYTHONHASHSEED", "1")
        .env("PERL_HASH_SEED", "1"))
}

fn prints_the_same(name: &str, load: &Load<'_>) {
    let missing: Vec<_> = load.needs.iter().filter(|program| !is_installed(program)).collect();
    if !missing.is_empty() {
        eprintln!("skipped: {name} needs {missing:?}, not installed here");
        return;
    }
    let directory = scratch(&format!("real/{name}"));
    let shell = if load.needs.contains(&"bash") { "bash" } else { "sh" };
    let without = once(load, &directory, bare(shell));
    assert!(without.status.success(), "{name} fails by itself: {}", without.report());
    assert!(without.stdout.len() > 10, "{name} prints nothing to compare: {}", without.report());
    let check = |what: &str, command: Command| {
        let with = once(load, &directory, command);
        let same = with.status == without.status
            && with.stdout == without.stdout
            && with.stderr == without.stderr;
        assert!(same, "{name}, {what}\nwithout: {}\nwith: {}", without.report(), with.report());
    };
    check("as configured", preloaded(shell));
    if shared_object().is_some() {
        for pool in load.pools {
            check(pool, configured(preloaded(shell), &format!("pool={pool}")));
        }
    }
}

/// The pools that a program runs in besides. All run in all of them; here those that take seconds for it do.
const ALL: &[&str] = &["central", "hardened", "guarded", "system"];
const ALL_BUT_GUARDED: &[&str] = &["central", "hardened", "system"];

#[test]
fn bash_runs_pipes_and_substitutions() {
    prints_the_same(
        "bash",
        &Load {
            pools: ALL,
            needs: &["bash", "seq", "sort", "awk", "sed", "tr", "wc"],
            files: &[],
            script: r#"
                set -eu
                seq 1 40000 | sort -r | awk '{ s += $1 * NR % 7 } END { print s }'
                seq 1 20000 | sed 's/7/seven/g' | tr a-z A-Z | sort -u | wc -c
                declare -A count
                for i in $(seq 1 3000); do count[$((i * i % 97))]+="$i,"; done
                for k in $(printf '%s\n' "${!count[@]}" | sort -n); do echo "$k ${#count[$k]}"; done | tail -5
                text=""
                for i in {1..2000}; do text+="line $i "; done
                echo "${#text} ${text: -20} ${text//line/l}" | wc -c
                f() { if [ "$1" -gt 0 ]; then f $(($1 - 1)) | cat; else echo deep; fi; }
                f 12
                diff <(seq 1 500) <(seq 1 501) || true
                for i in 1 2 3 4 5 6 7 8; do (sleep 0.0$i; echo "job $i" > job.$i) & done; wait
                cat job.* | sort
                mapfile -t lines < <(seq 1 5000); echo "${#lines[@]} ${lines[4999]}"
                cat <<EOF | grep -c x
$(yes xyz | head -3000)
EOF
            "#,
        },
    );
}

#[test]
fn python_does_json_regex_threads_and_processes() {
    prints_the_same(
        "python3",
        &Load {
            pools: ALL_BUT_GUARDED,
            needs: &["python3"],
            files: &[(
                "load.py",
                r#"
import collections, hashlib, json, re, sqlite3, subprocess, sys, threading, zlib
from multiprocessing import get_context

def documents(n):
    return [{"id": i, "name": f"name {i * 7919 % 1000}", "tags": ["t%d" % (i * k % 31) for k in range(i % 9)],
             "nested": {"x": [i / 3, None, True], "y": "z" * (i % 200)}} for i in range(n)]

def digest(value):
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]

def worker(n, results):
    text = json.dumps(documents(400 + n))
    words = re.findall(r'"(na[a-z]+ \d+)"', text)
    counted = collections.Counter(words)
    results[n] = (len(words), counted.most_common(1)[0][1], digest(json.loads(text)))

def square(n):
    return n, sum(len(str(d)) for d in documents(n * 20))

if __name__ == "__main__":
    results = {}
    threads = [threading.Thread(target=worker, args=(n, results)) for n in range(6)]
    for t in threads: t.start()
    for t in threads: t.join()
    for n in sorted(results): print(n, *results[n])
    with get_context("fork").Pool(3) as pool:
        print(pool.map(square, range(12)))
    db = sqlite3.connect(":memory:")
    db.execute("create table t(a integer primary key, b text)")
    db.executemany("insert into t values(?, ?)", [(i, "b" * (i % 300)) for i in range(5000)])
    print(db.execute("select sum(length(b)), count(distinct b) from t where b like '%bbb%'").fetchall())
    data = json.dumps(documents(3000)).encode()
    print(len(data), len(zlib.decompress(zlib.compress(data, 6))))
    print(subprocess.run([sys.executable, "-c", "print('x' * 50)"], capture_output=True, text=True).stdout.strip())
    big = [bytearray(i * 1000) for i in range(300)]
    print(sum(map(len, big)), digest([str(2 ** (i * 50)) for i in range(60)]))
    print(re.sub(r"(\w+) (\d+)", r"\2 \1", "name 12 " * 5000)[:30])
"#,
            )],
            script: "python3 load.py",
        },
    );
}

#[test]
fn perl_does_hashes_regexes_sorts_and_forks() {
    prints_the_same(
        "perl",
        &Load {
            pools: ALL,
            needs: &["perl"],
            files: &[(
                "load.pl",
                r#"
use strict; use warnings;
my (%h, @a);
for my $i (1 .. 60000) { my $k = "key" . ($i * 7919 % 5000); $h{$k} .= "$i,"; push @a, [$i, $k] if $i % 10 == 0; }
my @s = sort { $a->[1] cmp $b->[1] || $b->[0] <=> $a->[0] } @a;
print scalar(keys %h), " $s[0][0] $s[-1][1] ", length(join("", @h{sort keys %h})), "\n";
my $text = join " ", map { "w" . ($_ % 321) } 1 .. 30000;
my %c; $c{$1}++ while $text =~ /(w\d*7)\b/g;
print join(",", map { "$_=$c{$_}" } (sort keys %c)[0 .. 5]), "\n";
(my $t = $text) =~ s/w(\d+)/sprintf "%04x", $1/ge; print length($t), " ", substr($t, 1000, 24), "\n";
my $big = "x" x 5_000_000; $big =~ tr/x/y/; substr($big, 2_500_000, 1) = "middle"; print length($big), "\n";
for my $n (1 .. 4) { my $pid = fork // die; if (!$pid) { my %x = map { $_ => "v" x $_ } 1 .. 500; exit(scalar(keys %x) == 500 ? $n : 99) } waitpid $pid, 0; print $? >> 8, "\n"; }
print `echo from a child`;
"#,
            )],
            script: "perl load.pl",
        },
    );
}

#[test]
fn sqlite_fills_indexes_and_groups_a_database() {
    prints_the_same(
        "sqlite3",
        &Load {
            pools: ALL,
            needs: &["sqlite3"],
            files: &[(
                "load.sql",
                "
                create table item(id integer primary key, kind text, amount real, note text);
                with recursive n(i) as (select 1 union all select i + 1 from n where i < 60000)
                  insert into item select i, 'kind ' || (i * 7919 % 211), i * 0.5, printf('%.*c', i % 90, 'n') from n;
                create index by_kind on item(kind, amount);
                select kind, count(*), round(sum(amount), 1), max(length(note)) from item group by kind order by 3 desc limit 8;
                update item set note = note || '!' where id % 3 = 0;
                delete from item where kind like 'kind 1%';
                select count(*), sum(length(note)) from item;
                select group_concat(kind) from (select distinct kind from item order by kind limit 20);
                vacuum;
                pragma integrity_check;
                ",
            )],
            script: "sqlite3 load.db < load.sql && sqlite3 load.db 'select count(*) from item a join item b on a.kind = b.kind where a.id < 200' && cksum < load.db",
        },
    );
}

#[test]
fn git_commits_packs_and_walks_history() {
    prints_the_same(
        "git",
        &Load {
            pools: ALL_BUT_GUARDED,
            needs: &["git", "seq"],
            files: &[],
            script: r#"
                set -eu
                export GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
                git init -q -b main repository; cd repository
                for i in $(seq 1 12); do
                    export GIT_AUTHOR_DATE="2024-01-01T00:00:$i" GIT_COMMITTER_DATE="2024-01-01T00:00:$i"
                    for f in 1 2 3 4 5 6 7 8; do seq $i $((i * f * 40)) > file.$f; done
                    git add .; git commit -q -m "commit $i"
                done
                git checkout -q -b side HEAD~4
                seq 1 50 > side; git add side; git commit -q -m side
                git merge -q --no-edit main 2>&1
                git gc -q --aggressive --prune=now
                git fsck --full --strict 2>&1
                git log --stat --format='%H %s' | tail -40
                git blame file.3 | cksum
                git diff HEAD~6 | cksum
                git rev-list --objects --all | sort | cksum
                git clone -q . ../copy; cd ../copy; git log --oneline | wc -l
            "#,
        },
    );
}

#[test]
fn gcc_compiles_templates_to_the_same_code() {
    prints_the_same(
        "gcc",
        &Load {
            pools: ALL_BUT_GUARDED,
            needs: &["gcc", "g++"],
            files: &[(
                "load.cc",
                r#"
#include <algorithm>
#include <cstdio>
#include <map>
#include <string>
#include <vector>
template <int N> struct Fib { static constexpr long value = Fib<N - 1>::value + Fib<N - 2>::value; };
template <> struct Fib<1> { static constexpr long value = 1; };
template <> struct Fib<0> { static constexpr long value = 0; };
template <int N> struct Row : Row<N - 1> { int value[N]; int sum() { int s = Row<N - 1>::sum(); for (int v : value) s += v; return s + N; } };
template <> struct Row<0> { int sum() { return 0; } };
int main() {
    std::map<std::string, std::vector<int>> m;
    for (int i = 0; i < 100; i++) m["k" + std::to_string(i % 7)].push_back(i);
    Row<60> row{};
    std::printf("%ld %zu %d\n", Fib<80>::value, m.size(), row.sum());
}
"#,
            )],
            script: "g++ -O1 -std=c++17 -S -o load.s load.cc && cksum < load.s && g++ -o load load.s && ./load",
        },
    );
}

/// A file that packs well here and badly there.
const BULK: &str = r#"
    set -eu
    awk 'BEGIN { srand(7); for (i = 0; i < 120000; i++) print i % 1000, int(rand() * 1e9), "some words that repeat" }' > bulk
"#;

#[test]
fn xz_packs_with_threads_and_unpacks() {
    prints_the_same(
        "xz",
        &Load {
            pools: ALL,
            needs: &["xz", "awk"],
            files: &[],
            script: &format!(
                "{BULK} xz -k -1 -T2 --block-size=1MiB bulk; cksum < bulk.xz; xz -dc -T2 bulk.xz | cmp - bulk; xz -l bulk.xz"
            ),
        },
    );
}

#[test]
fn zstd_packs_with_threads_and_unpacks() {
    prints_the_same(
        "zstd",
        &Load {
            pools: ALL,
            needs: &["zstd", "awk"],
            files: &[],
            script: &format!(
                "{BULK} zstd -q -k -6 -T2 -B524288 bulk; cksum < bulk.zst; zstd -q -dc bulk.zst | cmp - bulk; zstd -q -12 -T2 -c bulk | cksum"
            ),
        },
    );
}

#[test]
fn node_runs_maps_buffers_and_workers() {
    prints_the_same(
        "node",
        &Load {
            pools: ALL_BUT_GUARDED,
            needs: &["node"],
            files: &[(
                "load.js",
                r#"
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
const zlib = require('zlib'), crypto = require('crypto');
function work(n) {
  const map = new Map();
  for (let i = 0; i < 20000; i++) map.set('k' + (i * 7919 % 3001), { i, text: 'x'.repeat(i % 50) });
  const text = JSON.stringify([...map.entries()]);
  const packed = zlib.deflateSync(text);
  const back = zlib.inflateSync(packed).toString();
  return [n, map.size, back === text, crypto.createHash('sha256').update(text).digest('hex').slice(0, 16)];
}
if (isMainThread) {
  const workers = [1, 2, 3].map(n => new Promise((done, fail) => {
    const worker = new Worker(__filename, { workerData: n });
    worker.on('message', done); worker.on('error', fail);
  }));
  Promise.all(workers).then(results => {
    for (const r of results) console.log(...r);
    console.log(...work(0));
    const buffers = []; for (let i = 0; i < 500; i++) buffers.push(Buffer.alloc(i * 500, i));
    console.log(buffers.reduce((sum, b) => sum + b.length + (b[b.length - 1] || 0), 0));
  });
} else parentPort.postMessage(work(workerData));
"#,
            )],
            script: "node load.js && node -e 'console.log(process.argv.length, [3, 1, 2].sort().join(\",\"), \"x\".repeat(20))'",
        },
    );
}
