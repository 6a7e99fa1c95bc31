//! Which passwords are too easy to guess, whatever their length.
//!
//! `common_passwords.txt` holds 11,500 common passwords of eight characters and more: the 10,000 most frequent of
//! zxcvbn's list (<https://github.com/dwolfhub/zxcvbn-python>, MIT licence, copyright Dan Wheeler, Dropbox, Inc. and
//! Daniel Wolf), then 1,500 of Django's (<https://github.com/django/django>, BSD-3-Clause, copyright Django Software
//! Foundation; collected by Royce Williams). Lower case and sorted by bytes, for a binary search.

use std::sync::LazyLock;

use unicode_normalization::UnicodeNormalization;

use super::email::Email;

static COMMON: LazyLock<Vec<&str>> = LazyLock::new(|| include_str!("common_passwords.txt").lines().collect());

const PRODUCT: &str = "authservice";

/// What makes a password easy to guess. Never holds the password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Weakness {
    /// It is on the list.
    #[error("the password is one of the most common passwords")]
    Common,
    /// It is one character over and over.
    #[error("the password repeats a single character")]
    Repeated,
    /// It is the account's address, its local part or its domain.
    #[error("the password is the e-mail address or a part of it")]
    Address,
    /// It is the account's full name or a long word of it.
    #[error("the password is the name or a part of it")]
    Name,
    /// It is the name of this product.
    #[error("the password is the name of this service")]
    Product,
}

/// Returns why a password must not be set for this account (NIST SP 800-63B-4 3.1.1.2). Its length is judged elsewhere.
pub(crate) fn refuse(password: &str, email: Option<&Email>, full_name: Option<&str>) -> Option<Weakness> {
    let password = caseless(password);
    let mut chars = password.chars();
    let first = chars.next()?;
    if chars.all(|c| c == first) {
        return Some(Weakness::Repeated);
    }
    if password.trim_end_matches(|c: char| !c.is_alphabetic()) == PRODUCT {
        return Some(Weakness::Product);
    }
    if email.is_some_and(|email| is_of_address(&password, email)) {
        return Some(Weakness::Address);
    }
    if full_name.is_some_and(|name| is_of_name(&password, &caseless(name))) {
        return Some(Weakness::Name);
    }
    COMMON.binary_search(&password.as_str()).is_ok().then_some(Weakness::Common)
}

fn is_of_address(password: &str, email: &Email) -> bool {
    [email.canonical(), &caseless(email.shown())].into_iter().any(|address| {
        let parts = address.rsplit_once('@');
        password == address || parts.is_some_and(|(local, domain)| password == local || password == domain)
    })
}

fn is_of_name(password: &str, name: &str) -> bool {
    let is_long_word = |word: &str| word.chars().count() >= 8 && word == password;
    without_blanks(password) == without_blanks(name) || name.split_whitespace().any(is_long_word)
}

fn without_blanks(text: &str) -> String {
    text.split_whitespace().collect()
}

fn caseless(text: &str) -> String {
    text.nfc().flat_map(char::to_lowercase).nfc().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guessable_passwords_are_refused() {
        use Weakness::{Address, Common, Name, Product, Repeated};
        let email = Email::parse("Maximilian@Пример.рф").expect("an address");
        for (name, password, expected) in [
            ("common", "12345678", Some(Common)),
            ("common in another case", "PassWord1", Some(Common)),
            ("first of the list", "!qaz2wsx", Some(Common)),
            ("T04 repeated", "aaaaaaaaaaaaaaa", Some(Repeated)),
            ("repeated in two cases", "ÉéÉéÉéÉé", Some(Repeated)),
            ("repeated, decomposed", "éé\u{65}\u{301}ééééé", Some(Repeated)),
            ("T04 address", "MAXIMILIAN@пример.рф", Some(Address)),
            ("address in ASCII", "maximilian@xn--e1afmkfd.xn--p1ai", Some(Address)),
            ("local part", "maximilian", Some(Address)),
            ("domain", "ПРИМЕР.рф", Some(Address)),
            ("full name", "anna-lena van der berg-schmidt", Some(Name)),
            ("name without blanks", "Anna-LenavanderBerg-Schmidt", Some(Name)),
            ("long word of the name", "anna-lena", Some(Name)),
            ("product", "AuthService", Some(Product)),
            ("product with a tail", "authservice2026!", Some(Product)),
            ("product in a sentence", "authservice is mine", None),
            ("word with a tail that is not on the list", "maximilian-1", None),
            ("seed's example", "Str0ng!Passw0rd", None),
            ("C19 emoji", "👩‍👩‍👧‍👦👩‍👩‍👧", None),
            ("empty", "", None),
        ] {
            assert_eq!(refuse(password, Some(&email), Some("Anna-Lena van der  Berg-Schmidt")), expected, "{name}");
        }
    }

    #[test]
    fn an_account_without_a_name_is_judged_by_the_list() {
        assert_eq!(refuse("maximilian-x", None, None), None);
        assert_eq!(refuse("iloveyou", None, Some("")), Some(Weakness::Common));
    }

    #[test]
    fn the_list_is_sorted_caseless_and_long_enough() {
        assert!(COMMON.len() >= 3000);
        assert!(COMMON.is_sorted_by(|one, next| one < next));
        assert!(COMMON.iter().all(|line| caseless(line) == *line && (8..=128).contains(&line.chars().count())));
    }
}
