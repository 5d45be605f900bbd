//! `tiermalloc classes`: the size classes, in order of size.

use std::fmt::Write;

use clap::ValueEnum;
use tiermalloc_size_class::{CLASSES, Class, MAX_SIZE, PAGE_SIZE, STAGGER, by_size};

/// How the classes are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns and a legend
    Table,
    /// A line of names, then a line for each class
    Csv,
    /// One object with an array of classes
    Json,
}

/// All classes as text that ends with a newline.
pub fn render(format: Format) -> String {
    match format {
        Format::Table => table(),
        Format::Csv => csv(),
        Format::Json => json(),
    }
}

/// Percent of a span of `class` that no object covers.
fn waste_percent(class: Class) -> f64 {
    class.tail_waste() as f64 * 100.0 / (class.pages() * PAGE_SIZE) as f64
}

// Writing to a String cannot fail; the results of `writeln!` say nothing.

fn table() -> String {
    let mut text = String::from(" id    size  pages  objects  waste  waste%  batch\n");
    for c in by_size() {
        let (id, size, pages, objects) = (c.id(), c.size(), c.pages(), c.objects());
        let (waste, percent, batch) = (c.tail_waste(), waste_percent(c), c.batch());
        let _ = writeln!(
            text,
            "{id:3} {size:7} {pages:6} {objects:8} {waste:6} {percent:7.2} {batch:6}"
        );
    }
    let _ = write!(
        text,
        "\n{CLASSES} classes. size: bytes of an object; pages: {PAGE_SIZE}-byte pages of a span; objects: in a\n\
         span; waste: bytes of a span that no object covers; batch: objects that move between\n\
         tiers at once. A request takes the smallest class that fits, aligned ones a multiple of\n\
         their alignment: the last 16 ids are there for alignments above {STAGGER}, and for nothing\n\
         else. Above {MAX_SIZE} bytes it takes pages of its own.\n"
    );
    text
}

fn csv() -> String {
    let mut text = String::from("id,size,pages,objects,waste_bytes,waste_percent,batch\n");
    for c in by_size() {
        let (id, size, pages, objects) = (c.id(), c.size(), c.pages(), c.objects());
        let (waste, percent, batch) = (c.tail_waste(), waste_percent(c), c.batch());
        let _ = writeln!(text, "{id},{size},{pages},{objects},{waste},{percent:.2},{batch}");
    }
    text
}

fn json() -> String {
    let mut text = format!(
        "{{\n  \"page_bytes\": {PAGE_SIZE},\n  \"max_size\": {MAX_SIZE},\n  \"classes\": ["
    );
    for (i, c) in by_size().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        let (id, size, pages, objects) = (c.id(), c.size(), c.pages(), c.objects());
        let (waste, percent, batch) = (c.tail_waste(), waste_percent(c), c.batch());
        let _ = write!(
            text,
            "{comma}\n    {{\"id\": {id}, \"size\": {size}, \"pages\": {pages}, \
             \"objects\": {objects}, \"waste_bytes\": {waste}, \"waste_percent\": {percent:.2}, \
             \"batch\": {batch}}}"
        );
    }
    text.push_str("\n  ]\n}\n");
    text
}
