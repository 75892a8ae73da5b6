//! What the parser of CEL has understood → a checked expression. Names, types
//! and words are looked up here, once, and what is wrong is told with its place.

use cel::Env;
use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, SourceInfo, operators};

use super::fields::{self, Field};
use super::literal;
use super::tree::{Comparison, Operand, Operator, Test, TextTest};
use super::value::{Type, Value};
use super::{Mistake, functions};
use crate::config::diagnostic::nearest;

mod calls;
mod sides;

/// How deep parentheses may nest: the parser's frames are large, and the main
/// thread has a stack of 8 MiB.
const DEEPEST: u16 = 32;

/// Parses and checks `text`.
pub(super) fn check(text: &str) -> Result<Test, Mistake> {
    // Without macros: `has` takes any field here, and the others are no filters.
    let parser = Env::default().with_optional_support(false).parser().max_recursion_depth(DEEPEST);
    let (parsed, source) = parser.parse_with_source_info(text).map_err(|errors| {
        let first = errors.errors.first();
        let column = first.map_or(0, |error| error.pos.1.max(0) as usize);
        let what = first.map_or("it cannot be read", |error| error.msg.as_str());
        Mistake { column, what: grammar(what) }
    })?;
    Checker { source: &source, fields: fields::all() }.test(&parsed)
}

/// What the parser says, without the list of all it would have taken.
fn grammar(message: &str) -> String {
    if message.contains("Recursion limit") {
        return format!("parentheses nest more than {DEEPEST} deep; write it flatter");
    }
    let message = message.split(" expecting ").next().unwrap_or(message);
    let message = message.trim_start_matches("Syntax error: ");
    format!("{}; see docs/filter.md for what may stand there", message.replace("<EOF>", "its end"))
}

/// A part that has been checked.
enum Checked {
    Test(Test),
    Operand(Operand, Type),
}

struct Checker<'a> {
    source: &'a SourceInfo,
    fields: Vec<Field>,
}

