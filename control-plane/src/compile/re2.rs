//! What Envoy's RE2 takes of the expressions that the `regex` crate takes. The two are of one family, so that an
//! expression of both means the same in both; what only one of them knows is found here, before Envoy refuses a whole
//! set of routes for it.

use meltemi_engine::names::match_value;
use regex_syntax::ast::{
    self, AssertionKind, Ast, ClassAsciiKind, ClassPerlKind, ClassSetItem, ClassUnicodeKind, Flag, FlagsItemKind,
    GroupKind, HexLiteralKind, LiteralKind, RepetitionKind, RepetitionRange, Span, parse::ParserBuilder,
};

/// Instructions that a program may have: `re2.max_program_size.error_level` of Istio and of `meltemi bootstrap`. Ours is
/// counted without RE2's own tricks and comes out larger than the real one.
pub(crate) const MAX_PROGRAM: u32 = 32_768;
/// Largest count in a repetition, and largest product of nested ones.
const MAX_REPEAT: u32 = 1000;
/// Deepest nesting.
const MAX_DEPTH: u32 = 100;

/// Finds why RE2 would refuse an expression.
pub(super) fn check(regex: &str) -> Result<(), String> {
    if regex.is_empty() {
        return Err("an empty expression matches nothing but the empty text; write `exact: \"\"`".to_owned());
    }
    let ast = ParserBuilder::new().nest_limit(MAX_DEPTH).build().parse(regex).map_err(|error| error.to_string())?;
    let size = ast::visit(&ast, Walk { text: regex, repeats: vec![1], sizes: vec![Vec::new()] })?;
    if size > MAX_PROGRAM {
        return Err(format!("too large: about {size} instructions of at most {MAX_PROGRAM}"));
    }
    // Ours, for connection mode.
    regex::RegexBuilder::new(regex).size_limit(16 << 20).build().map_err(|error| error.to_string())?;
    Ok(())
}

/// Counts instructions, and looks for what RE2 does not know.
struct Walk<'t> {
    text: &'t str,
    /// Products of the counts of the repetitions around.
    repeats: Vec<u32>,
    /// Sizes of the parts that were left already, for each part around them.
    sizes: Vec<Vec<u32>>,
}

impl Walk<'_> {
    fn no<T>(&self, span: &Span, why: &str) -> Result<T, String> {
        let part = self.text.get(span.start.offset..span.end.offset).unwrap_or_default();
        Err(format!("`{part}` {why} in RE2, the expressions of Envoy"))
    }

    fn literal(&self, literal: &ast::Literal) -> Result<u32, String> {
        match literal.kind {
            LiteralKind::HexFixed(HexLiteralKind::UnicodeShort | HexLiteralKind::UnicodeLong)
            | LiteralKind::HexBrace(HexLiteralKind::UnicodeShort | HexLiteralKind::UnicodeLong) => {
                self.no(&literal.span, "is not known; write \\x{..}")
            }
            LiteralKind::Meta | LiteralKind::Superfluous if literal.c == '_' => self.no(&literal.span, "is no escape"),
            _ if !literal.c.is_ascii() => self.no(
                &literal.span,
                &format!(
                    "matches nothing: values are seen percent-encoded, this as `{}`,",
                    match_value(&literal.c.to_string())
                ),
            ),
            // Other cases of a letter may have more bytes.
            _ if literal.c.is_ascii_alphabetic() => Ok(4),
            _ => Ok(2),
        }
    }

    fn flags(&self, flags: &ast::Flags) -> Result<(), String> {
        for item in &flags.items {
            if let FlagsItemKind::Flag(Flag::Unicode | Flag::CRLF | Flag::IgnoreWhitespace) = item.kind {
                return self.no(&item.span, "is no flag");
            }
        }
        Ok(())
    }

    fn unicode(&self, class: &ast::ClassUnicode) -> Result<u32, String> {
        let known = match &class.kind {
            ClassUnicodeKind::OneLetter(letter) => CATEGORIES.contains(&letter.to_string().as_str()),
            ClassUnicodeKind::Named(name) => {
                let name = name.as_str();
                CATEGORIES.contains(&name) || SCRIPTS.contains(&name)
            }
            ClassUnicodeKind::NamedValue { .. } => false,
        };
        if known {
            Ok(3000)
        } else {
            self.no(&class.span, "is not known: there are general categories (\\p{Lu}) and scripts (\\p{Greek})")
        }
    }

    fn count(&self, count: u32, span: &Span) -> Result<u32, String> {
        let product = self.repeats.last().copied().unwrap_or(1).saturating_mul(count.max(1));
        if count > MAX_REPEAT || product > MAX_REPEAT {
            return self.no(span, "is too often: repetitions, nested ones multiplied, are limited to 1000");
        }
        Ok(product)
    }

    fn repetition(&mut self, repetition: &ast::Repetition) -> Result<(), String> {
        if matches!(*repetition.ast, Ast::Repetition(_)) {
            return self.no(&repetition.span, "repeats a repetition; put the inner one in brackets");
        }
        let span = &repetition.op.span;
        let most = match &repetition.op.kind {
            RepetitionKind::Range(range) => {
                let text = self.text.get(span.start.offset..span.end.offset).unwrap_or_default();
                if text.starts_with("{,") || text.contains(char::is_whitespace) {
                    return self.no(span, "is no repetition");
                }
                match range {
                    RepetitionRange::Exactly(count) | RepetitionRange::AtLeast(count) => *count,
                    RepetitionRange::Bounded(_, most) => *most,
                }
            }
            _ => 1,
        };
        let product = self.count(most, span)?;
        self.repeats.push(product);
        Ok(())
    }
}

