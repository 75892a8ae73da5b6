use super::*;

/// As 18.16 and releases of today answer.
fn answer(change: impl Fn(&str, &str) -> Option<String>) -> String {
    let columns = COLUMNS.iter().filter_map(|(name, kind)| change(name, kind));
    let made = "second\tDateTime(\\'UTC\\')\tMATERIALIZED\ttoDateTime(intDiv(time, 1000000000))";
    columns.chain([made.to_owned()]).collect::<Vec<_>>().join("\n")
}

fn as_made(name: &str, kind: &str) -> String {
    format!("{name}\t{}\t\t\t\t\t", kind.replace('\'', "\\'"))
}

fn refused(answer: &str) -> String {
    let trouble = check("`flowlog`.`flow`", answer).unwrap_err();
    assert!(trouble.needs_a_person());
    trouble.to_string()
}

#[test]
fn the_table_of_the_files_is_good() {
    assert_eq!(check("t", &answer(|name, kind| Some(as_made(name, kind)))), Ok(()));
    let today = answer(|name, kind| {
        let kind = match kind {
            "String" => "LowCardinality(String)",
            "FixedString(16)" => "IPv6",
            kind => kind,
        };
        Some(as_made(name, kind))
    });
    assert_eq!(check("t", &today), Ok(()));
}

#[test]
fn a_missing_column_is_told_with_the_statement_that_adds_it() {
    let lacks =
        answer(|name, kind| (!matches!(name, "comm" | "hash")).then(|| as_made(name, kind)));
    assert_eq!(
        refused(&lacks),
        "the table `flowlog`.`flow` lacks columns; run `ALTER TABLE `flowlog`.`flow` ADD COLUMN \
         hash UInt64, ADD COLUMN comm String`"
    );
}

#[test]
fn another_type_is_told() {
    let other =
        answer(|name, kind| Some(as_made(name, if name == "mark" { "UInt64" } else { kind })));
    assert!(
        refused(&other).contains("mark is UInt64, not UInt32; rename it"),
        "{}",
        refused(&other)
    );
    let made = answer(|name, kind| {
        let made =
            if name == "nat" { format!("nat\t{kind}\tALIAS\t1") } else { as_made(name, kind) };
        Some(made)
    });
    assert!(refused(&made).contains("nat is ALIAS UInt8, not UInt8"), "{}", refused(&made));
    assert!(refused("id\tUInt64\t\t").contains("it lacks most columns; rename it"));
}
