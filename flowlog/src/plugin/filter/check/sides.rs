//! What is compared: both sides must be of one kind, and texts as written become
//! what the other side is.

use cel::common::ast::{Expr, IdedExpr, ListExpr};

use super::{Checked, Checker, a};
use crate::config::diagnostic::nearest;
use crate::plugin::filter::tree::{Comparison, Operand, Test};
use crate::plugin::filter::value::{Type, Words};
use crate::plugin::filter::{Mistake, literal};

impl Checker<'_> {
    pub(super) fn comparison(
        &self,
        part: &IdedExpr,
        comparison: Comparison,
        [left, right]: [&IdedExpr; 2],
    ) -> Result<Test, Mistake> {
        let (first, second) = match (self.part(left)?, self.part(right)?) {
            (Checked::Test(first), Checked::Test(second)) if comparison == Comparison::Equal => {
                return Ok(Test::Same(Box::new([first, second])));
            }
            (Checked::Operand(first, kind), Checked::Operand(second, other)) => {
                ((first, kind), (second, other))
            }
            _ => {
                return self.mistake(
                    part,
                    "what is true or false has no order, and equals nothing else; use && or ||",
                );
            }
        };
        let (first, second, kind) = self.alike((left, first), (right, second))?;
        if comparison != Comparison::Equal && !has_order(kind) {
            return self.mistake(part, format!("{} has no order; use == or in", a(kind)));
        }
        Ok(Test::Compare(comparison, Box::new([first, second])))
    }

    /// Both sides as values of one kind, and the kind.
    pub(super) fn alike(
        &self,
        (left_part, (left, left_kind)): (&IdedExpr, (Operand, Type)),
        (right_part, (right, right_kind)): (&IdedExpr, (Operand, Type)),
    ) -> Result<(Operand, Operand, Type), Mistake> {
        use Type::{Double, Int, Text, Word};
        match (left_kind, right_kind) {
            (Text, Text) => Ok((left, right, Text)),
            (_, Text) if is_written(&right) => {
                Ok((left, self.as_kind(right_part, right, left_kind)?, left_kind))
            }
            (Text, _) if is_written(&left) => {
                Ok((self.as_kind(left_part, left, right_kind)?, right, right_kind))
            }
            (Type::Set(_), _) | (_, Type::Set(_)) => {
                self.mistake(right_part, "lists of words are not compared; write 'WORD' in FIELD")
            }
            (Word(_), Text) | (Text, Word(_)) | (Int, Double) | (Double, Int) => {
                Ok((left, right, left_kind))
            }
            (left_kind, right_kind) if left_kind == right_kind => Ok((left, right, left_kind)),
            _ => {
                let what = format!(
                    "{} never equals {}{}",
                    a(left_kind),
                    a(right_kind),
                    remedy(left_kind, right_kind)
                );
                self.mistake(right_part, what)
            }
        }
    }

    /// A text as written where a value of `kind` is wanted.
    pub(super) fn as_kind(
        &self,
        part: &IdedExpr,
        operand: Operand,
        kind: Type,
    ) -> Result<Operand, Mistake> {
        let Operand::Text(bytes) = &operand else { return Ok(operand) };
        let text = String::from_utf8_lossy(bytes);
        match kind {
            Type::Word(words) => {
                self.word(part, &text, words)?;
                Ok(operand)
            }
            Type::Address => literal::address(&text).map(Operand::Constant),
            Type::Labels => literal::labels(&text).map(Operand::Constant),
            Type::Time => Err(format!("a timestamp is compared; write timestamp('{text}')")),
            Type::Duration => Err(format!("a duration is compared; write duration('{text}')")),
            Type::Set(_) => Err(format!("a list of words equals no text; write '{text}' in FIELD")),
            Type::Int | Type::Double => Err(format!(
                "{} is compared with a string; write the number without quotes",
                a(kind)
            )),
            Type::Text => Ok(operand),
        }
        .map_err(|what| self.wrong(part, what))
    }

    pub(super) fn word(&self, part: &IdedExpr, text: &str, words: Words) -> Result<(), Mistake> {
        let names = words.names();
        if names.contains(&text) {
            return Ok(());
        }
        let near = nearest(text, &names);
        let others = match words {
            Words::Protocols => "; for others compare protocol.number",
            _ => "",
        };
        let what = format!("`{text}` is none of {}{others}{near}", names.join(", "));
        self.mistake(part, what)
    }

    pub(super) fn membership(&self, element: &IdedExpr, list: &IdedExpr) -> Result<Test, Mistake> {
        if let Expr::List(ListExpr { elements, optional_indices: _ }) = &list.expr {
            return self.among(element, elements);
        }
        let (field, kind) = self.operand(list)?;
        let (Operand::Field(get), Type::Set(words)) = (field, kind) else {
            return self
                .mistake(list, format!("behind `in` stands {}; write a list: [1, 2]", a(kind)));
        };
        let (Operand::Text(bytes), _) = self.operand(element)? else {
            return self.mistake(
                element,
                "before `in` and a list of words stands one of them, in single quotes",
            );
        };
        let text = String::from_utf8_lossy(&bytes);
        self.word(element, &text, words)?;
        Ok(Test::Contains(get, words.bit(&text).unwrap_or_default()))
    }

    pub(super) fn among(&self, element: &IdedExpr, list: &[IdedExpr]) -> Result<Test, Mistake> {
        let (mut operand, kind) = self.operand(element)?;
        if matches!(kind, Type::Set(_)) {
            return self.mistake(element, "a list of words is in no list; write 'WORD' in FIELD");
        }
        let mut elements = Vec::new();
        for part in list {
            let (first, second, _) =
                self.alike((element, (operand, kind)), (part, self.operand(part)?))?;
            operand = first;
            elements.push(second);
        }
        Ok(Test::Among(operand, elements))
    }
}

/// It is a text as written.
fn is_written(operand: &Operand) -> bool {
    matches!(operand, Operand::Text(_))
}

fn has_order(kind: Type) -> bool {
    matches!(kind, Type::Int | Type::Double | Type::Text | Type::Time | Type::Duration)
}

/// What to do where the two are compared.
fn remedy(left: Type, right: Type) -> &'static str {
    match (left, right) {
        (Type::Duration, _) | (_, Type::Duration) => "; write duration('10m')",
        (Type::Time, _) | (_, Type::Time) => "; write timestamp('2026-01-31T12:00:00Z')",
        (Type::Address, _) | (_, Type::Address) => "; write the address in single quotes",
        (Type::Text | Type::Word(_), _) | (_, Type::Text | Type::Word(_)) => {
            "; write the word in single quotes"
        }
        _ => "; compare things of one kind",
    }
}
