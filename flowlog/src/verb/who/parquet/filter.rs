//! Conditions on a column, each looked at for the rows that those before it have
//! left.

use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int32Type, TimestampNanosecondType, UInt8Type, UInt16Type};
use arrow_array::{Array, ArrayRef, ArrowPrimitiveType, BooleanArray, PrimitiveArray, RecordBatch};
use arrow_buffer::BooleanBuffer;
use arrow_schema::ArrowError;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowPredicate, ArrowPredicateFn};
use parquet::schema::types::SchemaDescriptor;

/// What a column must have.
#[derive(Clone, Debug)]
pub(super) enum Condition {
    /// This text.
    Text(String),
    Port(u16),
    Number(u8),
    /// A time from then on.
    From(u64),
    /// A time up to then, or none.
    UpTo(u64),
    /// Anything.
    Known,
}

/// The condition as parquet evaluates it.
pub(super) fn predicate(
    schema: &SchemaDescriptor,
    column: &str,
    condition: Condition,
) -> Box<dyn ArrowPredicate> {
    let mask = ProjectionMask::columns(schema, [column]);
    let mut dictionary = Dictionary::default();
    Box::new(ArrowPredicateFn::new(mask, move |batch: RecordBatch| {
        let column = batch.columns().first().ok_or_else(unexpected)?;
        match &condition {
            Condition::Text(text) => dictionary.equal(column, text),
            Condition::Port(port) => numbers::<UInt16Type>(column, |value| value == *port),
            Condition::Number(number) => numbers::<UInt8Type>(column, |value| value == *number),
            Condition::From(from) => {
                numbers::<TimestampNanosecondType>(column, |at| at as u64 >= *from)
            }
            Condition::UpTo(to) => {
                let times = primitive::<TimestampNanosecondType>(column)?;
                let values = times.values();
                let early = BooleanBuffer::collect_bool(values.len(), |n| values[n] as u64 <= *to);
                let bits = match times.nulls() {
                    Some(nulls) => &early | &!nulls.inner(),
                    None => early,
                };
                Ok(BooleanArray::new(bits, None))
            }
            Condition::Known => {
                let rows = batch.num_rows();
                let bits = column.nulls().map(|nulls| nulls.inner().clone());
                Ok(BooleanArray::new(bits.unwrap_or_else(|| BooleanBuffer::new_set(rows)), None))
            }
        }
    }))
}

/// The types of columns are looked at when a file is opened.
fn unexpected() -> ArrowError {
    ArrowError::SchemaError("a column is of another type".to_owned())
}

fn primitive<T: ArrowPrimitiveType>(column: &ArrayRef) -> Result<&PrimitiveArray<T>, ArrowError> {
    column.as_primitive_opt::<T>().ok_or_else(unexpected)
}

fn numbers<T: ArrowPrimitiveType>(
    column: &ArrayRef,
    is_wanted: impl Fn(T::Native) -> bool,
) -> Result<BooleanArray, ArrowError> {
    let numbers = primitive::<T>(column)?;
    let values = numbers.values();
    let bits = BooleanBuffer::collect_bool(values.len(), |n| is_wanted(values[n]));
    Ok(BooleanArray::new(bits, numbers.nulls().cloned()))
}

/// Where a text stands in a dictionary, which many batches have in common.
#[derive(Default)]
struct Dictionary {
    /// Kept, so that another one cannot be in its place.
    last: Option<(ArrayRef, Option<i32>)>,
}

impl Dictionary {
    fn equal(&mut self, column: &ArrayRef, text: &str) -> Result<BooleanArray, ArrowError> {
        let column = column.as_dictionary_opt::<Int32Type>().ok_or_else(unexpected)?;
        let (keys, rows) = (column.keys(), column.len());
        let Some(key) = self.key(column.values(), text)? else {
            return Ok(BooleanArray::new(BooleanBuffer::new_unset(rows), None));
        };
        let values = keys.values();
        let bits = BooleanBuffer::collect_bool(rows, |n| values[n] == key);
        Ok(BooleanArray::new(bits, keys.nulls().cloned()))
    }

    fn key(&mut self, values: &ArrayRef, text: &str) -> Result<Option<i32>, ArrowError> {
        if let Some((last, key)) = &self.last
            && same(last, values)
        {
            return Ok(*key);
        }
        let texts = values.as_string_opt::<i32>().ok_or_else(unexpected)?;
        // Each text stands in it once.
        let key = texts.iter().position(|known| known == Some(text)).map(|place| place as i32);
        self.last = Some((Arc::clone(values), key));
        Ok(key)
    }
}

fn same(one: &ArrayRef, other: &ArrayRef) -> bool {
    let [one, other] = [one, other].map(|array| array.as_string_opt::<i32>());
    one.zip(other).is_some_and(|(one, other)| {
        one.len() == other.len()
            && std::ptr::eq(one.value_offsets(), other.value_offsets())
            && std::ptr::eq(one.value_data(), other.value_data())
    })
}
