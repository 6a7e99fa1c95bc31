//! 2C: registration with addresses, passwords and names that are wrong, alike, or absurd.

use serde_json::json;

use super::oracle::PASSWORD;
use super::wire::{exchange, posted};
use super::{Case, LOGIN, REGISTER, Stage, case, each_engine};

const TAKEN: &str = "409 email_taken";

fn body(email: &str, password: &str) -> Vec<u8> {
    posted(REGISTER, json!({"email": email, "password": password}).to_string())
}

fn login(email: &str, password: &str) -> Vec<u8> {
    posted(LOGIN, json!({"email": email, "password": password}).to_string())
}

#[tokio::test]
async fn registrations() {
    let never = [
        ("a letter that a database cannot keep", "SELECT COUNT(*) FROM users WHERE email LIKE '%broken%'"),
        ("an account twice", "SELECT COUNT(*) - 1 FROM users WHERE email_canonical = 'canary.crowd@example.com'"),
        (
            "what a client may not decide",
            "SELECT COUNT(*) FROM users WHERE id > 1000000 OR NOT is_active OR password_version <> 0",
        ),
    ];
    each_engine(&[], &never, async |stage| {
        for case in addresses().iter().chain(&alike()).chain(&passwords()).chain(&others()) {
            stage.run(case);
        }
        crowd(stage);
    })
    .await;
}

/// None of these is an address.
fn addresses() -> Vec<Case> {
    let long = "a".repeat(65);
    let label = format!("a@{}.org", "b".repeat(64));
    let whole = format!("{}@{}.org", "a".repeat(60), format!("{}.", "b".repeat(60)).repeat(4).trim_end_matches('.'));
    let huge = format!("{}@example.com", "a".repeat(5000));
    let rows = [
        ("C01", "broken.example.com"),
        ("C01", "broken@@example.com"),
        ("C01", "broken@a@example.com"),
        ("C01", "@example.com"),
        ("C01", "broken@"),
        ("C01", "@"),
        ("C01", ""),
        ("+C01", " "),
        ("C02", &format!("{long}@example.com")),
        ("C02", &label),
        ("C02", &whole),
        ("+C02", &huge),
        ("C04", "\"a b\"@example.com"),
        ("C04", "a(b)broken@example.com"),
        ("C04", "broken@[127.0.0.1]"),
        ("C04", "broken@[IPv6:::1]"),
        ("+C04", "broken@127.0.0.1"),
        ("+C04", "\"\"@example.com"),
        ("+C04", "<script>broken</script>@example.com"),
        ("+C04", "broken@example.com>"),
        ("+C04", "<broken@example.com"),
        ("+C04", "broken@example.com, other@example.com"),
        ("+C04", "broken@example.com;other@example.com"),
        ("+C04", "broken@example.com\nother@example.com"),
        ("+C04", "broken@example.com?bcc=other@example.com"),
        ("+C04", "mailto:broken@example.com"),
        ("+C04", "broken @example.com"),
        ("+C04", "broken\t@example.com"),
        ("+C04", ".broken@example.com"),
        ("+C04", "broken.@example.com"),
        ("+C04", "bro..ken@example.com"),
        ("+C04", "broken@-example.com"),
        ("+C04", "broken@example-.com"),
        ("+C04", "broken@exa mple.com"),
        ("+C04", "broken@exa_mple.com"),
        ("+C04", "broken@example..com"),
        ("+C04", "broken@.example.com"),
        ("+C04", "broken@example"),
        ("+C04", "broken@localhost"),
        ("+C04", "broken@mail.invalid"),
        ("+C04", "broken@mail.test"),
        ("+C04", "broken@example.123"),
        ("+C04", "broken@xn--"),
        ("+C04", "broken@xn--a.org"),
        ("+C04", "broken@xn--zzzzzz99999999.org"),
        ("+C04", "broken@\u{202e}gro.elpmaxe"),
        ("C09", "br\u{43e}ken@example.com"),
        ("+C09", "\u{430}\u{3b1}@example.com"),
        ("C11", "bro\u{200b}ken@example.com"),
        ("C11", "bro\u{202e}ken@example.com"),
        ("C11", "bro\u{ad}ken@example.com"),
        ("C11", "bro\u{fe0f}ken@example.com"),
        ("+C11", "bro\u{2066}ken@example.com"),
        ("+C11", "bro\u{e0041}ken@example.com"),
        ("+C11", "bro\u{feff}ken@example.com"),
        ("+C11", "bro\u{3164}ken@example.com"),
        ("+C11", "broken@exa\u{200d}mple.com"),
        ("+C11", "bro\u{85}ken@example.com"),
        ("+C11", "bro\u{2028}ken@example.com"),
        ("+C11", "\u{ff42}roken@example.com"),
        ("+C11", "bro\u{212a}en@example.com"),
        ("+C11", "bro\u{fdfa}ken@example.com"),
        ("+C11", "broken\u{0}@example.com"),
        ("+C11", "broken@example.com\u{0}"),
        ("+C11", "broken@e\u{301}\u{301}\u{301}\u{0}.com"),
        ("C15", "broken@example.com."),
        ("C15", "broken@example.com.."),
    ];
    let mut cases: Vec<Case> =
        rows.into_iter().map(|(id, email)| case(id, format!("{email:.40?}"), body(email, PASSWORD), "422")).collect();
    for mark in ["\u{301}", "\u{20dd}", "\u{1ab0}"] {
        let stacked = format!("bro{}ken@example.com", mark.repeat(3000));
        cases.push(case("+C11", format!("3,000 marks {mark:?}"), body(&stacked, PASSWORD), "422"));
    }
    // Quadratic readers would take minutes.
    for (name, email) in [
        ("4,000 brackets", "<".repeat(4000)),
        ("4,000 quotes", "\"".repeat(4000)),
        ("4,000 at-signs", "@".repeat(4000)),
        ("4,000 dots", format!("broken@{}", ".".repeat(4000))),
        ("4,000 labels", format!("broken@{}com", "a.".repeat(4000))),
        ("4,000 labels of Punycode", format!("broken@{}com", "xn--a.".repeat(2000))),
        ("a label of Punycode of 8 KiB", format!("broken@xn--{}.com", "9".repeat(8 << 10))),
        ("a backslash many times", format!("\"{}@example.com", "\\".repeat(4000))),
    ] {
        cases.push(case("+C02", name, body(&email, PASSWORD), "422"));
    }
    cases
}

