//! Functions and arithmetic: what they are asked of, and what comes of it.

use cel::common::ast::{Expr, IdedExpr, LiteralValue};

use super::{Checker, a};
use crate::capture::filter::Network;
use crate::plugin::filter::Mistake;
use crate::plugin::filter::tree::{Operand, Operator, Test, TextTest};
use crate::plugin::filter::value::{Type, Value};

impl Checker<'_> {
    pub(super) fn in_net(
        &self,
        part: &IdedExpr,
        address: &IdedExpr,
        networks: &[IdedExpr],
    ) -> Result<Test, Mistake> {
        let address = self.address(address, "in_net")?;
        if networks.is_empty() {
            return self.mistake(part, "in_net needs a network: in_net('10.0.0.0/8')");
        }
        let mut list: Vec<Network> = Vec::new();
        for part in networks {
            let Expr::Literal(LiteralValue::String(text)) = &part.expr else {
                return self.mistake(part, "in_net takes networks in single quotes: '10.0.0.0/8'");
            };
            list.push(text.inner().parse().map_err(|what: String| self.wrong(part, what))?);
        }
        Ok(Test::Within(address, list))
    }

    pub(super) fn address(&self, part: &IdedExpr, function: &str) -> Result<Operand, Mistake> {
        match self.operand(part)? {
            (operand, Type::Address) => Ok(operand),
            (_, kind) => self.mistake(
                part,
                format!("{function} is asked of addresses, and this is {}", a(kind)),
            ),
        }
    }

    pub(super) fn text(&self, part: &IdedExpr, function: &str) -> Result<Operand, Mistake> {
        match self.operand(part)? {
            (operand, Type::Text | Type::Word(_)) => Ok(operand),
            (_, kind) => self
                .mistake(part, format!("{function} is asked of strings, and this is {}", a(kind))),
        }
    }

    pub(super) fn text_test(
        &self,
        test: TextTest,
        text: &IdedExpr,
        of: &IdedExpr,
    ) -> Result<Test, Mistake> {
        let both = [self.text(text, "this")?, self.text(of, "this")?];
        Ok(Test::Text(test, Box::new(both)))
    }

    /// A value that is written as a text.
    pub(super) fn written(
        &self,
        part: &IdedExpr,
        read: fn(&str) -> Result<Value<'static>, String>,
        kind: Type,
    ) -> Result<(Operand, Type), Mistake> {
        let Expr::Literal(LiteralValue::String(text)) = &part.expr else {
            return self.mistake(part, "a text in single quotes must stand here");
        };
        let value = read(text.inner()).map_err(|what| self.wrong(part, what))?;
        Ok((Operand::Constant(value), kind))
    }

    pub(super) fn arithmetic(
        &self,
        part: &IdedExpr,
        operator: Operator,
        [left, right]: [&IdedExpr; 2],
    ) -> Result<(Operand, Type), Mistake> {
        use Operator::{Add, Subtract};
        use Type::{Duration, Int, Time};
        let (first, kind) = self.operand(left)?;
        let (second, other) = self.operand(right)?;
        let result = match (kind, operator, other) {
            (Int, _, Int) => Int,
            (Duration, Add | Subtract, Duration) | (Time, Subtract, Time) => Duration,
            (Time, Add | Subtract, Duration) | (Duration, Add, Time) => Time,
            _ => {
                return self.mistake(part, format!("this cannot be reckoned with {} and {}; integers can, timestamps and durations can be added and subtracted", a(kind), a(other)));
            }
        };
        Ok((Operand::Arithmetic(operator, Box::new([first, second])), result))
    }

    pub(super) fn negation(
        &self,
        part: &IdedExpr,
        of: &IdedExpr,
    ) -> Result<(Operand, Type), Mistake> {
        let zero = Operand::Constant(Value::Int(0));
        match self.operand(of)? {
            (Operand::Constant(Value::Double(value)), kind) => {
                Ok((Operand::Constant(Value::Double(-value)), kind))
            }
            (operand, Type::Int) => {
                let both = Box::new([zero, operand]);
                Ok((Operand::Arithmetic(Operator::Subtract, both), Type::Int))
            }
            (_, kind) => {
                self.mistake(part, format!("{} has no negative; take the - away", a(kind)))
            }
        }
    }
}
