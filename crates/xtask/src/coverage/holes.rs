//! The stretches of lines that no test reached, and what to call them so that the name outlives an edit
//! above them: the function, and the text of the first line.

use std::collections::BTreeMap;

/// A file with the count of each line that holds code, its own tests left out.
pub(super) struct Source {
    /// From the root of the workspace.
    pub(super) path: String,
    text: Vec<String>,
    /// Line number (from 1), function, count.
    lines: Vec<(usize, String, u64)>,
}

/// Neighbouring lines of one function that were not reached.
#[derive(Debug, PartialEq)]
pub(super) struct Hole {
    pub(super) file: String,
    pub(super) line: usize,
    pub(super) function: String,
    pub(super) place: Place,
    pub(super) lines: usize,
}

/// Where in its function a hole is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Place {
    /// All of it.
    Whole,
    /// It starts with this line.
    At(String),
    /// It is the way out of the block that this line opens.
    Past(String),
}

impl Source {
    pub(super) fn new(path: String, text: &str, counts: &BTreeMap<usize, u64>) -> Self {
        let text: Vec<String> = text.lines().map(str::to_owned).collect();
        let tests = test_modules(&text);
        let counted = counts.iter().filter(|(line, _)| !tests.iter().any(|t| t.contains(line)));
        let lines = counted
            .map(|(&line, &count)| (line, function_at(&text, line).to_owned(), count))
            .collect();
        Self { path, text, lines }
    }

    /// Number, function and count of each line with code.
    pub(super) fn lines(&self) -> impl Iterator<Item = (usize, &str, u64)> {
        self.lines.iter().map(|(line, function, count)| (*line, function.as_str(), *count))
    }

    /// Whether `function` is one that the compiler can run, and nothing else has.
    pub(super) fn is_compiled(&self, function: &str) -> bool {
        let mut declared = self.text.iter().filter(|line| function_of(line) == Some(function));
        declared.all(|line| line.contains("const fn "))
            && self.lines().all(|(_, other, count)| other != function || count == 0)
    }

    /// Whether the function has such a line.
    pub(super) fn has(&self, function: &str, place: &Place) -> bool {
        (1..=self.text.len()).filter(|&line| function_at(&self.text, line) == function).any(
            |line| match place {
                Place::Whole => function_of(&self.text[line - 1]).is_some(),
                Place::At(text) | Place::Past(text) => self.text[line - 1].trim() == text,
            },
        )
    }

    pub(super) fn holes(&self) -> Vec<Hole> {
        let mut holes: Vec<Hole> = Vec::new();
        let mut open = false;
        for (line, function, count) in self.lines() {
            let goes_on = open && holes.last().is_some_and(|hole| hole.function == function);
            open = count == 0;
            match holes.last_mut() {
                Some(hole) if open && goes_on => hole.lines += 1,
                _ if open => holes.push(Hole {
                    file: self.path.clone(),
                    line,
                    function: function.to_owned(),
                    place: Place::At(String::new()),
                    lines: 1,
                }),
                _ => {}
            }
        }
        for hole in &mut holes {
            hole.place = self.place(hole);
        }
        holes
    }

    fn place(&self, hole: &Hole) -> Place {
        let all = self.lines().filter(|(_, function, _)| *function == hole.function).count();
        if all == hole.lines && function_of(&self.text[hole.line - 1]).is_some() {
            return Place::Whole;
        }
        // A brace alone says nothing: the first line with a word in it, or what the brace closes.
        let numbers = self.lines().map(|(line, _, _)| line).filter(|&line| line >= hole.line);
        let mut lines = numbers.take(hole.lines).map(|line| self.text[line - 1].as_str());
        let has_word = |line: &&str| line.contains(char::is_alphanumeric);
        match lines.find(has_word) {
            Some(line) => Place::At(line.trim().to_owned()),
            None => Place::Past(opening(&self.text, hole.line).trim().to_owned()),
        }
    }
}

impl Hole {
    /// The hole as `docs/coverage.md` names it.
    pub(super) fn name(&self) -> String {
        let function = &self.function;
        let lines =
            if self.lines == 1 { "1 line".to_owned() } else { format!("{} lines", self.lines) };
        match &self.place {
            Place::Whole => format!("`{function}` (whole function)"),
            Place::At(text) => format!("`{function}` at `{text}` ({lines})"),
            Place::Past(text) => format!("`{function}` past `{text}` ({lines})"),
        }
    }
}

