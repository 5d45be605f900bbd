//! `cargo xtask mutations`: breaks the code on purpose, one way after another, and sees that a model
//! or a test notices.
//!
//! Each crate keeps a list of ways to break it, `tests/mutations.toml`, with the models and tests that
//! must notice each of them ([`list`]). The code is broken in a copy of the workspace ([`tree`]), and
//! what is built of it stays below the target directory, so that each way costs the build of one crate.
//!
//! Before anything is broken the same models and tests run on the copy as it is: one that fails
//! anyway, or that does not exist, proves nothing. Then every entry must be caught by a witness that it
//! names. These are errors: an entry that survives; one whose text does not occur as often as it says;
//! one that does not compile, for then nothing was tested; one that makes a test hang and does not say
//! that it will.
//!
//! And the other way round: a model that none of its crate's mutations makes fail has shown nothing yet,
//! and is an error too.

mod list;
mod tree;
mod trial;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::time::Instant;

use self::list::{Mutation, Target, Witness};
use self::tree::Tree;
use self::trial::{Bench, Outcome};
use crate::shell::{Result, require};
use crate::table::Table;
use crate::workspace;

/// The file that lists a crate's mutations is `crates/CRATE/tests/mutations.toml`.
#[derive(clap::Args)]
pub struct Args {
    /// Only those of these crates (directory names below `crates/`)
    #[arg(long = "crate", value_name = "CRATE")]
    crates: Vec<String>,
    /// Print the lists, see that they fit the code, and run nothing
    #[arg(long)]
    list: bool,
    /// Go on after one that nobody notices
    #[arg(long)]
    keep_going: bool,
    /// Only those whose name contains this
    filter: Option<String>,
}

/// The mutations of one crate that were asked for.
struct Crate {
    name: String,
    mutations: Vec<Mutation>,
    /// The models that are to fail under one of them or another. Empty where only some were asked for.
    models: BTreeSet<String>,
}

/// What became of a mutation.
enum Fate {
    /// Somebody noticed: whether models did, whether tests did, and what was seen.
    Caught { by_loom: bool, by_tests: bool, how: Vec<String>, models: BTreeSet<String> },
    /// Nobody did.
    Survived,
    /// It could not be tried.
    Wrong(String),
}

pub fn run(args: &Args) -> Result {
    let mut crates = read_lists(args)?;
    if args.list {
        print_lists(&crates);
        return Ok(());
    }
    require(&["timeout", "kill"], "they are in Debian's coreutils and procps")?;
    let scratch = workspace::scratch("mutations")?;
    let tree = Tree::new(workspace::root()?, scratch.join("tree"))?;
    let bench = Bench::new(tree.dir().to_owned(), scratch);
    if args.filter.is_none() {
        for entry in &mut crates {
            entry.models = bench.models(&entry.name)?;
        }
    }
    check_unbroken(&bench, &crates)?;
    break_all(&bench, &tree, &crates, args.keep_going)
}

/// The lists, as far as they are asked for; an error unless every entry fits the code.
fn read_lists(args: &Args) -> Result<Vec<Crate>> {
    let dir = workspace::root()?.join("crates");
    let mut crates = Vec::new();
    let mut wrong = Vec::new();
    for name in workspace::crates()? {
        let file = dir.join(&name).join(list::FILE);
        if !file.is_file() {
            continue;
        }
        let mut mutations = list::parse(&tree::read(&file)?)
            .map_err(|e| format!("crates/{name}/{}: {e}", list::FILE))?;
        for mutation in &mutations {
            let fits = tree::read(&dir.join(&name).join(&mutation.file))
                .and_then(|text| mutation.apply(&text));
            if let Err(message) = fits {
                wrong.push(format!("{name}: {}: {message}", mutation.name));
            }
        }
        let wanted = |mutation: &Mutation| match &args.filter {
            Some(filter) => mutation.name.contains(filter.as_str()),
            None => true,
        };
        mutations.retain(wanted);
        crates.push(Crate { name, mutations, models: BTreeSet::new() });
    }
    if !wrong.is_empty() {
        return Err(format!("the lists do not fit the code:\n{}", wrong.join("\n")));
    }
    if let Some(unknown) = args.crates.iter().find(|name| crates.iter().all(|c| c.name != **name)) {
        return Err(format!("crates/{unknown} has no {}", list::FILE));
    }
    crates.retain(|c| args.crates.is_empty() || args.crates.contains(&c.name));
    crates.retain(|c| !c.mutations.is_empty());
    if crates.is_empty() {
        return Err("there is no such mutation; --list shows all".to_owned());
    }
    Ok(crates)
}

fn print_lists(crates: &[Crate]) {
    for Crate { name, mutations, .. } in crates {
        println!("{name}");
        for mutation in mutations {
            let witnesses: Vec<String> =
                mutation.caught_by.iter().map(Witness::to_string).collect();
            println!("  {} ({}; {})", mutation.name, mutation.file, witnesses.join(", "));
        }
    }
    println!("{} mutations", crates.iter().map(|c| c.mutations.len()).sum::<usize>());
}

