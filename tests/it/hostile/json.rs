//! 2B: bodies of registration and sign-in that are not the JSON they should be.

use serde_json::json;

use super::oracle::PASSWORD;
use super::wire::{posted, posted_as, request};
use super::{Case, LOGIN, REGISTER, case, each_engine};

const ALICE: &str = "canary.alice@example.com";

#[tokio::test]
async fn json() {
    let never = [("an account of a broken body", "SELECT COUNT(*) FROM users WHERE email LIKE '%broken%'")];
    each_engine(&[], &never, async |stage| {
        stage.account(ALICE);
        for path in [REGISTER, LOGIN] {
            for case in broken(path).iter().chain(&wrong_types(path)).chain(&other_encodings(path)) {
                stage.run(case);
            }
        }
        for case in accepted().iter().chain(&media_types()) {
            stage.run(case);
        }
    })
    .await;
}

/// A body whose members are all right, so that what is wrong is the form.
fn with(members: &str) -> String {
    format!(r#"{{"email":"canary.broken@example.com","password":"{PASSWORD}"{members}}}"#)
}

/// So many members that nobody knows.
fn members(count: usize) -> String {
    (0..count).map(|at| format!(r#","k{at}":0"#)).collect::<Vec<_>>().concat()
}

fn broken(path: &str) -> Vec<Case> {
    let good = with("");
    let deep = |open: &str, close: &str, depth: usize| {
        with(&format!(r#","x":{}1{}"#, open.repeat(depth), close.repeat(depth)))
    };
    let many = members(100_000);
    let rows: Vec<(&str, &str, String, &str)> = vec![
        ("B02", "null", "null".to_owned(), "422"),
        ("B02", "[]", "[]".to_owned(), "422"),
        ("B02", "a text", r#""C4nary""#.to_owned(), "422"),
        ("B02", "1", "1".to_owned(), "422"),
        ("B02", "true", "true".to_owned(), "422"),
        ("+B02", "the object in a list", format!("[{good}]"), "422"),
        ("+B02", "the object in a text", json!(good).to_string(), "422"),
        ("+B02", "nothing", String::new(), "422"),
        ("+B02", "blanks", " \t\r\n".to_owned(), "422"),
        ("+B02", "16 KiB of blanks", " ".repeat(16 << 10), "422"),
        ("B03", "truncated", good[..good.len() / 2].to_owned(), "422"),
        ("+B03", "without its last bracket", good[..good.len() - 1].to_owned(), "422"),
        ("B05", "two objects", format!("{good}{good}"), "422"),
        ("B05", "rubbish behind", format!("{good}x"), "422"),
        ("+B05", "two objects in two lines", format!("{good}\n{good}"), "422"),
        ("+B05", "NUL behind", format!("{good}\0"), "422"),
        ("+B05", "NUL before", format!("\0{good}"), "422"),
        ("+B05", "a comma first", format!(",{good}"), "422"),
        ("B06", "a byte order mark", format!("\u{feff}{good}"), "422"),
        ("+B06", "a record separator (RFC 7464)", format!("\u{1e}{good}\n"), "422"),
        ("+B06", "a prefix against hijacking", format!(")]}}',\n{good}"), "422"),
        ("B09", "a lone surrogate", with(r#","x":"\ud800""#), "422"),
        ("+B09", "surrogates in the other order", with(r#","x":"\udc00\ud800""#), "422"),
        ("+B09", "a high surrogate twice", with(r#","x":"\ud800\ud800""#), "422"),
        ("+B09", "half an escape", with(r#","x":"\u00""#), "422"),
        ("+B09", "an escape that there is not", with(r#","x":"\x41""#), "422"),
        ("+B09", "a raw line break in a text", with(",\"x\":\"a\nb\""), "422"),
        ("+B09", "a raw NUL in a text", with(",\"x\":\"a\0b\""), "422"),
        ("B10", "an address twice", with(r#","email":"canary.other@example.com""#), "422"),
        ("+B10", "a password twice", with(r#","password":"C4nary!0ther""#), "422"),
        ("+B10", "an address twice, escaped", with(r#","\u0065mail":"canary.other@example.com""#), "422"),
        ("+B10", "an unknown member twice", with(r#","x":1,"x":2"#), "422"),
        ("+B10", "a member twice deep down", with(r#","x":{"y":[{"z":1,"z":2}]}"#), "422"),
        ("B15", "33 lists", deep("[", "]", 32), "422"),
        ("B15", "128 lists", deep("[", "]", 128), "422"),
        ("+B15", "128 objects", deep(r#"{"a":"#, "}", 128), "422"),
        ("B15", "8,000 lists", deep("[", "]", 8000), "422"),
        ("B15", "100,000 lists", deep("[", "]", 100_000), "413"),
        ("+B15", "16,000 lists without an end", "[".repeat(16_000), "422"),
        ("+B15", "objects without an end", r#"{"a":"#.repeat(3000), "422"),
        ("B16", "100,000 members", with(&many), "413 payload_too_large"),
        ("+B16", "a text of 1 MiB", with(&format!(r#","x":"{}""#, "a".repeat(1 << 20))), "413 payload_too_large"),
        ("+B16", "a name of 15 KiB twice", with(&format!(r#","{0}":1,"{0}":2"#, "a".repeat(7 << 10))), "422"),
        ("+B20", "1e999", with(r#","x":1e999"#), "422"),
        ("+B20", "-1e999", with(r#","x":-1e999"#), "422"),
        ("+B20", "NaN", with(r#","x":NaN"#), "422"),
        ("+B20", "Infinity", with(r#","x":Infinity"#), "422"),
        ("+B20", "0123", with(r#","x":0123"#), "422"),
        ("+B20", "+1", with(r#","x":+1"#), "422"),
        ("+B20", "1.", with(r#","x":1."#), "422"),
        ("+B20", ".5", with(r#","x":.5"#), "422"),
        ("+B20", "0x10", with(r#","x":0x10"#), "422"),
        ("+B20", "1_000", with(r#","x":1_000"#), "422"),
        ("+B20", "a comment", with("/* evil */"), "422"),
        ("+B20", "a comma at the end", with(","), "422"),
        ("+B20", "two commas", with(r#",,"x":1"#), "422"),
        ("+B20", "single quotes", good.replace('"', "'"), "422"),
        ("+B20", "no quotes", "{email:1}".to_owned(), "422"),
        ("+B20", "undefined", with(r#","x":undefined"#), "422"),
        ("+B20", "True", with(r#","x":True"#), "422"),
        ("+B20", "a no-break space", format!("\u{a0}{good}"), "422"),
        ("+B20", "a form feed", format!("\u{c}{good}"), "422"),
        ("+B20", "a list as an object", r#"["email":1]"#.to_owned(), "422"),
        ("+B20", "XML", "<user><email>evil</email></user>".to_owned(), "422"),
        ("+B20", "YAML", "email: evil\npassword: evil\n".to_owned(), "422"),
        ("+B20", "BSON", "\u{16}\0\0\0\u{2}hello\0".to_owned(), "422"),
    ];
    let bytes: [(&str, &str, &[u8]); 6] = [
        ("B08", "overlong NUL", b"{\"email\":\"canary.broken\xc0\x80@x.org\"}"),
        ("B08", "a surrogate in UTF-8", b"{\"email\":\"canary.broken\xed\xa0\x80@x.org\"}"),
        ("B08", "beyond Unicode", b"{\"email\":\"canary.broken\xf5\x80\x80\x80@x.org\"}"),
        ("B08", "a lone 0xFF", b"{\"email\":\"\xff\"}"),
        ("+B08", "an overlong slash in a name", b"{\"em\xc0\xafail\":1}"),
        ("+B08", "a cut sequence", b"{\"email\":\"\xe2\x82\"}"),
    ];
    let texts = rows.into_iter().map(|(id, name, body, expected)| (id, name, body.into_bytes(), expected));
    let bytes = bytes.into_iter().map(|(id, name, body)| (id, name, body.to_vec(), "400"));
    texts
        .chain(bytes)
        .map(|(id, name, body, expected)| case(id, label(path, name), posted(path, body), expected))
        .collect()
}

fn label(path: &str, name: &str) -> String {
    format!("{} {name}", path.rsplit('/').next().unwrap_or_default())
}

/// Nothing is taken for what it is not.
fn wrong_types(path: &str) -> Vec<Case> {
    let others = [
        "1",
        "0",
        "-1",
        "1.5",
        "1e300",
        "true",
        "false",
        "null",
        "[]",
        "{}",
        r#"["a"]"#,
        r#"{"$ne":null}"#,
        r#"{"email":"canary.broken@example.com"}"#,
        r#"[["C4nary"]]"#,
        "99999999999999999999999999999999",
    ];
    let mut cases = Vec::new();
    for other in others {
        let email = format!(r#"{{"email":{other},"password":"{PASSWORD}"}}"#);
        let password = format!(r#"{{"email":"canary.broken@example.com","password":{other}}}"#);
        cases.push(case("B13", label(path, &format!("email {other}")), posted(path, email), "422"));
        cases.push(case("B13", label(path, &format!("password {other}")), posted(path, password), "422"));
        if path == REGISTER && other != "null" {
            let name = with(&format!(r#","full_name":{other}"#));
            cases.push(case("B13", format!("full_name {other}"), posted(path, name), "422"));
        }
    }
    let texts = [
        ("B22", "NUL in the address", r#"{"email":"canary.broken\u0000@example.com","password":"C4nary!Passw0rd"}"#),
        ("B22", "NUL in the password", r#"{"email":"canary.broken@example.com","password":"C4nary!\u0000Passw0rd"}"#),
        (
            "B23",
            "a line break in the address",
            r#"{"email":"canary.broken@x.org\r\nBcc: a@x.org","password":"C4nary!Passw0rd"}"#,
        ),
        (
            "+B23",
            "a line break behind the address",
            r#"{"email":"canary.broken@x.org\n.","password":"C4nary!Passw0rd"}"#,
        ),
        ("+B22", "an empty name", r#"{"":"canary.broken@example.com","password":"C4nary!Passw0rd"}"#),
        ("+B22", "names in another case", r#"{"Email":"canary.broken@example.com","PASSWORD":"C4nary!Passw0rd"}"#),
        ("+B22", "NUL in a name", r#"{"email\u0000":"canary.broken@example.com","password":"C4nary!Passw0rd"}"#),
        ("+B22", "a blank in a name", r#"{"email ":"canary.broken@example.com","password":"C4nary!Passw0rd"}"#),
    ];
    cases.extend(texts.map(|(id, name, body)| case(id, label(path, name), posted(path, body), "422")));
    if path == REGISTER {
        let body = with(r#","full_name":"a\u0000b""#);
        cases.push(case("B22", "NUL in the name", posted(path, body), "422"));
    }
    cases
}

/// JSON is UTF-8 (RFC 8259 8.1), whatever the media type says.
fn other_encodings(path: &str) -> Vec<Case> {
    let good = with("");
    let wide = |to: fn(u16) -> [u8; 2], mark: bool| {
        let mark = mark.then_some(0xfeff);
        mark.into_iter().chain(good.encode_utf16()).flat_map(to).collect::<Vec<u8>>()
    };
    let utf32: Vec<u8> = good.chars().flat_map(|letter| u32::from(letter).to_be_bytes()).collect();
    let latin1 = good.replace("broken", "br\u{f6}ken").chars().map(|letter| letter as u8).collect::<Vec<u8>>();
    let rows = [
        ("UTF-16 LE", wide(u16::to_le_bytes, false), "422"),
        ("UTF-16 BE", wide(u16::to_be_bytes, false), "422"),
        ("UTF-16 LE with a mark", wide(u16::to_le_bytes, true), "400"),
        ("UTF-16 BE with a mark", wide(u16::to_be_bytes, true), "400"),
        ("UTF-32", utf32, "422"),
        ("Latin-1", latin1, "400"),
        ("UTF-7", b"+AHsAIgBlAG0AYQBpAGwAIgA6ADEAfQ-".to_vec(), "422"),
        ("EBCDIC", b"\xc0\x7f\x85\x94\x81\x89\x93\x7f\x7a\xf1\xd0".to_vec(), "400"),
        (
            "gzip without saying so",
            b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xab\xae\x05\0\x43\xbf\xa6\xa3\x02\0\0\0".to_vec(),
            "400",
        ),
        ("protobuf", b"\x0a\x05alice\x12\x08C4nary!!".to_vec(), "422"),
    ];
    rows.into_iter()
        .map(|(name, body, expected)| {
            let bytes = posted_as(path, "application/json; charset=utf-16", body);
            case("+B08", label(path, name), bytes, expected)
        })
        .collect()
}

/// What is odd and still JSON: signs Alice in, and has no effect besides.
fn accepted() -> Vec<Case> {
    let with = |members: &str| posted(LOGIN, format!(r#"{{"email":"{ALICE}","password":"{PASSWORD}"{members}}}"#));
    let nested = format!(r#","x":{}1{}"#, "[".repeat(31), "]".repeat(31));
    let many = members(1000);
    let escaped = PASSWORD.chars().map(|letter| format!("\\u{:04x}", u32::from(letter))).collect::<Vec<_>>().concat();
    let rows: [(&str, &str, Vec<u8>); 10] = [
        ("B12", "an unknown member", with(r#","x":1"#)),
        ("B12", "__proto__", with(r#","__proto__":{"is_superuser":true},"constructor":{"prototype":1}"#)),
        ("B12", "is_admin", with(r#","is_admin":true,"is_superuser":true,"id":1,"user_id":1,"scope":"admin""#)),
        ("+B12", "names in another case besides", with(r#","Email":"x","PASSWORD":"y""#)),
        ("B15", "32 deep", with(&nested)),
        ("B16", "1,000 members", with(&many)),
        ("+B20", "-0, 1E+2, 1e-999", with(r#","x":[-0,1E+2,1e-999,0.0]"#)),
        ("+B20", "a number of 400 digits", with(&format!(r#","x":0.{}"#, "1".repeat(400)))),
        (
            "+B20",
            "blanks everywhere",
            posted(LOGIN, format!(" \t\r\n{{ \"email\" : \"{ALICE}\" ,\n\"password\":\"{PASSWORD}\"\t}}\r\n")),
        ),
        ("+B20", "every letter escaped", posted(LOGIN, format!(r#"{{"email":"{ALICE}","password":"{escaped}"}}"#))),
    ];
    rows.into_iter().map(|(id, name, bytes)| case(id, name, bytes, "200")).collect()
}

/// The seed's rule: none at all is JSON, anything else that is not is a body without an object.
fn media_types() -> Vec<Case> {
    let body = format!(r#"{{"email":"{ALICE}","password":"{PASSWORD}"}}"#);
    let rows = [
        ("B19", "text/json", "422"),
        ("B19", "application/jsonx", "422"),
        ("B19", "application/x-www-form-urlencoded", "422"),
        ("+B19", "multipart/form-data; boundary=x", "422"),
        ("+B19", "application/xml", "422"),
        ("+B19", "application/octet-stream", "422"),
        ("+B19", "application/", "422"),
        ("+B19", "/json", "422"),
        ("+B19", "application/json/evil", "422"),
        ("+B19", "application/json, text/plain", "422"),
        ("+B19", "text/plain; application/json", "422"),
        ("+B19", "*/*", "422"),
        ("+B19", ";", "422"),
        ("B20", "application/json;charset=utf-8", "200"),
        ("B20", "APPLICATION/JSON", "200"),
        ("B20", "application/json ; charset=\"utf-8\"", "200"),
        ("+B20", "application/json;;;", "200"),
        ("+B20", "application/problem+json", "200"),
    ];
    let mut cases: Vec<Case> =
        rows.into_iter().map(|(id, name, expected)| case(id, name, posted_as(LOGIN, name, &body), expected)).collect();
    let length = format!("Content-Length: {}\r\n", body.len());
    let line = format!("POST {LOGIN}");
    let two = format!("{length}Content-Type: text/plain\r\nContent-Type: application/json\r\n");
    let odd = [length.as_bytes(), b"Content-Type: application/json; x=\xff\r\n"].concat();
    cases.extend([
        case("B19", "none", request(&line, &length, &body), "200"),
        case("+B19", "empty", request(&line, format!("{length}Content-Type:\r\n"), &body), "200|422"),
        case("+B19", "two", request(&line, two, &body), "400|422"),
        case("+B19", "bytes above ASCII", request(&line, odd, &body), "200|422"),
    ]);
    cases
}