impl ast::Visitor for Walk<'_> {
    type Output = u32;
    type Err = String;

    fn finish(self) -> Result<u32, String> {
        Ok(sum(self.sizes.first().into_iter().flatten()))
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), String> {
        self.sizes.push(Vec::new());
        match ast {
            Ast::Flags(flags) => self.flags(&flags.flags),
            Ast::Group(group) => match &group.kind {
                GroupKind::NonCapturing(flags) => self.flags(flags),
                GroupKind::CaptureName { name, .. }
                    if !name.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') =>
                {
                    self.no(&name.span, "is no name of a group")
                }
                _ => Ok(()),
            },
            Ast::Repetition(repetition) => self.repetition(repetition),
            _ => Ok(()),
        }
    }

    fn visit_post(&mut self, ast: &Ast) -> Result<(), String> {
        let parts = self.sizes.pop().unwrap_or_default();
        let inner = sum(&parts);
        let size = match ast {
            Ast::Empty(_) | Ast::Flags(_) => 1,
            Ast::Literal(literal) => self.literal(literal)?,
            Ast::Dot(_) => 16,
            Ast::Assertion(assertion) => match assertion.kind {
                AssertionKind::StartLine
                | AssertionKind::EndLine
                | AssertionKind::StartText
                | AssertionKind::EndText
                | AssertionKind::WordBoundary
                | AssertionKind::NotWordBoundary => 1,
                _ => return self.no(&assertion.span, "is not known"),
            },
            Ast::ClassUnicode(class) => self.unicode(class)?,
            Ast::ClassPerl(class) => perl(&class.kind),
            // A class that is turned around has many ranges of long characters.
            Ast::ClassBracketed(class) if class.negated => inner.saturating_add(64),
            Ast::ClassBracketed(_) | Ast::Concat(_) => inner,
            Ast::Group(_) => inner.saturating_add(2),
            Ast::Alternation(_) => inner.saturating_add(u32::try_from(parts.len()).unwrap_or(u32::MAX)),
            Ast::Repetition(repetition) => {
                self.repeats.pop();
                let times = match &repetition.op.kind {
                    RepetitionKind::Range(RepetitionRange::Exactly(count) | RepetitionRange::Bounded(_, count)) => {
                        *count
                    }
                    RepetitionKind::Range(RepetitionRange::AtLeast(count)) => count.saturating_add(1),
                    _ => 1,
                };
                inner.saturating_add(1).saturating_mul(times.max(1))
            }
        };
        if let Some(around) = self.sizes.last_mut() {
            around.push(size);
        }
        Ok(())
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), String> {
        let size = match item {
            ClassSetItem::Bracketed(class) => return self.no(&class.span, "is a class in a class, which is not known"),
            ClassSetItem::Literal(literal) => self.literal(literal)?,
            ClassSetItem::Range(range) => {
                self.literal(&range.start)?;
                self.literal(&range.end)?;
                if range.end.c.is_ascii() { 4 } else { 64 }
            }
            ClassSetItem::Ascii(class) if class.kind == ClassAsciiKind::Word || class.negated => 64,
            ClassSetItem::Ascii(_) => 4,
            ClassSetItem::Unicode(class) => self.unicode(class)?,
            ClassSetItem::Perl(class) => perl(&class.kind),
            ClassSetItem::Empty(_) | ClassSetItem::Union(_) => 0,
        };
        if let Some(around) = self.sizes.last_mut() {
            around.push(size);
        }
        Ok(())
    }

    fn visit_class_set_binary_op_pre(&mut self, operation: &ast::ClassSetBinaryOp) -> Result<(), String> {
        self.no(&operation.span, "is a set operation, which is not known")
    }
}

