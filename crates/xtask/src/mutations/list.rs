//! The lists: `crates/CRATE/tests/mutations.toml`, one `[[mutation]]` for each way to break the crate.
//!
//! ```toml
//! [[mutation]]
//! name = "the lock is taken without seeing what its last holder wrote"
//! file = "src/futex.rs"                  # in the crate
//! old = "swap(CONTENDED, Ordering::Acquire)"
//! new = "swap(CONTENDED, Ordering::Relaxed)"
//! caught_by = ["loom:three_threads"]     # at least one of them must fail; each model, in one entry or another
//! times = 1                              # how often `old` occurs; each is replaced. 1 if left out
//! hangs_after = 20                       # seconds. Only where hanging is how it shows
//! ```

use std::path::{Component, Path};

use serde::Deserialize;

use crate::shell::Result;

/// Where a crate keeps its list.
pub const FILE: &str = "tests/mutations.toml";

/// One way to break a crate, and who must notice.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mutation {
    /// What is broken, as a sentence.
    pub name: String,
    /// The file that is changed, relative to the crate.
    pub file: String,
    /// The text that is replaced.
    pub old: String,
    /// What takes its place.
    pub new: String,
    /// The models and tests that are run; at least one of them must fail.
    pub caught_by: Vec<Witness>,
    /// How often the text occurs: once, unless the entry says otherwise.
    #[serde(default = "once")]
    pub times: usize,
    /// Seconds after which a witness that still runs has noticed. Without it a hang is an error.
    pub hangs_after: Option<u64>,
}

/// A model or a test that is to notice a mutation.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Witness {
    pub target: Target,
    /// What the names of the models or tests contain; all of the target's without one.
    pub filter: Option<String>,
}

/// A test target of the crate that a list belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `tests/loom.rs`, built for loom.
    Loom,
    /// `tests/NAME.rs`; `lib` stands for the tests that stand beside the code.
    Test(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    mutation: Vec<Mutation>,
}

fn once() -> usize {
    1
}

/// Reads a list.
pub fn parse(text: &str) -> Result<Vec<Mutation>> {
    let list: List = toml::from_str(text).map_err(|e| e.to_string())?;
    for mutation in &list.mutation {
        mutation.check().map_err(|message| format!("{}: {message}", mutation.name))?;
    }
    for (index, mutation) in list.mutation.iter().enumerate() {
        if list.mutation[..index].iter().any(|other| other.name == mutation.name) {
            return Err(format!("two entries have the name: {}", mutation.name));
        }
    }
    Ok(list.mutation)
}

impl Mutation {
    fn check(&self) -> Result {
        let inside = Path::new(&self.file).components().all(|c| matches!(c, Component::Normal(_)));
        if self.name.is_empty() {
            Err("an entry without a name".to_owned())
        } else if !inside || self.file.is_empty() {
            Err(format!("{} is not a file of the crate", self.file))
        } else if self.caught_by.is_empty() {
            Err("nobody is named to catch it".to_owned())
        } else if self.old.is_empty() || self.times == 0 {
            Err("there is no text to replace".to_owned())
        } else if self.old == self.new {
            Err("the text is replaced by itself".to_owned())
        } else {
            Ok(())
        }
    }

    /// The file's text, broken; or why it cannot be.
    pub fn apply(&self, text: &str) -> Result<String> {
        let found = text.matches(&self.old).count();
        if found != self.times {
            let wanted = times(self.times);
            return Err(format!("its text occurs {} in {}, not {wanted}", times(found), self.file));
        }
        Ok(text.replace(&self.old, &self.new))
    }
}

fn times(count: usize) -> String {
    match count {
        1 => "once".to_owned(),
        count => format!("{count} times"),
    }
}

impl TryFrom<String> for Witness {
    type Error = String;

    fn try_from(text: String) -> Result<Self> {
        let wrong = || format!("{text} is neither loom:FILTER nor test:FILE or test:FILE::FILTER");
        let (kind, rest) = text.split_once(':').ok_or_else(wrong)?;
        let (target, filter) = match (kind, rest.split_once("::")) {
            ("loom", _) => (Target::Loom, rest),
            ("test", None) => (Target::Test(rest.to_owned()), ""),
            ("test", Some((file, filter))) => (Target::Test(file.to_owned()), filter),
            _ => return Err(wrong()),
        };
        if target == Target::Test(String::new()) {
            return Err(wrong());
        }
        Ok(Self { target, filter: (!filter.is_empty()).then(|| filter.to_owned()) })
    }
}

