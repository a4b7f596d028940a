//! Values as they stand on the command line.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The most addresses in a range.
const SOURCES_MAX: u32 = 4096;

/// A duration of at most a day: `5s`, `500ms`, `2m`, or plain seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let scale = match unit {
        "" | "s" => 1.0,
        "us" => 1e-6,
        "ms" => 1e-3,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("unknown unit {unit}: one of us, ms, s, m, h is expected")),
    };
    let seconds = number.parse::<f64>().ok().map(|number| number * scale);
    match seconds {
        Some(seconds) if (1e-6..=86_400.0).contains(&seconds) => {
            Ok(Duration::from_secs_f64(seconds))
        }
        Some(_) => Err("not between 1us and 24h".to_owned()),
        None => Err("not a duration such as 5s, 500ms or 10".to_owned()),
    }
}

/// A rate of 1 to 100 million queries per second, with suffix k or M.
pub fn rate(text: &str) -> Result<f64, String> {
    let (number, scale) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1e3),
        Some(b'M') => (&text[..text.len() - 1], 1e6),
        _ => (text, 1.0),
    };
    match number.parse::<f64>().map(|number| number * scale) {
        Ok(rate) if (1.0..=1e8).contains(&rate) => Ok(rate),
        _ => Err("not a rate from 1 to 100M queries per second".to_owned()),
    }
}

/// A share from 0 to 1, also as `0.1%`.
pub fn share(text: &str) -> Result<f64, String> {
    let (number, scale) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 0.01));
    match number.trim_end().parse::<f64>().map(|number| number * scale) {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("not a share such as 0.001 or 0.1%".to_owned()),
    }
}

/// Addresses `FIRST-LAST`, both included, or a single one.
pub fn sources(text: &str) -> Result<Vec<IpAddr>, String> {
    let parse = |text: &str| {
        text.trim().parse::<IpAddr>().map_err(|_| format!("{text} is not an IP address"))
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let count = |distance: Option<u32>| match distance {
        Some(distance) if distance < SOURCES_MAX => Ok(0..=distance),
        _ => Err(format!("the range is empty or of more than {SOURCES_MAX} addresses")),
    };
    match (parse(first)?, parse(last)?) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            let first = first.to_bits();
            let range = count(last.to_bits().checked_sub(first))?;
            Ok(range.map(|offset| std::net::Ipv4Addr::from_bits(first + offset).into()).collect())
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            let first = first.to_bits();
            let distance = last.to_bits().checked_sub(first).and_then(|d| u32::try_from(d).ok());
            let at = |offset| std::net::Ipv6Addr::from_bits(first + u128::from(offset)).into();
            Ok(count(distance)?.map(at).collect())
        }
        _ => Err("one is an IPv4 and the other an IPv6 address".to_owned()),
    }
}

/// `N,EXPONENT`: how many names, and how steep the distribution is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Zipf {
    /// Names.
    pub count: usize,
    /// 0 asks for all alike; 1 is the classic one.
    pub exponent: f64,
}

/// `N` or `N,EXPONENT`; the exponent is 1 if left out.
pub fn zipf(text: &str) -> Result<Zipf, String> {
    let (names, exponent) = text.split_once(',').unwrap_or((text, "1"));
    let exponent = exponent
        .parse()
        .ok()
        .filter(|exponent| (0.0..=10.0).contains(exponent))
        .ok_or("the exponent is not between 0 and 10, as in 100000,1.0")?;
    Ok(Zipf { count: count(names)?, exponent })
}

/// A number of names.
pub fn count(text: &str) -> Result<usize, String> {
    let max = crate::MAX_QUERIES;
    let number = text.parse().ok().filter(|number| (1..=max).contains(number));
    number.ok_or_else(|| format!("not a number of names from 1 to {max}"))
}

/// Where queries come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// A query file.
    File(PathBuf),
    /// A recording.
    Pcap(PathBuf),
    /// Built-in names.
    Zipf(Zipf),
    /// Names that are never asked twice, under this suffix.
    Fresh(String),
}

/// `SHARE=KIND:VALUE`: a source and its share of the queries.
pub fn mix(text: &str) -> Result<(f64, Source), String> {
    const EXPECTED: &str = "SHARE=KIND:VALUE is expected, with queries:FILE, pcap:FILE, \
                            zipf:N,EXP, uniform:N or random:SUFFIX, as in 70=zipf:10000,1.0";
    let (share, source) = text.split_once('=').ok_or(EXPECTED)?;
    let share: f64 = share.parse().map_err(|_| EXPECTED)?;
    if !(share > 0.0 && share <= 1e9) {
        return Err("the share is not above 0".to_owned());
    }
    let (kind, value) = source.split_once(':').ok_or(EXPECTED)?;
    let source = match kind {
        "queries" => Source::File(value.into()),
        "pcap" => Source::Pcap(value.into()),
        "zipf" => Source::Zipf(zipf(value)?),
        "uniform" => Source::Zipf(Zipf { count: count(value)?, exponent: 0.0 }),
        "random" => Source::Fresh(value.to_owned()),
        _ => return Err(EXPECTED.to_owned()),
    };
    Ok((share, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, ms) in
            [("5s", 5000), ("500ms", 500), ("10", 10_000), ("0.5", 500), ("2m", 120_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "-1", "0", "5x", "25h", "nan", "inf", "1e9"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_and_shares() {
        assert_eq!(rate("20k"), Ok(20_000.0));
        assert_eq!(rate("1.5M"), Ok(1_500_000.0));
        assert!(["0", "-5", "nan", "1G", "", "k", "101M"].iter().all(|text| rate(text).is_err()));
        assert_eq!(share("0.1%"), Ok(0.001));
        assert_eq!(share("0.25"), Ok(0.25));
        assert!(["2", "101%", "", "%", "-0.1"].iter().all(|text| share(text).is_err()));
    }

    #[test]
    fn ranges_of_sources() {
        assert_eq!(sources("127.0.0.1").map(|s| s.len()), Ok(1));
        let range = sources("127.0.0.250-127.0.1.3").expect("a range");
        assert_eq!((range.len(), range[9]), (10, [127, 0, 1, 3].into()));
        assert_eq!(sources("fd00::1-fd00::4").map(|s| s.len()), Ok(4));
        for text in ["127.0.0.2-127.0.0.1", "::1-127.0.0.1", "x", "10.0.0.0-10.1.0.0", "::-ff::"] {
            assert!(sources(text).is_err(), "{text}");
        }
    }

    #[test]
    fn mixes() {
        let zipf = Zipf { count: 10_000, exponent: 0.9 };
        assert_eq!(mix("70=zipf:10000,0.9"), Ok((70.0, Source::Zipf(zipf))));
        assert_eq!(mix("1=random:x.example"), Ok((1.0, Source::Fresh("x.example".to_owned()))));
        assert_eq!(mix("5=queries:a:b"), Ok((5.0, Source::File("a:b".into()))));
        for text in ["", "zipf:1", "0=zipf:1", "5=zipf", "5=other:1", "5=zipf:0", "5=zipf:9,99"] {
            assert!(mix(text).is_err(), "{text}");
        }
    }
}
