//! The e-mail address: which are accepted, how one is shown, and the form by which it is unique.
//!
//! Two sets of rules. The seed's (pydantic's `EmailStr`: email-validator 2.2 without DNS) come first and keep their
//! reason texts, because clients see them. Ours come after: addresses that look alike must not be two accounts
//! (UTS 39).

use std::collections::BTreeSet;
use std::iter::once;
use std::net::{Ipv4Addr, Ipv6Addr};

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};
use unicode_script::{Script, UnicodeScript};

/// An accepted address in its two forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email {
    shown: String,
    canonical: String,
}

/// Why an address is refused: a sentence for the client.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The seed refuses it too, and the text is email-validator's. What can never be accepted (quotes, brackets, broken
    /// IDNA) it explains in less detail.
    #[error("{0}")]
    Syntax(String),
    /// Only our rules refuse it: at sign-in such an address is an unknown user.
    #[error("{0}")]
    Lookalike(String),
}

/// An address as somebody claims it at sign-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// An account may have it.
    Possible(Email),
    /// Only our rules refuse it, so that it is nobody's; what it looks like, roughly.
    Nobodys(String),
}

impl Claimed {
    /// Accepts what the seed's rules accept.
    pub fn parse(typed: &str) -> Result<Self, Error> {
        match Email::parse(typed) {
            Ok(email) => Ok(Self::Possible(email)),
            Err(Error::Lookalike(_)) => Ok(Self::Nobodys(typed.nfkc().flat_map(char::to_lowercase).collect())),
            Err(refusal) => Err(refusal),
        }
    }

    /// The address itself, when an account may have it.
    #[must_use]
    pub fn email(&self) -> Option<&Email> {
        match self {
            Self::Possible(email) => Some(email),
            Self::Nobodys(_) => None,
        }
    }

    /// What guesses are counted by: one text for everything that is the same address.
    pub(super) fn account(&self) -> &str {
        match self {
            Self::Possible(email) => email.canonical(),
            Self::Nobodys(text) => text,
        }
    }
}

/// `Err` is the reason.
type Checked<T = ()> = Result<T, String>;

impl Email {
    /// Accepts an address as a person types it, `Name <address>` included.
    pub fn parse(typed: &str) -> Result<Self, Error> {
        let parts = Parts::parse(typed).map_err(Error::Syntax)?;
        parts.refuse_lookalikes().map_err(Error::Lookalike)?;

        // Per character, so that no neighbour changes a letter. U+0130 becomes `i` and a dot above, on purpose not `i`.
        let local: String = parts.local.chars().flat_map(char::to_lowercase).nfc().collect();
        let canonical = format!("{local}@{}", parts.ascii);
        let shown = format!("{}@{}", parts.local, parts.unicode);
        Ok(Self { shown, canonical })
    }

    /// The local part as typed (NFC) and the domain in lower-case Unicode.
    #[must_use]
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// The form that is unique: all lower case, the domain in ASCII.
    #[must_use]
    pub fn canonical(&self) -> &str {
        &self.canonical
    }
}

/// An address that passed the seed's rules.
struct Parts<'a> {
    typed: (&'a str, &'a str),
    local: String,
    unicode: String,
    ascii: String,
}

impl<'a> Parts<'a> {
    fn parse(text: &'a str) -> Checked<Self> {
        if text.chars().count() > 2048 {
            return Err("Length must not exceed 2048 characters".into());
        }
        let address = within_angle_brackets(text).unwrap_or(text).trim_matches(is_blank);
        let typed = split(address)?;

        check_local(typed.0)?;
        let mut local: String = typed.0.nfc().collect();
        if local != typed.0 {
            check_local(&local).map_err(|reason| format!("After Unicode normalization: {reason}"))?;
        }
        if CASELESS_MAILBOXES.split(' ').any(|name| name.eq_ignore_ascii_case(typed.0)) {
            local.make_ascii_lowercase();
        }
        let (unicode, ascii) = check_domain(typed.1)?;
        check_total_length(address, &format!("{local}@{unicode}"), &format!("{local}@{ascii}"))?;
        Ok(Self { typed, local, unicode, ascii })
    }

