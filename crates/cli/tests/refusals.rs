//! Programs that would not use the allocator: each is refused, and where it can be shown, what the
//! refusal says is also what the kernel and the dynamic loader do (`--force`).

mod common;

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use common::{Dir, LOADED, command, outcome, refused, run, skip};

const MAIN: &str = "int main(void) { return 7; }\n";
const NOBODY: u32 = 65534;

fn setup() -> Option<(Dir, PathBuf)> {
    let dir = Dir::new();
    let library = dir.library("lib.so")?;
    Some((dir, library))
}

fn root() -> bool {
    // SAFETY: takes nothing and always succeeds.
    let root = unsafe { libc::geteuid() } == 0;
    root || skip::<()>("not root").is_some()
}

/// Asserts that the program runs, with status 7, and has the library loaded or not.
#[track_caller]
fn runs(library: &Path, words: &[&str], program: &Path, loaded: bool) {
    let (_, stderr) = outcome(run(library).args(words).arg(program), 7);
    assert_eq!(stderr, if loaded { LOADED } else { "" });
}

#[test]
fn static_programs() {
    let Some((dir, library)) = setup() else { return };
    for flags in [&["-static"][..], &["-static-pie"]] {
        let Some(program) = dir.compile("static", MAIN, flags) else { continue };
        refused(
            run(&library).arg(&program),
            125,
            &["statically linked", "static'", "libtiermalloc.a", "--force"],
        );
        runs(&library, &["--force"], &program, false);
        // Found in PATH, and by a link, it is the same program.
        symlink(&program, dir.join("link")).unwrap();
        let mut command = run(&library);
        refused(command.arg("link").env("PATH", dir.path()), 125, &["statically linked"]);
        fs::remove_file(dir.join("link")).unwrap();
    }
}

#[test]
fn programs_that_are_dynamic_in_any_way_are_run() {
    let Some((dir, library)) = setup() else { return };
    for flags in [&["-pie", "-fPIE"][..], &["-no-pie"], &["-s"], &["-Wl,--hash-style=sysv"]] {
        let Some(program) = dir.compile("dynamic", MAIN, flags) else { continue };
        runs(&library, &[], &program, true);
    }
}

#[test]
fn set_user_and_set_group_programs_of_others() {
    let Some((dir, library)) = setup() else { return };
    let Some(program) = dir.compile("plain", MAIN, &[]) else { return };
    if !root() {
        return;
    }
    let privileged = |user: u32, group: u32, mode: u32| {
        let path = dir.copy(&program, "privileged");
        chown(&path, Some(user), Some(group)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    for (user, group, mode, words) in [
        (NOBODY, 0, 0o4755, "set-user-ID"),
        (0, NOBODY, 0o2755, "set-group-ID"),
        (NOBODY, NOBODY, 0o6755, "set-user-ID"),
    ] {
        let path = privileged(user, group, mode);
        // Where these bits are ignored (a nosuid mount, a sandbox), so they are by the judgement.
        let plain = command(&path).env("LD_PRELOAD", &library).output().unwrap();
        if !plain.stderr.is_empty() {
            runs(&library, &[], &path, true);
            continue;
        }
        refused(run(&library).arg(&path), 125, &[words, "LD_PRELOAD", "--force"]);
        runs(&library, &["--force"], &path, false);
    }
    // Of one's own, or without group execution (mandatory locking), these bits change nothing.
    for (user, group, mode) in [(0, 0, 0o6755), (0, NOBODY, 0o2745), (NOBODY, NOBODY, 0o755)] {
        runs(&library, &[], &privileged(user, group, mode), true);
    }
}

#[test]
fn programs_with_file_capabilities() {
    let Some((dir, library)) = setup() else { return };
    let Some(program) = dir.compile("plain", MAIN, &[]) else { return };
    if !root() || !cfg!(target_os = "linux") {
        return;
    }
    let tiermalloc = dir.copy_of_tiermalloc("tiermalloc");
    let as_nobody = |words: &[&str], program: &Path| {
        let mut command = command(&tiermalloc);
        command.uid(NOBODY).gid(NOBODY).arg("run").arg("--library").arg(&library);
        command.args(words).arg(program);
        command
    };
    // Revision 2 with the "effective" flag; CAP_NET_BIND_SERVICE permitted.
    let attribute = [0x0200_0001u32, 1 << 10, 0, 0, 0].map(u32::to_le_bytes).concat();
    let capable = dir.copy(&program, "capable");
    let path = CString::new(capable.as_os_str().as_bytes()).unwrap();
    // SAFETY: the names are NUL-terminated, and the value is as long as said.
    let set = unsafe {
        libc::setxattr(
            path.as_ptr(),
            c"security.capability".as_ptr(),
            attribute.as_ptr().cast(),
            attribute.len(),
            0,
        )
    };
    if set != 0 {
        return skip::<()>("this file system has no capabilities").unwrap_or_default();
    }
    let mut plain = command(&capable);
    let plain = plain.uid(NOBODY).gid(NOBODY).env("LD_PRELOAD", &library).output().unwrap();
    if !plain.stderr.is_empty() {
        return skip::<()>("capabilities are ignored here").unwrap_or_default();
    }
    refused(&mut as_nobody(&[], &capable), 125, &["file capabilities", "LD_PRELOAD"]);
    assert_eq!(outcome(&mut as_nobody(&["--force"], &capable), 7).1, "");
    // Without them it is an ordinary program, and root gains nothing by them.
    assert_eq!(outcome(&mut as_nobody(&[], &program), 7).1, LOADED);
    runs(&library, &[], &capable, true);
}

#[test]
fn a_program_that_may_not_be_read_is_run_with_a_warning() {
    let Some((dir, library)) = setup() else { return };
    let Some(program) = dir.compile("plain", MAIN, &[]) else { return };
    if !root() {
        return;
    }
    let tiermalloc = dir.copy_of_tiermalloc("tiermalloc");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o711)).unwrap();
    let mut command = command(tiermalloc);
    command.uid(NOBODY).gid(NOBODY).arg("run").arg("--library").arg(&library).arg(&program);
    let (_, stderr) = outcome(&mut command, 7);
    assert!(stderr.contains("warning") && stderr.contains("may not be read"), "{stderr}");
    assert!(stderr.ends_with(LOADED), "{stderr}");
}

