//! The search for the highest rate within bounds: doubling until a rate fails, then bisection.

/// Tries rates until the highest that passes is known to within `precision` (0.02 is 2 %), and
/// returns it. A rate at which `passes` is false once is not tried again. At most `cap` is tried.
pub fn highest(
    start: f64,
    cap: f64,
    precision: f64,
    mut passes: impl FnMut(f64) -> Option<bool>,
) -> Option<f64> {
    let (mut good, mut bad) = (None, None);
    let mut rate = start.min(cap);
    loop {
        match passes(rate) {
            // Interrupted.
            None => return good,
            Some(true) => good = Some(rate),
            Some(false) => bad = Some(rate),
        }
        rate = match (good, bad) {
            (Some(good), None) if good >= cap => return Some(good),
            (Some(good), None) => (2.0 * good).min(cap),
            // Nothing below one query per second is worth the wait.
            (None, Some(bad)) if bad <= 1.0 => return None,
            (None, Some(bad)) => (bad / 4.0).max(1.0),
            (Some(good), Some(bad)) if bad - good <= precision * good => return Some(good),
            (Some(good), Some(bad)) => f64::midpoint(good, bad),
            (None, None) => return None,
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_interruption_keeps_what_is_known() {
        let mut tries = 0;
        let found = highest(100.0, 1e6, 0.02, |_| {
            tries += 1;
            (tries < 4).then_some(true)
        });
        assert_eq!(found, Some(400.0));
        assert_eq!(highest(100.0, 1e6, 0.02, |_| Some(false)), None);
        assert_eq!(highest(100.0, 300.0, 0.02, |_| Some(true)), Some(300.0));
    }

    proptest! {
        #[test]
        fn the_limit_is_found_in_few_steps(limit in 2.0f64..1e7, start in 1.0f64..1e6) {
            let mut tries = 0;
            let found = highest(start, 1e8, 0.02, |rate| {
                tries += 1;
                Some(rate <= limit)
            });
            let found = found.expect("1 passes");
            prop_assert!(found <= limit && limit <= found * 1.021, "{} {}", found, limit);
            prop_assert!(tries < 50, "{} tries", tries);
        }
    }
}