fn sum<'a>(sizes: impl IntoIterator<Item = &'a u32>) -> u32 {
    sizes.into_iter().fold(0, |sum, size| sum.saturating_add(*size))
}

const fn perl(kind: &ClassPerlKind) -> u32 {
    // Negated ones have the rest of Unicode.
    match kind {
        ClassPerlKind::Digit | ClassPerlKind::Space | ClassPerlKind::Word => 64,
    }
}

/// General categories of RE2, and `Any`.
const CATEGORIES: &[&str] = &[
    "Any", "C", "Cc", "Cf", "Co", "Cs", "L", "Ll", "Lm", "Lo", "Lt", "Lu", "M", "Mc", "Me", "Mn", "N", "Nd", "Nl",
    "No", "P", "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "S", "Sc", "Sk", "Sm", "So", "Z", "Zl", "Zp", "Zs",
];

/// Scripts in use, which every RE2 knows.
const SCRIPTS: &[&str] = &[
    "Arabic",
    "Armenian",
    "Bengali",
    "Bopomofo",
    "Braille",
    "Cherokee",
    "Common",
    "Coptic",
    "Cyrillic",
    "Devanagari",
    "Ethiopic",
    "Georgian",
    "Greek",
    "Gujarati",
    "Gurmukhi",
    "Han",
    "Hangul",
    "Hebrew",
    "Hiragana",
    "Inherited",
    "Kannada",
    "Katakana",
    "Khmer",
    "Lao",
    "Latin",
    "Malayalam",
    "Mongolian",
    "Myanmar",
    "Oriya",
    "Sinhala",
    "Syriac",
    "Tamil",
    "Telugu",
    "Thaana",
    "Thai",
    "Tibetan",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_both_know_is_taken() {
        for regex in [
            "[0-9]+",
            "(?i)hello|bye",
            r"(?P<name>\w+)\.\d{1,3}",
            r"[[:alpha:]\d_-]*?",
            r"\x{61}\x41\t",
            r"^a$",
            r"\bword\b",
            r"\p{Greek}\PL\p{Lu}",
            r"(?s:.*)(?U)a+",
            "(a{10}){100}",
            r"\/\%\-",
            "(a*)*",
            "%c3%a9",
            "[^/]+/[^/]+",
        ] {
            assert_eq!(check(regex), Ok(()), "{regex}");
        }
    }

    #[test]
    fn what_only_rust_knows_is_refused() {
        for regex in [
            "",
            "(",
            "(?x) a b",
            r"\u{61}",
            r"\u0061",
            r"\U00000061",
            r"\p{Alphabetic}",
            r"\p{Letter}",
            r"\p{sc=Greek}",
            r"[a-z&&[^b]]",
            "[a[bc]]",
            r"\b{start}a",
            "(?R)a",
            "(?-u)a",
            "a**",
            "a{2}{3}",
            "a{1001}",
            "(a{100}){100}",
            "a{,5}",
            "é",
            "[à-ü]",
            r"\x{100}",
            r"\xe9",
        ] {
            assert!(check(regex).is_err(), "{regex}");
        }
    }

    #[test]
    fn size_is_bounded() {
        assert_eq!(check(&["someMethodName"; 100].join("|")), Ok(()));
        assert!(check(r"(\p{L}{20}){20}").unwrap_err().contains("too large"));
        assert!(check(&format!("({}){{1000}}", ["abcdefghij"; 10].join("|"))).unwrap_err().contains("too large"));
    }
}