impl std::fmt::Display for Witness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.target, &self.filter) {
            (Target::Loom, filter) => write!(f, "loom:{}", filter.as_deref().unwrap_or_default()),
            (Target::Test(file), None) => write!(f, "test:{file}"),
            (Target::Test(file), Some(filter)) => write!(f, "test:{file}::{filter}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    fn entry(lines: &str) -> Result<Vec<Mutation>> {
        let rest = "name = 'n'\nfile = 'src/a.rs'\nold = 'one'\nnew = 'two'\n";
        parse(&format!("[[mutation]]\n{rest}{lines}"))
    }

    fn mutation(lines: &str) -> Mutation {
        entry(&format!("caught_by = ['loom:a']\n{lines}")).unwrap().remove(0)
    }

    #[test]
    fn an_entry_names_its_witnesses() {
        let entry = entry("caught_by = ['loom:a_model', 'loom:', 'test:b', 'test:b::c::d']");
        let witnesses = entry.unwrap().remove(0).caught_by;
        let expected = [
            (Target::Loom, Some("a_model")),
            (Target::Loom, None),
            (Target::Test("b".to_owned()), None),
            (Target::Test("b".to_owned()), Some("c::d")),
        ];
        let shown = ["loom:a_model", "loom:", "test:b", "test:b::c::d"];
        for ((witness, (target, filter)), shown) in witnesses.iter().zip(expected).zip(shown) {
            assert_eq!(witness.target, target);
            assert_eq!(witness.filter.as_deref(), filter);
            assert_eq!(witness.to_string(), shown);
        }
    }

    #[test]
    fn an_entry_that_makes_no_sense_is_refused() {
        let wrong = [
            ("caught_by = []", "nobody"),
            ("caught_by = ['bench:a']", "neither"),
            ("caught_by = ['test:']", "neither"),
            ("caught_by = ['a_model']", "neither"),
            ("caught_by = ['loom:a']\ncought = 1", "unknown field"),
            ("caught_by = ['loom:a']\ntimes = 0", "no text"),
            ("", "missing field"),
        ];
        for (lines, why) in wrong {
            let error = entry(lines).unwrap_err();
            assert!(error.contains(why), "{lines}: {error}");
        }
        for file in ["../a.rs", "/a.rs", ""] {
            let mut mutation = mutation("");
            file.clone_into(&mut mutation.file);
            assert!(mutation.check().unwrap_err().contains("not a file of the crate"), "{file}");
        }
    }

    #[test]
    fn two_entries_of_one_name_are_refused() {
        let one =
            "[[mutation]]\nname = 'n'\nfile = 'a'\nold = '1'\nnew = '2'\ncaught_by = ['loom:']\n";
        assert_eq!(parse(one).unwrap().len(), 1);
        assert!(parse(&format!("{one}{one}")).unwrap_err().contains("two entries"));
    }

    #[test]
    fn a_text_is_replaced_where_it_occurs_as_often_as_stated() {
        let once = mutation("");
        assert_eq!(once.apply("a one b").unwrap(), "a two b");
        assert_eq!(once.apply("a b").unwrap_err(), "its text occurs 0 times in src/a.rs, not once");
        let error = once.apply("one one").unwrap_err();
        assert_eq!(error, "its text occurs 2 times in src/a.rs, not once");
        let twice = mutation("times = 2");
        assert_eq!(twice.apply("one one").unwrap(), "two two");
        assert!(twice.apply("one").unwrap_err().ends_with("not 2 times"));
    }

    /// A list that no longer fits the code is found out here, and not when somebody runs it.
    #[test]
    fn every_entry_of_the_tree_fits_the_code_as_it_is() {
        let root = workspace::root().unwrap();
        let mut all = 0;
        for name in workspace::crates().unwrap() {
            let dir = root.join("crates").join(&name);
            let Ok(text) = std::fs::read_to_string(dir.join(FILE)) else { continue };
            for mutation in parse(&text).unwrap_or_else(|e| panic!("{name}: {e}")) {
                let source = std::fs::read_to_string(dir.join(&mutation.file)).unwrap();
                mutation
                    .apply(&source)
                    .unwrap_or_else(|e| panic!("{name}: {}: {e}", mutation.name));
                all += 1;
            }
        }
        assert!(all > 0, "there are lists");
    }
}
