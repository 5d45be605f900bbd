//! Configuration files: what is read, what is said about the rest, and that nothing else ever happens.

#[path = "support/malformed.rs"]
mod malformed;

use std::ffi::{CStr, CString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tiermalloc::config::{
    AtLimit, Background, Config, Duration, Effective, KEYS, LONGEST_FILE, LONGEST_LINE, Pool,
    Source, Sources, apply_file,
};

/// What a file makes of the default for a program, and what is said with which line.
fn read_for(program: &str, text: impl AsRef<[u8]>) -> (Config, Vec<String>) {
    let (mut config, mut said) = (Config::DEFAULT, Vec::new());
    apply_file(&mut config, text.as_ref(), program.as_bytes(), &mut |line, problem| {
        said.push(format!("{line}: {problem}"));
    });
    (config, said)
}

fn read(text: impl AsRef<[u8]>) -> (Config, Vec<String>) {
    read_for("prog", text)
}

/// What a file makes of the default, without a word.
#[track_caller]
fn silently(text: impl AsRef<[u8]>) -> Config {
    let (config, said) = read(text);
    assert!(said.is_empty(), "{said:#?}");
    config
}

#[test]
fn lines_are_settings_comments_or_nothing() {
    let config = silently(
        "# a comment\n\n  pool=central\n\tquarantine =  1MiB   # one more\n   # and\nzero_on_free = true\n\
         release_delay = \"1.5s\"#close\nat_hard_limit = 'abort'\n\"background\" = \"off\"\n'thp' = 'never'",
    );
    assert_eq!(
        (config.pool, config.quarantine, config.zero_on_free),
        (Pool::Central, 1 << 20, true)
    );
    assert_eq!(config.release_delay, Duration::from_ms(1500));
    assert_eq!((config.at_hard_limit, config.background), (AtLimit::Abort, Background::Off));
}

#[test]
fn values_are_read_as_toml_has_them() {
    assert_eq!(silently("quarantine = 1_048_576").quarantine, 1 << 20);
    assert_eq!(read("quarantine = '1_048_576'").1.len(), 1, "a text is no number");
    let file = |text: &str| silently(text).stats_file.as_bytes().to_vec();
    assert_eq!(file(r#"stats_file = "a # \"b\" \\ c" # d"#), br#"a # "b" \ c"#);
    assert_eq!(file(r"stats_file = 'a # \ b'"), br"a # \ b");
    assert_eq!(file(r"stats_file = /tmp/plain#comment"), b"/tmp/plain");
    assert_eq!(file("stats_file = \"\u{e4}\""), "\u{e4}".as_bytes());
    assert_eq!(file("stats_file = \"\""), b"");
    assert_eq!(file("stats_file ="), b"");
}

#[test]
fn other_systems_line_ends_and_marks_do_not_matter() {
    let text = "pool = central\r\n\r\n[prog]\r\nquarantine = 1MiB\r\n";
    for text in [
        text.to_owned(),
        format!("\u{feff}{text}"),
        text.replace('\r', ""),
        text.trim_end().to_owned(),
    ] {
        let config = silently(&text);
        assert_eq!((config.pool, config.quarantine), (Pool::Central, 1 << 20), "{text:?}");
    }
}

#[test]
fn sections_are_for_programs_of_that_name() {
    let text = "pool = central\nquarantine = 1MiB\n[redis-server] # a server\nquarantine = 2MiB\n\
                [ python3.11 ]\nquarantine = 3MiB\n[\"my prog\"]\nquarantine = 4MiB\n['a\"b']\nquarantine = 5MiB\n\
                [\"c\\\\d\"]\nquarantine = 6MiB\n[redis-server]\nthp = never\n[other]\nnonsense\npool = fast\n";
    for (program, mib) in [
        ("x", 1),
        ("redis-server", 2),
        ("python3.11", 3),
        ("my prog", 4),
        ("a\"b", 5),
        (r"c\d", 6),
        ("", 1),
        ("redis", 1),
    ] {
        let (config, said) = read_for(program, text);
        assert_eq!((config.pool, config.quarantine), (Pool::Central, mib << 20), "{program}");
        assert!(said.is_empty(), "what others read is none of its business: {said:?}");
    }
    assert_eq!(read_for("redis-server", text).0.thp, tiermalloc::config::HugePages::Never);
    assert_eq!(read_for("other", text).1.len(), 2);
}

#[test]
fn what_is_wrong_is_said_once_with_its_line_and_the_rest_applies() {
    let (config, said) = read(
        "pool = fast\n\npol = \"central\"\nnonsense # x\nquarantine = \"1MiB\nquarantine = 9GiB\n= 3\nthp = 'never' x\n\
         quarantine = \"1\\t\"\nstats_file = \"\"\"a\"\"\"\n\"thp = 1\n[[x]]\nzero_on_free = true\n[prog]\nquarantine = 64KiB\n[]\n[\"x]\n[x] y\n\
         quarantine = 1KiB\n",
    );
    assert_eq!((config.quarantine, config.zero_on_free), (64 << 10, false));
    assert_eq!(
        said,
        [
            "1: pool=fast: not one of tiered, central, hardened, guarded, system; it is ignored",
            "3: pol=central: there is no such key; it is ignored; perhaps pool is meant",
            "4: nonsense: not of the form key=value; it is ignored",
            "5: quarantine = \"1MiB: the quotes do not enclose one plain text; it is ignored",
            "6: quarantine=9GiB: not from 0 to 1073741824 bytes; it is ignored",
            "7: =3: there is no such key; it is ignored",
            "8: thp = 'never' x: the quotes do not enclose one plain text; it is ignored",
            "9: quarantine = \"1\\t\": the quotes do not enclose one plain text; it is ignored",
            "10: stats_file = \"\"\"a\"\"\": the quotes do not enclose one plain text; it is ignored",
            "11: \"thp = 1: the quotes do not enclose one plain text; it is ignored",
            "12: [[x]]: not of the form [program]; it is ignored with all settings below it",
            "16: []: not of the form [program]; it is ignored with all settings below it",
            "17: [\"x]: not of the form [program]; it is ignored with all settings below it",
            "18: [x] y: not of the form [program]; it is ignored with all settings below it",
        ]
    );
}

#[test]
fn a_line_may_be_so_long_and_a_comment_longer() {
    let pad = |length: usize| format!("pool = central{}#", " ".repeat(length - 15));
    assert_eq!(silently(pad(LONGEST_LINE)).pool, Pool::Central);
    assert_eq!(silently(pad(100) + &"x".repeat(10_000)).pool, Pool::Central);
    assert_eq!(silently(format!("#{}\npool = central", "=".repeat(30_000))).pool, Pool::Central);

    let long = format!(
        "zero_on_free = true\nstats_file = {}\nquarantine = 1MiB\npool=x",
        "y".repeat(5000)
    );
    let (config, said) = read(&long);
    assert_eq!((config.zero_on_free, config.quarantine), (true, 1 << 20));
    let start = "stats_file = yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy...";
    assert_eq!(said[0], format!("2: {start}: longer than 2047 bytes; it is ignored"));
    assert!(said[1].starts_with("4: pool=x: "), "{said:?}");
    assert_eq!(said.len(), 2);

    let section = format!("[other]\n{0}=1\n[{0}]\npool = central\n", "y".repeat(5000));
    let (config, said) = read(section);
    assert_eq!((config.pool, said.len()), (Config::DEFAULT.pool, 1));
    assert!(said[0].starts_with("3: [yyy"), "{said:?}");
}

#[test]
fn what_is_no_text_is_read_no_further() {
    let (config, said) = read(b"pool = central\nquarantine = 1MiB\0\nthp = never\n");
    assert_eq!(config, Config::new().pool(Pool::Central));
    assert_eq!(said, ["2: the file is not text; it is ignored from here on"]);
    let utf16: Vec<u8> = "pool = central\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(read(utf16).1.len(), 1);
}

#[test]
fn what_is_too_long_is_read_so_far() {
    let line = "thp = never # and so on and on\n";
    let lines = LONGEST_FILE / line.len();
    for (repeats, problems) in [(lines, 0), (lines + 1, 1), (3 * lines, 1)] {
        let (config, said) =
            read("pool = central\n".to_owned() + &line.repeat(repeats - 1) + "zero_on_free = 1\n");
        assert_eq!(said.len(), problems, "{said:?}");
        assert_eq!(config.zero_on_free, problems == 0);
        assert_eq!(config.pool, Pool::Central);
        if problems == 1 {
            let at = lines + 1;
            assert_eq!(
                said,
                [format!("{at}: the file is longer than 64 KiB; it is ignored from here on")]
            );
        }
    }
    let whole = "x".repeat(LONGEST_FILE - 1) + "\n";
    assert!(read(whole).1[0].contains("longer than 2047 bytes"));
}

/// A message is for a person, names its line, and fits one.
fn check_said(said: &[String], text: &[u8]) {
    let lines = text.split(|&byte| byte == b'\n').count();
    let mut before = 0;
    for message in said {
        assert!(
            message.len() < 256 && message.bytes().all(|byte| matches!(byte, b' '..=b'~')),
            "{message:?}"
        );
        assert!(message.contains("ignored"), "{message}");
        let line: usize = message.split(':').next().unwrap().parse().unwrap();
        // That the rest is not read may be said of a line of which something was said.
        assert!(line + usize::from(message.ends_with("here on")) > before, "{said:?}");
        assert!(line <= lines, "{message}");
        before = line;
    }
}

#[test]
fn a_thousand_malformed_files_cost_clear_lines_and_nothing_else() {
    let mut problems = 0;
    for number in 0..1000 {
        let text = malformed::file(number);
        for program in ["prog", "redis-server", "my prog"] {
            let (config, said) = read_for(program, &text);
            check_said(&said, &text);
            for key in &KEYS {
                assert!(key.kind.holds(&(key.get)(&config)), "{number}: {}", key.name);
            }
            problems += said.len();
        }
    }
    assert!(problems > 1000, "they are meant to be malformed: {problems}");
}

/// Parts of files, and anything else.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        "pool",
        "central",
        "quarantine",
        "1MiB",
        "=",
        " = ",
        "\"",
        "'",
        "#",
        "\n",
        "\n",
        "\r\n",
        "[prog]\n",
        "[x]\n",
        "\\",
        "1_0",
        "[",
        "]",
        "pool = central\n",
        "quarantine = \"2MiB\"\n",
        "\u{feff}",
    ]);
    let piece = prop_oneof![
        6 => known.prop_map(|text| text.as_bytes().to_vec()),
        2 => prop::collection::vec(any::<u8>(), 0..20),
        1 => (any::<u8>(), 0..1500usize).prop_map(|(byte, length)| vec![byte; length]),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_bytes_are_read_in_silence_or_with_a_line_each(text in pieces()) {
        let (config, said) = read(&text);
        check_said(&said, &text);
        for key in &KEYS {
            prop_assert!(key.kind.holds(&(key.get)(&config)));
        }
        // Reading it again changes nothing.
        let mut again = config;
        apply_file(&mut again, &text, b"prog", &mut |_, _| ());
        prop_assert_eq!(again, config);
    }

    /// Each line by itself, with its section before it, says what it says in the file.
    #[test]
    fn a_line_does_not_depend_on_its_neighbours(text in pieces()) {
        prop_assume!(!text.contains(&0) && !text.starts_with(b"\xef") && text.len() < 4000);
        let (whole, said) = read(&text);
        let (mut apart, mut lines) = (Config::DEFAULT, Vec::new());
        let mut section: &[u8] = b"";
        for (number, line) in text.split(|&byte| byte == b'\n').enumerate() {
            if line.trim_ascii_start().starts_with(b"[") {
                section = line;
            }
            let alone = [section, b"\n", line].concat();
            apply_file(&mut apart, &alone, b"prog", &mut |at, problem| {
                if at == 2 {
                    lines.push(format!("{}: {problem}", number + 1));
                }
            });
        }
        prop_assert_eq!(apart, whole);
        prop_assert_eq!(lines, said);
    }

    #[test]
    fn what_is_shown_is_a_file_that_says_the_same(
        choice in 0..5usize, bytes in 0..1usize << 30, ms in 10..3_600_000u64, on: bool, text in "[ -~]{0,100}",
    ) {
        let pools = [Pool::Tiered, Pool::Central, Pool::Hardened, Pool::Guarded, Pool::System];
        let config = Config::new()
            .pool(pools[choice])
            .quarantine(bytes)
            .hard_limit(bytes + (1 << 20))
            .release_delay(Duration::from_ms(ms))
            .zero_on_free(on)
            .stats((choice * 5) as u32)
            .stats_file(tiermalloc::config::Text::new(text.as_bytes()).unwrap());
        let mut file = String::new();
        for key in &KEYS {
            file += &format!("{} = {}\n", key.name, key.shown(&config));
        }
        prop_assert_eq!(silently(&file), config);
    }
}

/// A directory for one test's files.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("tiermalloc-config-{}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: impl AsRef<[u8]>) -> CString {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        c_path(&path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

fn gather(sources: &Sources<'_>) -> (Effective, Vec<String>) {
    let mut said = Vec::new();
    let effective = sources.gather(&mut |place, problem| said.push(format!("{place}: {problem}")));
    (effective, said)
}

#[test]
fn the_later_source_wins_and_is_named() {
    let scratch = Scratch::new("sources");
    let system = scratch.file(
        "system",
        "thp = never\nzero_on_free = true\ncache_total = 3MiB\n[prog]\nrelease_rate = 1MiB\n",
    );
    let user = scratch.file("user", "zero_on_free = false\n\n[prog]\ncache_thread = 3MiB\n");
    let program = Config::new()
        .pool(Pool::Central)
        .quarantine(1)
        .thp(tiermalloc::config::HugePages::Advise)
        .soft_limit(7);
    let sources = Sources {
        program: Some(&program),
        symbol: Some(b"quarantine=2,cache_total=2MiB,soft_limit=8"),
        system_file: Some(&system),
        user_file: Some(&user),
        environment: Some(b"quarantine=5,background=off"),
        name: b"prog",
    };
    let (effective, said) = gather(&sources);
    assert!(said.is_empty(), "{said:?}");
    let lines: Vec<String> = effective
        .values()
        .filter(|(_, _, place)| place.origin.source != Source::BuiltIn)
        .map(|(key, value, place)| {
            format!(
                "{} {} {:?}:{}",
                key.name,
                key.show(value).bare(),
                place.origin.source,
                place.origin.line
            )
        })
        .collect();
    assert_eq!(
        lines,
        [
            "pool central Program:0",
            "background off Environment:0",
            "soft_limit 8B Symbol:0",
            "cache_total 3MiB SystemFile:3",
            "cache_thread 3MiB UserFile:4",
            "release_rate 1MiB SystemFile:5",
            "thp never SystemFile:1",
            "zero_on_free false UserFile:1",
            "quarantine 5B Environment:0",
        ]
    );
    let (_, _, place) = effective.values().find(|(key, _, _)| key.name == "cache_thread").unwrap();
    assert_eq!(place.to_string(), format!("{}:4", user.to_str().unwrap()));
    assert_eq!(effective.origin("pool").unwrap().source, Source::Program);
    assert!(effective.origin("nonsense").is_none());
}

#[test]
fn a_value_of_the_program_that_is_out_of_range_is_told_and_does_not_apply() {
    let program = Config::new()
        .quarantine(5 << 30)
        .cache_total(1 << 20)
        .release_delay(Duration::NONE)
        .shards(3);
    let (effective, said) = gather(&Sources { program: Some(&program), ..Sources::NONE });
    assert_eq!(*effective.config(), Config::new().cache_total(1 << 20));
    assert_eq!(
        said,
        [
            "the program: shards=something else: not one of automatic, 1, 2, 4, 8, 16; it is ignored",
            "the program: release_delay=0ms: not from 10 to 3600000 ms; it is ignored",
            "the program: quarantine=5GiB: not from 0 to 1073741824 bytes; it is ignored",
        ]
    );
}

#[test]
fn files_that_are_none_are_said_and_none_in_etc_is_not() {
    let scratch = Scratch::new("files");
    let missing = c_path(&scratch.0.join("missing"));
    let directory = c_path(&scratch.0);
    let below = c_path(&scratch.0.join("plain/below"));
    scratch.file("plain", "");
    let fifo = c_path(&scratch.0.join("fifo"));
    // SAFETY: the path ends with NUL.
    assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) }, 0);
    let long = CString::new("/x".repeat(3000)).unwrap();
    for (path, system, user) in [
        (&missing, "", "cannot be read (no such file); it is ignored"),
        (&below, "", "cannot be read (no such file); it is ignored"),
        (&directory, "not a regular file; it is ignored", "not a regular file; it is ignored"),
        (&fifo, "not a regular file; it is ignored", "not a regular file; it is ignored"),
        (
            &c"/dev/zero".to_owned(),
            "not a regular file; it is ignored",
            "not a regular file; it is ignored",
        ),
        (
            &long,
            "cannot be read (its name is too long); it is ignored",
            "cannot be read (its name is too long); it is ignored",
        ),
    ] {
        let path: &CStr = path;
        for (sources, expected) in [
            (Sources { system_file: Some(path), ..Sources::NONE }, system),
            (Sources { user_file: Some(path), ..Sources::NONE }, user),
        ] {
            let (effective, said) = gather(&sources);
            assert_eq!(*effective.config(), Config::DEFAULT);
            let said: Vec<&str> =
                said.iter().map(|line| line.split_once(": ").unwrap().1).collect();
            assert_eq!(
                said,
                Vec::from_iter(Some(expected).filter(|line| !line.is_empty())),
                "{path:?}"
            );
        }
    }
}

/// How long a file is does not say how long it takes.
#[test]
fn a_file_of_a_gigabyte_is_read_in_part() {
    let scratch = Scratch::new("sparse");
    let path = scratch.0.join("sparse");
    fs::write(&path, "pool = central\n").unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(1 << 30).unwrap();
    let path = c_path(&path);
    let (effective, said) = gather(&Sources { user_file: Some(&path), ..Sources::NONE });
    assert_eq!(effective.config().pool, Pool::Central);
    assert_eq!(said.len(), 1);
    assert!(said[0].ends_with(":2: the file is not text; it is ignored from here on"), "{said:?}");
}
