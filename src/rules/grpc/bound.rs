//! The fields that the path and the query of a request set, to be written into the message with those of the body.

use super::types::{Field, FieldPath, Types};
use super::wire::{put_record, put_tag};

/// The fields of a message, and of messages in it, that are set already.
#[derive(Debug, Default)]
pub struct Bound<'t> {
    fields: Vec<(&'t Field, BoundField<'t>)>,
}

#[derive(Debug)]
enum BoundField<'t> {
    /// The encoded records.
    Records(Vec<u8>),
    /// Fields of the message.
    Message(Bound<'t>),
}

impl<'t> Bound<'t> {
    /// Returns whether nothing is set.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Returns whether the field of that number is set, as a whole.
    pub fn has(&self, number: u32) -> bool {
        self.fields.iter().any(|(field, bound)| field.number == number && matches!(bound, BoundField::Records(_)))
    }

    /// Returns what is set in the message that the field of that number is.
    pub fn within(&self, number: u32) -> Option<&Self> {
        self.fields.iter().find_map(|(field, bound)| match bound {
            BoundField::Message(bound) if field.number == number => Some(bound),
            _ => None,
        })
    }

    /// Returns the records of the field at the end of a path, to which some are to be appended, or `None` where another
    /// field of its oneof, or of that of a message on the way, is set.
    pub fn records(&mut self, types: &'t Types, path: &FieldPath) -> Option<&mut Vec<u8>> {
        let mut at = self;
        let (last, way) = path.0.split_last()?;
        for step in way {
            let field = types.step(*step);
            at = match at.entry(field, || BoundField::Message(Self::default()))? {
                BoundField::Message(bound) => bound,
                BoundField::Records(_) => return None,
            };
        }
        match at.entry(types.step(*last), || BoundField::Records(Vec::new()))? {
            BoundField::Records(records) => Some(records),
            BoundField::Message(_) => None,
        }
    }

    fn entry(&mut self, field: &'t Field, new: impl Fn() -> BoundField<'t>) -> Option<&mut BoundField<'t>> {
        let clashes =
            |other: &Field| other.number != field.number && field.oneof.is_some() && other.oneof == field.oneof;
        if self.fields.iter().any(|(other, _)| clashes(other)) {
            return None;
        }
        let at = self.fields.iter().position(|(other, _)| other.number == field.number).unwrap_or_else(|| {
            self.fields.push((field, new()));
            self.fields.len() - 1
        });
        self.fields.get_mut(at).map(|(_, bound)| bound)
    }

    /// Appends all fields but the messages of these numbers, which were written.
    pub fn write(&self, written: &[u32], out: &mut Vec<u8>) {
        for (field, bound) in &self.fields {
            match bound {
                BoundField::Records(records) => out.extend_from_slice(records),
                BoundField::Message(_) if written.contains(&field.number) => {}
                BoundField::Message(bound) => {
                    put_tag(field.number, field.kind.wire_type(), out);
                    if field.kind.wire_type() == 3 {
                        bound.write(&[], out);
                        put_tag(field.number, 4, out);
                        continue;
                    }
                    let _ = put_record::<()>(out, |out| {
                        bound.write(&[], out);
                        Ok(())
                    });
                }
            }
        }
    }
}
