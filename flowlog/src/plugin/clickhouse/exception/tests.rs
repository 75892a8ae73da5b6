use super::*;

/// As 18.16 has it, and releases of today.
const OLD: &str = "Code: 193, e.displayText() = DB::Exception: Wrong password for user flowlog, \
                   e.what() = DB::Exception\n";
const NEW: &str = "Code: 60. DB::Exception: Table flowlog.flow does not exist. Maybe you meant \
                   x?. (UNKNOWN_TABLE) (version 26.9.2.1 (official build))\n";

fn trouble(body: &str, header: Option<u32>) -> Trouble {
    Exception::read(body, header).unwrap().trouble("http://ch:8123/")
}

#[test]
fn an_exception_is_told_with_its_remedy() {
    assert_eq!(
        trouble(OLD, None),
        Trouble::refused(
            "ClickHouse at http://ch:8123/ refuses (code 193): Wrong password for user flowlog; \
             correct `user=` and `password=`, or make the user there"
        )
    );
    assert_eq!(
        trouble(NEW, Some(60)),
        Trouble::refused(
            "ClickHouse at http://ch:8123/ refuses (code 60): Table flowlog.flow does not exist. \
             Maybe you meant x?; make it by conf/fleet/clickhouse.sql, or correct `table=`"
        )
    );
}

#[test]
fn what_may_pass_is_tried_again_soon() {
    let too_many = "Code: 252, e.displayText() = DB::Exception: Too many parts (300). Merges are \
                    processing significantly slower than inserts., e.what() = DB::Exception";
    let trouble = trouble(too_many, None);
    assert!(!trouble.needs_a_person());
    assert!(trouble.to_string().contains("set a larger `linger`"), "{trouble}");
    let unknown = self::trouble("Code: 4711. DB::Exception: Whatever. (WHATEVER)", None);
    assert!(!unknown.needs_a_person() && unknown.to_string().contains("Whatever; see what"));
}

#[test]
fn other_answers_are_none() {
    for body in ["", "1\n", "time\tUInt64\t\t\n", "Code: ", "Codex: 5, x"] {
        assert_eq!(Exception::read(body, None), None, "{body}");
    }
}

#[test]
fn a_long_text_is_cut_between_characters() {
    let body = format!("Code: 1. DB::Exception: {}", "ä".repeat(1000));
    assert_eq!(Exception::read(&body, None).unwrap().text.len(), LIMIT);
    let body = format!("Code: 1. DB::Exception: x{}", "ä".repeat(1000));
    assert_eq!(Exception::read(&body, None).unwrap().text.len(), LIMIT - 1);
}

/// Each code stands once.
#[test]
fn no_code_has_two_remedies() {
    let mut codes: Vec<u32> = KNOWN.iter().flat_map(|(codes, ..)| *codes).copied().collect();
    let count = codes.len();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), count);
}