/// One account, however it is written (UTS 39, UTS 46).
fn alike() -> Vec<Case> {
    let rows = [
        ("C05", "canary.First@example.com", "201"),
        ("C05", "canary.second@EXAMPLE.com", "201"),
        ("C05", "canary.second@example.COM", TAKEN),
        ("C06", "CANARY.SECOND@example.com", TAKEN),
        ("+C06", " canary.second@example.com\t", TAKEN),
        ("+C06", "Second <canary.second@example.com>", TAKEN),
        ("C08", "canary.caf\u{e9}@example.com", "201"),
        ("C08", "canary.cafe\u{301}@example.com", TAKEN),
        ("+C08", "canary.CAFE\u{301}@example.com", TAKEN),
        ("C12", "canary@\u{43f}\u{440}\u{438}\u{43c}\u{435}\u{440}.\u{440}\u{444}", "201"),
        ("C12", "canary@xn--e1afmkfd.xn--p1ai", TAKEN),
        ("+C12", "canary@\u{41f}\u{420}\u{418}\u{41c}\u{415}\u{420}.\u{440}\u{444}", TAKEN),
        ("+C12", "canary@XN--E1AFMKFD.xn--p1ai", TAKEN),
        ("+C12", "canary.second@example\u{3002}com", TAKEN),
        ("+C12", "canary.second@\u{ff45}xample.com", TAKEN),
        ("C14", "canary.second+tag@example.com", "201"),
        ("+C14", "canarysecond@example.com", "201"),
        ("C25", "canary.second@example.com", TAKEN),
    ];
    // The account of the set-up is there already.
    rows.into_iter()
        .map(|(id, email, expected)| {
            let expected = if email == "canary.First@example.com" { TAKEN } else { expected };
            case(id, format!("{email:?}"), body(email, PASSWORD), expected)
        })
        .collect()
}

