//! How much of the library's code a small program runs through, in pages and in windows.
//!
//! The kernel brings code into memory by windows of 64 KiB, so what lies between two functions that
//! run is resident too. The library keeps what most programs run in a section of its own for that
//! reason, the first of its code (docs/architecture.md); a new function on their way that lies elsewhere is seen here.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use crate::callgrind;
use crate::shell::Result;
use crate::workspace;

/// The most pages of 4 KiB. The section has 19; before there was one, this program ran through some 30.
const MOST_PAGES: usize = 23;
/// The most windows of 64 KiB, reckoned from where the library begins: most kernels map it, with its 5 MiB of variables, to a
/// multiple of 2 MiB. The first one holds the tables and begins the section, which the second one ends.
const MOST_WINDOWS: usize = 2;
/// log2 of the pages of a window.
const WINDOW_SHIFT: u32 = 4;

/// An entry of `pairs.c` that starts a thread, fills bins and flushes them.
const ENTRY: [&str; 2] = ["handed", "4"];

/// Counts, prints, and returns what is above the bar.
pub fn check(program: &Path, library: &Path) -> Result<Option<String>> {
    let profile = workspace::scratch("instructions")?.join("code.callgrind");
    callgrind::profile(program, &ENTRY, library, &profile)?;
    let text = std::fs::read_to_string(&profile).map_err(|e| format!("callgrind's file: {e}"))?;
    let name = library.file_name().and_then(|name| name.to_str()).ok_or("a library has a name")?;
    let pages = pages_of(&text, name);
    let windows: BTreeSet<u64> = pages.iter().map(|page| page >> WINDOW_SHIFT).collect();
    let (pages, windows) = (pages.len(), windows.len());
    println!(
        "\npages of code that a small program runs through: {pages} (bar {MOST_PAGES}), \
         in {windows} windows of 64 KiB (bar {MOST_WINDOWS})"
    );
    if pages == 0 {
        return Err("callgrind saw no code of the library's".to_owned());
    }
    Ok((pages > MOST_PAGES || windows > MOST_WINDOWS).then(|| {
        format!(
            "code run by a small program: {pages} pages in {windows} windows, and may be \
             {MOST_PAGES} in {MOST_WINDOWS}"
        )
    }))
}

/// The pages of the object of that file name in which an instruction ran: from a profile with
/// `--dump-instr=yes`, where `ob=` begins what ran in an object (`cob=` is one that is called), names
/// stand where their number occurs first, and addresses are absolute or a distance from the last.
fn pages_of(profile: &str, object: &str) -> BTreeSet<u64> {
    let mut names = HashMap::new();
    let mut pages = BTreeSet::new();
    let mut inside = false;
    let mut address = 0_u64;
    for line in profile.lines() {
        if let Some(value) = line.strip_prefix("cob=").or_else(|| line.strip_prefix("ob=")) {
            let (number, name) = value.split_once(' ').unwrap_or((value, ""));
            if !name.is_empty() {
                names.insert(number, name.ends_with(object));
            }
            if line.starts_with("ob=") {
                inside = names.get(number).copied().unwrap_or(false);
            }
            continue;
        }
        let Some(position) = line.split(' ').next().filter(|word| word.len() < line.len()) else {
            continue;
        };
        if let Some(digits) = position.strip_prefix("0x") {
            let Ok(absolute) = u64::from_str_radix(digits, 16) else { continue };
            address = absolute;
        } else if let Some(Ok(more)) = position.strip_prefix('+').map(str::parse::<u64>) {
            address += more;
        } else if let Some(Ok(less)) = position.strip_prefix('-').map(str::parse::<u64>) {
            address -= less;
        } else if position != "*" {
            continue;
        }
        if inside {
            pages.insert(address >> 12);
        }
    }
    pages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_those_of_the_object_alone() {
        let profile = "\
events: Ir
ob=(1) /lib/libother.so
fn=(1) other
0x1000 3 1
ob=(2) /x/libours.so
fn=(2) ours
0x5ff8 9 2
+8 9 1
cob=(1)
cfn=(1)
calls=1 0x1000 3
* 9 40
-4096 9 1
ob=(1)
fn=(1)
0x9000 1 1
";
        let pages = pages_of(profile, "libours.so");
        assert_eq!(pages.into_iter().collect::<Vec<_>>(), [5, 6]);
        assert_eq!(pages_of(profile, "libother.so").len(), 2);
    }
}
