//! The programs, in the order in which they run.

/// One program, or a family of them.
pub struct Program {
    /// What the command line calls it.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// The text of its script. Exit status 77 says "cannot be run here" and why, on standard error.
    pub script: &'static str,
    /// Whether CI runs it: a few seconds, and on every machine.
    pub quick: bool,
    /// The longest that one run may take: many times what it takes, so that only a hang is late.
    pub seconds: u64,
    /// What must be in `PATH`.
    pub tools: &'static [&'static str],
    /// Debian's packages that bring the tools.
    pub packages: &'static [&'static str],
}

/// All of them.
pub const PROGRAMS: &[Program] = &[
    Program {
        name: "bash",
        about: "pipes, subshells, arrays, growing strings, background jobs",
        script: include_str!("../../programs/bash.sh"),
        quick: true,
        seconds: 60,
        tools: &["awk", "sed", "sort"],
        packages: &["mawk", "sed", "coreutils"],
    },
    Program {
        name: "python",
        about: "json, regular expressions, sqlite3, threads, with PYTHONMALLOC=malloc",
        script: include_str!("../../programs/python.sh"),
        quick: true,
        seconds: 120,
        tools: &["python3"],
        packages: &["python3"],
    },
    Program {
        name: "perl",
        about: "hashes, regular expressions, sorting, string building, fork",
        script: include_str!("../../programs/perl.sh"),
        quick: true,
        seconds: 60,
        tools: &["perl"],
        packages: &["perl"],
    },
    Program {
        name: "git",
        about: "a repository of a few hundred commits: log, blame, gc, fsck, clone",
        script: include_str!("../../programs/git.sh"),
        quick: true,
        seconds: 120,
        tools: &["git"],
        packages: &["git"],
    },
    Program {
        name: "gcc",
        about: "C++ full of templates at -O2, C at -O2, and the programs that come of it",
        script: include_str!("../../programs/gcc.sh"),
        quick: true,
        seconds: 180,
        tools: &["gcc", "g++"],
        packages: &["gcc", "g++"],
    },
    Program {
        name: "sqlite",
        about: "indexes, joins, window functions, json, VACUUM, dump and reload",
        script: include_str!("../../programs/sqlite.sh"),
        quick: true,
        seconds: 60,
        tools: &["sqlite3"],
        packages: &["sqlite3"],
    },
    Program {
        name: "xz",
        about: "threaded compression and back",
        script: include_str!("../../programs/xz.sh"),
        quick: true,
        seconds: 120,
        tools: &["xz"],
        packages: &["xz-utils"],
    },
    Program {
        name: "zstd",
        about: "threaded compression and back, several levels, a dictionary",
        script: include_str!("../../programs/zstd.sh"),
        quick: true,
        seconds: 120,
        tools: &["zstd"],
        packages: &["zstd"],
    },
    Program {
        name: "node",
        about: "JSON, maps, buffers, zlib, worker threads",
        script: include_str!("../../programs/node.sh"),
        quick: false,
        seconds: 120,
        tools: &["node"],
        packages: &["nodejs"],
    },
    Program {
        name: "redis",
        about: "redis-benchmark while it saves by fork, then a restart from what it saved",
        script: include_str!("../../programs/redis.sh"),
        quick: false,
        seconds: 180,
        tools: &["redis-server", "redis-cli", "redis-benchmark"],
        packages: &["redis-server", "redis-tools"],
    },
    Program {
        name: "cargo",
        about: "cargo and rustc build and run a small crate without dependencies",
        script: include_str!("../../programs/cargo.sh"),
        quick: false,
        seconds: 180,
        tools: &["cargo"],
        packages: &["cargo"],
    },
    Program {
        name: "lua",
        about: "tables, strings, closures and the collector",
        script: include_str!("../../programs/lua.sh"),
        quick: false,
        seconds: 60,
        tools: &["lua5.4"],
        packages: &["lua5.4"],
    },
    Program {
        name: "ghostscript",
        about: "a PostScript program drawn into a bitmap",
        script: include_str!("../../programs/ghostscript.sh"),
        quick: false,
        seconds: 120,
        tools: &["gs"],
        packages: &["ghostscript"],
    },
    Program {
        name: "python-tests",
        about: "a part of python's own test suite, module by module",
        script: include_str!("../../programs/python-tests.sh"),
        quick: false,
        seconds: 1200,
        tools: &["python3"],
        packages: &["python3", "libpython3-testsuite"],
    },
];