/// Lengths are counted in characters as typed (8 to 128), and what was typed counts.
fn passwords() -> Vec<Case> {
    let mut cases = Vec::new();
    let (family, rtl) = ("\u{1f469}\u{200d}\u{1f469}\u{200d}\u{1f467}", "C4nary\u{202e}\u{5e9}\u{5dc}\u{5d5}\u{5dd}");
    let wide = "\u{1f511}\u{1f512}".repeat(64);
    let alike = format!("C4nary{}", "x".repeat(66));
    let good: [(&str, &str, String); 7] = [
        ("C16", "8 characters", "C4nary!x".to_owned()),
        ("C16", "128 characters", "C4nary!x".repeat(16)),
        ("C16", "128 characters of 512 bytes", wide),
        ("C18", "blanks around", "  C4nary!Passw0rd  ".to_owned()),
        ("C19", "joined emoji", family.repeat(3)),
        ("C19", "right to left", rtl.to_owned()),
        ("C22", "73 bytes", format!("{alike}a")),
    ];
    for (at, (id, name, password)) in good.iter().enumerate() {
        let email = format!("canary.password{at}@example.com");
        cases.push(case(id, *name, body(&email, password), "201"));
        cases.push(case(id, format!("{name}: signs in"), login(&email, password), "200"));
    }
    cases.extend([
        case(
            "C18",
            "without the blanks",
            login("canary.password3@example.com", "C4nary!Passw0rd"),
            "401 invalid_credentials",
        ),
        case(
            "+C18",
            "with a no-break space",
            login("canary.password3@example.com", "\u{a0} C4nary!Passw0rd  "),
            "401 invalid_credentials",
        ),
        case(
            "+C16",
            "the last character differs",
            login("canary.password1@example.com", &format!("{}C4nary!y", "C4nary!x".repeat(15))),
            "401 invalid_credentials",
        ),
        case(
            "+C19",
            "another order of emoji",
            login("canary.password4@example.com", &"\u{1f467}\u{200d}\u{1f469}\u{200d}\u{1f469}".repeat(3)),
            "401 invalid_credentials",
        ),
        case(
            "C22",
            "equal in 72 bytes",
            login("canary.password6@example.com", &format!("{alike}b")),
            "401 invalid_credentials",
        ),
    ]);
    let bad: [(&str, &str, String, &str); 13] = [
        ("C16", "7 characters", "C4nary!".to_owned(), "422"),
        ("C16", "129 characters", "C4nary!x".repeat(16) + "x", "422"),
        ("C16", "1,025 bytes", "\u{1f511}".repeat(257), "422"),
        ("+C16", "none", String::new(), "422"),
        ("+C16", "7 emoji of 28 bytes", "\u{1f511}".repeat(7), "422"),
        ("+C16", "8 characters that are 4 after NFC", "e\u{301}".repeat(4), "422"),
        ("C21", "1 MiB", "C4nary!x".repeat(1 << 17), "413 payload_too_large"),
        ("+C21", "10 KiB", "C4nary!x".repeat(1280), "422"),
        ("+T04", "one character", "C".repeat(20), "422"),
        ("+T04", "8 blanks", " ".repeat(8), "422"),
        ("+T04", "a common one", "password123".to_owned(), "422"),
        ("+T04", "the address", "broken@example.com".to_owned(), "422"),
        ("B22", "NUL", "C4nary!\0Passw0rd".to_owned(), "422"),
    ];
    cases.extend(
        bad.map(|(id, name, password, expected)| case(id, name, body("broken@example.com", &password), expected)),
    );
    cases
}

fn others() -> Vec<Case> {
    let with = |email: &str, members: &str| {
        posted(REGISTER, format!(r#"{{"email":"{email}","password":"{PASSWORD}"{members}}}"#))
    };
    let name = |at: usize, name: &str| {
        let body = json!({"email": format!("canary.name{at}@example.com"), "password": PASSWORD, "full_name": name});
        posted(REGISTER, body.to_string())
    };
    let all = r#","id":1,"created_at":"1970-01-01T00:00:00Z","email_verified":true,"is_superuser":true,"is_active":false,"password_version":9,"hashed_password":"$argon2id$x","subject":"x""#;
    vec![
        case("C28", "what a client may not decide", with("canary.decides@example.com", all), "201"),
        case("+C28", "a full name of null", with("canary.null@example.com", r#","full_name":null"#), "201"),
        case("+C28", "SQL", name(1, "'; DROP TABLE users; -- $1 ? %s"), "201"),
        case("+C28", "markup", name(2, "<img src=x onerror=alert(1)>\u{202e}"), "201"),
        case("+C28", "255 characters of 1,020 bytes", name(3, &"\u{1f511}".repeat(255)), "201"),
        case("+C28", "256 characters", name(4, &"a".repeat(256)), "422"),
        case("+C28", "10 KiB", name(4, &"a".repeat(10 << 10)), "422"),
        case("+C28", "controls", name(5, "a\u{1b}[31m\r\nSet-Cookie: x\u{7f}\u{85}"), "201"),
        case("+C28", "noncharacters", name(6, "\u{fffe}\u{ffff}\u{10ffff}\u{fdd0}"), "201"),
        case("+C28", "a template", name(7, "{{7*7}}${7*7}<%= 7*7 %>#{7*7}"), "201"),
    ]
}

/// C24: of many at once one wins. On two replicas: `rest/users.rs`.
fn crowd(stage: &mut Stage) {
    let address = stage.address;
    let bytes = body("canary.crowd@example.com", PASSWORD);
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..50).map(|_| scope.spawn(|| exchange(address, &bytes, 1))).collect();
        asked.into_iter().flat_map(|handle| handle.join().unwrap().answers).map(|answer| answer.status).collect()
    });
    let count = |status: u16| statuses.iter().filter(|one| **one == status).count();
    if count(201) != 1 || count(201) + count(409) + count(503) != 50 {
        stage.fault(&format!("C24: {statuses:?}"));
    }
    for fault in stage.health() {
        stage.fault(&format!("C24: {fault}"));
    }
}
