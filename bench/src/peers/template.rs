//! Texts with placeholders: a name in capitals between two `@`.

use anyhow::bail;

/// Puts the values in the places of their names. A placeholder that has no value is an error.
pub(super) fn fill(template: &str, values: &[(&str, String)]) -> anyhow::Result<String> {
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('@') {
        text.push_str(before);
        match after.split_once('@') {
            Some((name, behind)) if is_name(name) => {
                let Some((_, value)) = values.iter().find(|(known, _)| *known == name) else {
                    bail!("the placeholder @{name}@ has no value");
                };
                text.push_str(value);
                rest = behind;
            }
            _ => {
                text.push('@');
                rest = after;
            }
        }
    }
    text.push_str(rest);
    Ok(text)
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_replaced_and_other_ats_stay() {
        let values = [("A", "1".to_owned()), ("B_C", "@A@".to_owned())];
        for (template, text) in [
            ("", ""),
            ("x @A@ y", "x 1 y"),
            ("@A@@@A@", "1@1"),
            ("@B_C@", "@A@"),
            ("a@b @A@", "a@b 1"),
            ("@@ @a@ @", "@@ @a@ @"),
        ] {
            assert_eq!(fill(template, &values).expect("known"), text, "{template}");
        }
        let error = fill("@NO@", &values).expect_err("unknown").to_string();
        assert!(error.contains("@NO@"), "{error}");
    }
}
