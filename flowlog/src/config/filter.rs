//! The section of a FILTER, and what its expression lets a source refuse.

use super::sections::section;
use super::stacks::Element;
use super::*;
use crate::plugin::filter::{Mistake, Program};

const EXPR: &str = "expr";

pub(super) fn read(
    document: &Document<'_>,
    element: &Element,
    found: &mut Diagnostics,
) -> expression::Settings {
    let values = section(document, element, found);
    let line = values.line(EXPR).unwrap_or(element.line);
    let program = program(&values, element, line, found);
    expression::Settings { id: element.id.clone(), line, program }
}

/// The expression; where it is refused, one that nobody will ask.
fn program(
    values: &Values<'_>,
    element: &Element,
    line: usize,
    found: &mut Diagnostics,
) -> Program {
    let id = &element.id;
    let text = values.string(EXPR, found).unwrap_or_default();
    if text.is_empty() {
        found.error(
            line,
            format!("[{id}] has no expression; write one, such as {EXPR}=\"dst.port == 443\""),
        );
    } else if !values.rest(EXPR).is_empty() {
        found.error(line, ended_early(text, values.rest(EXPR)));
    } else {
        match Program::new(text) {
            Ok(program) => return program,
            Err(Mistake { column, what }) => found.error(line, place(text, column, &what)),
        }
    }
    Program::all()
}

/// The value ends at the second double quote, or without any at a blank.
fn ended_early(text: &str, rest: &str) -> String {
    let remedy = if rest.contains('"') {
        "put texts in it into single quotes, 'tcp', as the value ends at the next double quote"
    } else {
        "put all of it into double quotes"
    };
    format!("`{EXPR}` ends before `{rest}`, behind `{text}`; {remedy}")
}

/// A mistake with the part of the expression where it stands.
fn place(text: &str, column: usize, what: &str) -> String {
    /// Characters of the expression that are shown.
    const SHOWN: usize = 24;
    let at: String = text.chars().skip(column.saturating_sub(1)).take(SHOWN).collect();
    match column {
        0 => format!("`{EXPR}`: {what}"),
        _ if at.is_empty() => format!("`{EXPR}`, column {column}, at its end: {what}"),
        _ => format!("`{EXPR}`, column {column}, at `{at}`: {what}"),
    }
}

/// Adds to the filter of each source what all of its stacks refuse anyhow.
pub(super) fn push_down(config: &mut Config) {
    for (index, source) in config.sources.iter_mut().enumerate() {
        let stacks = config.stacks.iter().filter(|stack| stack.source == index);
        let bounds = stacks.map(bounds).reduce(Bounds::or).unwrap_or_default().short();
        source.nfct.filter = bounds.clone().added_to(&source.nfct.filter);
        source.pushed = bounds;
    }
}

/// What the expressions of a stack let through, at most.
fn bounds(stack: &Stack) -> Bounds {
    let expressions = stack.stages.iter().filter_map(|stage| match stage {
        Stage::Filter(settings) => Some(settings.program.bounds()),
        _ => None,
    });
    expressions.reduce(Bounds::and).unwrap_or_default()
}
