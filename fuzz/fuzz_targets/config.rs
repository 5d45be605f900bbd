//! The configuration parsers over any bytes, as the value of a variable and as a file: what they say is one
//! printable line of bounded length for each setting at most, what they read is in range, the later setting wins, and
//! rubbish does not keep what is right from being read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tiermalloc::config::{Config, KEYS, LONGEST_FILE, Pool, Problem, apply, apply_file};

/// A message is for a person, and one line.
fn check(problem: &Problem<'_>) {
    let line = problem.to_string();
    assert!(!line.is_empty() && line.len() < 256, "{line}");
    assert!(line.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{line:?}");
    assert!(line.contains("ignored"), "{line}");
}

fn in_range(config: &Config) {
    for key in &KEYS {
        assert!(key.kind.holds(&(key.get)(config)), "{}: {config:?}", key.name);
    }
}

fn read(text: &[u8]) -> (Config, usize) {
    let (mut config, mut problems) = (Config::DEFAULT, 0);
    apply(&mut config, text, &mut |problem| {
        problems += 1;
        check(problem);
    });
    in_range(&config);
    (config, problems)
}

fn read_file(text: &[u8], program: &[u8]) -> (Config, Vec<(u32, String)>) {
    let (mut config, mut problems) = (Config::DEFAULT, Vec::new());
    apply_file(&mut config, text, program, &mut |line, problem| {
        check(problem);
        problems.push((line, problem.to_string()));
    });
    in_range(&config);
    (config, problems)
}

fn as_variable(text: &[u8]) {
    let (config, problems) = read(text);
    let settings = text.split(|&byte| byte == b',').count();
    assert!(problems <= settings, "{problems} lines about {settings} settings");

    // Reading again changes nothing.
    let mut again = config;
    apply(&mut again, text, &mut |_| ());
    assert_eq!(again, config);

    // What is right applies, before rubbish unless that says otherwise, and behind it in any case.
    let behind = [text, b",pool=central,quarantine=64KiB"].concat();
    let (behind, more) = read(&behind);
    assert_eq!((behind.pool, behind.quarantine, more), (Pool::Central, 64 << 10, problems));
    assert_eq!(behind.zero_on_free, config.zero_on_free);

    // Each setting by itself is right or wrong, wherever it stands.
    let alone = text.split(|&byte| byte == b',').map(|setting| read(setting).1).sum::<usize>();
    assert_eq!(alone, problems);
}

fn as_file(text: &[u8]) {
    let lines = text.split(|&byte| byte == b'\n').count();
    let (config, problems) = read_file(text, b"prog");
    // A line each, in order, and perhaps one that nothing more is read.
    assert!(problems.len() <= lines + 1, "{} lines about {lines}", problems.len());
    assert!(problems.iter().all(|&(line, _)| line > 0 && line as usize <= lines), "{problems:?}");
    assert!(problems.is_sorted_by_key(|&(line, _)| line), "{problems:?}");

    // Reading again changes nothing.
    let mut again = config;
    apply_file(&mut again, text, b"prog", &mut |_, _| ());
    assert_eq!(again, config);

    // Unless the file ends early, what is right applies behind rubbish.
    if text.contains(&0) || text.len() > LONGEST_FILE - 100 {
        return;
    }
    let behind = [
        text,
        b"\n[prog]\npool = 'central' # x\n[\"x\"]\nnonsense\n[prog]\r\nquarantine = \"64KiB\"",
    ]
    .concat();
    let (behind, more) = read_file(&behind, b"prog");
    assert_eq!((behind.pool, behind.quarantine), (Pool::Central, 64 << 10));
    assert_eq!(behind.zero_on_free, config.zero_on_free);
    assert_eq!(more, problems);

    // In another program's section nothing of it counts up to the next section, and nothing is said of it.
    let section =
        text.split(|&byte| byte == b'\n').find(|line| line.trim_ascii_start().starts_with(b"["));
    if section.is_none() && !text.starts_with(b"\xef\xbb\xbf") {
        let elsewhere = [b"[other]\n", text].concat();
        assert_eq!(read_file(&elsewhere, b"prog"), (Config::DEFAULT, Vec::new()));
    }
}

fuzz_target!(|text: &[u8]| {
    as_variable(text);
    as_file(text);
});