/// Runs every witness on the copy as it is: each must be there, and pass.
fn check_unbroken(bench: &Bench, crates: &[Crate]) -> Result {
    let mut all = 0;
    let began = Instant::now();
    for Crate { name, mutations, .. } in crates {
        for (target, limit, witnesses) in runs(mutations) {
            announce(&format!("unbroken: {name}: {}", shown(&target)));
            // One run for all of a target, and if one of them wants all of it, all of it.
            let mut filters: Vec<&str> =
                witnesses.iter().map(|w| w.filter.as_deref().unwrap_or_default()).collect();
            if filters.contains(&"") {
                filters.clear();
            }
            let began = Instant::now();
            let outcome = bench.run(name, &target, &filters, limit)?;
            let ran = match outcome {
                Outcome::Passed(ran) => ran,
                Outcome::Failed(how, _) => return Err(format!("unbroken, {name} fails: {how}")),
                Outcome::Hangs => return Err(format!("unbroken, {name} does not end in time")),
                Outcome::DoesNotCompile(words) => {
                    return Err(format!("unbroken, {name} does not compile:\n{words}"));
                }
            };
            if let Some(none) = witnesses.iter().find(|witness| !trial::is_there(witness, &ran)) {
                return Err(format!("{name}: no test is meant by {none}"));
            }
            println!("{} pass ({})", ran.len(), seconds(began));
            all += ran.len();
        }
    }
    println!("unbroken: {all} models and tests pass ({})\n", seconds(began));
    Ok(())
}

/// The runs that a crate's witnesses take: one for each target, and for those of its entries that have
/// a time limit of their own one for each limit.
fn runs(mutations: &[Mutation]) -> Vec<(Target, Option<u64>, Vec<&Witness>)> {
    let mut runs: Vec<(Target, Option<u64>, Vec<&Witness>)> = Vec::new();
    for mutation in mutations {
        for witness in &mutation.caught_by {
            let limit = mutation.hangs_after;
            match runs.iter_mut().find(|run| run.0 == witness.target && run.1 == limit) {
                Some(run) => run.2.push(witness),
                None => runs.push((witness.target.clone(), limit, vec![witness])),
            }
        }
    }
    runs
}

fn break_all(bench: &Bench, tree: &Tree, crates: &[Crate], keep_going: bool) -> Result {
    let all: usize = crates.iter().map(|c| c.mutations.len()).sum();
    let mut table =
        Table::new(["crate", "mutations", "caught by loom", "by tests", "survived", "wrong"]);
    let mut sum = [0; 5];
    let mut failures = Vec::new();
    let mut number = 0;
    let began = Instant::now();
    for Crate { name, mutations, models } in crates {
        let mut counts = [0; 5];
        let mut idle = models.clone();
        for mutation in mutations {
            number += 1;
            if !failures.is_empty() && !keep_going {
                continue;
            }
            announce(&format!("{number}/{all} {name}: {}", mutation.name));
            let began = Instant::now();
            let fate = tree.broken(name, mutation, || try_one(bench, name, mutation))?;
            println!("{} ({})", fate.shown(), seconds(began));
            if let Fate::Caught { models, .. } = &fate {
                idle.retain(|model| !models.contains(model));
            }
            for (count, more) in counts.iter_mut().zip(fate.counts()) {
                *count += more;
            }
            if !matches!(fate, Fate::Caught { .. }) {
                failures.push(format!("{name}: {}: {}", mutation.name, fate.shown()));
            }
        }
        if counts[0] == mutations.len() && !idle.is_empty() {
            let idle: Vec<&str> = idle.iter().map(String::as_str).collect();
            failures
                .push(format!("{name}: no mutation makes these models fail: {}", idle.join(", ")));
        }
        table.row([name.clone()].into_iter().chain(counts.map(|count| count.to_string())));
        sum = std::array::from_fn(|column| sum[column] + counts[column]);
    }
    println!();
    table.row(["all".to_owned()].into_iter().chain(sum.map(|count| count.to_string())));
    table.print();
    println!("{} of {all} tried in {}", sum[0], seconds(began));
    if failures.is_empty() {
        return Ok(());
    }
    Err(format!("not everything has shown what it is for:\n{}", failures.join("\n")))
}

