//! Short-lived strings and vectors: what a server that formats and splits text does all day.
//!
//! A window of the last 1,024 results stays alive, as open requests do; everything else dies young.
//! After the string loops of the usual language benchmarks.

use crate::Workload;
use crate::params::Params;
use crate::rng::{Rng, mix};

pub const WORKLOAD: &Workload =
    &Workload { name: "strings", about: "short-lived strings and vectors", run };

/// Requests alive at the same time.
const WINDOW: usize = 1024;

fn run(params: &Params) -> u64 {
    let mut rng = Rng::new(0x5712, 0);
    let mut window: Vec<Vec<String>> = vec![Vec::new(); WINDOW];
    let mut sum = 0;
    for round in 0..params.times(900_000) {
        let line = line(&mut rng);
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let joined = words.join("/") + &line[..line.len() / 2];
        sum = mix(sum ^ joined.len() as u64 ^ words.len() as u64);
        // The words live on for a window, the line and what was made of it do not.
        let old = std::mem::replace(&mut window[round % WINDOW], words);
        sum ^= old.iter().map(|word| word.as_bytes()[0] as u64).sum::<u64>();
    }
    sum
}

/// One to sixteen words of one to twenty letters, grown letter by letter as formatting does.
fn line(rng: &mut Rng) -> String {
    let mut text = String::new();
    for word in 0..rng.within(1, 16) {
        if word > 0 {
            text.push(' ');
        }
        let bits = rng.bits();
        for letter in 0..1 + bits % 20 {
            text.push(char::from(b'a' + ((bits >> letter) % 26) as u8));
        }
    }
    text
}
