//! The configuration parser over any bytes: what it says is one printable line of bounded length for each
//! setting at most, what it reads is in range, the later setting wins, and rubbish does not keep what is right
//! from being read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tiermalloc::config::{Config, KEYS, Pool, apply};

fn read(text: &[u8]) -> (Config, usize) {
    let (mut config, mut problems) = (Config::DEFAULT, 0);
    apply(&mut config, text, &mut |problem| {
        problems += 1;
        let line = problem.to_string();
        assert!(!line.is_empty() && line.len() < 256, "{line}");
        assert!(line.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{line:?}");
        assert!(line.contains("it is ignored"), "{line}");
    });
    (config, problems)
}

fuzz_target!(|text: &[u8]| {
    let (config, problems) = read(text);
    let settings = text.split(|&byte| byte == b',').count();
    assert!(problems <= settings, "{problems} lines about {settings} settings");
    assert!(config.quarantine <= 1 << 30, "{config:?}");

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
    assert!(!KEYS.is_empty());
});