/// Runs the witnesses of a mutation that the copy has.
fn try_one(bench: &Bench, krate: &str, mutation: &Mutation) -> Result<Fate> {
    let (mut by_loom, mut by_tests) = (false, false);
    let mut models = BTreeSet::new();
    let mut how = Vec::new();
    let mut missed = Vec::new();
    for witness in &mutation.caught_by {
        let filters: Vec<&str> = witness.filter.as_deref().into_iter().collect();
        let seen = match bench.run(krate, &witness.target, &filters, mutation.hangs_after)? {
            Outcome::Passed(_) => {
                missed.push(format!("{witness} does not notice"));
                continue;
            }
            Outcome::Failed(how, failed) => {
                if witness.target == Target::Loom {
                    // One that takes the process with it is not named; but the filter may be its name.
                    models.extend(if failed.is_empty() { witness.filter.clone() } else { None });
                    models.extend(failed);
                }
                how
            }
            Outcome::Hangs if mutation.hangs_after.is_some() => "hangs".to_owned(),
            Outcome::Hangs => {
                return Ok(Fate::Wrong(format!("{witness} hangs; the entry has no hangs_after")));
            }
            Outcome::DoesNotCompile(words) => {
                return Ok(Fate::Wrong(format!("does not compile:\n{words}")));
            }
        };
        match witness.target {
            Target::Loom => by_loom = true,
            Target::Test(_) => by_tests = true,
        }
        how.push(format!("{}: {seen}", shown(&witness.target)));
    }
    if how.is_empty() {
        return Ok(Fate::Survived);
    }
    how.append(&mut missed);
    Ok(Fate::Caught { by_loom, by_tests, how, models })
}

impl Fate {
    fn shown(&self) -> String {
        match self {
            Self::Caught { how, .. } if how.iter().any(|how| how.ends_with(": hangs")) => {
                format!("caught (hangs) by {}", how.join(", "))
            }
            Self::Caught { how, .. } => format!("caught by {}", how.join(", ")),
            Self::Survived => "SURVIVED".to_owned(),
            Self::Wrong(message) => format!("WRONG: {message}"),
        }
    }

    /// What it adds to the columns of the table.
    fn counts(&self) -> [usize; 5] {
        let caught = |by: bool| usize::from(by);
        match *self {
            Self::Caught { by_loom, by_tests, .. } => [1, caught(by_loom), caught(by_tests), 0, 0],
            Self::Survived => [1, 0, 0, 1, 0],
            Self::Wrong(_) => [1, 0, 0, 0, 1],
        }
    }
}

fn shown(target: &Target) -> &str {
    match target {
        Target::Loom => "loom",
        Target::Test(file) => file,
    }
}

/// The beginning of a line whose end may be a while in coming.
fn announce(text: &str) {
    print!("{text} ... ");
    let _ = std::io::stdout().flush();
}

fn seconds(began: Instant) -> String {
    format!("{:.1} s", began.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caught(by_loom: bool, by_tests: bool, how: &[&str]) -> Fate {
        let how = how.iter().map(|&how| how.to_owned()).collect();
        Fate::Caught { by_loom, by_tests, how, models: BTreeSet::new() }
    }

    #[test]
    fn the_lists_of_the_repository_fit_the_code() {
        let all = Args { crates: Vec::new(), list: true, keep_going: false, filter: None };
        let lists = read_lists(&all).unwrap();
        assert_eq!(lists.len(), 8, "every tier, the size classes, the lock and the facade");
        assert!(lists.iter().all(|list| !list.mutations.is_empty()));
    }

    #[test]
    fn what_became_of_a_mutation_is_shown_and_counted() {
        let cases = [
            (caught(true, false, &["loom: a"]), "caught by loom: a", [1, 1, 0, 0, 0]),
            (caught(true, true, &["loom: a", "b: c"]), "caught by loom: a, b: c", [1, 1, 1, 0, 0]),
            (caught(false, true, &["b: hangs"]), "caught (hangs) by b: hangs", [1, 0, 1, 0, 0]),
            (Fate::Survived, "SURVIVED", [1, 0, 0, 1, 0]),
            (Fate::Wrong("why".to_owned()), "WRONG: why", [1, 0, 0, 0, 1]),
        ];
        for (fate, shown, counts) in cases {
            assert_eq!((fate.shown().as_str(), fate.counts()), (shown, counts));
        }
    }

    #[test]
    fn a_target_runs_once_for_all_its_witnesses_and_apart_for_each_time_limit() {
        let entry = |name: &str, by: &str, rest: &str| {
            format!(
                "[[mutation]]\nname = '{name}'\nfile = 'a'\nold = '1'\nnew = '2'\ncaught_by = {by}\n{rest}\n"
            )
        };
        let text = entry("1", "['loom:a', 'test:b::c']", "")
            + &entry("2", "['test:b']", "hangs_after = 9")
            + &entry("3", "['loom:d']", "");
        let mutations = list::parse(&text).unwrap();
        let runs: Vec<_> = runs(&mutations)
            .into_iter()
            .map(|(target, limit, witnesses)| {
                let all: Vec<String> = witnesses.iter().map(|w| w.to_string()).collect();
                (shown(&target).to_owned(), limit, all.join(" "))
            })
            .collect();
        let expected =
            [("loom", None, "loom:a loom:d"), ("b", None, "test:b::c"), ("b", Some(9), "test:b")];
        assert_eq!(runs, expected.map(|(t, l, w)| (t.to_owned(), l, w.to_owned())));
    }
}