#[test]
fn programs_for_another_machine() {
    let Some((dir, library)) = setup() else { return };
    let Some(program) = dir.compile("plain", MAIN, &[]) else { return };
    let mut bytes = fs::read(program).unwrap();
    // S/390, in this machine's byte order: nothing that any test machine is.
    bytes[18..20].copy_from_slice(&22u16.to_ne_bytes());
    let foreign = dir.executable("foreign", &bytes);
    refused(run(&library).arg(&foreign), 125, &["S/390", "the library is", "lib.so"]);
    // Forced, the kernel says what it thinks of it; the shell is not asked.
    let stderr = refused(run(&library).arg("--force").arg(&foreign), 126, &["foreign"]);
    assert!(stderr.contains("Exec format error"), "{stderr}");
}

#[test]
fn programs_of_another_word_size() {
    let Some((dir, library)) = setup() else { return };
    let mut header = vec![0u8; 52];
    header[..7].copy_from_slice(b"\x7fELF\x01\x01\x01");
    // i386, one program header of 32 bytes right behind the header, of no kind.
    for (at, value) in [(16, 2), (18, 3), (20, 1), (28, 52), (42, 32), (44, 1)] {
        header[at] = value;
    }
    header.resize(52 + 32, 0);
    let program = dir.executable("small", header);
    refused(run(&library).arg(program), 125, &["32-bit x86", "the library is 64-bit"]);
}

#[test]
fn programs_for_another_c_library() {
    let Some((dir, library)) = setup() else { return };
    let loader = dir.executable("ld-musl-x86_64.so.1", "");
    let flag = format!("-Wl,--dynamic-linker={}", loader.display());
    let Some(program) = dir.compile("musl", MAIN, &[&flag]) else { return };
    refused(run(&library).arg(&program), 125, &["uses musl", "the library needs glibc"]);
    // A library that needs no C library fits them all; here the loader is what fails.
    let flags = ["-shared", "-fPIC", "-nostdlib"];
    let Some(free) = dir.compile("free.so", "int x;", &flags) else { return };
    let output = run(&free).arg(&program).output().unwrap();
    assert!(!String::from_utf8_lossy(&output.stderr).contains("musl, the library"));
}

#[test]
fn a_program_whose_loader_is_missing() {
    let Some((dir, library)) = setup() else { return };
    let flags = ["-Wl,--dynamic-linker=/no/such/loader.so"];
    let Some(program) = dir.compile("homeless", MAIN, &flags) else { return };
    refused(run(&library).arg(&program), 127, &["'/no/such/loader.so'", "does not exist"]);
}

#[test]
fn programs_with_a_malloc_of_their_own() {
    let Some((dir, library)) = setup() else { return };
    let source = "#include <stddef.h>\nvoid *malloc(size_t n) { return NULL; }\n\
                  void free(void *p) {}\nint main(void) { return 7; }\n";
    let flags = ["-rdynamic", "-fno-builtin"];
    let Some(program) = dir.compile("own", source, &flags) else { return };
    refused(run(&library).arg(&program), 125, &["its own malloc", "--force"]);
    runs(&library, &["--force"], &program, true);
    // To use malloc, even its address, is not to bring one.
    let source = "#include <stdlib.h>\nvoid *(*volatile f)(size_t) = malloc;\n\
                  int main(void) { free(f(1)); return 7; }\n";
    for flags in [&["-rdynamic", "-no-pie", "-fno-pie"][..], &["-rdynamic"]] {
        let Some(program) = dir.compile("user", source, flags) else { continue };
        runs(&library, &[], &program, true);
    }
}

