//! Figures of a handful of runs: quartiles, spread, geometric means.

/// What a series of measurements of one thing came to. Units are those of the measurements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stat {
    /// The smallest.
    pub min: f64,
    /// The first quartile.
    pub p25: f64,
    /// The middle one, or the mean of the two in the middle.
    pub median: f64,
    /// The third quartile.
    pub p75: f64,
    /// The largest.
    pub max: f64,
    /// How many there were.
    pub count: usize,
}

impl Stat {
    /// The figures of these measurements; `None` if there are none.
    pub fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let at = |share| quantile(&sorted, share);
        Some(Self { min, p25: at(0.25), median: at(0.5), p75: at(0.75), max, count: sorted.len() })
    }

    /// Distance of the quartiles in parts of the median: 0.05 says that half of the runs lie within
    /// 5 % of each other. 0 for a median of 0.
    pub fn spread(&self) -> f64 {
        if self.median == 0.0 { 0.0 } else { (self.p75 - self.p25) / self.median }
    }
}

/// The value below which `share` of a sorted, non-empty series lies, by linear interpolation.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let position = share * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[position.floor() as usize], sorted[position.ceil() as usize]);
    below + (above - below) * position.fract()
}

/// The geometric mean of positive figures; `None` if there are none.
pub fn geometric_mean(figures: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0u32);
    for figure in figures {
        sum += figure.ln();
        count += 1;
    }
    (count > 0).then(|| (sum / f64::from(count)).exp())
}

/// The median; `None` if there is nothing to take it of.
pub fn median(samples: &[f64]) -> Option<f64> {
    Stat::of(samples).map(|stat| stat.median)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_interpolate_and_do_not_depend_on_the_order() {
        let stat = Stat::of(&[4.0, 1.0, 3.0, 2.0, 5.0]).unwrap();
        assert_eq!(
            (stat.min, stat.p25, stat.median, stat.p75, stat.max),
            (1.0, 2.0, 3.0, 4.0, 5.0)
        );
        assert_eq!(stat.count, 5);
        assert_eq!(Stat::of(&[1.0, 2.0]).unwrap().median, 1.5);
        assert_eq!(Stat::of(&[7.0]).unwrap().spread(), 0.0);
        assert_eq!(Stat::of(&[]), None);
    }

    #[test]
    fn the_spread_is_relative_to_the_median() {
        let stat = Stat::of(&[8.0, 9.0, 10.0, 11.0, 12.0]).unwrap();
        assert!((stat.spread() - 0.2).abs() < 1e-12);
        assert_eq!(Stat::of(&[0.0, 0.0]).unwrap().spread(), 0.0);
    }

    #[test]
    fn twice_and_half_make_one() {
        let mean = geometric_mean([2.0, 0.5]).unwrap();
        assert!((mean - 1.0).abs() < 1e-12);
        assert_eq!(geometric_mean([]), None);
    }
}