    fn refuse_lookalikes(&self) -> Checked {
        let is_plain = |c| once(c).nfkc().eq(once(c));
        let reason = "The email address contains characters that stand for others";
        refuse_unless(self.typed.0, is_plain, reason)?;
        for text in [self.typed.0, self.typed.1, &self.unicode] {
            let reason = "The email address contains invisible characters";
            refuse_unless(text, |c| !is_invisible(c), reason)?;
        }
        let is_used = |script: &&Script| self.local.chars().any(|c| c.script() == **script);
        if ALIKE.iter().filter(is_used).count() > 1 {
            return Err("The email address mixes letters of several alphabets before the @-sign.".into());
        }
        Ok(())
    }
}

/// Alphabets that share letter shapes.
const ALIKE: [Script; 5] = [Script::Latin, Script::Greek, Script::Cyrillic, Script::Armenian, Script::Cherokee];

/// RFC 2142: in these names case means nothing.
const CASELESS_MAILBOXES: &str = "info marketing sales support abuse noc security postmaster hostmaster usenet news \
                                  webmaster www uucp ftp";

const SPECIAL_USE: [&str; 6] = ["arpa", "invalid", "local", "localhost", "onion", "test"];

/// The hyphen, and of RFC 5892's characters that depend on their context two Hebrew marks and the joiners, of which the
/// idna crate is the judge.
const IDNA_EXCEPTIONS: &str = "-\u{200c}\u{200d}\u{5f3}\u{5f4}";

/// Default-ignorable characters that are not format characters, the joiners that a Punycode label can bring in, and the
/// blank Braille pattern. Besides these: variation selectors and tags.
const INVISIBLE: &str = "\u{34f}\u{115f}\u{1160}\u{17b4}\u{17b5}\u{180b}\u{180c}\u{180d}\u{180f}\u{200c}\u{200d}\
                         \u{2800}\u{3164}\u{ffa0}";

/// The address of `Name <address>`, by pydantic's grammar; `None` when the text is not of that form.
fn within_angle_brackets(typed: &str) -> Option<&str> {
    let is_name = |c: char| is_blank(c) || is_word(c) || "!#$%&'*+-/=?^`{|}~".contains(c);
    let is_address = |text: &&str| !text.is_empty() && !text.contains('\n');
    let text = typed.trim_matches(is_blank).strip_suffix('>')?;
    if let Some(name) = text.strip_prefix('"') {
        // The name reaches to the last quote that an address in brackets follows.
        let after = |at: usize| name[at + 1..].trim_start_matches(is_blank).strip_prefix('<').filter(is_address);
        return name.rmatch_indices('"').filter(|(at, _)| *at > 0).find_map(|(at, _)| after(at));
    }
    let (name, address) = text.split_once('<')?;
    name.chars().all(is_name).then_some(address).filter(is_address)
}

/// Splits at the first `@` outside quotes.
fn split(address: &str) -> Checked<(&str, &str)> {
    let (mut inside_quote, mut escaped) = (false, false);
    for (at, c) in address.char_indices() {
        // A mark that combines with what follows is another character: `<` and U+0338 are U+226E.
        if c.is_ascii_punctuation() && address[at..].nfc().next() != Some(c) {
            continue;
        }
        match c {
            '"' if !escaped => inside_quote = !inside_quote,
            '<' if !inside_quote => return Err(why_no_display_name(&address[..at], &address[at..])),
            '@' if !inside_quote => return Ok((&address[..at], &address[at + 1..])),
            _ => {}
        }
        escaped = inside_quote && c == '\\' && !escaped;
    }
    Err("An email address must have an @-sign.".into())
}

fn why_no_display_name(name: &str, bracketed: &str) -> String {
    let is_permitted = |c: char| c == ' ' || (c.is_ascii() && is_atext(c));
    let reason = "The display name contains invalid characters when not quoted";
    if !name.starts_with('"')
        && let Err(reason) = refuse_unless(name.trim_end_matches(is_blank), is_permitted, reason)
    {
        return reason;
    }
    let reason = match bracketed.rsplit_once('>') {
        None => {
            "An open angle bracket at the start of the email address has to be followed by a close angle bracket \
             at the end."
        }
        Some((_, rest)) if !rest.is_empty() => "There can't be anything after the email address.",
        Some(("<", _)) => "An email address must have an @-sign.",
        Some(_) => "A display name and angle brackets around the email address are not permitted here.",
    };
    reason.into()
}

