//! A text in the manner of JSON, read into a tree of strings, vectors and maps, and dropped.
//!
//! What most services do with most of their time: a burst of small allocations of many sizes that
//! nest, then the free of all of them. The text, about 1 MB of records, is made once.

use std::collections::BTreeMap;

use crate::Workload;
use crate::params::{Params, add};
use crate::rng::Rng;

pub const WORKLOAD: &Workload =
    &Workload { name: "json", about: "a text parsed into a tree, and the tree dropped", run };

enum Value {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Value>),
    Map(BTreeMap<String, Value>),
}

fn run(params: &Params) -> u64 {
    let text = text();
    let mut sum = 0;
    for _ in 0..params.times(60) {
        let mut parser = Parser { bytes: text.as_bytes(), at: 0 };
        let value = parser.value();
        assert_eq!(parser.at, text.len(), "the text was not read to its end");
        sum = add(sum, digest(&value));
    }
    sum
}

/// A list of records with nested lists, maps and strings with escapes.
fn text() -> String {
    let mut rng = Rng::new(0x1503, 0);
    let mut text = String::from("[");
    for id in 0..4000 {
        if id > 0 {
            text.push(',');
        }
        text.push_str(&format!("{{\"id\":{id},\"name\":\"record {:x}\",\"tags\":[", rng.bits()));
        for tag in 0..rng.below(8) {
            let comma = if tag > 0 { "," } else { "" };
            text.push_str(&format!("{comma}\"tag\\n{}\"", rng.below(1000)));
        }
        text.push_str(&format!("],\"at\":{{\"x\":{}.5,\"y\":-{}", rng.below(1000), rng.below(99)));
        text.push_str(",\"seen\":true,\"by\":null},\"points\":[");
        for point in 0..rng.below(12) {
            let comma = if point > 0 { "," } else { "" };
            text.push_str(&format!("{comma}[{},{},false]", rng.below(100), rng.below(100)));
        }
        text.push_str("]}");
    }
    text.push(']');
    text
}

/// Reads one text; what is not in it makes it panic, for the text is our own.
struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    fn value(&mut self) -> Value {
        match self.bytes[self.at] {
            b'{' => self.map(),
            b'[' => self.list(),
            b'"' => Value::Text(self.string()),
            b'n' => self.word("null", Value::Null),
            b't' => self.word("true", Value::Bool(true)),
            b'f' => self.word("false", Value::Bool(false)),
            _ => self.number(),
        }
    }

    /// Whether the next byte is this one; if so it is read.
    fn takes(&mut self, byte: u8) -> bool {
        // Not `at += usize::from(taken)`: compilers up to 1.97 or so lose such a sum when the flag is
        // also branched on (rust-lang/rust#158206).
        if self.bytes[self.at] != byte {
            return false;
        }
        self.at += 1;
        true
    }

    fn expect(&mut self, byte: u8) {
        assert!(self.takes(byte), "expected {} at {}", char::from(byte), self.at);
    }

    fn map(&mut self) -> Value {
        let mut map = BTreeMap::new();
        self.expect(b'{');
        while !self.takes(b'}') {
            let key = self.string();
            self.expect(b':');
            map.insert(key, self.value());
            self.takes(b',');
        }
        Value::Map(map)
    }

    fn list(&mut self) -> Value {
        let mut list = Vec::new();
        self.expect(b'[');
        while !self.takes(b']') {
            list.push(self.value());
            self.takes(b',');
        }
        Value::List(list)
    }

    fn string(&mut self) -> String {
        let mut string = String::new();
        self.expect(b'"');
        while !self.takes(b'"') {
            let escaped = self.takes(b'\\');
            let byte = self.bytes[self.at];
            self.at += 1;
            string.push(if escaped { '\n' } else { char::from(byte) });
        }
        string
    }

    fn word(&mut self, word: &str, value: Value) -> Value {
        assert!(self.bytes[self.at..].starts_with(word.as_bytes()), "expected {word}");
        self.at += word.len();
        value
    }

    fn number(&mut self) -> Value {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().take_while(|b| b"+-.0123456789eE".contains(b)).count();
        self.at += length;
        let text = std::str::from_utf8(&rest[..length]).unwrap_or_default();
        Value::Number(text.parse().expect("a number"))
    }
}

fn digest(value: &Value) -> u64 {
    match value {
        Value::Null => 1,
        Value::Bool(b) => 2 + u64::from(*b),
        Value::Number(number) => number.to_bits(),
        Value::Text(text) => text.bytes().map(u64::from).sum(),
        Value::List(list) => list.iter().map(digest).fold(list.len() as u64, add),
        Value::Map(map) => {
            map.iter().map(|(key, value)| digest(value) ^ key.len() as u64).fold(0, add)
        }
    }
}
