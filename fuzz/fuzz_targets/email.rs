//! E-mail addresses: any text is accepted or refused, and both forms of an accepted one are itself.
#![no_main]

use authservice::accounts::Email;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|typed: &str| {
    let Ok(email) = Email::parse(typed) else { return };
    let parse = |text: &str| Email::parse(text).unwrap_or_else(|error| panic!("{typed:?} gives {text:?}: {error}"));
    let (shown, canonical) = (parse(email.shown()), parse(email.canonical()));
    assert_eq!(shown, email, "what is shown is another address");
    assert_eq!(canonical.canonical(), email.canonical(), "what is unique is another address");
    assert!(email.canonical().len() <= 512 && !email.canonical().contains(char::is_whitespace));
    assert_eq!(email.canonical().matches('@').count(), 1);
});