#[test]
fn the_dynamic_loader_itself_is_run() {
    let Some((dir, library)) = setup() else { return };
    let Some(program) = dir.compile("plain", MAIN, &[]) else { return };
    let places = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"];
    let Some(loader) = places.iter().find(|place| Path::new(place).exists()) else { return };
    let (_, stderr) = outcome(run(&library).arg(loader).arg(program), 7);
    assert_eq!(stderr, LOADED);
}

#[test]
fn files_that_are_no_programs() {
    let Some((dir, library)) = setup() else { return };
    let garbage = dir.executable("garbage", b"MZ\x90\0\x03\0\0\0");
    refused(run(&library).arg(garbage), 126, &["neither an ELF program nor a script"]);
    for (name, bytes) in [("magic", &b"\x7fELF"[..]), ("half", b"\x7fELF\x02\x01\x01\0\0\0\0\0")] {
        let file = dir.executable(name, bytes);
        refused(run(&library).arg(file), 126, &["damaged ELF file"]);
    }
    let Some(object) = dir.compile("object", MAIN, &["-c"]) else { return };
    fs::set_permissions(&object, fs::Permissions::from_mode(0o755)).unwrap();
    refused(run(&library).arg(object), 126, &["an object file, not a program"]);
}

#[test]
fn scripts_are_judged_by_what_runs_them() {
    let Some((dir, library)) = setup() else { return };
    let script = dir.executable("script", "#!/bin/sh -e\nexit 7\n");
    runs(&library, &[], &script, true);
    let Some(interpreter) = dir.compile("static", MAIN, &["-static"]) else { return };
    let script = dir.executable("refused", format!("#! {} -x\n", interpreter.display()));
    let words = ["refused', which needs", "static' on the allocator", "statically linked"];
    refused(run(&library).arg(&script), 125, &words);
    runs(&library, &["--force"], &script, false);
}

#[test]
fn scripts_that_run_one_another_are_followed_as_far_as_the_kernel_does() {
    let Some((dir, library)) = setup() else { return };
    let Some(mut last) = dir.compile("program", MAIN, &[]) else { return };
    let Some(mut fixed) = dir.compile("static", MAIN, &["-static"]) else { return };
    for depth in 1..=6 {
        last = dir.executable(&format!("script{depth}"), format!("#!{}\n", last.display()));
        fixed = dir.executable(&format!("fixed{depth}"), format!("#!{}\n", fixed.display()));
        let kernel = command(&last).status();
        if depth <= 5 {
            assert_eq!(kernel.unwrap().code(), Some(7), "{depth}");
            runs(&library, &[], &last, true);
            refused(run(&library).arg(&fixed), 125, &["statically linked"]);
        } else {
            assert!(kernel.is_err());
            refused(run(&library).arg(&last), 126, &["scripts run one another"]);
        }
    }
    let path = dir.join("self");
    dir.executable("self", format!("#!{}\n", path.display()));
    refused(run(&library).arg(path), 126, &["scripts run one another"]);
}

#[test]
fn scripts_that_env_runs_are_followed_through_path() {
    let Some((dir, library)) = setup() else { return };
    let Some(program) = dir.compile("interp", MAIN, &[]) else { return };
    let Some(_) = dir.compile("fixed", MAIN, &["-static"]) else { return };
    let path = std::env::join_paths(
        [dir.path().to_owned()]
            .into_iter()
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    )
    .unwrap();
    let script = |line: &str| {
        let mut command = run(&library);
        command.arg(dir.executable("script", format!("{line}\n"))).env("PATH", &path);
        command
    };
    // env has the library too.
    for line in ["#!/usr/bin/env interp", "#!/usr/bin/env -S A=b interp -x"] {
        assert_eq!(outcome(&mut script(line), 7).1, LOADED.repeat(2), "{line}");
    }
    for line in ["#!/usr/bin/env fixed", "#!/usr/bin/env -S -u HOME fixed -x"] {
        refused(&mut script(line), 125, &["fixed' on the allocator", "statically linked"]);
    }
    refused(&mut script("#!/usr/bin/env -S -i interp"), 125, &["environment", "LD_PRELOAD"]);
    refused(&mut script("#!/usr/bin/env nonesuch"), 127, &["'nonesuch'", "PATH"]);
    // What cannot be known is run, with a warning.
    let line = format!("#!/usr/bin/env -S '{}'", program.display());
    let (_, stderr) = outcome(&mut script(&line), 7);
    assert!(stderr.contains("warning") && stderr.contains("env"), "{stderr}");
}

#[test]
fn a_script_whose_interpreter_is_missing_or_none() {
    let Some((dir, library)) = setup() else { return };
    let script = |name: &str, line: &str| dir.executable(name, format!("{line}\n"));
    let missing = script("missing", "#!/no/such/interpreter");
    refused(run(&library).arg(missing), 127, &["its interpreter", "/no/such/interpreter"]);
    // The kernel takes the carriage return for a part of the name; so does the message.
    let dos = script("dos", "#!/bin/sh\r");
    refused(run(&library).arg(dos), 127, &["its interpreter", "/bin/sh\r"]);
    let directory = script("directory", "#!/tmp");
    refused(run(&library).arg(directory), 126, &["its interpreter", "is a directory"]);
}
