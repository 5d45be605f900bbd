//! `tiermalloc man`: the manual page, made from what `--help` is made from.

use clap::{Arg, Command};

use crate::manual::{PAGE, Part};

/// The page in the language of troff's `man` macros.
pub fn page(command: &Command) -> String {
    let version = command.get_version().unwrap_or_default();
    let mut page = Page::default();
    page.raw(&format!(".TH TIERMALLOC 1 \"\" \"tiermalloc {version}\" \"User Commands\""));
    page.heading("Name");
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let (first, rest) = about.split_at(about.chars().next().map_or(0, char::len_utf8));
    page.text(&format!("tiermalloc - {}{rest}", first.to_lowercase()));

    let visible = || command.get_subcommands().filter(|sub| !sub.is_hide_set());
    page.heading("Synopsis");
    for sub in visible() {
        page.bold(&usage(sub));
        page.raw(".br");
    }
    page.heading("Description");
    page.paragraphs(&about_without_title(command));
    page.heading("Commands");
    for sub in visible() {
        page.raw(&format!(".SS \"tiermalloc {}\"", escape(sub.get_name())));
        page.paragraphs(&long_about(sub));
        for arg in sub.get_arguments().filter(|arg| arg.get_id() != "help") {
            page.item(&name(arg), &described(arg));
        }
    }
    page.heading("Options");
    page.item("-h, --help", "A summary; --help says more. Every command has them too.");
    page.item("-V, --version", "The version.");
    for section in PAGE {
        page.heading(section.title);
        for part in section.parts {
            match part {
                Part::Text(body) => page.paragraphs(body),
                Part::Item(term, body) => page.item(term, body),
                Part::Example(line, what) => page.example(line, what),
            }
        }
    }
    page.text
}

fn long_about(command: &Command) -> String {
    let text = command.get_long_about().or_else(|| command.get_about());
    let text = text.map(ToString::to_string).unwrap_or_default();
    // The first line is a summary, which --help prints without a full stop.
    match text.split_once("\n\n") {
        Some((summary, rest)) => format!("{summary}.\n\n{rest}"),
        None => text + ".",
    }
}

/// The long description without its first paragraph, which the page has as its title.
fn about_without_title(command: &Command) -> String {
    let text = long_about(command);
    text.split_once("\n\n").map_or(String::new(), |(_, rest)| rest.to_owned())
}

/// `tiermalloc run [--library FILE] ... PROGRAM`
fn usage(command: &Command) -> String {
    let mut text = format!("tiermalloc {}", command.get_name());
    for arg in command.get_arguments().filter(|arg| arg.get_id() != "help") {
        if arg.is_positional() && arg.get_id() != "command" {
            text.push_str(" FILE...");
        } else if arg.is_positional() {
            let required = arg.is_required_set();
            text.push_str(if required {
                " [--] PROGRAM [ARGS]..."
            } else {
                " [--] [PROGRAM [ARGS]...]"
            });
        } else {
            text.push_str(&format!(" [{}]", option(arg)));
        }
    }
    text
}

/// `--library FILE`
fn option(arg: &Arg) -> String {
    let mut text = arg.get_long().map(|long| format!("--{long}")).unwrap_or_default();
    if arg.get_action().takes_values() {
        let values: Vec<_> =
            arg.get_possible_values().iter().map(|v| v.get_name().to_owned()).collect();
        let value = match arg.get_value_names() {
            _ if !values.is_empty() => values.join("|"),
            Some([name, ..]) => name.to_string(),
            _ => arg.get_id().to_string().to_uppercase(),
        };
        text.push_str(&format!(" {value}"));
    }
    text
}

/// The term that an argument is listed under.
fn name(arg: &Arg) -> String {
    if arg.is_positional() {
        let of_run = arg.get_id() == "command";
        return if of_run { "PROGRAM [ARGS]..." } else { "FILE..." }.to_owned();
    }
    match arg.get_short() {
        Some(short) => format!("-{short}, {}", option(arg)),
        None => option(arg),
    }
}

/// What an argument's help says, as sentences.
fn described(arg: &Arg) -> String {
    let help = arg.get_long_help().or_else(|| arg.get_help());
    let mut text = help.map(ToString::to_string).unwrap_or_default();
    text.push('.');
    for value in arg.get_possible_values() {
        if let Some(help) = value.get_help() {
            let help = help.to_string();
            let (first, rest) = help.split_at(help.chars().next().map_or(0, char::len_utf8));
            text.push_str(&format!(" {}: {}{rest}.", value.get_name(), first.to_lowercase()));
        }
    }
    text
}

/// troff, as far as it is written.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn raw(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn heading(&mut self, title: &str) {
        self.raw(&format!(".SH {}", escape(&title.to_uppercase())));
    }

    fn text(&mut self, text: &str) {
        for line in text.lines() {
            self.raw(&escape(line));
        }
    }

    fn bold(&mut self, text: &str) {
        self.raw(&format!("\\fB{}\\fR", escape(text)));
    }

    /// Paragraphs with empty lines between them.
    fn paragraphs(&mut self, text: &str) {
        for paragraph in text.split("\n\n") {
            self.raw(".PP");
            self.text(paragraph);
        }
    }

    fn item(&mut self, term: &str, text: &str) {
        self.raw(".TP");
        self.bold(term);
        self.text(text);
    }

    fn example(&mut self, command: &str, what: &str) {
        self.raw(".PP");
        self.text(what);
        self.raw(".PP\n.RS 4\n.nf");
        self.bold(command);
        self.raw(".fi\n.RE");
    }
}

/// Text that troff prints as it stands: backslashes and dashes as such, and no line a request.
fn escape(line: &str) -> String {
    let text = line.replace('\\', "\\e").replace('-', "\\-");
    let text = text.replace('\'', "\\(aq").replace('`', "\\(ga");
    if text.starts_with('.') { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args;

    #[test]
    fn the_page_names_every_command_and_option() {
        let command = args::command();
        let page = page(&command);
        for sub in command.get_subcommands() {
            assert!(page.contains(&format!(".SS \"tiermalloc {}\"", sub.get_name())));
            for arg in sub.get_arguments() {
                if let Some(long) = arg.get_long() {
                    assert!(page.contains(&escape(&format!("--{long}"))), "{long}");
                }
            }
        }
    }

    #[test]
    fn no_text_becomes_a_request() {
        assert_eq!(escape(".so x"), "\\&.so x");
        assert_eq!(escape("'a' \\n --b"), "\\(aqa\\(aq \\en \\-\\-b");
    }
}