impl Checker<'_> {
    /// `what` is wrong with `part`.
    fn mistake<T>(&self, part: &IdedExpr, what: impl Into<String>) -> Result<T, Mistake> {
        Err(self.wrong(part, what))
    }

    fn wrong(&self, part: &IdedExpr, what: impl Into<String>) -> Mistake {
        // A field begins with its first word, not with its last dot.
        let mut first = part;
        while let Expr::Select(select) = &first.expr {
            first = &select.operand;
        }
        let start = self.source.offset_for(first.id).map(|(start, _)| start as usize);
        let before = start.and_then(|start| self.source.source.get(..start));
        // A call is placed at its parenthesis.
        let before = match &first.expr {
            Expr::Call(call) => {
                before.map(|text| text.strip_suffix(&call.func_name).unwrap_or(text))
            }
            _ => before,
        };
        let column = before.map_or(0, |before| before.chars().count() + 1);
        Mistake { column, what: what.into() }
    }

    fn part(&self, part: &IdedExpr) -> Result<Checked, Mistake> {
        match &part.expr {
            Expr::Literal(value) => self.literal(part, value),
            Expr::Ident(_) | Expr::Select(_) => {
                let field = self.field(part)?;
                Ok(Checked::Operand(Operand::Field(field.get), field.kind))
            }
            Expr::Call(call) => self.call(part, call),
            Expr::List(_) => self.mistake(part, "a list may only stand behind `in`"),
            Expr::Map(_) | Expr::Struct(_) => {
                self.mistake(part, "maps and messages have no place in a filter; take them out")
            }
            Expr::Comprehension(_) | Expr::Unspecified => {
                self.mistake(part, "this is not known to filters; take it out")
            }
        }
    }

    /// `part` must be true or false.
    fn test(&self, part: &IdedExpr) -> Result<Test, Mistake> {
        match self.part(part)? {
            Checked::Test(test) => Ok(test),
            Checked::Operand(_, kind) => {
                let remedy = match (&part.expr, kind) {
                    (Expr::Ident(_) | Expr::Select(_), _) => {
                        "compare it with something, or ask has(FIELD)"
                    }
                    _ => "compare it with something",
                };
                self.mistake(
                    part,
                    format!("here is {}, which is neither true nor false; {remedy}", a(kind)),
                )
            }
        }
    }

    /// `part` must have a value.
    fn operand(&self, part: &IdedExpr) -> Result<(Operand, Type), Mistake> {
        match self.part(part)? {
            Checked::Operand(operand, kind) => Ok((operand, kind)),
            Checked::Test(_) => {
                self.mistake(part, "this is true or false, and has no other value; use && or ||")
            }
        }
    }

    fn literal(&self, part: &IdedExpr, value: &LiteralValue) -> Result<Checked, Mistake> {
        let int = |value| Checked::Operand(Operand::Constant(Value::Int(value)), Type::Int);
        Ok(match value {
            LiteralValue::Boolean(value) => Checked::Test(Test::Always(*value.inner())),
            LiteralValue::Int(value) => int(*value.inner()),
            LiteralValue::UInt(value) => match i64::try_from(*value.inner()) {
                Ok(value) => int(value),
                Err(_) => {
                    return self.mistake(part, "the number is too large; there is none so large");
                }
            },
            LiteralValue::Double(value) => {
                Checked::Operand(Operand::Constant(Value::Double(*value.inner())), Type::Double)
            }
            LiteralValue::String(text) => {
                Checked::Operand(Operand::Text(text.inner().as_bytes().into()), Type::Text)
            }
            LiteralValue::Bytes(_) => {
                return self
                    .mistake(part, "no field has bytes; write a text, without the b before it");
            }
            LiteralValue::Null => {
                return self.mistake(
                    part,
                    "no field is ever null; what is not known is absent: ask has(FIELD)",
                );
            }
        })
    }

    /// The field that `part` names.
    fn field(&self, part: &IdedExpr) -> Result<&Field, Mistake> {
        let Some(name) = name(part) else {
            return self.mistake(part, "only fields have members; name one of docs/filter.md");
        };
        if let Some(field) = self.fields.iter().find(|field| field.name == name) {
            return Ok(field);
        }
        let front = format!("{name}.");
        let below: Vec<&str> = self.names().filter(|known| known.starts_with(&front)).collect();
        if below.is_empty() {
            let near = nearest(&name, self.names());
            return self.mistake(part, format!("there is no field `{name}`{near}"));
        }
        self.mistake(part, format!("`{name}` is no field; write one of {}", below.join(", ")))
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|field| field.name.as_str())
    }

    fn call(&self, part: &IdedExpr, call: &CallExpr) -> Result<Checked, Mistake> {
        use Comparison::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual};
        let CallExpr { func_name, target, args } = call;
        let test = match (func_name.as_str(), target.as_deref(), args.as_slice()) {
            (operators::LOGICAL_AND, None, [a, b]) => Test::And(self.tests([a, b])?),
            (operators::LOGICAL_OR, None, [a, b]) => Test::Or(self.tests([a, b])?),
            (operators::LOGICAL_NOT, None, [a]) => Test::Not(Box::new(self.test(a)?)),
            (operators::CONDITIONAL, None, [a, b, c]) => {
                Test::If(Box::new([self.test(a)?, self.test(b)?, self.test(c)?]))
            }
            (operators::EQUALS, None, [a, b]) => self.comparison(part, Equal, [a, b])?,
            (operators::NOT_EQUALS, None, [a, b]) => {
                Test::Not(Box::new(self.comparison(part, Equal, [a, b])?))
            }
            (operators::LESS, None, [a, b]) => self.comparison(part, Less, [a, b])?,
            (operators::LESS_EQUALS, None, [a, b]) => self.comparison(part, LessOrEqual, [a, b])?,
            (operators::GREATER, None, [a, b]) => self.comparison(part, Greater, [a, b])?,
            (operators::GREATER_EQUALS, None, [a, b]) => {
                self.comparison(part, GreaterOrEqual, [a, b])?
            }
            (operators::IN, None, [a, b]) => self.membership(a, b)?,
            (operators::HAS, None, [field]) => Test::Has(self.field(field)?.get),
            ("in_net", Some(address), networks) => self.in_net(part, address, networks)?,
            (name, Some(address), []) if functions::networks(name).is_some() => {
                let networks = functions::networks(name).unwrap_or_default();
                Test::Within(self.address(address, name)?, networks)
            }
            ("startsWith", Some(a), [b]) => self.text_test(TextTest::StartsWith, a, b)?,
            ("endsWith", Some(a), [b]) => self.text_test(TextTest::EndsWith, a, b)?,
            ("contains", Some(a), [b]) => self.text_test(TextTest::Contains, a, b)?,
            _ => return self.value_call(part, call),
        };
        Ok(Checked::Test(test))
    }

    /// Calls that are neither true nor false.
    fn value_call(&self, part: &IdedExpr, call: &CallExpr) -> Result<Checked, Mistake> {
        let CallExpr { func_name, target, args } = call;
        let (operand, kind) = match (func_name.as_str(), target.as_deref(), args.as_slice()) {
            (operators::ADD, None, [a, b]) => self.arithmetic(part, Operator::Add, [a, b])?,
            (operators::SUBSTRACT, None, [a, b]) => {
                self.arithmetic(part, Operator::Subtract, [a, b])?
            }
            (operators::MULTIPLY, None, [a, b]) => {
                self.arithmetic(part, Operator::Multiply, [a, b])?
            }
            (operators::DIVIDE, None, [a, b]) => self.arithmetic(part, Operator::Divide, [a, b])?,
            (operators::MODULO, None, [a, b]) => {
                self.arithmetic(part, Operator::Remainder, [a, b])?
            }
            (operators::NEGATE, None, [a]) => self.negation(part, a)?,
            ("size", Some(text), []) | ("size", None, [text]) => {
                (Operand::Size(Box::new(self.text(text, "size")?)), Type::Int)
            }
            ("duration", None, [text]) => self.written(text, literal::duration, Type::Duration)?,
            ("timestamp", None, [text]) => self.written(text, literal::timestamp, Type::Time)?,
            _ => return self.mistake(part, unknown(func_name)),
        };
        Ok(Checked::Operand(operand, kind))
    }

    fn tests(&self, [left, right]: [&IdedExpr; 2]) -> Result<Box<[Test; 2]>, Mistake> {
        Ok(Box::new([self.test(left)?, self.test(right)?]))
    }
}

/// The name that identifiers and dots spell.
fn name(part: &IdedExpr) -> Option<String> {
    match &part.expr {
        Expr::Ident(name) => Some(name.clone()),
        Expr::Select(select) => Some(format!("{}.{}", name(&select.operand)?, select.field)),
        _ => None,
    }
}

/// The kind with its article.
fn a(kind: Type) -> String {
    match kind {
        Type::Int | Type::Address => format!("an {kind}"),
        Type::Labels => kind.to_string(),
        _ => format!("a {kind}"),
    }
}

fn unknown(name: &str) -> String {
    let Some(known) = functions::ALL.iter().find(|function| function.name() == name) else {
        // Operators have names with underscores.
        if name.starts_with('_') || name.starts_with('@') {
            return "this is not known to filters; see docs/filter.md for what is".to_owned();
        }
        let near = nearest(name, functions::ALL.iter().map(functions::Function::name));
        return format!("there is no function `{name}`{near}");
    };
    format!("`{name}` is not called so; write {}", known.form)
}