/// The name of the function that a line declares.
fn function_of(line: &str) -> Option<&str> {
    let line = line.trim_start();
    if line.starts_with("//") {
        return None;
    }
    let start = match line.find("fn ") {
        Some(0) => 3,
        Some(at) if line[..at].ends_with(' ') => at + 3,
        _ => return None,
    };
    let name = &line[start..];
    let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
    (end > 0).then_some(&name[..end])
}

/// The function that a line (from 1) is in.
fn function_at(text: &[String], line: usize) -> &str {
    text[..line.min(text.len())].iter().rev().find_map(|line| function_of(line)).unwrap_or("")
}

/// The line that opens the block which line `closing` (from 1) closes.
fn opening(text: &[String], closing: usize) -> &str {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let depth = indent(&text[closing - 1]);
    let above = text[..closing - 1].iter().rev();
    above.map(String::as_str).find(|line| !line.is_empty() && indent(line) == depth).unwrap_or("")
}

/// The lines (from 1) of modules that are compiled for tests only.
fn test_modules(text: &[String]) -> Vec<std::ops::RangeInclusive<usize>> {
    let mut found = Vec::new();
    for (index, line) in text.iter().enumerate() {
        if line.starts_with("#[cfg(test)]") || line.starts_with("#[cfg(all(test") {
            let end = text[index..].iter().position(|line| line == "}" || line.ends_with(';'));
            found.push(index + 1..=end.map_or(text.len(), |end| index + end + 1));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
pub const fn first(a: u8) -> u8 {
    a
}

fn second() {
    // fn comment
    if x {
        y();
        return;
    }
    for z in w {
        v();
    }
}

#[cfg(test)]
mod tests {
    fn third() {}
}
";

    fn source(counts: &[(usize, u64)]) -> Source {
        Source::new("f.rs".to_owned(), TEXT, &counts.iter().copied().collect())
    }

    #[test]
    fn neighbouring_lines_of_one_function_are_one_hole() {
        let holes = source(&[(5, 1), (7, 1), (8, 0), (9, 0), (11, 1), (13, 0), (14, 1)]).holes();
        let names: Vec<String> = holes.iter().map(Hole::name).collect();
        assert_eq!(
            names,
            ["`second` at `y();` (2 lines)", "`second` past `for z in w {` (1 line)"]
        );
        assert_eq!(holes[0].line, 8);
    }

    #[test]
    fn functions_side_by_side_are_two_holes_and_whole() {
        let holes = source(&[(1, 0), (2, 0), (3, 0), (5, 0), (14, 0)]).holes();
        let names: Vec<String> = holes.iter().map(Hole::name).collect();
        assert_eq!(names, ["`first` (whole function)", "`second` (whole function)"]);
    }

    #[test]
    fn tests_beside_the_code_are_not_counted() {
        let source = source(&[(14, 1), (18, 0)]);
        assert_eq!(source.lines().collect::<Vec<_>>(), [(14, "second", 1)]);
    }

    #[test]
    fn a_function_is_known_by_its_declaration() {
        assert_eq!(function_of("    pub(crate) unsafe fn a_b<T>(x: T) {"), Some("a_b"));
        assert_eq!(function_of("    type F = unsafe extern \"C\" fn(usize);"), None);
        assert_eq!(function_of("    // the fn above"), None);
    }

    #[test]
    fn a_constant_function_that_no_test_runs_is_the_compilers() {
        assert!(source(&[(1, 0), (2, 0), (5, 1)]).is_compiled("first"));
        assert!(!source(&[(1, 1), (2, 0)]).is_compiled("first"), "a test runs it");
        assert!(!source(&[(5, 0)]).is_compiled("second"), "not constant");
    }

    #[test]
    fn a_line_is_looked_for_in_its_function_only() {
        let source = source(&[]);
        assert!(source.has("second", &Place::At("y();".to_owned())));
        assert!(!source.has("first", &Place::At("y();".to_owned())));
        assert!(source.has("first", &Place::Whole) && !source.has("gone", &Place::Whole));
    }
}
