//! Which programs cannot run in which pool, and why. All others run in all of them.

/// Program, the argument that it is about or nothing for any, pool, reason.
const EXEMPT: &[(&str, &str, &str, &str)] = &[
    (
        "limit_fill.c",
        "",
        "guarded",
        "each object takes 8 KiB of addresses, and 200 MiB are soon full",
    ),
    (
        "limit_tiny.c",
        "",
        "guarded",
        "each object takes 8 KiB of addresses, and 30 MiB are soon full",
    ),
    (
        "limit_threads.c",
        "",
        "guarded",
        "each object takes 8 KiB of addresses, and 200 MiB are soon full",
    ),
    (
        "new_handler.cc",
        "",
        "guarded",
        "what is left of the pool's regions serves where the limit should",
    ),
    ("figures.c", "", "guarded", "its addresses are more than mallinfo's 32 bits hold"),
    ("idle_ends.c", "", "guarded", "nothing is left to give back, so no thread comes to do it"),
    ("free_only.c", "", "guarded", "a million objects, and two system calls for each"),
    ("local_scope.c", "", "guarded", "hundreds of thousands of objects on as many pages"),
    ("idle.c", "", "system", "glibc keeps what it has"),
    ("idle_ends.c", "", "system", "there is no thread that gives back"),
    ("idle_forks.c", "", "system", "there is no thread that gives back"),
];

/// Why a program does not run with a configuration; `None`: it does.
pub fn reason(program: &str, arguments: &[&str], configuration: &str) -> Option<&'static str> {
    let pool = configuration.split(',').find_map(|setting| setting.strip_prefix("pool="))?;
    EXEMPT
        .iter()
        .find(|(name, argument, of, _)| {
            *name == program && *of == pool && (argument.is_empty() || arguments == [*argument])
        })
        .map(|(_, _, _, reason)| *reason)
}