fn check_local(local: &str) -> Checked {
    if local.is_empty() {
        return Err("There must be something before the @-sign.".into());
    }
    if local.starts_with('"') {
        return Err("Quoting the part before the @-sign is not allowed here.".into());
    }
    if let Some(excess) = excess(local.chars().count(), 64) {
        return Err(format!("The email address is too long before the @-sign ({excess})."));
    }
    let reason = "The email address contains invalid characters before the @-sign";
    refuse_unless(local, |c| c == '.' || is_atext(c), reason)?;
    let fault = match local {
        _ if local.ends_with('.') => "have a period immediately before the @-sign",
        _ if local.starts_with('.') => "start with a period",
        _ if local.contains("..") => "have two periods in a row",
        _ => return refuse_unsafe(local),
    };
    Err(format!("An email address cannot {fault}."))
}

/// Returns the domain in lower-case Unicode and in ASCII.
fn check_domain(typed: &str) -> Checked<(String, String)> {
    if typed.is_empty() {
        return Err("There must be something after the @-sign.".into());
    }
    if let Some(literal) = typed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return Err(why_no_literal(literal).into());
    }
    let reason = "The part after the @-sign contains invalid characters";
    let is_permitted = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c) || !c.is_ascii();
    refuse_unless(typed, is_permitted, reason)?;
    refuse_unsafe(typed)?;
    if let Some((at, c)) = typed.chars().enumerate().find(|(_, c)| !has_idna_mapping(*c)) {
        let place = format!("Codepoint U+{:04X} not allowed at position {} in '{typed}'", u32::from(c), at + 1);
        return Err(format!("{reason} ({place})."));
    }

    let (unicode, is_valid) = Uts46::new().to_unicode(typed.as_bytes(), AsciiDenyList::EMPTY, Hyphens::Allow);
    refuse_unless(&unicode, is_permitted, &format!("{reason} after Unicode normalization"))?;
    check_shape(&unicode)?;
    let kind = if typed.is_ascii() { "not valid IDNA" } else { "invalid" };
    let refusal = |why: &str| format!("The part after the @-sign is {kind} ({why}).");
    is_valid.map_err(|_| refusal("Invalid label"))?;
    unicode.split('.').try_for_each(check_label).map_err(|why| refusal(&why))?;

    let bytes = typed.as_bytes();
    let ascii = Uts46::new().to_ascii(bytes, AsciiDenyList::EMPTY, Hyphens::Allow, DnsLength::Ignore);
    let ascii = ascii.map_err(|_| refusal("Invalid label"))?;
    check_hostname(&ascii, typed)?;
    Ok((unicode.into_owned(), ascii.into_owned()))
}

fn why_no_literal(literal: &str) -> &'static str {
    let is_valid = match literal.strip_prefix("IPv6:") {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => literal.parse::<Ipv4Addr>().is_ok(),
    };
    match literal {
        _ if is_valid => "A bracketed IP address after the @-sign is not allowed here.",
        _ if literal.starts_with("IPv6:") => "The IPv6 address in brackets after the @-sign is not valid.",
        _ if literal.contains(':') => "The part after the @-sign contains an invalid address literal tag in brackets.",
        _ => "The part after the @-sign in brackets is not an IPv4 address and has no address literal tag.",
    }
}

/// Whether UTS 46 has any use for the character. It is tried after a letter of either direction, as marks and digits
/// cannot stand alone.
fn has_idna_mapping(c: char) -> bool {
    let is_valid = |before| {
        let label = String::from_iter([before, c]);
        Uts46::new().to_unicode(label.as_bytes(), AsciiDenyList::EMPTY, Hyphens::Allow).1.is_ok()
    };
    c.is_ascii() || is_valid('a') || is_valid('\u{5d0}')
}

fn check_shape(domain: &str) -> Checked {
    let is_reserved = |label: &str| {
        let third = label.char_indices().nth(2);
        third.is_some_and(|(at, _)| label[at..].starts_with("--") && !label.starts_with("xn"))
    };
    let fault = match domain {
        _ if domain.ends_with('.') => "end with a period",
        _ if domain.starts_with('.') => "have a period immediately after the @-sign",
        _ if domain.contains("..") => "have two periods in a row",
        _ if domain.ends_with('-') => "end with a hyphen",
        _ if domain.starts_with('-') => "have a hyphen immediately after the @-sign",
        _ if domain.contains(".-") || domain.contains("-.") => "have a period and a hyphen next to each other",
        _ if domain.split('.').any(is_reserved) => {
            "have two letters followed by two dashes immediately after the @-sign or after a period, except Punycode"
        }
        _ => return Ok(()),
    };
    Err(format!("An email address cannot {fault}."))
}

