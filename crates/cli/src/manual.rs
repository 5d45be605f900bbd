//! What the manual says beyond the options: one text for `--help` and for the manual page.

/// Columns that help texts are wrapped to.
const WIDTH: usize = 79;
/// Columns of a term that its meaning stands beside.
const TERM: usize = 10;

/// A section of the manual.
pub struct Section {
    /// Its heading.
    pub title: &'static str,
    /// What it consists of.
    pub parts: &'static [Part],
}

/// A piece of a section.
pub enum Part {
    /// A paragraph.
    Text(&'static str),
    /// A term and what it means.
    Item(&'static str, &'static str),
    /// A command and what it does.
    Example(&'static str, &'static str),
}

use Part::{Example, Item, Text};

const EXAMPLES: Section = Section {
    title: "Examples",
    parts: &[
        Example("tiermalloc run -- python3 app.py", "Run a program on the allocator."),
        Example("tiermalloc run --verbose ls -l", "See which library is used, and what is run."),
        Example(
            "tiermalloc run --library target/release/libtiermalloc.so -- redis-server",
            "Use a certain build of the library.",
        ),
        Example("tiermalloc run -- sh -c 'make && ./a.out'", "Run several programs."),
        Example(
            "tiermalloc run --pool hardened --conf quarantine=16MiB -- ./server",
            "Choose a pool, and set what else there is to set.",
        ),
        Example("tiermalloc config -- redis-server", "See what redis-server would be run with."),
        Example("tiermalloc config --list", "See all that can be set."),
        Example("tiermalloc classes | head", "See the smallest size classes."),
        Example(
            "tiermalloc classes --format json | python3 -m json.tool",
            "Hand the size classes to another program.",
        ),
        Example(
            "tiermalloc man > tiermalloc.1 && man ./tiermalloc.1",
            "Read all of this as a manual page.",
        ),
    ],
};

const REFUSALS: Section = Section {
    title: "Refusals",
    parts: &[
        Text(
            "Preloading is done by the dynamic loader, and there are programs in which it would not \
             happen. tiermalloc run reads the program's header first, or that of its interpreter if \
             it is a script (env in a first line is followed too), and refuses with status 125 when",
        ),
        Item("static", "the program is statically linked;"),
        Item(
            "rights",
            "it is set-user-ID or set-group-ID to someone else, or has file capabilities: the loader \
             ignores LD_PRELOAD then;",
        ),
        Item("machine", "it is for another machine or another word size than the library;"),
        Item("C library", "it uses musl and the library glibc, or the other way round;"),
        Item("own malloc", "it brings its own malloc, which comes before a preloaded one;"),
        Item("env -i", "its first line has env clear the environment."),
        Text(
            "With --force it is run all the same, without the allocator; the programs that it starts \
             may use it. The programs that a program starts are not judged.",
        ),
    ],
};

const CONFIGURATION: Section = Section {
    title: "Configuration",
    parts: &[
        Text(
            "The allocator reads its configuration when a program starts, before the first \
             allocation. Of several values for a key the last one counts, in this order:",
        ),
        Item("built in", "what `tiermalloc config --list` shows as default;"),
        Item(
            "program",
            "what the program brings: TierMalloc::with_config in Rust, in C a variable const char \
             *tiermalloc_conf = \"key=value,key=value\" that it exports (-rdynamic);",
        ),
        Item("system", "/etc/tiermalloc.conf;"),
        Item("user", "the file that TIERMALLOC_CONF_FILE names, or --conf-file;"),
        Item("variable", "TIERMALLOC_CONF, to which --pool and --conf are added."),
        Text(
            "In a set-user-ID program and its like only what the program brings and \
             /etc/tiermalloc.conf are read.",
        ),
        Text(
            "A file has lines of the form key = value; what has a unit stands in quotes, as in \
             quarantine = \"16MiB\", if the file is to be TOML, but need not. # begins a comment. \
             Settings below a line [NAME] are for programs that are started under that name, for a \
             script its own; those above all such lines are for every program.",
        ),
        Text(
            "What is wrong is said on standard error, in one line each, and ignored. With \
             config=print a program prints all values, each with its source, when it starts.",
        ),
    ],
};

const STATISTICS: Section = Section {
    title: "Statistics",
    parts: &[
        Text(
            "A program on the allocator writes statistics when TIERMALLOC_CONF says so: joined by commas,",
        ),
        Item("stats=exit", "at its end;"),
        Item("stats=SIGUSR2", "at that signal, unless it is the program's own; also exit+SIGUSR2;"),
        Item("stats_interval=10s", "every so often;"),
        Item(
            "stats_file=/tmp/heap.%p",
            "to this file, %p being the process, not to standard error;",
        ),
        Item("stats_format=json", "in this format, or as text, or as openmetrics for Prometheus."),
        Text(
            "Text and JSON are appended to the file, JSON as one object a line; a file in OpenMetrics is \
             replaced as a whole.",
        ),
        Example(
            "TIERMALLOC_CONF=stats=exit tiermalloc run -- git status",
            "See what a program leaves behind.",
        ),
        Example(
            "TIERMALLOC_CONF=stats=SIGUSR2,stats_format=json,stats_file=/tmp/heap tiermalloc run ./server",
            "Have a server write at each SIGUSR2.",
        ),
        Example(
            "tiermalloc stats --compare --svg heap.svg /tmp/heap",
            "See what has changed between the first and the last, and draw it.",
        ),
    ],
};

const EXIT_STATUS: Section = Section {
    title: "Exit status",
    parts: &[
        Text(
            "tiermalloc run has the exit status of the program, or dies by the same signal, or has",
        ),
        Item("125", "if tiermalloc itself failed: bad usage, no library, or a refusal;"),
        Item("126", "if the program was found but cannot be run;"),
        Item("127", "if the program, its interpreter or its loader was not found."),
        Text(
            "The other commands: 0, 1 if the output could not be written, the input not be read, or the \
             configuration has mistakes, 2 after bad usage.",
        ),
    ],
};

const ENVIRONMENT: Section = Section {
    title: "Environment",
    parts: &[
        Item("TIERMALLOC_LIBRARY", "The library, unless --library names one."),
        Item(
            "LD_PRELOAD",
            "The library is put before what is there already, unless it is there. The list cannot \
             hold a path with a space, a colon or a dollar sign.",
        ),
        Item("TIERMALLOC_CONF", "Settings of the allocator: key=value,key=value."),
        Item("TIERMALLOC_CONF_FILE", "A file with settings of the allocator."),
        Item("PATH", "Where the program is looked up, if its name has no slash."),
    ],
};

const FILES: Section = Section {
    title: "Files",
    parts: &[
        Text("libtiermalloc.so is taken from the first of these where it is:"),
        Item("DIR", "the directory of tiermalloc itself, symbolic links resolved (a build);"),
        Item(
            "DIR/../lib",
            "likewise DIR/../lib/x86_64-linux-gnu (or what the machine is) and DIR/../lib64 (an \
             installation);",
        ),
        Item(
            "/usr/local/lib, /usr/lib",
            "likewise their x86_64-linux-gnu, /usr/local/lib64 and /usr/lib64.",
        ),
        Text(
            "`cargo build --release` leaves program and library side by side in target/release; \
             `cargo xtask install --prefix DIR` installs them in DIR/bin and DIR/lib.",
        ),
        Item("/etc/tiermalloc.conf", "Settings of the allocator, for all programs."),
    ],
};

const SEE_ALSO: Section =
    Section { title: "See also", parts: &[Text("env(1), malloc(3), ld.so(8), capabilities(7)")] };

/// What follows `tiermalloc --help`.
pub const PROGRAM: &[Section] = &[EXAMPLES, EXIT_STATUS, ENVIRONMENT, FILES, SEE_ALSO];
/// What follows `tiermalloc run --help`.
pub const RUN: &[Section] = &[REFUSALS, EXIT_STATUS, ENVIRONMENT, FILES];
/// What follows `tiermalloc stats --help`.
pub const STATS: &[Section] = &[STATISTICS];
/// What follows `tiermalloc config --help`.
pub const CONFIG: &[Section] = &[CONFIGURATION];
/// All of it, for the manual page.
pub const PAGE: &[Section] =
    &[CONFIGURATION, REFUSALS, STATISTICS, EXAMPLES, EXIT_STATUS, ENVIRONMENT, FILES, SEE_ALSO];

/// Sections as plain text in the manner of clap's own.
pub fn help(sections: &[Section]) -> String {
    let mut text = String::new();
    for (i, section) in sections.iter().enumerate() {
        if i > 0 {
            text.push('\n');
        }
        text.push_str(section.title);
        text.push_str(":\n");
        for part in section.parts {
            match part {
                Text(body) => wrap(&mut text, "  ", body),
                Item(term, body) if term.len() <= TERM => {
                    wrap(&mut text, &format!("  {term:TERM$}  "), body);
                }
                Item(term, body) => {
                    wrap(&mut text, "  ", term);
                    wrap(&mut text, &" ".repeat(TERM + 4), body);
                }
                Example(command, what) => {
                    wrap(&mut text, "  ", what);
                    text.push_str("      ");
                    text.push_str(command);
                    text.push('\n');
                }
            }
        }
    }
    text
}

/// Appends `lead` and `body` in lines of at most [`WIDTH`] columns, each indented like the first.
fn wrap(text: &mut String, lead: &str, body: &str) {
    text.push_str(lead);
    let mut column = lead.len();
    for word in body.split_whitespace() {
        if column > lead.len() && column + 1 + word.len() > WIDTH {
            text.push('\n');
            text.push_str(&" ".repeat(lead.len()));
            column = lead.len();
        } else if column > lead.len() {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += word.len();
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_keeps_to_its_width_and_loses_no_word() {
        for sections in [PROGRAM, RUN, CONFIG, STATS, PAGE] {
            let text = help(sections);
            let examples: Vec<_> = sections.iter().flat_map(|s| s.parts).collect();
            for part in &examples {
                let (Text(body) | Item(_, body) | Example(_, body)) = part;
                let last = body.split_whitespace().last().unwrap();
                assert!(text.contains(last), "{last}");
            }
            for line in text.lines().filter(|line| {
                !examples
                    .iter()
                    .any(|part| matches!(part, Example(command, _) if line.trim() == *command))
            }) {
                assert!(line.len() <= WIDTH, "{line}");
            }
        }
    }
}
