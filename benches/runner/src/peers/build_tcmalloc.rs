//! google/tcmalloc, from the sources that its crate carries.
//!
//! The project builds with Bazel; the crate's build script has the list of files that are needed
//! instead. It builds them with internal names only (`TCMALLOC_INTERNAL_METHODS_ONLY`), for Rust to
//! call; here the same files are compiled without that, and become a library that replaces `malloc`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::build::Source;
use crate::files::{Result, at, tool};

/// Compiles the files one by one, as many at once as there are processors, and links them.
pub fn build(source: &Source) -> Result {
    let script = source.dir.join("build.rs");
    let text = fs::read_to_string(&script).map_err(at(&script))?;
    let mut files = listed(&text);
    if files.is_empty() {
        return Err("the crate's build script lists no files".into());
    }
    // What the crate's bridge to Rust stands for there.
    files.push("c_src/tcmalloc/tcmalloc/tcmalloc.cc".into());
    files.sort();
    files.dedup();

    let objects: Vec<PathBuf> =
        (0..files.len()).map(|number| source.work.join(format!("{number}.o"))).collect();
    let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
    let worker = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let (Some(file), Some(object)) = (files.get(number), objects.get(number)) else {
                return;
            };
            if let Err(reason) = compile(&source.dir, file, object) {
                next.store(files.len(), Ordering::Relaxed);
                if let Ok(mut failure) = failure.lock() {
                    failure.get_or_insert(reason);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(worker);
        }
    });
    if let Ok(Some(reason)) = failure.into_inner() {
        return Err(reason);
    }
    let mut link = Command::new("c++");
    link.args(["-shared", "-pthread", "-o"]).arg(&source.library).args(&objects);
    tool(&mut link).map(drop)
}

fn compile(dir: &Path, file: &str, object: &Path) -> Result {
    let mut cxx = Command::new("c++");
    cxx.current_dir(dir)
        .args(["-O2", "-std=c++17", "-fPIC", "-pthread", "-DNDEBUG", "-DNOMINMAX", "-w"])
        .args(["-fno-omit-frame-pointer", "-ftls-model=initial-exec"])
        .args([
            "-DTCMALLOC_INTERNAL_8K_PAGES",
            "-Ic_src/abseil-cpp",
            "-Ic_src/tcmalloc",
            "-c",
            "-o",
        ])
        .arg(object)
        .arg(file);
    tool(&mut cxx).map(drop)
}

/// The files that a build script names, the crate's own bridges to Rust left out.
fn listed(script: &str) -> Vec<String> {
    script
        .split('"')
        .filter(|text| text.starts_with("c_src/"))
        .filter(|text| text.ends_with(".cc") || text.ends_with(".S"))
        .filter(|text| !text.contains("_bridge"))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn files_are_found_in_the_text_of_a_build_script() {
        let script = r#"cc.files([ "c_src/tcmalloc/a.cc", "c_src/malloc_bridge.cc",
            "c_src/x.S", ]); cc.include("c_src/tcmalloc");"#;
        assert_eq!(super::listed(script), ["c_src/tcmalloc/a.cc", "c_src/x.S"]);
    }
}