/// IDNA 2008 allows letters, marks and digits; UTS 46 lets symbols pass too.
fn check_label(label: &str) -> Checked {
    use GeneralCategory::{DecimalNumber, LowercaseLetter, ModifierLetter, NonspacingMark, OtherLetter, SpacingMark};
    let chars: Vec<char> = label.chars().collect();
    let is_japanese = |c: &char| matches!(c.script(), Script::Hiragana | Script::Katakana | Script::Han);
    let is_plain = |category| {
        matches!(
            category,
            LowercaseLetter | OtherLetter | ModifierLetter | NonspacingMark | SpacingMark | DecimalNumber
        )
    };
    for (at, &c) in chars.iter().enumerate() {
        let is_permitted = match c {
            '\u{b7}' => at > 0 && chars[at - 1] == 'l' && chars.get(at + 1) == Some(&'l'),
            '\u{30fb}' => chars.iter().any(|c| *c != '\u{30fb}' && is_japanese(c)),
            // Hangul in pieces; Cherokee, which folds to its capitals.
            '\u{1100}'..='\u{11ff}' => false,
            '\u{13a0}'..='\u{13f5}' => true,
            _ => IDNA_EXCEPTIONS.contains(c) || is_plain(c.general_category()),
        };
        if !is_permitted {
            return Err(format!("Codepoint U+{:04X} at position {} of '{label}' not allowed", u32::from(c), at + 1));
        }
    }
    Ok(())
}

fn check_hostname(ascii: &str, typed: &str) -> Checked {
    let longest = ascii.split('.').map(str::len).max().unwrap_or_default();
    let top = ascii.rsplit_once('.').map(|(_, top)| top);
    let fault = match (excess(ascii.len(), 253), excess(longest, 63), top) {
        (_, Some(_), _) if !typed.is_ascii() => "is invalid (Label too long)",
        (Some(excess), ..) if ascii == typed => {
            return Err(format!("The email address is too long after the @-sign ({excess})."));
        }
        (Some(excess), ..) => {
            let excess = in_bytes(&excess);
            return Err(format!("The email address is too long after the @-sign ({excess} after IDNA encoding)."));
        }
        (_, Some(excess), _) => {
            let reason = "After the @-sign, periods cannot be separated by so many characters";
            return Err(format!("{reason} ({excess})."));
        }
        (.., None) => "is not valid. It should have a period",
        (.., Some(top)) if !top.ends_with(|c: char| c.is_ascii_alphabetic()) => {
            "is not valid. It is not within a valid top-level domain"
        }
        (.., Some(top)) if SPECIAL_USE.contains(&top) => {
            "is a special-use or reserved name that cannot be used with email"
        }
        _ => return Ok(()),
    };
    Err(format!("The part after the @-sign {fault}."))
}

fn check_total_length(typed: &str, shown: &str, ascii: &str) -> Checked {
    let reason = if let Some(excess_bytes) = excess(typed.len(), 254) {
        // The seed counts characters: at least as many as if all were the widest.
        let (bytes, widest) = (typed.len() - 254, typed.chars().map(char::len_utf8).max().unwrap_or(1));
        let least = (bytes / widest).max(1);
        let range = if least == bytes { String::new() } else { format!("{least}-") };
        format!("({range}{excess_bytes})")
    } else if let Some(excess) = excess(shown.len(), 254) {
        format!("after normalization ({})", in_bytes(&excess))
    } else if let Some(excess) = excess(ascii.len(), 254) {
        format!("when the part after the @-sign is converted to IDNA ASCII ({})", in_bytes(&excess))
    } else {
        return Ok(());
    };
    Err(format!("The email address is too long {reason}."))
}

/// "3 characters too many", or nothing when there are not.
fn excess(length: usize, limit: usize) -> Option<String> {
    match length.checked_sub(limit)? {
        0 => None,
        1 => Some("1 character too many".into()),
        n => Some(format!("{n} characters too many")),
    }
}

fn in_bytes(excess: &str) -> String {
    excess.replace("character", "byte")
}

