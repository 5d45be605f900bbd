//! The machine and the tools, as far as figures depend on them. No names of hosts or users.

use std::fs;
use std::process::Command;

use crate::files::tool;
use crate::peers::system_version;

/// Pairs of what and how much.
pub fn describe() -> Vec<(String, String)> {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = memory_gib(&memory).map(|gib| format!("{gib:.1} GiB"));
    let huge = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").ok();
    let rows = [
        ("processor", field(&cpu, "model name").or_else(|| Some(std::env::consts::ARCH.into()))),
        ("processors", Some(processors().to_string())),
        ("memory", memory),
        ("kernel", said("uname", &["-sr"])),
        ("page size", said("getconf", &["PAGESIZE"]).map(|size| format!("{size} bytes"))),
        ("huge pages", huge.as_deref().and_then(chosen)),
        ("libc", Some(system_version())),
        ("C compiler", said("cc", &["--version"])),
        ("Rust compiler", said("rustc", &["--version"])),
    ];
    rows.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?))).collect()
}

/// How many processors programs can use.
pub fn processors() -> u32 {
    std::thread::available_parallelism().map_or(1, |count| count.get() as u32)
}

/// Bytes of memory that can be had without swapping.
pub fn available_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let kib: u64 = field(&text, "MemAvailable")?.split(' ').next()?.parse().ok()?;
    Some(kib * 1024)
}

/// The day, in UTC.
pub fn today() -> String {
    said("date", &["-u", "+%Y-%m-%d"]).unwrap_or_default()
}

/// The first line of what a tool says.
fn said(program: &str, args: &[&str]) -> Option<String> {
    let text = tool(Command::new(program).args(args)).ok()?;
    text.lines().next().map(|line| line.trim().to_owned())
}

/// What follows `name:` in the files of /proc.
fn field(text: &str, name: &str) -> Option<String> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
}

fn memory_gib(text: &str) -> Option<f64> {
    let kib: f64 = field(text, "MemTotal")?.split(' ').next()?.parse().ok()?;
    Some(kib / (1024.0 * 1024.0))
}

/// The one in brackets.
fn chosen(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    rest.split_once(']').map(|(word, _)| word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_proc_are_read() {
        assert_eq!(
            field("model name\t: Some CPU\nflags : x\n", "model name").as_deref(),
            Some("Some CPU")
        );
        assert_eq!(memory_gib("MemTotal:  2097152 kB\n"), Some(2.0));
        assert_eq!(chosen("always [madvise] never\n").as_deref(), Some("madvise"));
        assert!(describe().iter().any(|(name, _)| name == "kernel"));
    }
}
