//! The zone of an authoritative server: its names, each with one address.

use std::fmt::Write;

/// The longest suffix that all names have and none is, with a dot at the end.
pub(super) fn apex(names: &[String]) -> String {
    let mut names = names.iter().map(|name| labels(name).rev().collect::<Vec<_>>());
    let Some(mut common) = names.next() else {
        return ".".to_owned();
    };
    common.pop();
    for name in names {
        let parents = &name[..name.len().saturating_sub(1)];
        let same =
            common.iter().zip(parents).take_while(|(a, b)| a.eq_ignore_ascii_case(b)).count();
        common.truncate(same);
    }
    common.reverse();
    common.join(".") + "."
}

/// The zone in the format of RFC 1035 §5.
pub(super) fn text(names: &[String]) -> String {
    let apex = apex(names);
    // Under the root, `ns` is a name as well.
    let server = if apex == "." { "ns.".to_owned() } else { format!("ns.{apex}") };
    let mut text = format!(
        "{apex} 86400 IN SOA {server} {server} 1 3600 600 86400 86400\n{apex} 86400 IN NS \
         {server}\n"
    );
    for (number, name) in names.iter().enumerate() {
        let name = name.trim_end_matches('.');
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name}. 86400 IN A 192.0.2.{}", number % 256);
    }
    text
}

fn labels(name: &str) -> impl DoubleEndedIterator<Item = &str> {
    name.split('.').filter(|label| !label.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apex_of(names: &[&str]) -> String {
        apex(&names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_apex_is_what_all_names_are_under() {
        assert_eq!(apex_of(&["a.b.c", "d.b.C."]), "b.c.");
        assert_eq!(apex_of(&["a.b.c", "b.c"]), "c.");
        assert_eq!(apex_of(&["a.com", "a.org"]), ".");
        assert_eq!(apex_of(&["com"]), ".");
        assert_eq!(apex_of(&[]), ".");
    }

    #[test]
    fn every_name_has_an_address() {
        let text = text(&["n0.example.".to_owned(), "n1.example".to_owned()]);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("example. 86400 IN SOA ns.example. "), "{text}");
        assert_eq!(lines[1], "example. 86400 IN NS ns.example.");
        assert_eq!(
            lines[2..],
            ["n0.example. 86400 IN A 192.0.2.0", "n1.example. 86400 IN A 192.0.2.1"]
        );
    }
}