/// Refuses spaces, control and format characters, and a combining mark at the start.
fn refuse_unsafe(text: &str) -> Checked {
    use GeneralCategoryGroup::{Letter, Mark, Number, Punctuation, Symbol};
    let is_unsafe = |&(at, c): &(usize, char)| match c.general_category_group() {
        Letter | Number | Punctuation | Symbol => false,
        Mark => at == 0,
        _ => true,
    };
    let refused: BTreeSet<char> = text.char_indices().filter(is_unsafe).map(|(_, c)| c).collect();
    if refused.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = refused.into_iter().map(display).collect();
    Err(format!("The email address contains unsafe characters: {}.", list.join(", ")))
}

fn refuse_unless(text: &str, is_permitted: impl Fn(char) -> bool, reason: &str) -> Checked {
    let refused: BTreeSet<String> = text.chars().filter(|c| !is_permitted(*c)).map(display).collect();
    if refused.is_empty() {
        return Ok(());
    }
    Err(format!("{reason}: {}.", Vec::from_iter(refused).join(", ")))
}

/// A character as email-validator prints it. Of the names of Unicode only the likely ones are here, others are numbers.
fn display(c: char) -> String {
    use GeneralCategoryGroup::{Letter, Number, Punctuation, Symbol};
    let name = match c {
        '\\' | '\'' => return format!("\"{c}\""),
        ' ' => "SPACE",
        '\u{a0}' => "NO-BREAK SPACE",
        '\u{ad}' => "SOFT HYPHEN",
        '\u{200b}' => "ZERO WIDTH SPACE",
        '\u{200c}' => "ZERO WIDTH NON-JOINER",
        '\u{200d}' => "ZERO WIDTH JOINER",
        '\u{202e}' => "RIGHT-TO-LEFT OVERRIDE",
        '\u{3000}' => "IDEOGRAPHIC SPACE",
        '\u{feff}' => "ZERO WIDTH NO-BREAK SPACE",
        _ if matches!(c.general_category_group(), Letter | Number | Punctuation | Symbol) => return format!("'{c}'"),
        _ if c < '\u{ffff}' => return format!("U+{:04X}", u32::from(c)),
        _ => return format!("U+{:08X}", u32::from(c)),
    };
    name.into()
}

fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_!#$%&'*+-/=?^`{|}~".contains(c) || !c.is_ascii()
}

/// Python's blanks are Unicode's and four ASCII separators.
fn is_blank(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

fn is_word(c: char) -> bool {
    use GeneralCategoryGroup::{Letter, Number};
    c == '_' || matches!(c.general_category_group(), Letter | Number)
}

fn is_invisible(c: char) -> bool {
    INVISIBLE.contains(c) || matches!(c, '\u{fe00}'..='\u{fe0f}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn accepted(typed: &str) -> Email {
        Email::parse(typed).unwrap_or_else(|error| panic!("{typed:?}: {error}"))
    }

    #[test]
    fn an_accepted_address_has_a_shown_and_a_canonical_form() {
        #[rustfmt::skip]
        let rows = [
            ("plain", "user@example.com", "user@example.com", "user@example.com"),
            ("case", "USER@EXAMPLE.COM", "USER@example.com", "user@example.com"),
            ("display name", "Bob <bob@Example.com>", "bob@example.com", "bob@example.com"),
            ("quoted display name", "\"Bob \"B\" <x>\" < b@x.org >", "b@x.org", "b@x.org"),
            ("brackets alone", " <b@x.org> ", "b@x.org", "b@x.org"),
            ("outer blanks", "\u{3000}\u{1f} pad@example.com\n", "pad@example.com", "pad@example.com"),
            ("C14 tag", "plus+tag@ex-ample.co.uk", "plus+tag@ex-ample.co.uk", "plus+tag@ex-ample.co.uk"),
            ("C12 IDN", "u@Пример.рф", "u@пример.рф", "u@xn--e1afmkfd.xn--p1ai"),
            ("C12 Punycode", "x@xn--e1afmkfd.XN--p1ai", "x@пример.рф", "x@xn--e1afmkfd.xn--p1ai"),
            ("sharp s", "u@straße.de", "u@straße.de", "u@xn--strae-oqa.de"),
            ("other periods", "u@x。com", "u@x.com", "u@x.com"),
            ("Unicode local part", "Юзер@example.com", "Юзер@example.com", "юзер@example.com"),
            ("Latin beside Han", "a漢@example.com", "a漢@example.com", "a漢@example.com"),
            ("decomposed", "Jose\u{301}@x.org", "Jos\u{e9}@x.org", "jos\u{e9}@x.org"),
            ("RFC 2142 mailbox", "Info@x.org", "info@x.org", "info@x.org"),
            ("dotless i", "\u{131}@x.org", "\u{131}@x.org", "\u{131}@x.org"),
            ("dotted I", "\u{130}@x.org", "\u{130}@x.org", "i\u{307}@x.org"),
            ("all of atext", "!#$%&'*+-/=?^_`{|}~.a@x.org", "!#$%&'*+-/=?^_`{|}~.a@x.org", "!#$%&'*+-/=?^_`{|}~.a@x.org"),
        ];
        for (name, typed, shown, canonical) in rows {
            let email = accepted(typed);

            assert_eq!((email.shown(), email.canonical()), (shown, canonical), "{name}");
        }
    }

    #[test]
    fn what_the_seed_refuses_is_refused_with_its_text() {
        let long_local = format!("{}@x.org", "l".repeat(65));
        let long_label = format!("a@{}.org", "l".repeat(65));
        let long_domain = format!("a@{}com", "abcdefghi.".repeat(26));
        let long = format!("{}@{}com", "l".repeat(60), "abcdefghi.".repeat(20));
        let long_text = "a".repeat(2049);
        #[rustfmt::skip]
        let rows = [
            ("C01 no at", "not-an-email", "An email address must have an @-sign."),
            ("C01 empty", "", "An email address must have an @-sign."),
            ("C01 two", "a@b@x.org", "The part after the @-sign contains invalid characters: '@'."),
            ("C01 no local part", "@x.org", "There must be something before the @-sign."),
            ("C01 no domain", "a@", "There must be something after the @-sign."),
            ("C02 local part", &long_local, "The email address is too long before the @-sign (1 character too many)."),
            ("C02 label", &long_label, "After the @-sign, periods cannot be separated by so many characters (2 characters too many)."),
            ("C02 domain", &long_domain, "The email address is too long after the @-sign (10 characters too many)."),
            ("C02 whole", &long, "The email address is too long (10 characters too many)."),
            ("C02 text", &long_text, "Length must not exceed 2048 characters"),
            ("C03 two periods", "a..b@example.com", "An email address cannot have two periods in a row."),
            ("C03 first period", ".a@x.org", "An email address cannot start with a period."),
            ("C03 last period", "a.@x.org", "An email address cannot have a period immediately before the @-sign."),
            ("C04 quotes", "\"q q\"@example.com", "Quoting the part before the @-sign is not allowed here."),
            ("C04 comment", "a(b)@x.org", "The email address contains invalid characters before the @-sign: '(', ')'."),
            ("C04 IP", "a@[127.0.0.1]", "A bracketed IP address after the @-sign is not allowed here."),
            ("C10 space", "a b@example.com", "The email address contains invalid characters before the @-sign: SPACE."),
            ("C10 no-break space", "a\u{a0}b@x.org", "The email address contains unsafe characters: NO-BREAK SPACE."),
            ("C10 line feed", "a\nb@x.org", "The email address contains invalid characters before the @-sign: U+000A."),
            ("C11 zero width", "a@x\u{200b}.org", "The email address contains unsafe characters: ZERO WIDTH SPACE."),
            ("C11 override", "a\u{202e}@x.org", "The email address contains unsafe characters: RIGHT-TO-LEFT OVERRIDE."),
            ("C11 soft hyphen", "a\u{ad}b@x.org", "The email address contains unsafe characters: SOFT HYPHEN."),
            ("C13 no period", "a@localhost", "The part after the @-sign is not valid. It should have a period."),
            ("C13 special use", "a@b.TEST", "The part after the @-sign is a special-use or reserved name that cannot be used with email."),
            ("C15 root", "a@x.org.", "An email address cannot end with a period."),
            ("hyphen", "a@-x.org", "An email address cannot have a hyphen immediately after the @-sign."),
            ("digit at the end", "a@x.c0", "The part after the @-sign is not valid. It is not within a valid top-level domain."),
            ("no mapping", "a@⒈.com", "The part after the @-sign contains invalid characters (Codepoint U+2488 not allowed at position 1 in '⒈.com')."),
            ("symbol", "a@i♥.ws", "The part after the @-sign is invalid (Codepoint U+2665 at position 2 of 'i♥' not allowed)."),
            ("display name", "J. Doe <a@x.org>", "The display name contains invalid characters when not quoted: '.'."),
        ];
        for (name, typed, reason) in rows {
            assert_eq!(Email::parse(typed), Err(Error::Syntax(reason.into())), "{name}");
        }
    }

    #[test]
    fn uts_39_lookalikes_are_refused() {
        for (name, typed) in [
            ("C09 Cyrillic in Latin", "p\u{430}ypal@x.org"),
            ("Greek in Cyrillic", "\u{3bf}н@x.org"),
            ("fullwidth", "\u{ff55}ser@x.org"),
            ("Kelvin sign", "\u{212a}@x.org"),
            ("long s", "\u{17f}@x.org"),
            ("ligature", "\u{fb01}@x.org"),
            ("C11 variation selector", "a\u{fe0f}@x.org"),
            ("C11 variation selector in the domain", "a@x\u{fe0f}.org"),
            ("grapheme joiner", "a\u{34f}@x.org"),
            ("Hangul filler", "a\u{115f}@x.org"),
            ("other Hangul filler", "a\u{3164}@x.org"),
        ] {
            assert!(matches!(Email::parse(typed), Err(Error::Lookalike(_))), "{name}");
        }
    }

    #[test]
    fn variants_of_one_address_are_one_account() {
        for (name, one, other, same) in [
            ("C05 case of the domain", "a@x.org", "a@X.ORG", true),
            ("C06 case of the local part", "É@x.org", "é@x.org", true),
            ("C08 decomposed", "jos\u{e9}@x.org", "jose\u{301}@x.org", true),
            ("C12 Punycode", "a@пример.рф", "a@xn--e1afmkfd.xn--p1ai", true),
            ("dotless i", "\u{131}@x.org", "i@x.org", false),
            ("dotted I", "\u{130}@x.org", "i@x.org", false),
            ("C14 tag", "a+tag@x.org", "a@x.org", false),
            ("periods", "a.b@x.org", "ab@x.org", false),
        ] {
            assert_eq!(accepted(one).canonical() == accepted(other).canonical(), same, "{name}");
        }
    }

    /// Texts that are nearly addresses, of characters that have been trouble.
    fn nearly_an_address() -> impl Strategy<Value = String> {
        let local = r"[a-zA-Z0-9.+_'-]{1,12}|[aAİıßſéÉΣςжЖ漢.\u{301}\u{307}\u{338}\u{200d}\u{ad}]{1,8}";
        let domain = r"[a-zA-Z0-9.-]{1,12}\.(com|ORG|рф|xn--p1ai)|(xn--)?[aAßéжЖς漢。\u{301}\u{200c}-]{1,8}\.org";
        let frame = prop_oneof![Just(("", "")), Just((" ", "\n")), Just(("Bob <", ">")), Just(("\"B\" <", " >"))];
        (frame, local, domain).prop_map(|((before, after), local, domain)| format!("{before}{local}@{domain}{after}"))
    }

    proptest! {
        #[test]
        fn any_text_is_an_address_or_refused(typed in any::<String>()) {
            let _ = Email::parse(&typed);
        }

        /// Canonical is canonical: whoever types what is shown, or what is unique, is the same.
        #[test]
        fn both_forms_of_an_address_are_itself(typed in nearly_an_address()) {
            if let Ok(email) = Email::parse(&typed) {
                prop_assert_eq!(&accepted(email.shown()), &email);
                let again = accepted(email.canonical());
                prop_assert_eq!(again.canonical(), email.canonical());
                let shown = accepted(again.shown());
                prop_assert_eq!(shown.canonical(), email.canonical());
            }
        }

        /// The case of ASCII letters makes no other account.
        #[test]
        fn ascii_case_makes_no_difference(
            local in "[a-z0-9.+_-]{1,20}",
            domain in "[a-z0-9-]{1,20}\\.(com|org)",
            shift in any::<u32>(),
        ) {
            let typed = format!("{local}@{domain}");
            let shifted = |(at, c): (usize, char)| if shift >> (at % 32) & 1 == 1 { c.to_ascii_uppercase() } else { c };
            let (one, other) = (Email::parse(&typed), Email::parse(&typed.char_indices().map(shifted).collect::<String>()));
            prop_assert_eq!(one.is_ok(), other.is_ok());
            prop_assert_eq!(one.map(|email| email.canonical).ok(), other.map(|email| email.canonical).ok());
        }
    }
}
